"""Descriptions of Debian packages, and which of their sentences says most of the
synopsis.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.evaluation.chunks import measured
from innerloop.evaluation.few_shot import evaluate
from innerloop.measurements import Estimate, Measurement, Report, Row, Table, TestPlan
from innerloop.tasks.cache import Entry, cached
from innerloop.tasks.sentences import FEATURES, features, rouge, sentences_of
from innerloop.tasks.splits import SPLITS, split_indices, task_source

SENTENCES = 6  # that count of a text
MOST = 500  # packages of a section
CENTER, SCALE = 0.2, 0.2  # of ROUGE, about its mean and deviation
LANGUAGE = ("-o", "Acquire::Languages=en")
HELPER = "/usr/lib/apt/apt-helper"
VERSION = 1  # of the features, in the cache
UPDATE = "apt-get update -o Acquire::Languages=en"


class Package(NamedTuple):
    """A package: its section, its source package, what it is in a line, and its
    description.
    """

    name: str
    section: str
    source: str
    synopsis: str
    text: str


def _output(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode:
        error = found.stderr.decode(errors="replace").strip()[-200:]
        raise InnerloopError(f"{' '.join(command[:4])} failed: {error}")
    return found.stdout.decode(errors="replace")


@cache
def _translations() -> tuple[str, ...]:
    """The files with the long descriptions in English. Raises InnerloopError where
    there are none.
    """
    if shutil.which("apt-cache") is None or not Path(HELPER).is_file():
        raise InnerloopError(
            "descriptions are those of the packages that apt knows, and apt-cache is "
            "not on this machine: use Debian or Ubuntu, also in a container"
        )
    where = "--format", "$(FILENAME)", "Created-By: Translations"
    files = _output("apt-get", *LANGUAGE, "indextargets", *where).split()
    if not files:
        raise InnerloopError(
            f"apt has no long descriptions on this machine: run {UPDATE} as root"
        )
    return tuple(sorted(files))


def records(text: str) -> Iterator[dict[str, str]]:
    """The records of a file of apt, each its fields by name."""
    for part in text.split("\n\n"):
        found, name = {}, ""
        for line in part.splitlines():
            if line[:1].isspace():
                found[name] = f"{found.get(name, '')}\n{line[1:]}"
            elif ":" in line:
                name, value = line.split(":", 1)
                found[name] = value.strip()
        if found:
            yield found


def packages() -> Iterator[Package]:
    """The packages that apt knows and that have a description of some lines."""
    texts = {
        found["Description-md5"]: found["Description-en"]
        for file in _translations()
        for found in records(_output(HELPER, "cat-file", file))
        if {"Description-md5", "Description-en"} <= found.keys()
    }
    for found in records(_output("apt-cache", *LANGUAGE, "dumpavail")):
        text = texts.get(found.get("Description-md5", ""), "")
        synopsis, _, body = text.partition("\n")
        if body and {"Package", "Section"} <= found.keys():
            yield Package(
                found["Package"],
                found["Section"].split("/")[-1],
                found.get("Source", found["Package"]).split()[0],
                synopsis,
                "\n".join("" if line == "." else line for line in body.splitlines()),
            )


def scored(text: str, summary: str) -> tuple[Tensor, Tensor] | None:
    """The sentences of a text as vectors (6, features), and ROUGE-1, -2 and -L of each
    (6, 3); of a longer text, the first, and of a shorter one, some again. None for a
    text of one sentence.
    """
    sentences = sentences_of(text)
    if len(sentences) < 2:
        return None
    vectors = features(sentences)[:SENTENCES]
    values = torch.tensor([rouge(part, summary) for part in sentences[:SENTENCES]])
    again = torch.arange(SENTENCES) % len(vectors)
    return vectors[again], values[again]


def standardized(values: Tensor) -> Tensor:
    """ROUGE as a target."""
    return (values - CENTER) / SCALE


def _prepared() -> Entry:
    """At most 500 packages of each section, with different sources."""
    of_section: dict[str, dict[str, Package]] = defaultdict(dict)
    for package in packages():
        of_section[package.section].setdefault(package.source, package)
    x, y, rows = [], [], []
    for section, found in sorted(of_section.items()):
        names = sorted(found)
        for source in names[:: max(1, -(-len(names) // MOST))]:
            pair = scored(found[source].text, found[source].synopsis)
            if pair is not None:
                x.append(pair[0])
                y.append(pair[1])
                rows.append((section, source))
    return {"x": torch.stack(x), "y": torch.stack(y)}, {"rows": rows}


@cache
def _stored() -> Entry:
    files = [(file, Path(file).stat().st_size) for file in _translations()]
    return cached("descriptions", [VERSION, MOST, SENTENCES, files], _prepared)


class Descriptions(TaskDistribution):
    """A section is a task, and the sentences of packages its examples.

    x (n, 6 packages, features): the sentences, 6 after each other of a package. y (n, 6
    packages, 3): their ROUGE-1, -2 and -L with the synopsis, less 0.2, divided by 0.2.

    Args:
        split: whose sections.
        shots, queries: packages in the support set and in the query set.
    """

    prefetch = True

    def __init__(self, split: str, shots: int, queries: int):
        self.shots, self.queries = shots, queries
        self.spec = TaskSpec("reals", (FEATURES,), 3)
        tensors, data = _stored()
        self.x, self.y = tensors["x"], tensors["y"]
        sections = sorted({section for section, _ in data["rows"]})
        split_of = {
            sections[i]: part for part in SPLITS for i in split_indices(sections, part)
        }
        order = list(SPLITS)
        last: dict[str, int] = {}
        for section, source in data["rows"]:
            at = order.index(split_of[section])
            last[source] = max(at, last.get(source, 0))
        rows: dict[str, list[int]] = defaultdict(list)
        for i, (section, source) in enumerate(data["rows"]):
            if split_of[section] == split and order[last[source]] == split:
                rows[section].append(i)
        need = shots + queries
        self.sections = {
            section: torch.tensor(own)
            for section, own in rows.items()
            if len(own) >= need
        }
        if not self.sections:
            most = max(map(len, rows.values()), default=0)
            raise InnerloopError(
                f"{shots} shots and {queries} queries need sections of {need} packages "
                f"with different sources, and no {split} section has more than {most}"
            )

    def describe(self) -> str:
        return (
            f"descriptions of Debian packages in {len(self.sections)} sections, "
            f"{self.shots} of them with their synopsis"
        )

    def sample(self, n: int, generator: torch.Generator) -> Task:
        sections, size = [*self.sections.values()], self.shots + self.queries
        drawn = []
        for i in torch.randint(len(sections), (n,), generator=generator).tolist():
            order = torch.randperm(len(sections[i]), generator=generator)
            drawn.append(sections[i][order[:size]])
        rows = torch.stack(drawn)
        x, y = self.x[rows], standardized(self.y[rows])
        k = self.shots
        return Task(
            Examples(x[:, :k].flatten(1, 2), y[:, :k].flatten(1, 2)),
            Examples(x[:, k:].flatten(1, 2), y[:, k:].flatten(1, 2)),
        )

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report:
        """ROUGE of the sentence that the learner chooses, beside the first sentence,
        one by chance, and the best one; and the scores of `meta_test`.
        """

        def of_task(task: Task) -> Tensor:
            outputs = learner.predict(learner.adapt(task.support), task.query.x)
            means = learner.likelihood.mean(outputs).unflatten(0, (-1, SENTENCES))
            values = (task.query.y * SCALE + CENTER).unflatten(0, (-1, SENTENCES))
            total = values.sum(-1)  # (m, 6)
            choices = (means.sum(-1).argmax(-1), 0 * total.argmax(-1), total.argmax(-1))
            found = [
                values.gather(1, choice[:, None, None].expand(-1, 1, 3))[:, 0]
                for choice in choices
            ]
            return torch.stack([part.mean(0) for part in (*found, values.mean(1))])

        @torch.no_grad()
        def of_batch(batch: Task) -> Tensor:
            return learner.mapped(of_task, batch).cpu()

        learner.eval()
        parts = measured(learner, self, of_batch, n=plan.n, generator=plan.generator())
        names = (type(learner).__name__, "first sentence", "best sentence", "by chance")
        rows = tuple(
            Row(
                {**plan.labels, "method": name},
                tuple(
                    Measurement.of(f"ROUGE-{kind}", Estimate.of(value), plan.n, "%")
                    for kind, value in zip("12L", values.unbind(1), strict=True)
                ),
            )
            for name, values in zip(names, torch.cat(parts).unbind(1), strict=True)
        )
        title = "ROUGE of the chosen sentence with the synopsis"
        report = evaluate(learner, self, plan)
        return Report(
            (Table(title, rows), *report.tables), report.notes, report.context
        )

    def test_settings(self, fixed_ways: int | None) -> list[dict[str, Any]]:
        return [{"shots": shots} for shots in (5, 10)]

    def item_keys(self) -> frozenset[str]:
        return frozenset(f"section {name}" for name in self.sections)


@task_source
def descriptions(
    split: str = "train", *, shots: Count = 10, queries: Count = 10
) -> Descriptions:
    """Descriptions: which sentence about a package says most of its synopsis.

    Reference: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", Text
    Summarization Branches Out, for the scores.

    A task is a section of Debian, such as science: from some packages with their
    synopsis, the sentence to choose of other descriptions is learned.

    The packages are those that apt knows on this machine, with long descriptions in
    English (`apt-get update -o Acquire::Languages=en`); nothing is downloaded. 64, 16
    and 20 % of the sections are for training, validation and testing. Of the packages
    of a source, a section has one, and a source that is in two splits is used in the
    later one only. The first 6 sentences count, and texts of one sentence are left out.

    Args:
        shots: packages with their synopsis.
        queries: packages to summarize.
    """
    return Descriptions(split, shots, queries)
