"""Tasks from arrays in memory, .npz files and tables, and what is said about bad
ones."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from innerloop.cli import main
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.estimators import FewShotClassifier
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.metagrad.meta_train import meta_train
from innerloop.readers.table import TableReader
from innerloop.readers.text import TextReader
from innerloop.tasks.arrays import GroupedRows, arrays
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.splits import SPLITS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labeled(classes: int = 25, rows: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Rows in mixed order: x is (number of the row, number of its class), y its
    class.
    """
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(classes), rows))
    return np.stack([np.arange(len(y)), y], 1).astype(np.float64), y


def grouped(
    tasks: int = 10, rows: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in mixed order: y is 10 times the task's number plus x."""
    task = np.random.default_rng(0).permutation(np.repeat(np.arange(tasks), rows))
    x = np.random.default_rng(1).uniform(size=(len(task), 3))
    return x, 10 * task + x[:, 0], np.array([f"t{i}" for i in task])


def write_csv(file: Path, header: list[str], rows: list[list[Any]]) -> Path:
    file.write_text(
        "\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n"
    )
    return file


def test_labels_make_episodes_of_their_rows() -> None:
    x, y = labeled()
    tasks = arrays(x=x, y=y, ways=4, shots=2, queries=3)
    assert isinstance(tasks, Episodes)
    assert (tasks.spec.kind, tasks.spec.x_shape, tasks.spec.y_dim) == (
        "classes",
        (2,),
        4,
    )
    for task in tasks.sample(5, seeded()).unbind():
        pairs = {
            (int(row[1]), int(target.argmax()))
            for part in task
            for row, target in zip(*part, strict=True)
        }
        assert len(pairs) == len({c for c, _ in pairs}) == 4
        for row in task.query.x:
            assert row.tolist() == x[int(row[0])].tolist()


def test_parts_share_no_class_and_miss_none() -> None:
    x, y = labeled()
    names = [arrays(part, x=x, y=y, ways=2, queries=5).bank.names for part in SPLITS]
    assert [len(part) for part in names] == [16, 4, 5]
    assert sorted(name for part in names for name in part) == sorted(
        str(i) for i in range(25)
    )


@pytest.mark.parametrize(
    "labels",
    [
        [f"kind {i}" for i in range(12)],
        [i * 0.5 for i in range(12)],
        [-i for i in range(12)],
    ],
)
def test_labels_may_be_anything(labels: list[object]) -> None:
    y = np.repeat(np.array(labels), 3)
    names = [
        name
        for part in SPLITS
        for name in arrays(part, x=np.zeros((36, 2)), y=y, ways=2, queries=1).bank.names
    ]
    assert sorted(names) == sorted(str(label).removesuffix(".0") for label in labels)


def test_all_classes_may_be_in_every_split() -> None:
    x, y = labeled()
    tasks = arrays("test", x=x, y=y, ways=2, queries=5, all_classes=True)
    assert len(tasks.bank) == 25
    assert "train 16, val 4, test 5" in arrays(x=x, y=y, queries=5).describe()


def test_bytes_stay_bytes_until_they_are_sampled() -> None:
    x = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    tasks = arrays(x=x, y=np.repeat(np.arange(20), 3), ways=3, queries=1)
    assert tasks.bank.values.dtype == torch.uint8
    assert tasks.spec.is_image
    assert float(tasks.sample(4, seeded()).query.x.max()) <= 1


def test_integer_images_are_bytes_and_other_integers_are_numbers() -> None:
    y = np.repeat(np.arange(25), 4)
    images = np.random.default_rng(0).integers(0, 256, (100, 6, 5))
    bank, bytes_bank = (
        arrays(x=x, y=y, ways=2, queries=1).bank
        for x in (images, images.astype(np.uint8))
    )  # pyright: ignore[reportAttributeAccessIssue]
    assert bank.values.dtype == torch.uint8
    assert torch.equal(bank.values, bytes_bank.values)
    for x in (images - 1, images + 1, images.reshape(100, 30)):
        assert arrays(x=x, y=y, ways=2, queries=1).bank.values.dtype == torch.float32  # pyright: ignore[reportAttributeAccessIssue]


def test_a_task_column_makes_regression_tasks_of_its_rows() -> None:
    x, y, task = grouped()
    tasks = arrays(x=x, y=y, task=task, shots=5, queries=3)
    assert isinstance(tasks, GroupedRows)
    assert (tasks.spec.kind, tasks.spec.x_shape, tasks.spec.y_dim) == ("reals", (3,), 1)
    found = tasks.sample(40, seeded())
    assert (found.support.x.shape, found.query.y.shape) == ((40, 5, 3), (40, 3, 1))
    for one in found.unbind():
        rows, targets = (
            torch.cat([one.support.x, one.query.x]),
            torch.cat([one.support.y, one.query.y]),
        )
        assert len({tuple(row) for row in rows.tolist()}) == 8
        assert (
            len(
                {round(float(t - row[0])) for row, t in zip(rows, targets, strict=True)}
            )
            == 1
        )
        torch.testing.assert_close(
            (targets[:, 0] - rows[:, 0]) % 10 % 9.9999,
            torch.zeros(8),
            atol=1e-3,
            rtol=0,
        )
    again = tasks.sample(40, seeded())
    assert torch.equal(found.query.x, again.query.x)


def test_regression_parts_share_no_task_and_miss_none() -> None:
    x, y, task = grouped()
    seen = []
    for part in SPLITS:
        targets = (
            arrays(part, x=x, y=y, task=task, shots=1, queries=1)
            .sample(200, seeded())
            .query
        )
        seen.append(
            {round(float(t)) for t in (targets.y - targets.x[..., :1]).flatten() / 10}
        )
    assert [len(part) for part in seen] == [6, 2, 2]
    assert set.union(*seen) == set(range(10))


def test_targets_of_several_dimensions() -> None:
    x, y, task = grouped()
    assert (
        arrays(x=x, y=np.stack([y, -y], 1), task=task, shots=2, queries=2).spec.y_dim
        == 2
    )


def test_tasks_with_too_few_rows_are_left_out() -> None:
    x = torch.arange(30.0)[:, None]
    bank = ClassBank.of(x, [3, 12, 3, 12], ["t0", "t1", "t2", "t3"])
    tasks = GroupedRows(bank, x, shots=4, queries=4)
    drawn = tasks.sample(100, seeded())
    rows = torch.cat([drawn.support.x, drawn.query.x], 1)[..., 0].long()
    assert set(rows.unique().tolist()) == {*range(3, 15), *range(18, 30)}
    assert "2 tasks with fewer than 8 rows unused" in tasks.describe()
    with pytest.raises(
        InnerloopError,
        match=r"10 shots and 10 queries need 20 rows, and the largest of 4 .* has 12",
    ):
        GroupedRows(bank, x)


def test_regression_rows_have_ten_shots_where_the_tasks_are_large_enough() -> None:
    preferred = {"ways": 5, "shots": 1, "queries": 15, "groups": 0}
    for rows, shots, queries in ((40, 10, 10), (15, 10, 5), (3, 2, 1)):
        x, y, task = grouped(rows=rows)
        tasks = arrays(x=x, y=y, task=task, shots=1, queries=1)
        assert tasks.feasible(preferred) == {"shots": shots, "queries": queries}


def test_tasks_that_two_splits_share_have_the_same_keys() -> None:
    x, y, task = grouped()
    whole = arrays(x=x, y=y, task=task, shots=1, queries=1, all_classes=True)
    parts = [arrays(p, x=x, y=y, task=task, shots=1, queries=1) for p in SPLITS]
    assert frozenset.union(*(p.class_keys() for p in parts)) == whole.class_keys()
    assert frozenset.union(*(p.item_keys() for p in parts)) == whole.item_keys()
    assert len(whole.class_keys()) == 10
    assert len(whole.item_keys()) == 80
    assert not parts[0].item_keys() & parts[2].item_keys()


def unscaled(tasks: Any, x: torch.Tensor) -> torch.Tensor:
    """The numbers of a table before they were standardized."""
    columns = tasks.bank.reader.columns
    assert not any(column.gaps for column in columns)
    deviations = torch.tensor([column.deviation for column in columns])
    return x * deviations + torch.tensor([column.mean for column in columns])


def test_npz_and_csv_give_what_memory_gives(tmp_path: Path) -> None:
    x, y, task = grouped()
    np.savez(tmp_path / "rows.npz", X=x, y=y, task=task)
    rows = [
        [*features, target, name]
        for features, target, name in zip(x.tolist(), y.tolist(), task, strict=True)
    ]
    write_csv(tmp_path / "rows.csv", ["a", "b", "c", "y", "task"], rows)
    wanted = arrays(x=x, y=y, task=task, shots=2, queries=2).sample(3, seeded())
    for name in ("rows.npz", "rows.csv"):
        tasks = arrays(file=tmp_path / name, shots=2, queries=2)
        found = tasks.sample(3, seeded())
        torch.testing.assert_close(unscaled(tasks, found.support.x), wanted.support.x)
        torch.testing.assert_close(found.query.y, wanted.query.y)


def test_files_without_task_column_hold_classes(tmp_path: Path) -> None:
    x, y = labeled()
    np.savez(tmp_path / "rows.npz", X=x, y=y)
    write_csv(
        tmp_path / "rows.csv",
        ["y", "a", "b"],
        [[label, *features] for label, features in zip(y, x.tolist(), strict=True)],
    )
    wanted = arrays(x=x, y=y, ways=3, queries=2).sample(3, seeded())
    for name in ("rows.npz", "rows.csv"):
        tasks = arrays(file=str(tmp_path / name), ways=3, queries=2)
        found = tasks.sample(3, seeded())
        torch.testing.assert_close(unscaled(tasks, found.support.x), wanted.support.x)
        assert torch.equal(found.query.y, wanted.query.y)


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    rows = [[f"c{i % 12}", i, i % 3] for i in range(60)]
    file = write_csv(tmp_path / "t.csv", ["Species", "y", "task"], rows)
    with pytest.raises(InnerloopError, match="rows with a task are regression tasks"):
        arrays(file=file, label_column="species")
    tasks = arrays(
        file=file, label_column="species", task_column="-", ways=2, queries=1
    )
    assert tasks.spec.x_shape == (2,)
    assert set(tasks.bank.names) <= {f"c{i}" for i in range(12)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "no column 'y'"),
        ("a,y\n", "no rows"),
        ("y\n1\n", "no column of features"),
        ("a,b,y\n1\n", "line 2 has 1 cell"),
        ("a,y\n1,2,3\n", "line 2 has 3 cells"),
        ("a,y\n1,1\n2,1\ninf,1\n", "line 4: inf in column a is infinite"),
        ("a,y\n1,x\n2,\n", "no y in line 3"),
    ],
)
def test_bad_csv_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(InnerloopError, match=message):
        arrays(file=file)


def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "whole.npz", X=np.ones((120, 8)), y=np.arange(120) % 12)
    return tmp_path / "whole.npz"


def test_npz_files_without_the_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "no_y.npz", X=np.zeros((2, 2)))
    with pytest.raises(InnerloopError, match="needs the arrays X and y; it has x"):
        arrays(file=tmp_path / "no_y.npz")
    np.savez(tmp_path / "pickled.npz", X=np.array([{}]), y=np.zeros(1))
    with pytest.raises(InnerloopError, match=r"pickled\.npz cannot be read as \.npz"):
        arrays(file=tmp_path / "pickled.npz")


def refusal(file: Path) -> str | None:
    try:
        arrays(file=file, ways=2, queries=1)
    except InnerloopError as error:
        return str(error)
    return None


def large_header() -> bytes:
    """An archive of arrays that claim 4 TB each."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (550000000000,), }"
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name in ("X.npy", "y.npy"):
            size = len(header).to_bytes(2, "little")
            archive.writestr(name, b"\x93NUMPY\x01\x00" + size + header)
    return memory.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", b"PK\x03\x04", b"\x93NUMPY\x01\x00", large_header()],
    ids=["empty", "text", "start", "npy", "4 TB"],
)
def test_files_that_are_no_npz_are_named_in_one_line(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "damaged.npz"
    file.write_bytes(content)
    message = refusal(file)
    assert message
    assert "damaged.npz cannot be read as .npz" in message
    assert len(message) < 300
    assert "\n" not in message


def test_every_flipped_byte_of_an_npz_is_survived(tmp_path: Path) -> None:
    file, whole = tmp_path / "damaged.npz", npz(tmp_path).read_bytes()
    found = []
    for i in (*range(0, 300, 7), *range(300, len(whole), 211), *range(-200, 0, 7)):
        i %= len(whole)
        file.write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        found.append(refusal(file))
    assert all(message is None or "damaged.npz" in message for message in found)
    assert sum(message is not None for message in found) > len(found) // 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone\.csv"):
        arrays(file=tmp_path / "gone.csv")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_holes_in_x_are_refused(value: float) -> None:
    x, y = labeled()
    x[3, 1] = value
    with pytest.raises(ValueError, match="x holds NaN or infinite values"):
        arrays(x=x, y=y)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_holes_in_real_targets_are_refused(value: float) -> None:
    x, y, task = grouped()
    y[3] = value
    with pytest.raises(InnerloopError, match=r"y must be finite.*in row 3"):
        arrays(x=x, y=y, task=task)


def test_holes_in_labels_are_refused() -> None:
    x, y = labeled()
    with pytest.raises(InnerloopError, match="y holds NaN, None or empty labels"):
        arrays(x=x, y=np.where(y == 3, np.nan, y), ways=2, queries=3)
    for missing in (None, "", " "):
        labels = ["a", missing, *["b"] * (len(x) - 2)]
        with pytest.raises(InnerloopError, match="labels in row 1:"):
            arrays(x=x, y=labels)


def test_labels_of_another_shape_are_refused() -> None:
    x, y = labeled()
    with pytest.raises(InnerloopError, match=r"y has shape \(150, 2\); class labels"):
        arrays(x=x, y=np.stack([y, y], 1))
    same = arrays(x=x, y=y[:, None], ways=2, queries=3)
    assert same.bank.names == arrays(x=x, y=y, ways=2, queries=3).bank.names
    with pytest.raises(InnerloopError, match="y has none"):
        arrays(x=x, y=5)


def test_complex_numbers_are_refused() -> None:
    x, y = labeled()
    with pytest.raises(InnerloopTypeError, match="x holds complex numbers"):
        arrays(x=x + 1j, y=y)
    with pytest.raises(InnerloopTypeError, match="y holds complex numbers"):
        arrays(x=x, y=y + 1j)


def test_numbers_that_float32_cannot_hold_are_refused() -> None:
    x, y = labeled()
    x[3, 1] = 1e39
    with pytest.raises(InnerloopError, match=r"x holds 1e\+39, which is too large"):
        arrays(x=x, y=y)
    x[:, 1] = 1e7 + 0.1 * y
    with pytest.raises(InnerloopError, match="feature 1 of x loses its differences"):
        arrays(x=x, y=y)
    tasks = arrays(x=x, y=y, ways=2, queries=3, standardize=True)
    assert len(tasks.bank.values[:, 1].unique()) == 25


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        torch.float16,
        torch.float64,
        torch.int64,
        torch.uint8,
        torch.bool,
    ],
)
def test_tensors_of_any_type_are_taken(dtype: torch.dtype) -> None:
    y = torch.arange(25).repeat_interleave(6)
    x = torch.stack([y % 2, y % 3], 1).to(dtype)
    labels = y.to(dtype) if dtype.is_floating_point else y
    tasks = arrays(x=x, y=labels, ways=2, queries=3)
    assert tasks.bank.values.dtype == torch.float32
    expected = arrays(x=x.float().numpy(), y=y.numpy(), ways=2, queries=3)
    assert tasks.bank.names == expected.bank.names
    assert torch.equal(tasks.bank.values, expected.bank.values)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int8, ">f4", ">i2"])
def test_images_of_any_type_are_taken(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(0, 100, (100, 4, 4)).astype(dtype)
    tasks = arrays(x=x, y=np.repeat(np.arange(25), 4), ways=2, queries=1)
    assert tasks.bank.values.shape[-2:] == (4, 4)


def test_frames_and_dicts_are_tables() -> None:
    columns = {
        "size": [1.5, 2.0, None, 1.0] * 15,
        "color": ["red", "blue", "red", "blue"] * 15,
    }
    y = np.repeat(np.arange(12), 5)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values())]  # noqa: B905
    tasks = [arrays(x=x, y=y, ways=2, queries=1) for x in (columns, rows)]
    assert tasks[0].spec.x_shape == (4,)  # number, gap, blue, red
    assert torch.equal(tasks[0].bank.values, tasks[1].bank.values)
    with pytest.raises(InnerloopError, match=r"different lengths \(a: 1, b: 2\)"):
        arrays(x={"a": [1], "b": [1, 2]}, y=[1, 2])
    with pytest.raises(InnerloopError, match="x must be an array of numbers, or a"):
        arrays(x=[["red", 1], ["blue", 2]], y=[1, 2])


def test_the_reader_of_another_kind_is_refused() -> None:
    x, y = labeled()

    reader = TableReader.of_array(x, range(len(x)), standardize=True)
    tasks = arrays(x=x, y=y, ways=2, queries=3, reader=reader)
    assert tasks.bank.reader is reader
    assert float(tasks.bank.values.mean()) == pytest.approx(0, abs=1e-6)
    with pytest.raises(InnerloopTypeError, match="the reader reads texts"):
        arrays(x=x, y=y, reader=TextReader.fitted(["a"]))


def test_a_table_goes_from_file_to_labels(tmp_path: Path) -> None:
    rows = [
        [i % 10 + 0.1 * k if k else "", "odd" if i % 2 else "even", f"class{i}"]
        for i in range(15)
        for k in range(5)
    ]
    file = write_csv(tmp_path / "t.csv", ["size", "kind", "y"], rows)
    tasks = arrays(file=file, ways=3, queries=2)
    assert "numbers: size; words: kind (2 words)" in tasks.note
    learner = ProtoNet.build(tasks.spec)
    list(meta_train(learner, tasks, steps=3, batch=2))
    # another process reads later files from the settings of the run
    settings = json.loads(json.dumps(tasks.reader.settings()))
    reader = TableReader.from_settings(settings)
    support = reader.read(file, labels=True)
    query = write_csv(tmp_path / "q.csv", ["kind", "size"], [["odd", 3], ["even", ""]])
    found = reader.read(query, labels=False)
    assert (found.names, found.labels) == (["2", "3"], None)
    names = sorted(set(support.labels or ()))
    y = torch.eye(len(names))[[names.index(label) for label in support.labels or ()]]
    state = learner.adapt(
        (tasks.sample(1, seeded()).support)._replace(x=support.x, y=y)
    )
    assert learner.predict(state, found.x).shape == (2, 15)
    later = reader.convert([{"size": None, "kind": "odd"}, {"size": 3, "kind": "odd"}])
    assert torch.equal(later[1], found.x[0])
    # the next run reads alike
    again = arrays(file=file, ways=3, queries=2, reader=reader)
    assert torch.equal(again.bank.values, tasks.bank.values)


def test_a_table_goes_from_train_to_adapt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        [i % 10 + 0.1 * k if k else "12..3", "odd" if i % 2 else "even", f"class{i}"]
        for i in range(15)
        for k in range(5)
    ]
    file = write_csv(tmp_path / "t.csv", ["size", "kind", "Species"], rows)
    run, out = str(tmp_path / "run"), tmp_path / "out.csv"
    sizes = ["--steps", "3", "--ways", "3", "--queries", "2"]
    source = ["arrays", "--file", str(file), "--label-column", "species"]
    assert main(["train", "protonet", *source, *sizes, "--out", run]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "numbers: size; words: kind (2 words)" in said
    assert "'12..3' in column size" in said
    query = tmp_path / "query.csv"
    query.write_text("kind,size\nodd,3\nodd\neven,\n")
    command = ["adapt", run, "--support", str(file), "--query", str(query)]
    assert main([*command, "--out", str(out)]) == 1  # a row is left out
    assert [line.split(",")[0] for line in out.read_text().splitlines()] == [
        "row",
        "2",
        "4",
    ]
    assert "line 3: has 1 cell" in capsys.readouterr().err
    classifier = FewShotClassifier(run).fit(
        [{"size": 1, "kind": "odd"}, {"size": 2.0, "kind": "even"}], ["x", "y"]
    )
    assert classifier.predict([{"size": None, "kind": "odd"}]).shape == (1,)


def test_real_targets_that_are_words_are_refused(tmp_path: Path) -> None:
    file = write_csv(
        tmp_path / "t.csv", ["a", "y", "task"], [[1, "high", "t"], [2, "low", "t"]]
    )
    with pytest.raises(InnerloopError, match="'high' in line 2, 'low' in line 3"):
        arrays(file=file)


def test_classes_with_a_task_column_are_refused() -> None:
    x, _, task = grouped()
    with pytest.raises(InnerloopError, match="regression tasks, so y must be finite"):
        arrays(x=x, y=np.array(["cat"] * len(x)), task=task)


def test_wrong_lengths_are_refused() -> None:
    x, y, task = grouped()
    with pytest.raises(ValueError, match="x has 80 rows and y has 79"):
        arrays(x=x, y=y[1:])
    with pytest.raises(ValueError, match="x has 80 rows and y has 80, task has 78"):
        arrays(x=x, y=y, task=task[2:])
    for missing in ({"x": x}, {"y": y}, {}):
        with pytest.raises(ValueError, match="needs x and y, or a file"):
            arrays(**missing)


def test_too_few_classes_or_tasks_are_refused() -> None:
    x, y = labeled()
    with pytest.raises(ValueError, match="lower ways, shots or queries"):
        arrays("val", x=x, y=y, ways=5)
    x, y, task = grouped(tasks=1, rows=30)
    with pytest.raises(
        InnerloopError, match="the val split of the arrays has no tasks: 1 are too few"
    ):
        arrays("val", x=x, y=y, task=task)
    with pytest.raises(ValueError, match="one of train, val, test"):
        arrays("dev", x=x, y=y)


def test_arrays_without_rows_are_refused() -> None:
    with pytest.raises(InnerloopError, match="0 rows"):
        arrays(x=np.zeros((0, 2)), y=np.zeros(0))


def test_labels_that_are_predicted_as_real_numbers_are_noted() -> None:
    x, task = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) // 10
    binary = arrays(x=x, y=np.arange(60) % 2, task=task, shots=2, queries=2)
    assert "y holds 0 and 1 only and is predicted as a real number" in binary.note
    real = arrays(x=x, y=x.sum(1), task=task, shots=2, queries=2)
    assert real.note == ""
