"""Write docs/learners: one page per learner, made from its docstring, its fields and
its recipe, and an index.

python docs/generate.py           write the pages
python docs/generate.py --check   write nothing; exit 1 where a page is missing, stale
or left over
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from innerloop.cli.catalogue import catalogue, source
from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.task import TaskSpec
from innerloop.metagrad import STRATEGIES
from innerloop.learners import FAMILIES, LEARNERS, family_of
from innerloop.rl import ACTING

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "learners"

# The tasks that a page's commands are about, by kind; both need no download. Settings
# of the tasks and specs to match.
EXAMPLES = {
    "classes": (
        "strokes",
        ("ways", "shots", "queries", "groups"),
        TaskSpec("classes", (1, 28, 28), 5),
    ),
    "reals": ("sinusoid", (), TaskSpec("reals", (1,), 1)),
}

# Learners that are at home elsewhere.
AT_HOME = {
    "cavia": ("sinusoid", (), TaskSpec("reals", (1,), 1)),
    "l2o": ("quadratics", (), TaskSpec("reals", (10,), 1)),
    "prompttuning": (
        "clinc",
        ("ways", "shots", "queries"),
        TaskSpec("classes", (24,), 5, vocabulary=2000),
    ),
    "rl2": ("bandits", (), TaskSpec("reals", (1,), 7)),
    "asking": ("pools", (), TaskSpec("classes", (1, 28, 28), 10)),
    "neat": ("xor", (), TaskSpec("bits", (2,), 1)),
    "robustfill": (
        "string-programs",
        (),
        TaskSpec("programs", (32,), 64, vocabulary=97),
    ),
    "deepcoder": ("list-programs", (), TaskSpec("programs", (24,), 24)),
    "ntm": ("copy", (), TaskSpec("bits", (10,), 8, ordered=True)),
    **dict.fromkeys(
        ("cnp", "np", "anp", "encoderdecoder"),
        ("gp-curves", (), TaskSpec("reals", (1,), 1)),
    ),
}

# Fields that several learners share, for docstrings that leave them out.
COMMON = {
    "encoder": "the network that turns an input into features",
    "draws": "how many draws of the latent variable make a prediction",
    "features": "how many features the encoder gives",
    "inner_lr": "the step size",
    "inner_steps": "the number of steps",
    "likelihood": "what the outputs mean; `build` chooses it for the kind of the tasks",
    "net": "the task network",
    "out_dim": "numbers in an answer",
    "p": "the power of the p-norm",
    "recompute": "keep only the weights of every inner step and compute the rest again on the way back: less memory, more time",
    "width": "units of a layer",
    "y_dim": "numbers in a label",
    "normal": "what features go through next: normalisation, of those of images",
    "transductive": "normalise the query set by its own statistics, not by those of the support set",
}

RECIPE = {
    "ways": "classes in a task",
    "shots": "support examples of a class",
    "queries": "query examples of a class",
    "groups": "groups that a task's classes come from, 0 for any",
    "batch": "tasks in a meta-step",
    "optimizer": "optimiser, from `torch.optim`",
    "lr": "its learning rate",
    "weight_decay": "its weight decay",
    "warmup": "steps of linear warm-up",
    "decay": "cosine decay of the learning rate",
    "clip": "largest norm of the meta-gradient",
    "meta_gradient": "how the meta-parameters move",
    "supervised": "trained on all classes at once, with labels that never change",
}
EPISODES = ("ways", "shots", "queries", "groups")


def plain(text: str) -> str:
    """Text as Markdown that shows it as it is, in a table too; what stands in backticks
    stays code.
    """
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(
        part.replace("|", r"\|")
        if part.startswith("`")
        else re.sub(r"([|*<\[\]])", r"\\\1", part)
        for part in parts
    )


def said_of_fields(learner: type[Learner]) -> dict[str, str]:
    """What the docstring's "name, name: text" entries say, by field."""
    names = "|".join(entry.name for entry in learner.fields())
    paragraphs = inspect.getdoc(learner).split("\n\n")[2:]  # pyright: ignore[reportOptionalMemberAccess]
    text = " ".join(" ".join(paragraphs).split())
    starts = list(
        re.finditer(rf"(?:^|(?<=[.;] ))((?:{names})(?:, (?:{names}))*): ", text)
    )
    said: dict[str, str] = {}
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        words = (
            text[start.end() : following.start() if following else None]
            .strip()
            .removesuffix(".")
        )
        together = start[1].split(", ")
        for name in together:
            said[name] = (
                words
                if len(together) == 1
                else ", ".join(f"`{other}`" for other in together) + f": {words}"
            )
            if len(words) < 4 and name in COMMON:  # no more than the paper's letter
                said[name] += f", {COMMON[name]}"
    return said


def kind_of(hint: Any) -> str:
    """A field's type as a person reads it."""
    if get_origin(hint) is Literal:
        return " or ".join(json.dumps(value) for value in get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint)


def default_of(entry: Field[Any]) -> str:
    if entry.default is MISSING:
        return "set by `build`"
    return (
        f'`"{entry.default}"`'
        if isinstance(entry.default, str)
        else f"`{entry.default!r}`"
    )


def field_table(learner: type[Learner]) -> list[str]:
    hints, said = get_type_hints(learner), said_of_fields(learner)
    lines = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for entry in learner.fields():
        meaning = said.get(entry.name) or COMMON.get(entry.name, "")
        if entry.name in learner.regression_defaults and "reals" in learner.kinds:
            meaning += f"; for reals `build` sets {learner.regression_defaults[entry.name]}"
        lines.append(
            f"| `{entry.name}` | {plain(f'`{kind_of(hints[entry.name])}`')} | {plain(default_of(entry))} | {plain(meaning)} |"
        )
    return lines


def theory(learner: type[Learner]) -> list[str]:
    """The docstring's second paragraph: the equation, its source, what training lowers,
    and the state.
    """
    paragraph = inspect.getdoc(learner).split("\n\n")[1]  # pyright: ignore[reportOptionalMemberAccess]
    lines = [
        part.strip()
        for line in paragraph.split("\n")
        for part in re.split(r" {4,}", line)
    ]
    paper = source(learner.__doc__ or "")
    author = (paper["authors"] or "").split(",")[0].split(" ")[0]
    cut = next(
        (
            i
            for i, line in enumerate(lines)
            if author and re.search(rf"\b{re.escape(author)}\b", line)
        ),
        len(lines),
    )
    cut = cut or 1
    told = "\n".join(lines[cut:])
    # a source that ends with its line ends a sentence
    told = re.sub(r"(?<=[\d)])\n(?=[A-Z])", ". ", told).replace("\n", " ")
    prose, _, state = told.partition("State: ")
    if "Its objective is " in prose:
        prose, _, objective = prose.partition("Its objective is ")
        objective = f"Its objective is {objective}"
    else:
        objective = "The loss of the query set after adapting to the support set."
    if paper["arxiv"]:
        prose = plain(prose).replace(
            f"arXiv:{paper['arxiv']}",
            f"[arXiv:{paper['arxiv']}](https://arxiv.org/abs/{paper['arxiv']})",
            1,
        )
    else:
        prose = plain(prose)
    prose = prose.strip()
    page = [
        "```text",
        *lines[:cut],
        "```",
        "",
        prose if not prose or prose.endswith(".") else f"{prose}.",
    ]
    if trainable(learner):
        page += ["", f"**What meta-training lowers.** {plain(objective)}"]
    if state:
        page += ["", f"**State.** {plain(state[0].upper() + state[1:])}"]
    return page


def example(learner: type[Learner]) -> tuple[str, tuple[str, ...], TaskSpec] | None:
    """The tasks that a learner is at home in, or the first that suit it."""
    return AT_HOME.get(learner.__name__.lower()) or next(
        (EXAMPLES[kind] for kind in EXAMPLES if kind in learner.kinds), None
    )


@cache
def trainable(learner: type[Learner]) -> bool:
    """Whether there is anything to meta-train."""
    found = example(learner)
    return found is None or any(
        p.requires_grad for p in learner.build(found[2]).parameters()
    )


def recipe_table(recipe: MetaTrainConfig) -> list[str]:
    lines = ["| setting | value | meaning |", "| --- | --- | --- |"]
    for entry in fields(recipe):
        value = getattr(recipe, entry.name)
        if (
            (recipe.supervised or recipe.meta_gradient in ACTING)
            and entry.name in EPISODES
        ) or (entry.name == "supervised" and not value):
            continue
        # it takes steps of its own
        if recipe.meta_gradient in STRATEGIES and entry.name not in (
            "batch",
            "meta_gradient",
        ):
            continue
        meaning = (
            "examples in a meta-step"
            if recipe.supervised and entry.name == "batch"
            else RECIPE.get(entry.name, "")
        )
        shown = "yes" if value is True else "no" if value is False else str(value)
        lines.append(f"| `{entry.name}` | {shown} | {meaning} |")
    return lines


def command(learner: type[Learner], tasks: str) -> list[str]:
    name = learner.__name__.lower()
    return [
        "```sh",
        f"innerloop train {name} {tasks} --out runs/{name} --minutes 10",
        f"innerloop test runs/{name}",
        "```",
        "",
        f"`innerloop train {name} --help` lists the fields above as flags. The settings of the recipe are flags too.",
    ]


def snippet(learner: type[Learner], tasks: str, asked: tuple[str, ...]) -> list[str]:
    tasks = tasks.replace("-", "_")
    name, recipe = learner.__name__, learner.defaults
    small = ", ".join(
        f"{key}={getattr(MetaTrainConfig(), key)}" for key in asked if key != "groups"
    )
    if recipe.meta_gradient in ACTING:
        method = ACTING[recipe.meta_gradient].__name__
        return [
            "```python",
            f"from innerloop import {name}, meta_train",
            "from innerloop.metagrad.meta_train import build_optimizer, warmup_cosine",
            f"from innerloop.rl import {method}, {tasks}, play_test",
            "",
            f"recipe, environment = {name}.defaults, {tasks}()",
            f"learner = {name}.build(environment.spec, likelihood={method}.policy(environment))",
            f"player = {method}(environment)",
            "loop = meta_train(",
            "    learner, environment, steps=1000, batch=recipe.batch, optimizer=build_optimizer(learner, recipe),",
            "    schedule=warmup_cosine(recipe.warmup, recipe.decay), clip=recipe.clip, meta_gradient=player,",
            ")",
            "for step in loop:",
            "    player.at(step.progress)",
            "    if step.number % 100 == 0:",
            '        print(step.number, float(step.metrics["reward"]))',
            'print(play_test(learner, environment).metrics["reward"])  # mean and half width of the 95 % interval',
            "```",
        ]
    if recipe.meta_gradient in STRATEGIES:
        strategy = STRATEGIES[recipe.meta_gradient].__name__
        return [
            "```python",
            f"from innerloop import {', '.join(sorted((name, strategy), key=lambda word: (not word.isupper(), word)))}, evolve, meta_test",
            f"from innerloop.tasks import {tasks}",
            "",
            f'tasks = {tasks}("train")',
            f"learner = {name}.build(tasks.spec)",
            f"for step in evolve(learner, tasks, {strategy}(learner), steps=300, batch={name}.defaults.batch):",
            "    if step.number % 100 == 0:",
            '        print(step.number, float(step.metrics["loss"]))',
            f'result = meta_test(learner, {tasks}("test"), n=1000)',
            "print(result.metrics[result.score])  # mean and half width of the 95 % interval",
            "```",
        ]
    if not trainable(learner):
        return [
            "```python",
            f"from innerloop import {name}, meta_test",
            f"from innerloop.tasks import {tasks}",
            "",
            f'unseen = {tasks}("test"{small and ", "}{small})',
            f"learner = {name}.build(unseen.spec)",
            "result = meta_test(learner, unseen, n=20)",
            "print(result.metrics[result.score])  # mean and half width of the 95 % interval",
            "```",
        ]
    if recipe.supervised:
        train = f'{tasks}("train").labelled({recipe.batch})'
    else:
        train = (
            f'{tasks}("train"'
            + "".join(
                f", {key}={getattr(recipe, key)}"
                for key in asked
                if getattr(recipe, key)
            )
            + ")"
        )
    gradient = recipe.meta_gradient if recipe.meta_gradient != "backprop" else None
    public = sorted(
        [name, *([gradient] if gradient else []), "meta_test", "meta_train"],
        key=lambda word: (not word[0].isupper(), word),
    )
    return [
        "```python",
        f"from innerloop import {', '.join(public)}",
        "from innerloop.metagrad.meta_train import build_optimizer, warmup_cosine",
        f"from innerloop.tasks import {tasks}",
        "",
        f"recipe = {name}.defaults",
        f"tasks = {train}",
        f"learner = {name}.build(tasks.spec)",
        "loop = meta_train(",
        f"    learner, tasks, steps=1000, batch={1 if recipe.supervised else 'recipe.batch'}, optimizer=build_optimizer(learner, recipe),",
        "    schedule=warmup_cosine(recipe.warmup, recipe.decay), clip=recipe.clip,"
        + (f" meta_gradient={gradient}," if gradient else ""),
        ")",
        "for step in loop:",
        "    if step.number % 100 == 0:",
        '        print(step.number, float(step.metrics["loss"]))',
        f'result = meta_test(learner, {tasks}("test"{small and ", "}{small}), n=200)',
        "print(result.metrics[result.score])  # mean and half width of the 95 % interval",
        "```",
    ]


def paper_link(entry: dict[str, Any]) -> str:
    if not entry["paper"]:
        return ""
    return (
        f"[{entry['paper']}](https://arxiv.org/abs/{entry['arxiv']})"
        if entry["arxiv"]
        else entry["paper"]
    )


def page(entry: dict[str, Any]) -> str:
    """The page of one learner."""
    learner = LEARNERS[entry["name"]]
    title, recipe, found = learner.__name__, learner.defaults, example(learner)
    code = Path(inspect.getfile(learner)).resolve().relative_to(ROOT).as_posix()
    facts = [
        "| family | answers for | paper | code |",
        "| --- | --- | --- | --- |",
        f"| {entry['family']} | {', '.join(learner.kinds)} | {paper_link(entry)} | [{Path(code).name}](../../{code}) |",
    ]
    lines = [
        f"# {title}",
        "",
        plain(entry["what"]),
        "",
        *facts,
        "",
        "## How it learns",
        "",
        *theory(learner),
        "",
    ]
    lines += [
        "## Fields",
        "",
        f"`{title}.build(spec, ...)` chooses networks that suit the tasks; any field can be given by name.",
        "",
    ]
    lines += [*field_table(learner), ""]
    if not trainable(learner):
        lines += [
            "## Training",
            "",
            "There is nothing to meta-train: test it as it is, as the baseline for the others.",
            "",
        ]
    else:
        lines += [
            "## MetaTrainConfig",
            "",
            "How it is meta-trained where nothing else is said:",
            "",
            *recipe_table(recipe),
            "",
        ]
    if found and trainable(learner):
        lines += ["## On the command line", "", *command(learner, found[0]), ""]
    if found:
        lines += ["## In Python", "", *snippet(learner, found[0], found[1]), ""]
    lines += [
        "[All learners](index.md) · [Which learner for my tasks?](../choosing.md)"
    ]
    return "\n".join(lines) + "\n"


def index(entries: list[dict[str, Any]]) -> str:
    lines = [
        "# Learners",
        "",
        "Every learner, one page each. [Which one for my tasks?](../choosing.md)",
        "",
    ]
    lines += ["| family | learner | paper | year |", "| --- | --- | --- | --- |"]
    for entry in entries:
        name = LEARNERS[entry["name"]].__name__
        lines.append(
            f"| {entry['family']} | [{name}]({entry['name']}.md) | {paper_link(entry)} | {entry['year'] or ''} |"
        )
    lines += ["", "The families:", ""]
    lines += [
        f"- **{family}**: {plain(module.__doc__ or '')}"
        for family, module in FAMILIES.items()
    ]
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Every page and what it must say."""
    known = {
        entry["name"]: entry for entry in catalogue() if entry["kind"] == "learner"
    }
    entries = [
        known[name]
        for family in FAMILIES
        for name, learner in LEARNERS.items()
        if family_of(learner) == family
    ]
    return {PAGES / f"{entry['name']}.md": page(entry) for entry in entries} | {
        PAGES / "index.md": index(entries)
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the pages of docs/learners.")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit 1 where a page is missing, stale or left over",
    )
    options = parser.parse_args(arguments)
    wanted = pages()
    left_over = sorted(set(PAGES.glob("*.md")) - set(wanted))
    wrong = {
        path: "stale" if path.is_file() else "missing"
        for path, text in wanted.items()
        if not path.is_file() or path.read_text("utf-8") != text
    }
    wrong |= dict.fromkeys(left_over, "left over")
    if options.check:
        for path, what in sorted(wrong.items()):
            print(f"{path.relative_to(ROOT)} is {what}", file=sys.stderr)
        if wrong:
            print("run `make docs`", file=sys.stderr)
        return 1 if wrong else 0
    PAGES.mkdir(parents=True, exist_ok=True)
    for path in left_over:
        path.unlink()
    for path, text in wanted.items():
        if path in wrong:
            path.write_text(text, "utf-8")
    print(f"{len(wanted)} pages in {PAGES.relative_to(ROOT)}, {len(wrong)} changed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
