"""Bad input from a seed: a command line, and the files that it reads.

    case(17, world, folder)

writes the files of case 17 into a folder and returns its command line, which can be
printed and repeated.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

from innerloop.assembly import SIZES
from innerloop.cli import COMMANDS
from innerloop.cli.derived import task_flags, test_flags, training_flags
from innerloop.registry import PRESETS, entries
from tests.fuzz import bad_runs, world
from tests.fuzz.bad_data import (
    bad_arrays,
    bad_pictures,
    bad_table,
)
from tests.fuzz.values import JSON, NAMES, NUMBERS, TEXTS

# sources that download data, or take seconds to set up
LARGE = (
    *("omniglot", "cluttered-omniglot", "pages", "cifar-fs", "fc100", "emoji"),
    *("clinc", "cloze", "tox21", "pools", "completion", "xor"),
    *("mlp-omniglot", "mlp-digits", "half-cheetah", "string-programs"),
    *("gym", "descriptions"),
    *("list-programs", "strokes", "navigation", "mazes"),
)
# learners whose meta-step grows with every weight of the task network
SLOW = ("l2o", "metalstm")
# options that say how long something takes: large values are legal, and take long
LENGTHS = ("steps", "tasks", "minutes", "seconds", "count", "labels", "scale")
HUGE = tuple(n for n in NUMBERS if len(n) > 6)
ASKED = ("where is ann", "what is ann carrying", "is ann in the shop", "who?")
SIZE = ("--ways", "2", "--shots", "1", "--queries", "1")
FEW = ("--tasks", "2", *SIZE)
KINDS = ("words", "words", "data", "data", "run", "run", "run")


@dataclass
class Case:
    """A command line, the files that it reads, and where it may write.

    words: the command line. done: what is wrong, a line each. run: the run folder that
    it reads, if any.
    """

    seed: int
    folder: Path
    words: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    run: Path | None = None

    @property
    def command(self) -> str:
        return self.words[0] if self.words else ""

    def value(self, flag: str) -> str | None:
        """The value of a flag as it was written in two words."""
        if flag in self.words[:-1]:
            return self.words[self.words.index(flag) + 1]
        return None

    def __str__(self) -> str:
        words = [w if len(w) < 200 else f"{w[:60]}... ({len(w)})" for w in self.words]
        lines = [f"seed {self.seed} in {self.folder}", *self.done]
        text = "\n  ".join([*lines, f"innerloop {shlex.join(words)}"])
        return text.encode("utf-8", "backslashreplace").decode()


def case(seed: int, base: Path, folder: Path) -> Case:
    """The case of that seed; its files are written into a new folder.

    Args:
        base: the folder that `world.make` has filled.
    """
    rng = Random(seed)
    made = Case(seed, folder)
    folder.mkdir(parents=True)
    kind = rng.choice(KINDS)
    {"words": _words, "data": _data, "run": _run}[kind](made, base, rng)
    _stay_inside(made)
    return made


def _stay_inside(made: Case) -> None:
    """Nothing is written outside the folder of the case."""
    for place, word in enumerate(made.words[:-1]):
        to = made.words[place + 1]
        if word in ("--out", "--json", "--plot"):
            path = Path(os.path.abspath(made.folder / to))
            if made.folder not in (path, *path.parents) and not to.startswith("-"):
                made.words[place + 1] = str(made.folder / "out")


# ---------------------------------------------------------------------- runs


def _copy(name: str, base: Path, made: Case, rng: Random) -> Path:
    """A copy of a run, sometimes under an odd name."""
    odd = [n for n in NAMES if n and n != "." and "/" not in n and len(n) < 200]
    made.run = made.folder / f"run{rng.choice(odd) if rng.random() < 0.1 else ''}"
    shutil.copytree(base / "runs" / name, made.run)
    return made.run


def _run(made: Case, base: Path, rng: Random) -> None:
    """A damaged run folder, and a command that reads it."""
    names = (*world.TRAINED, *world.UNTRAINED)
    name = rng.choice([n for n in names if n != "drawn"] + ["drawn"] * 2)
    run = _copy(name, base, made, rng)
    others = [base / "runs" / n for n in names if n not in (name, "drawn")]
    made.done = [
        bad_runs.damage(run, others, rng) for _ in range(rng.choice((1, 1, 2)))
    ]
    made.words = _use(name, run, base, made, rng)


def _use(name: str, run: Path, base: Path, made: Case, rng: Random) -> list[str]:
    """The words of a command that reads a run."""
    data, out = base / "data", _out(made, rng)
    support = {
        **{"texts": "text.csv", "rows": "table.csv", "molecules": "molecules.csv"},
        "arrays": "table.csv",
    }.get(name, "pictures")
    pictures = str(data / support)
    adapt = [
        "adapt",
        str(run),
        "--support",
        pictures,
        "--query",
        pictures,
        "--out",
        out,
    ]
    test = ["test", str(run), "--tasks", "2", "--json", out]
    if name in ("images", "texts", "rows", "arrays", "drawn"):
        test += SIZE
    again = ["train", *_trained(name, base), "--resume", "--out", str(run)]
    again[again.index("--steps") + 1] = rng.choice(("1", "2"))
    start = ["train", *_trained(name, base), "--init-from", str(run), "--out", out]
    own = {
        "active": ["select", str(run), "--pool", pictures, "--labels", "2"],
        "drawn": ["generate", str(run), "--support", pictures, "--out", out],
        "programs": [
            *("synthesize", "--examples", str(data / "programs.csv")),
            *("--run", str(run), "--seconds", "0.02", "--out", out),
        ],
        "languages": [
            *("translate", str(run), "--examples", str(data / "languages.csv")),
            *("--out", out),
        ],
        "stories": [
            *("answer", str(run), "--facts", str(data / "story.txt")),
            *("--ask", rng.choice(ASKED), "--out", out),
        ],
        "summaries": [
            *("summarize", str(run), "--examples", str(data / "summaries.csv")),
            *("--out", out),
        ],
        "molecules": adapt,
    }
    if name in own:
        found = own[name]
        if rng.random() < 0.2 and name == "drawn":
            found = rng.choice((again, test))
        if name == "active" and rng.random() < 0.5:
            found = [*found, "--labeled", pictures]
        return found
    if name in ("images", "texts", "rows", "arrays"):
        export = ["export", str(run), "--format", "torch", "--out", out]
        return rng.choice((test, adapt, again, start, export))
    return rng.choice((test, again, start))


def _trained(name: str, base: Path) -> list[str]:
    line = world.TRAINED.get(name, world.TRAINED["sine"])
    return [word.format(data=base / "data") for word in line.split()]


def _out(made: Case, rng: Random) -> str:
    name = rng.choice(NAMES) if rng.random() < 0.1 else "out"
    return (
        str(made.folder / "result" / name) if "/" in name else str(made.folder / name)
    )


# ---------------------------------------------------------------------- data


def _data(made: Case, base: Path, rng: Random) -> None:
    """Bad data, and a command that reads them."""
    kinds = ("pictures", "text", "table", "arrays", "molecules", "programs")
    kind = rng.choice((*kinds, "languages", "summaries"))
    name = "arrays.npz" if kind == "arrays" else f"{kind}.csv"
    name = "pictures" if kind == "pictures" else name
    if rng.random() < 0.1 and kind != "pictures":
        name = (
            f"{kind}.{rng.choice(('tsv', 'txt', 'xlsx', 'parquet', 'gz', 'npz', 'x'))}"
        )
    bad, good = made.folder / name, base / "data" / name
    if kind == "pictures":
        made.done = bad_pictures(bad, rng)
    elif kind == "arrays":
        made.done = bad_arrays(bad, rng)
    else:
        made.done = bad_table(bad, kind, rng)
    good = good if good.exists() else bad
    out = _out(made, rng)
    train = {
        "pictures": [
            *("protonet", "folder", "--root", str(bad), "--size", "8"),
            *("--encoder", "mlp"),
        ],
        "text": ["protonet", "text", "--file", str(bad)],
        "table": ["protonet", "arrays", "--file", str(bad)],
        "arrays": ["protonet", "arrays", "--file", str(bad)],
    }.get(kind)
    further = rng.choice(((), (), ("--all-classes",), ("--normalize-strokes",)))
    further = further if kind == "pictures" or "--all-classes" in further else ()
    of = {"pictures": "images", "text": "texts", "table": "rows", "arrays": "arrays"}
    use = rng.random()
    if train and use < 0.4:
        sizes = world.CLASSES.split() if rng.random() < 0.8 else world.SHORT.split()
        made.words = ["train", *train, *sizes, *further, "--out", out]
        return
    if kind == "programs":
        made.words = ["synthesize", "--examples", str(bad), "--seconds", "0.02"]
        made.words += ["--out", out] if rng.random() < 0.7 else []
        return
    if kind == "pictures" and use > 0.9:
        sides = [str(bad), str(rng.choice((good, bad)))]
        rng.shuffle(sides)
        made.words = ["find", "--example", sides[0], "--in", sides[1], "--out", out]
        return
    run = _copy(of.get(kind, kind), base, made, rng)
    if kind in ("languages", "summaries"):
        made.words = ["summarize", str(run), "--examples", str(bad)]
        if kind == "languages":  # with a run, or by rules that are searched for
            made.words[:2] = rng.choice((["translate", str(run)], ["translate"]))
        made.words += rng.choice(([], ["--out", out], ["--in", str(bad)]))
        return
    if kind != "molecules" and use < 0.6:
        flag = "--root" if kind == "pictures" else "--file"
        made.words = ["test", str(run), *FEW, flag, str(bad), "--json", out]
        made.words += ["--all-classes"] if rng.random() < 0.3 else []
        return
    if kind == "pictures" and use < 0.8:
        shutil.rmtree(run)
        word = rng.choice(("select", "generate"))
        run = _copy({"select": "active", "generate": "drawn"}[word], base, made, rng)
        made.words = {
            "select": ["select", str(run), "--pool", str(bad), "--labels", "2"],
            "generate": ["generate", str(run), "--support", str(bad), "--out", out],
        }[word]
        if word == "select" and rng.random() < 0.5:
            made.words += ["--labeled", str(rng.choice((good, bad)))]
        made.words += ["--count", "2"] if word == "generate" else []
        return
    sides = [str(bad), str(bad if rng.random() < 0.4 else good)]
    rng.shuffle(sides)
    made.words = ["adapt", str(run), "--support", sides[0], "--query", sides[1]]
    made.words += ["--out", out, *(["--strict"] if rng.random() < 0.2 else [])]


# ---------------------------------------------------------------------- words


@cache
def _learners() -> tuple[str, ...]:
    return (*entries("learner"), *PRESETS)


@cache
def _sources() -> tuple[str, ...]:
    return tuple(name for name in entries("tasks") if name not in LARGE)


def _words(made: Case, base: Path, rng: Random) -> None:
    """A command line of which some words are wrong."""
    made.words = rng.choice(
        (_train_words, _train_words, _test_words, _other_words, _other_words)
    )(made, base, rng)
    if made.command != "demo" and rng.random() < 0.4:  # without faults, a demo trains
        made.done.append(_spoil_words(made, rng))


def _flags_for(learner: str, tasks: str, rng: Random) -> list[str]:
    """A few options of a training with values, most of them odd."""
    found = []
    flags = [f for f in training_flags([learner, tasks], set()) if f.name]
    for flag in rng.sample(flags, min(len(flags), rng.choice((0, 1, 1, 2, 3)))):
        found += _flag(flag.opts[0], flag.is_flag, rng)
    return found


def _flag(name: str, switch: bool, rng: Random) -> list[str]:
    if switch:
        return [name]
    numbers = NUMBERS
    if any(part in name for part in LENGTHS):
        numbers = tuple(n for n in NUMBERS if n not in HUGE)
    value = rng.choice(numbers) if rng.random() < 0.8 else rng.choice(TEXTS)
    return [f"{name}={value}"] if rng.random() < 0.2 else [name, value]


def _train_words(made: Case, base: Path, rng: Random) -> list[str]:
    learner = rng.choice(_learners())
    home = entries("learner").get(learner)
    tasks = rng.choice(_sources())
    if home is not None and rng.random() < 0.4:
        tasks = {"amortized": "gp-curves", "memory": "copy"}.get(
            home.family, "sinusoid"
        )
    tasks = "sinusoid" if learner in SLOW else tasks
    words = ["train", learner, tasks, *world.SHORT.split(), "--out", _out(made, rng)]
    options = entries("tasks")[tasks].options
    data = {"folder": ("--root", "pictures"), "text": ("--file", "text.csv")}
    data["arrays"] = ("--file", "table.csv")
    if tasks in data:
        flag, name = data[tasks]
        words += [flag, str(base / "data" / name)]
    if tasks == "folder":
        words += ["--size", "8"]
    small = {"ways": "2", "shots": "1", "queries": "1"}
    for name in SIZES:
        if name in small and name in options:
            words += [f"--{name}", small[name]]
    words += _flags_for(learner, tasks, rng)
    for flag in ("--device", "--precision", "--meta-gradient", "--init-from"):
        if rng.random() < 0.03:
            known = (*entries("meta-gradient"), "cuda", "meta", "mps", "cpu:9", "bf16")
            words += [flag, rng.choice((*known, *TEXTS))]
    if rng.random() < 0.03:  # more than one would start processes
        words += ["--processes", rng.choice(("1", "0", "-1", "x"))]
    return words


def _test_words(made: Case, base: Path, rng: Random) -> list[str]:
    names = (
        "images",
        "texts",
        "rows",
        "arrays",
        "sine",
        "curves",
        "bandits",
        "scratch",
    )
    run = _copy(rng.choice(names), base, made, rng)
    words = ["test", str(run), "--tasks", "2", "--json", _out(made, rng)]
    if rng.random() < 0.5:
        words += ["--plot", _out(made, rng) + rng.choice((".png", ".svg", ".x", ""))]
    if rng.random() < 0.2:
        words += [f"--{rng.choice(tuple(entries('evaluation')))}"]
    flags = [f for f in test_flags(words, set()) if f.name and f.name[:5] != "evalu"]
    if rng.random() < 0.2:
        words += ["--on", rng.choice((*_sources(), *TEXTS))]
    own = ("--split", "--steps", "--precision", "--device", "--seed", "--processes")
    chosen = [(f.opts[0], f.is_flag) for f in flags] + [(name, False) for name in own]
    for name, switch in rng.sample(chosen, rng.choice((1, 1, 2, 3))):
        words += _flag(name, switch, rng)
    return words


def _other_words(made: Case, base: Path, rng: Random) -> list[str]:
    command = rng.choice(tuple(COMMANDS))
    named = (*_learners(), *entries("tasks"), *entries("meta-gradient"), *TEXTS)
    data, out = base / "data", _out(made, rng)
    if command == "list":
        return rng.choice((["list", rng.choice(named)], ["list"], ["list", "--json"]))
    if command == "cite":
        return ["cite", *rng.choice(([rng.choice(named)], []))]
    if command == "papers":
        words = rng.choices((*named, "2017", "Finn"), k=rng.choice((0, 1, 1, 2)))
        return ["papers", *words, *rng.choice(([], ["--json"]))]
    if command == "new":
        return ["new", rng.choice(("Own", *TEXTS)), "--out", out]
    if command == "completion":
        return ["completion", rng.choice(("bash", "zsh", "fish", *TEXTS))]
    if command == "serve":  # it goes on where nothing is wrong
        port = rng.choice(("-1", "65536", "x", "1e9", ""))
        return ["serve", "--port", port, "--projects", out]
    if command == "advise":  # it measures for a long time where nothing is wrong
        words = ["advise", "--data", str(data / rng.choice(("pictures", "x.csv")))]
        return [*words, "--minutes", rng.choice(("0", "-1", "nan", "x"))]
    if command == "sweep":  # it trains where nothing is wrong
        over = rng.choice(("seed", "lr=1", "learner.x=1", "training.lr=2..1", *TEXTS))
        return ["sweep", "maml", "sinusoid", "--over", over, "--out", out]
    if command == "demo":  # it trains where nothing is wrong
        words = ["demo", "--out", out, "--scale", rng.choice(("0", "nan", "-1", "x"))]
        return [*words, "--seed", rng.choice(NUMBERS)]
    if command == "find":
        crops, sizes = str(data / "pictures"), ("0.5", "0", "-1", "20", "nan", "x")
        words = ["find", "--example", crops, "--in", crops, "--out", out]
        return [*words, "--smallest", rng.choice(sizes)]
    if command == "synthesize":
        words = ["synthesize", "--examples", str(data / "programs.csv"), "--out", out]
        return [*words, "--seconds", rng.choice(("0.01", "0", "-1", "nan", "x"))]
    if command == "study":
        return _study_words(made, rng)
    if command in ("train", "test"):
        return [command, *rng.sample(named, rng.randint(0, 2))]
    if command in ("compare", "report"):
        return _several_words(command, made, base, rng)
    name = rng.choice(("images", "texts", "sine", "active", "drawn"))
    name = "images" if command == "export" else name  # others take longer
    of = {"translate": "languages", "answer": "stories", "summarize": "summaries"}
    name = of.get(command, name)
    run = _copy(name, base, made, rng)
    pictures = str(data / "pictures")
    story = made.folder / "story.txt"
    lines = rng.choices((*TEXTS, "Ann went to the shop", "Bob took x"), k=3)
    story.write_text("\n".join(lines), "utf-8", "surrogateescape")
    words = {
        "answer": ["answer", str(run), "--facts", str(story), "--out", out],
        "summarize": [
            *("summarize", str(run), "--examples", str(data / "summaries.csv")),
            *("--out", out),
        ],
        "export": ["export", str(run), "--format", "torch", "--out", out],
        "adapt": [
            *("adapt", str(run), "--support", pictures, "--query", pictures),
            *("--out", out),
        ],
        "select": ["select", str(run), "--pool", pictures, "--labels", "2"],
        "generate": [
            *("generate", str(run), "--support", pictures, "--out", out),
            *("--count", "1"),
        ],
        "translate": [
            *("translate", str(run), "--examples", str(data / "languages.csv")),
            *("--out", out),
        ],
    }[command]
    if command == "answer":
        return [*words, "--ask", rng.choice((*ASKED, *TEXTS))]
    further = {
        "translate": "--in",
        "summarize": "--in",
        "select": "--strategy",
        "generate": "--seed",
        "export": "--labels",
    }
    if rng.random() < 0.7:
        value = rng.choice((*NUMBERS, *TEXTS, "entropy", "k-center"))
        words += [further.get(command, "--device"), value]
    return words


def _study_words(made: Case, rng: Random) -> list[str]:
    """A study with something wrong in it, or in its results; it is never trained."""
    values = ("3", "true", "[1]", '""', '"x"', "{}", '"--steps 1"', '"{a}"', "[[]]")
    lines = ['title = "T"', "[tests]", '"a" = "--tasks 2"', "[[row]]", 'name = "A"']
    lines.append('train = "protonet strokes --steps 1"')
    for _ in range(rng.randint(0, 3)):
        key = rng.choice(
            ("seeds", "grid", "train", "tests", "published", "id", "note", "row", "x")
        )
        lines.insert(rng.randint(0, len(lines)), f"{key} = {rng.choice(values)}")
    file = made.folder / "study.toml"
    file.write_text("\n".join(lines), "utf-8")
    results = made.folder / "results"
    results.mkdir(exist_ok=True)
    content = rng.choice((*JSON, {"format": 1, "results": rng.choice(JSON)}))
    (results / "study.json").write_text(json.dumps(content), "utf-8")
    words = rng.choice((["show"], ["table"], ["run", "--collect"], ["list"]))
    named = [] if words == ["list"] else [rng.choice((str(file), str(file), *TEXTS))]
    runs = ["--runs", str(made.folder / "runs")] if words[0] == "run" else []
    return ["study", *words, *named, *runs, "--results", str(results)]


def _several_words(command: str, made: Case, base: Path, rng: Random) -> list[str]:
    """A command on several runs."""
    names = ("images", "texts", "rows", "arrays", "sine", "curves", "bandits")
    run = _copy(rng.choice(names), base, made, rng)
    others = [base / "runs" / rng.choice(names) for _ in range(rng.choice((0, 1, 1)))]
    to = {"compare": "--json", "report": "--out"}[command]
    words = [command, str(run), *map(str, others), "--tasks", "2", to, _out(made, rng)]
    flags = [f for f in task_flags(words, set()) if f.name]
    own = ("--split", "--steps", "--precision", "--device", "--seed", "--on")
    chosen = [(f.opts[0], f.is_flag) for f in flags] + [(name, False) for name in own]
    for name, switch in rng.sample(chosen, rng.choice((0, 1, 1, 2))):
        words += _flag(name, switch, rng)
    return words


def _spoil_words(made: Case, rng: Random) -> str:
    words = made.words
    how = rng.choice(
        ("drop", "twice", "swap", "value", "flag", "typo", "add", "option")
    )
    if len(words) < 2 or how == "add":
        words.append(rng.choice((*TEXTS, *NUMBERS)))
        return "a word added"
    place = rng.randrange(len(words))
    kept = words[place]
    if kept in NUMBERS and place and words[place - 1].strip("-") in LENGTHS:
        return "nothing"
    if kept == "--collect":  # without it, a study is trained
        return "nothing"
    if how == "drop":
        if kept in ("--steps", "--tasks", "--seconds", "--scale", "--batch"):
            return "nothing"
        del words[place]
    elif how == "twice":
        words.insert(place, kept)
    elif how == "swap":
        other = rng.randrange(len(words))
        if {"--steps", "--tasks", "--seconds", *HUGE} & {kept, words[other]}:
            return "nothing"
        words[place], words[other] = words[other], kept
    elif how == "value":
        words[place] = rng.choice((*TEXTS, *(n for n in NUMBERS if n not in HUGE)))
    elif how == "flag":
        words.insert(
            place, rng.choice(("--unknown", "-x", "--no-x", "--steps=x", "--help"))
        )
    elif how == "typo":
        at = rng.randrange(len(kept) + 1)
        words[place] = kept[:at] + rng.choice("xX-= é") + kept[at + 1 :]
    else:
        words.insert(place, f"--{rng.choice(('out', 'seed', 'device', 'json'))}")
    return f"word {place}, {kept!r:.40}: {how}"
