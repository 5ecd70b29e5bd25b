"""What every command owes to bad input: sense and exit code 0, or one line and exit
code 2; no traceback, no other code, no end of waiting, no change of what it only reads.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from innerloop.cli import main
from tests.fuzz.generate import Case

SECONDS = 120  # of a case, at most: many times what it takes on an idle machine
MEMORY = 3 << 30  # bytes that a case may reserve
MOST = 300  # characters of an error
# commands that use the inputs that they can read, name the others, and exit with 1
LEAVE_OUT = ("adapt", "select")
SILENT = (
    DeprecationWarning,
    PendingDeprecationWarning,
    ImportWarning,
    ResourceWarning,
)


class Hang(BaseException):
    """A command that does not end."""


@dataclass(frozen=True)
class Result:
    code: int | None
    out: str
    err: str
    raised: str = ""


@contextmanager
def limits() -> Iterator[None]:
    """A limit of time, and of the memory that this process reserves."""

    def stop(number: int, frame: object) -> NoReturn:
        raise Hang

    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as opened:
        used = int(opened.read().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


def _show(message: Any, category: type, file: str, line: int, *rest: Any) -> None:
    sys.stderr.write(warnings.formatwarning(message, category, file, line))


def run(case: Case) -> Result:
    """Run the command line in this process, as its own process would."""
    streams = sys.stdout, sys.stderr
    where = Path.cwd()
    outputs = [io.BytesIO(), io.BytesIO()]
    sys.stdout, sys.stderr = texts = [
        io.TextIOWrapper(memory, "utf-8", write_through=True) for memory in outputs
    ]
    code, raised = None, ""
    os.chdir(case.folder)
    try:
        with warnings.catch_warnings(), limits():
            warnings.resetwarnings()
            for category in SILENT:
                warnings.simplefilter("ignore", category)
            warnings.showwarning = _show
            code = main(case.words)
    except Hang:
        raised = f"no end after {SECONDS} s\n" + traceback.format_exc()
    except SystemExit as error:
        raised = f"SystemExit {error.code}"
    except BaseException:
        raised = traceback.format_exc()
    finally:
        os.chdir(where)
        sys.stdout, sys.stderr = streams
    for text in texts:
        text.detach()
    out, err = (memory.getvalue().decode() for memory in outputs)
    return Result(code, out, err, raised)


def run_apart(case: Case) -> Result:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "innerloop", *case.words]
    try:
        done = subprocess.run(
            command,
            cwd=case.folder,
            capture_output=True,
            timeout=2 * SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Result(None, "", "", "no end")
    err = done.stderr.decode("utf-8", "replace")
    raised = err if "Traceback" in err else ""
    return Result(done.returncode, done.stdout.decode("utf-8", "replace"), err, raised)


def state(folder: Path | None) -> dict[str, str]:
    """What a folder holds, by name."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder else ():
        name = str(path.relative_to(folder))  # pyright: ignore[reportArgumentType]
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder"
    return found


def check(case: Case, apart: bool = False) -> str | None:
    """Run a case; returns how it broke the law, or None."""
    before = state(case.run)
    result = run_apart(case) if apart else run(case)
    problem = _problem(case, result, before)
    if problem is None:
        return None
    shown = "".join(f"\n  | {line[:400]}" for line in result.err.splitlines()[-20:])
    raised = "".join(f"\n  > {line}" for line in result.raised.splitlines()[-25:])
    text = f"{case}\n  {problem}; exit code {result.code}{shown}{raised}"
    return text.encode("utf-8", "backslashreplace").decode()


def _problem(case: Case, result: Result, before: dict[str, str]) -> str | None:
    if result.raised:
        return result.raised.splitlines()[-1]
    if "Traceback" in result.err or "Warning:" in result.err:
        return "a traceback or a warning on stderr"
    after = state(case.run)
    if case.command == "test":  # it stores its result
        for found in (before, after):
            for name in [n for n in found if result.code == 0 and n[:5] == "tests"]:
                del found[name]
    if case.command == "train":
        after.pop(".lock", None)
        before.pop(".lock", None)
    wrote = case.command == "train" and result.code == 0
    if not wrote and before != after:
        changed = sorted({*before.items()} ^ {*after.items()})
        return f"the run folder changed: {[name for name, _ in changed]}"
    if result.code == 2:
        return _one_line(result)
    if result.code == 1 and case.command in LEAVE_OUT and "left out" in result.err:
        return _sense(case, result)
    if result.code != 0:
        return f"exit code {result.code}"
    return None if "--help" in case.words else _sense(case, result)


def _one_line(result: Result) -> str | None:
    lines = result.err.splitlines()
    if len(lines) != 1 or not lines[0].strip():
        return f"{len(lines)} lines on stderr"
    if len(lines[0]) >= MOST:
        return f"an error of {len(lines[0])} characters"
    if not lines[0].isprintable():
        return "an error with characters that steer terminals"
    return None


def _sense(case: Case, result: Result) -> str | None:
    """What is wrong with the result of a command that succeeded."""
    try:
        RESULTS.get(case.command, lambda case, result: None)(case, result)
    except Exception as error:
        return f"no sense: {type(error).__name__}: {error}"
    return None


def _strict(text: str) -> Any:
    """JSON data without NaN or infinite numbers."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


def _file(case: Case, flag: str) -> Path | None:
    value = case.value(flag)
    return None if value is None else case.folder / value


def _trained(case: Case, result: Result) -> None:
    run = _file(case, "--out")
    if run is None:
        return
    _strict((run / "experiment.json").read_text("utf-8"))
    assert (run / "weights.safetensors").is_file(), "no weights"
    for line in (run / "log.jsonl").read_text("utf-8").splitlines():
        assert isinstance(_strict(line)["step"], int)


def _tested(case: Case, result: Result) -> None:
    file = _file(case, "--json")
    if file is not None and file.is_file():
        assert _strict(file.read_text("utf-8"))["tables"], "no tables"
    plot = _file(case, "--plot")
    if plot is not None:
        assert plot.is_file(), "no figure"
    assert "stored in" in result.out


def _adapted(case: Case, result: Result) -> None:
    file = _file(case, "--out")
    assert file is not None
    text = file.read_bytes().decode("utf-8", "surrogateescape")
    table = list(csv.reader(io.StringIO(text, newline="")))
    assert len(table) > 1, "no rows"
    assert all(0 <= float(row[2]) <= 1 and row[1] for row in table[1:])


def _selected(case: Case, result: Result) -> None:
    assert result.out.strip(), "nothing selected"


def _generated(case: Case, result: Result) -> None:
    folder = _file(case, "--out")
    assert folder is not None
    with Image.open(folder / "sheet.png") as image:
        image.load()


def _synthesized(case: Case, result: Result) -> None:
    assert result.out.startswith("program: ")
    file = _file(case, "--out")
    if file is not None:
        table = list(csv.reader(io.StringIO(file.read_text("utf-8"), newline="")))
        assert len({len(row) for row in table}) == 1, "ragged rows"


def _found(case: Case, result: Result) -> None:
    file = _file(case, "--out")
    if file is not None:
        table = list(csv.reader(io.StringIO(file.read_text("utf-8"), newline="")))
        assert table[0][-1] == "score"
        for row in table[1:]:
            left, top, right, bottom = map(int, row[2:6])
            assert left < right
            assert top < bottom


def _listed(case: Case, result: Result) -> None:
    assert result.out.strip()
    if "--json" in case.words:
        assert _strict(result.out)


def _papers(case: Case, result: Result) -> None:
    assert result.out.strip()
    if "--json" in case.words:
        assert _strict(result.out)


def _cited(case: Case, result: Result) -> None:
    assert result.out.startswith("@")


RESULTS = {
    "train": _trained,
    "test": _tested,
    "adapt": _adapted,
    "select": _selected,
    "generate": _generated,
    "synthesize": _synthesized,
    "find": _found,
    "list": _listed,
    "papers": _papers,
    "cite": _cited,
}
