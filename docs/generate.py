"""Write the reference pages from the registry: docs/learners (one page per learner, and
an index), docs/tasks.md, docs/meta_gradients.md and docs/encoders.md; docs/studies.md
and docs/leaderboard.md from the studies and their results; docs/reference and
docs/commands.md, see docs/api.py and docs/command_pages.py; docs/reading.md from the
papers that docstrings cite; docs/house.svg; and the numbers between markers on the
pages written by hand, see docs/filling.py.

python docs/generate.py           write the pages
python docs/generate.py --check   write nothing; exit 1 if a page is missing, stale
                                  or left over
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

import api
import command_pages
import filling
import house
import reading
import studies
from markup import escaped, paper_link, paragraphs

from innerloop.core.learner import Learner
from innerloop.engine.options import Option, descriptions, options
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.registry import PRESETS, Entry, entries, find

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
GENERATED = (
    *("tasks.md", "meta_gradients.md", "encoders.md", "studies.md", "leaderboard.md"),
    *("commands.md", "learners", "reading.md", "reference"),
)


def by_hand() -> list[Path]:
    """The pages that are written by hand, in every language."""
    found = sorted(DOCS.rglob("*.md"))
    return [
        *sorted(ROOT.glob("README*.md")),
        *(path for path in found if path.relative_to(DOCS).parts[0] not in GENERATED),
    ]


def sentence(entry: Entry) -> str:
    """The summary with a capital."""
    return entry.summary[0].upper() + entry.summary[1:]


def theory(entry: Entry) -> list[str]:
    """The docstring after its first paragraph: equation, reference, objective, state
    and remarks.
    """
    rest = entry.docstring.split("\n\n", 1)[1:]
    return paragraphs(rest[0], formula=True) if rest else []


def shown_type(option: Option) -> str:
    if option.choices:
        return " or ".join(json.dumps(choice) for choice in option.choices)
    return getattr(option.type, "__name__", str(option.type))


def shown_default(option: Option) -> str:
    if option.default is MISSING:
        return "set by `build`"
    shown = option.default
    return f'`"{shown}"`' if isinstance(shown, str) else f"`{shown!r}`"


def option_table(known: dict[str, Option]) -> list[str]:
    lines = ["| option | type | default | range | meaning |", "|---|---|---|---|---|"]
    for name, option in known.items():
        bounds = str(option.range) if option.range is not None else ""
        lines.append(
            f"| `{name}` | {escaped(f'`{shown_type(option)}`')} | "
            f"{shown_default(option)} | {bounds} | {escaped(option.help)} |"
        )
    return lines


def config_table(learner: type[Learner]) -> list[str]:
    """The default settings of meta-training."""
    text = descriptions(inspect.getdoc(MetaTrainConfig) or "")
    lines = ["| setting | value | meaning |", "|---|---|---|"]
    for entry in fields(MetaTrainConfig):
        value = getattr(learner.defaults, entry.name)
        if entry.name == "supervised" and not value:
            continue
        shown = ("no", "yes")[value] if isinstance(value, bool) else value
        lines.append(f"| `{entry.name}` | {shown} | {text[entry.name]} |")
    return lines


def example(entry: Entry) -> list[str]:
    learner: type[Learner] = entry.factory
    tasks = learner.home
    name = entry.name
    return [
        "## On the command line",
        "",
        "```sh",
        f"innerloop train {name} {tasks} --out runs/{name}",
        f"innerloop test runs/{name}",
        "```",
        "",
        f"`innerloop train {name} {tasks} --help` shows every option above as a flag.",
        "",
        "## In Python",
        "",
        "```python",
        "from innerloop import Experiment",
        "",
        f'experiment = Experiment("{name}", "{tasks}", minutes=10)',
        f'learner = experiment.train("runs/{name}")',
        f'print(Experiment.load("runs/{name}").test(learner))',
        "```",
        "",
    ]


def learner_page(entry: Entry) -> str:
    learner: type[Learner] = entry.factory
    code = Path(inspect.getfile(learner)).resolve().relative_to(ROOT).as_posix()
    presets = [
        f"- `innerloop train {name} ...`: {escaped(preset.summary)}"
        for name, preset in PRESETS.items()
        if preset.learner == entry.name
    ]
    lines = [
        f"# {learner.__name__}",
        "",
        escaped(sentence(entry)),
        "",
        "| family | predicts | reference | code |",
        "|---|---|---|---|",
        f"| {entry.family} | {', '.join(learner.kinds)} | {paper_link(entry.citation)} "
        f"| `{code}` |",
        "",
        "## How it learns",
        "",
        *theory(entry),
        *(["## Published variants", "", *presets, ""] if presets else []),
        "## Options",
        "",
        f"`{learner.__name__}.build(spec, ...)` creates suitable networks for the "
        "tasks. Set any option by keyword.",
        "",
        *option_table(options(learner)),
        "",
        "## Training",
        "",
        *config_table(learner),
        "",
        *example(entry),
        "[All learners](index.md) · [Choosing a learner](../choosing.md)",
    ]
    return "\n".join(lines) + "\n"


def index() -> str:
    lines = [
        "# Learners",
        "",
        "One page for each learner. See also [choosing a learner](../choosing.md).",
        "",
        "| family | learner | description | reference |",
        "|---|---|---|---|",
    ]
    for name, entry in entries("learner").items():
        title = entry.factory.__name__
        lines.append(
            f"| {entry.family} | [{title}]({name}.md) | {escaped(entry.summary)} | "
            f"{paper_link(entry.citation)} |"
        )
    lines += [
        "",
        "## Published variants",
        "",
        "Each name is a learner with some options set. Use it like the name of a "
        "learner.",
        "",
        "| name | equivalent to | description | reference |",
        "|---|---|---|---|",
    ]
    for name, preset in PRESETS.items():
        entry = find("learner", name)
        lines.append(
            f"| `{name}` | `{' '.join([preset.learner, *preset.flags])}` | "
            f"{escaped(preset.summary.split(': ', 1)[-1])} | "
            f"{paper_link(entry.citation)} |"
        )
    return "\n".join(lines) + "\n"


def reference(kind: str, title: str, introduction: str) -> str:
    """A page with every entry of a kind."""
    lines = [f"# {title}", "", introduction, ""]
    for name, entry in entries(kind).items():  # pyright: ignore[reportArgumentType]
        lines += [f"## {name}", "", escaped(sentence(entry)), "", *theory(entry)]
        if facts := entry.facts:
            lines += [*(f"- {n}: {escaped(text)}" for n, text in facts.items()), ""]
        if entry.options:
            lines += [*option_table(entry.options), ""]
    return "\n".join(lines).rstrip() + "\n"


def pages() -> dict[Path, str]:
    """Every generated page by its path."""
    found = {
        DOCS / "learners" / f"{name}.md": learner_page(entry)
        for name, entry in entries("learner").items()
    }
    found[DOCS / "learners" / "index.md"] = index()
    found[DOCS / "tasks.md"] = reference(
        "tasks",
        "Task sources",
        "All task sources. Their options are flags of `innerloop train` and "
        "`innerloop test`, and keyword arguments in Python.",
    )
    found[DOCS / "meta_gradients.md"] = reference(
        "meta-gradient",
        "Meta-gradients",
        "A meta-gradient computes the change of the meta-parameters in a meta-step. "
        "Choose one with `innerloop train ... --meta-gradient NAME`, or with "
        "`meta_train(..., meta_gradient=...)` in Python.",
    )
    found[DOCS / "encoders.md"] = reference(
        "encoder",
        "Pretrained encoders",
        "Networks that others have trained, from packages and folders on your machine; "
        "innerloop never downloads weights. Choose one with `--encoder NAME`, or with "
        "`FewShotClassifier(encoder=NAME)` in Python:\n\n"
        "| name | meaning |\n|---|---|\n"
        "| `efficientnet` | frozen: every item is read as a vector, once |\n"
        "| `minilm+words` | the vectors of both, side by side |\n"
        "| `efficientnet+conv6` | with a learned network beside it (images) |\n"
        "| `minilm:all` | the pretrained network is trained further, all weights |\n"
        "| `models/bert` | frozen, from a folder: a path with a `/` in it |\n"
        "| `models/bert:all` | the same, trained further |\n"
        "| `minilm+words+runs/mine` | beside others, the encoder that a run trained "
        "with `:all` |\n\n"
        "A folder holds a transformers model: `config.json`, `*.safetensors`, and "
        "`tokenizer.json` for texts (the mean of the outputs over the tokens) or "
        "`preprocessor_config.json` for images (the pooled output).",
    )
    found |= studies.pages() | api.pages() | command_pages.pages() | reading.pages()
    found[house.PICTURE] = house.picture()
    return {path: filling.filled(path.read_text("utf-8")) for path in by_hand()} | found


def typed_numbers() -> list[str]:
    """Numbers on the pages written by hand that no study measured."""
    return [
        f"{path.relative_to(ROOT)} has a number outside markers: {line.strip():.80}"
        for path in by_hand()
        for line in filling.typed(path.read_text("utf-8"))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    expected = pages()
    folders = {path.parent for path in expected if path.parent != DOCS}
    folders -= {ROOT}
    there = {path for folder in folders for path in folder.glob("*.md")}
    problems = []
    for path, text in expected.items():
        if not path.is_file():
            problems.append(f"{path.relative_to(ROOT)} is missing")
        elif path.read_text("utf-8") != text:
            problems.append(f"{path.relative_to(ROOT)} is stale")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    for path in sorted(there - set(expected)):
        problems.append(f"{path.relative_to(ROOT)} is left over")
        if not check:
            path.unlink()
    problems += typed_numbers()
    if check and problems:
        print("\n".join([*problems, "run `make docs`"]), file=sys.stderr)
    return int(check and bool(problems))


if __name__ == "__main__":
    raise SystemExit(main())
