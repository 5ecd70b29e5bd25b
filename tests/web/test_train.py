"""Trainings from the page: the form of the flags, processes, results, refusals."""

import json
import time

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from innerloop import processes
from innerloop.cli.train import command as train_command
from innerloop.registry import entries
from innerloop.web import train_files, trainings
from innerloop.web.app import Settings, create_app
from innerloop.web.http import check
from innerloop.web.train_form import Form
from innerloop.web.train_schemas import RUN

PATIENCE = 200  # seconds; on an idle machine two are enough
TOKEN = "0123456789abcdef0123456789"
SINES = {"name": "sines", "learner": "maml", "tasks": "sinusoid", "steps": 3}
SMALL = {"training": {"batch": 2}, "learner": {"inner_lr": 0.01}}
WRITTEN = {
    "learner": {"name": "maml", "options": {}},
    "tasks": {"name": "sinusoid", "options": {}},
    "steps": 10,
}


def client(folder):
    settings = Settings(token=TOKEN, training=folder, host="testserver", port=80)
    headers = {"x-token": TOKEN, "host": "testserver:80"}
    return TestClient(create_app(settings), headers=headers)


@pytest.fixture
def page(tmp_path):
    """A client whose server ends, with all that it has started, after the test."""
    with client(tmp_path / "runs") as opened:
        yield opened


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def written(folder, name, **changed):
    """A run folder as a training on the command line leaves it, without weights."""
    run = folder / name
    run.mkdir(parents=True)
    data = {"format": 4, "versions": {}, "experiment": {**WRITTEN, **changed}}
    (run / "experiment.json").write_text(json.dumps(data))
    return run


def events(page, name):
    with page.stream("GET", f"/api/trainings/{name}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in stream.iter_lines() if line]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def wait(page, name, *statuses):
    end = time.monotonic() + PATIENCE
    while (run := page.get(f"/api/trainings/{name}").json())["status"] not in statuses:
        assert time.monotonic() < end, run
        time.sleep(0.1)
    return run


def refusal(response):
    return response.status_code, response.json()["error"]["code"]


# ------------------------------------------------------------------ processes


def test_a_training_is_watched_tested_and_deleted(page, tmp_path):
    body = {**SINES, "options": SMALL}
    started = page.post("/api/trainings", json=body)
    assert started.status_code == 200, started.text
    assert started.json()["status"] == "starting"
    assert refusal(page.delete("/api/trainings/sines")) == (409, "running")
    told = events(page, "sines")
    names = [event["event"] for event in told]
    assert names[0] == "status"
    assert names[-2:] == ["status", "end"]
    assert [e["step"] for e in told if e["event"] == "stepped"] == [1, 2, 3]
    losses = [e["metrics"]["loss"] for e in told if e["event"] == "stepped"]
    assert all(isinstance(loss, float) for loss in losses)
    run = told[-2]["run"]
    check(RUN, run, "run")
    assert run["status"] == "finished"
    assert run["measure"] == "mse"
    assert run["options"]["learner"] == {"inner_lr": 0.01}
    assert run["training"]["batch"] == 2
    # the history again, now that it has ended
    again = [e for e in events(page, "sines") if e["event"] == "stepped"]
    assert [e["step"] for e in again] == [1, 2, 3]
    assert refusal(page.post("/api/trainings/sines/resume")) == (409, "resume")
    assert refusal(page.post("/api/trainings/sines/stop")) == (409, "stop")

    tested = page.post("/api/trainings/sines/test", json={"tasks": 5})
    assert tested.json()["status"] == "testing"
    run = wait(page, "sines", "finished")
    check(RUN, run, "run")
    (test,) = run["tests"]
    assert (test["tasks"], test["n"]) == ("sinusoid", 5)
    assert test["tables"][0]["rows"][0]["values"][0]["name"] == "mse"

    output = (tmp_path / "runs" / "sines" / "output.txt").read_text()
    assert "maml on sinusoid" in output
    assert page.delete("/api/trainings/sines").status_code == 200
    assert not (tmp_path / "runs" / "sines").exists()
    assert refusal(page.get("/api/trainings/sines")) == (404, "missing")


def test_a_training_is_stopped_resumed_and_ends_with_the_server(tmp_path):
    folder = tmp_path / "runs"
    with client(folder) as page:
        body = {**SINES, "steps": 10**6, "options": SMALL}
        assert page.post("/api/trainings", json=body).status_code == 200
        wait(page, "sines", "running")
        assert page.post("/api/trainings/sines/stop").status_code == 200
        run = wait(page, "sines", "stopped", "failed", "finished")
        assert run["status"] == "stopped"
        assert run["saved"]
        before = max(e["step"] for e in events(page, "sines") if e["event"] == "saved")
        assert page.post("/api/trainings/sines/resume").status_code == 200
        lines = train_files.Lines(folder / "sines" / "events.jsonl")
        told, end = [], time.monotonic() + PATIENCE
        while sum(e["event"] == "started" for e in told) < 2:
            assert time.monotonic() < end
            told += lines.new()
            time.sleep(0.1)
        assert [e["step"] for e in told if e["event"] == "started"][-1] >= before
        (job,) = page.app.app.state.innerloop.trainings.jobs.values()  # pyright: ignore
        assert job.process.poll() is None
    # the server has ended, and the process with it, after it has saved
    assert job.process.poll() is not None
    assert (folder / "sines" / "checkpoint.bin").is_file()


def test_a_command_ends_when_the_process_that_started_it_does(tmp_path):
    trained = trainings.Trainings(tmp_path)
    words = ["maml", "sinusoid", "--steps", "1000000", "--batch", "2"]
    trained.start("sines", words, {}, "")
    job = trained.jobs["sines"]
    end = time.monotonic() + PATIENCE
    while not (tmp_path / "sines" / "weights.safetensors").is_file():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert job.process.stdin is not None
    job.process.stdin.close()  # as the end of this process would, even by SIGKILL
    assert job.process.wait(PATIENCE) in trainings.STOPPED


def test_what_cannot_be_trained_is_said(page):
    body = {"name": "no", "learner": "protonet", "tasks": "sinusoid", "steps": 2}
    assert page.post("/api/trainings", json=body).status_code == 200
    run = wait(page, "no", "failed")
    assert "predicts classes" in run["problem"]
    assert page.delete("/api/trainings/no").status_code == 200


# ------------------------------------------------------------------ form


@pytest.mark.parametrize(
    ("learner", "every"), [("protonet", 1), ("fomaml", 5), ("l2o", 6), ("rl2", 7)]
)
def test_the_form_has_the_flags_of_the_command(page, learner, every):
    for tasks in list(entries("tasks"))[::every]:
        query = {"learner": learner, "tasks": tasks}
        sections = page.get("/api/trainings/choices", params=query).json()["sections"]
        mine = {f["flag"] for section in sections for f in section["fields"]}
        own = {name for param in train_command.own for name in param.opts}
        theirs = train_command.derive([learner, tasks], set(own))
        assert mine == {flag.opts[0] for flag in theirs}


def test_the_command_line_is_understood_by_the_command(page):
    body = {
        "name": "mine",
        "learner": "protonet",
        "tasks": "strokes",
        "minutes": 0.5,
        "seed": 3,
        "precision": "float32",
        "options": {
            "training": {"lr": 1e-3, "decay": False, "clip": 2},
            "tasks": {"ways": 7},
            "learner": {"metric": "cosine", "encoder": "conv6"},
        },
    }
    response = page.post("/api/trainings/command", json=body)
    words = response.json()["command"].split()
    assert words[:4] == ["innerloop", "train", "protonet", "strokes"]
    context = train_command.make_context("train", words[2:])
    got = {k: v for k, v in context.params.items() if v is not None}
    assert got["training__lr"] == 1e-3
    assert got["training__decay"] is False
    assert got["tasks__ways"] == 7
    assert got["learner__encoder"] == "conv6"
    assert got["learner__metric"] == "cosine"
    assert got["minutes"] == 0.5
    assert got["out"].endswith("mine")


def test_sizes_are_those_that_the_learner_prefers(page):
    sections = page.get("/api/trainings/choices").json()["sections"]
    (tasks,) = [s for s in sections if s["part"] == "tasks"]
    ways = next(f for f in tasks["fields"] if f["name"] == "ways")
    assert (ways["default"], ways["low"]) == (60, 2)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"learner": "nothing"}, 422),
        ({"learner": "own.py:Learner"}, 422),
        ({"tasks": "../own.py:tasks"}, 422),
        ({"meta_gradient": "own.py:x"}, 422),
        ({"name": "../up"}, 422),
        ({"name": ".."}, 422),
        ({"name": ""}, 422),
        ({"name": "data"}, 409),
        ({"name": "choices"}, 409),
        ({"minutes": 601, "steps": None}, 422),
        ({"minutes": 1}, 422),
        ({"steps": 0}, 422),
        ({"device": "meta"}, 422),
        ({"init_from": "missing"}, 404),
        ({"init_from": "../.."}, 422),
        ({"options": {"learner": {"net": "own.py:Net"}}}, 422),
        ({"options": {"learner": {"net": "/etc"}}}, 422),
        ({"options": {"learner": {"inner_lr": -1}}}, 422),
        ({"options": {"learner": {"inner_lr": "much"}}}, 422),
        ({"options": {"learner": {"nothing": 1}}}, 422),
        ({"options": {"training": {"optimizer": "a.py:B"}}}, 422),
        ({"options": {"training": {"optimizer": "Adam\n--out"}}}, 422),
        ({"options": {"other": {}}}, 422),
        ({"tasks": "folder"}, 422),
        ({"tasks": "folder", "options": {"tasks": {"root": "/etc"}}}, 422),
        ({"tasks": "folder", "options": {"tasks": {"root": ".."}}}, 422),
    ],
)
def test_only_what_is_known_is_started(page, tmp_path, changed, status):
    response = page.post("/api/trainings", json={**SINES, **changed})
    assert response.status_code == status, response.text
    runs = tmp_path / "runs"
    assert not runs.exists() or not list(runs.iterdir())


def test_paths_name_what_lies_in_the_data_folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    form = Form("protonet", "folder", "", tmp_path)
    words = form.arguments({"tasks": {"root": "pictures"}})
    assert words == ["--root", str((tmp_path / "pictures").resolve())]
    (root,) = [f for s in form.fields() for f in s["fields"] if f["name"] == "root"]
    assert (root["type"], root["choices"], root["needed"]) == (
        "choice",
        ["pictures"],
        True,
    )


# ------------------------------------------------------------------ runs


def test_trainings_are_off_unless_they_are_allowed(tmp_path):
    with client(None) as page:
        assert page.get("/api/trainings/allowed").json() == {"allowed": False}
        for method, path, body in [
            ("GET", "", None),
            ("POST", "", SINES),
            ("GET", "/choices", None),
            ("POST", "/command", SINES),
            ("GET", "/a", None),
            ("GET", "/a/events", None),
            ("POST", "/a/stop", None),
            ("POST", "/a/resume", None),
            ("POST", "/a/test", {"tasks": 3}),
            ("DELETE", "/a", None),
        ]:
            response = page.request(method, "/api/trainings" + path, json=body)
            assert refusal(response) == (403, "training")


def test_runs_of_the_command_line_are_listed(page, tmp_path):
    run = written(tmp_path / "runs", "mine")
    (run / "checkpoint.bin").write_bytes(b"")
    line = {"step": 4, "seconds": 1.5, "loss": 2.0, "mse": 2.0, "validation": 3.0}
    (run / "log.jsonl").write_text(json.dumps(line) + '\n{"step": 5, "lo')
    (run / "notes.md").write_text("mine")
    (found,) = page.get("/api/trainings").json()["runs"]
    check(RUN, found, "run")
    assert (found["status"], found["step"], found["score"]) == ("stopped", 4, 3.0)
    told = events(page, "mine")
    assert [e["event"] for e in told] == ["status", "validated", "end"]
    # what is not a run's stays
    assert page.delete("/api/trainings/mine").status_code == 200
    assert [p.name for p in run.iterdir()] == ["notes.md"]
    assert page.get("/api/trainings").json()["runs"] == []


@pytest.mark.parametrize(
    "log",
    [
        '{"step": 1, "seconds": null}',
        '{"step": 1, "seconds": 1, "validation": NaN, "mse": 1}',
        "[]",
        '{"step": 1, "seconds": "x"}',
    ],
)
def test_damaged_files_do_not_hide_the_other_runs(page, tmp_path, log):
    written(tmp_path / "runs", "good")
    run = written(tmp_path / "runs", "damaged", learner={})
    (run / "log.jsonl").write_text(log)
    strange = written(tmp_path / "runs", "strange")
    (strange / "log.jsonl").write_text(log + "\n")
    answer = page.get("/api/trainings")
    assert answer.status_code == 200
    assert "good" in [run["name"] for run in answer.json()["runs"]]


def test_links_and_other_folders_are_no_runs(page, tmp_path):
    elsewhere = written(tmp_path, "elsewhere")
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "link").symlink_to(elsewhere)
    (runs / "data").mkdir()
    assert page.get("/api/trainings").json()["runs"] == []
    assert refusal(page.delete("/api/trainings/link")) == (404, "missing")
    for name in ("..", ".", "a.b"):
        assert page.get(f"/api/trainings/{name}/events").status_code in (404, 422)


def test_processes_and_runs_are_bounded(tmp_path, monkeypatch):
    trained = trainings.Trainings(tmp_path)
    launched = []

    def launch(name, kind, words):
        launched.append(name)

    monkeypatch.setattr(trained, "_launch", launch)
    monkeypatch.setattr(trainings, "MOST_RUNS", 2)
    for name in ("a", "b"):
        trained.start(name, [], {}, "")
    with pytest.raises(trainings.Conflict, match="delete some first"):
        trained.start("c", [], {}, "")

    class Going:
        alive = True

    monkeypatch.setattr(trainings, "MOST_RUNS", 100)
    trained.jobs = {"a": Going(), "b": Going()}  # pyright: ignore
    with pytest.raises(trainings.Conflict, match="a and b go on"):
        trained.start("c", [], {}, "")
    assert launched == ["a", "b"]


def test_output_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "MOST_OUTPUT", 1000)
    trained = trainings.Trainings(tmp_path)
    (tmp_path / "a").mkdir()
    trained._launch("a", "train", ["list", "--json"])
    job = trained.jobs["a"]
    assert job.process.wait(PATIENCE) == 0
    job.keeper.join(10)
    assert (tmp_path / "a" / "output.txt").stat().st_size == 1000


# ------------------------------------------------------------------ leaderboard


def a_test(name, mean, interval, measure="accuracy", labels=None, seed=0, **options):
    value = {"name": measure, "mean": mean, "interval": interval, "unit": "%"}
    row = {"labels": labels or {"ways": 5}, "values": [{**value, "text": str(mean)}]}
    return {
        "name": name,
        "learner": "maml",
        "tasks": "strokes",
        "options": {"tasks": options},
        "tests": [
            {
                "tasks": "strokes",
                "split": "test",
                "n": 100,
                "seed": seed,
                "settings": {},
                "seen_classes": 0,
                "tables": [{"title": "results", "rows": [row]}],
            }
        ],
    }


def test_the_leaderboard_compares_what_is_comparable():
    runs = [
        a_test("low", 0.7, 0.01),
        a_test("best", 0.9, 0.02, queries=7),
        a_test("near", 0.88, 0.02),
        a_test("other_seed", 0.99, 0.01, seed=1),
        a_test("other_ways", 0.99, 0.01, labels={"ways": 2}),
        a_test("other_data", 0.99, 0.01, protocol="vinyals"),
    ]
    (group,) = train_files.leaderboard(runs)
    assert [row["run"] for row in group["rows"]] == ["best", "near", "low"]
    assert [row["close"] for row in group["rows"]] == [False, True, False]


def test_less_is_better_where_errors_are_measured():
    runs = [a_test("a", 2.0, 0.1, "mse"), a_test("b", 1.0, 0.1, "mse")]
    (group,) = train_files.leaderboard(runs)
    assert [row["run"] for row in group["rows"]] == ["b", "a"]
    assert not group["higher_is_better"]
