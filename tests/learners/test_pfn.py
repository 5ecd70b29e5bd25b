"""The prior-data fitted network beside its equations, cell by cell."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from innerloop import Examples, Gaussian, TaskSpec
from innerloop.core.task import Task
from innerloop.engine.errors import InnerloopError
from innerloop.learners.memory.pfn import PFN
from innerloop.nets.table_attention import cell_features
from innerloop.nets.table_regression import TableRegression
from innerloop.nets.table_tokens import CODE

ROWS, COLUMNS, WAYS = 7, 3, 3


def network(kind: str = "classes", y_dim: int = WAYS) -> PFN:
    torch.manual_seed(0)
    spec = TaskSpec(kind, (COLUMNS,), y_dim)  # pyright: ignore[reportArgumentType]
    return PFN.build(spec, width=8, heads=2, layers=2).double()


def table(kind: str = "classes") -> tuple[Examples, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(ROWS + 2, COLUMNS, dtype=torch.float64)
    x[:, 2] = (x[:, 2] > 0).double()
    y = torch.eye(WAYS, dtype=torch.float64)[torch.arange(ROWS) % WAYS]
    y = y if kind == "classes" else torch.randn(ROWS, 2, dtype=torch.float64)
    return Examples(x[:ROWS], y), x[ROWS:]


def normed(layer: Any, x: np.ndarray) -> np.ndarray:
    weight, bias = (p.detach().numpy() for p in layer.parameters())
    z = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return z * weight + bias


def applied(layer: Any, x: np.ndarray) -> np.ndarray:
    parts = [p.detach().numpy() for p in layer.parameters()]
    return parts[0] @ x + (parts[1] if len(parts) > 1 else 0)


def attended(q: np.ndarray, keys: list, values: list, heads: int) -> np.ndarray:
    """Softmax attention of one token to others, head by head."""
    found = []
    for part in np.split(np.arange(len(q)), heads):
        scores = np.array([q[part] @ k[part] for k in keys]) / np.sqrt(len(part))
        weights = np.exp(scores - scores.max())
        found.append(
            sum(w * v[part] for w, v in zip(weights / weights.sum(), values))  # noqa: B905
        )
    return np.concatenate(found)


def regression_by_hand(
    regression: TableRegression,
    features: Callable[[float, int], np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    asked: np.ndarray,
    among: list[int],
) -> np.ndarray:
    """The average for a row, of regressions fitted to the rows `among`, weighed by what
    each predicts for all rows, which are left out one after the other.
    """
    values = {n: np.exp(v.detach().numpy()) for n, v in regression.named_parameters()}
    mean, every, columns = y.mean(0), list(range(len(y))), range(x.shape[1])
    table = np.array([[features(row[c], c) for c in columns] for row in x])
    relevance = []
    for c in columns:
        shares = []
        for k in range(2):
            f = table[:, c, k]
            parts = [
                np.mean((f - f.mean()) * (t - t.mean())) ** 2 / f.var() / np.mean(t**2)
                for t in y.T
            ]
            shares.append(sum(parts))
        by_chance = sum(t.var() / np.mean(t**2) for t in y.T) / (len(y) - 1)
        relevance.append(max(shares) + values["log_chance"] * by_chance)
    widths = values["log_widths"]

    def kernel(kind: int, a: np.ndarray, b: np.ndarray) -> float:
        w = np.array(relevance if kind % 2 else np.ones(len(relevance)))
        w = w / w.sum()
        f, g = (
            np.array([values["log_scales"] * features(row[c], c) for c in columns])
            for row in (a, b)
        )
        squares = ((f - g) ** 2).sum(1)
        return [
            w @ (f * g).sum(1),
            np.exp(-widths[0] * w @ squares),
            np.exp(-widths[1] * np.sqrt(w @ squares + 1e-6)),
            w @ np.exp(-widths[2] * squares),
        ][kind // 2]

    def solved(kind: int, strength: float, row: np.ndarray, rows: list) -> np.ndarray:
        gram = np.array([[kernel(kind, x[i], x[k]) for k in rows] for i in rows])
        left = gram + strength * np.eye(len(rows))
        found = np.linalg.solve(left, (y - mean)[rows])
        return np.array([kernel(kind, row, x[k]) for k in rows]) @ found

    found, weights = [], []
    for which in range(3):
        for kind in range(8):
            gate = values["log_gates"][which, kind]
            strength = values["log_strengths"][which, kind]
            likelihood = 1.0
            left_out = [
                gate * solved(kind, strength, x[i], [k for k in every if k != i])
                for i in every
            ]
            if regression.classes:
                for scores, truth in zip(left_out, y):  # noqa: B905
                    p = mean * np.exp(scores)
                    likelihood *= p @ truth / p.sum()
            else:
                errors = np.mean((np.array(left_out) - (y - mean)) ** 2, 0)
                likelihood = np.prod(errors ** (-len(y) / 2))
            weights.append(likelihood ** values["log_sharpness"])
            found.append(gate * solved(kind, strength, asked, among))
    return np.average(found, axis=0, weights=weights)


def by_hand(pfn: PFN, support: Examples, query: Tensor) -> np.ndarray:
    """The probabilities of the classes of every query."""
    x, y, asked = support.x.numpy(), support.y.numpy(), query.numpy()
    mean, deviation = x.mean(0), x.std(0)
    columns, classes = (c.detach().numpy() for c in pfn.adapt(support)["codes"])
    tokens = pfn.tokens

    def features(value: float, j: int) -> np.ndarray:
        z = (value - mean[j]) / deviation[j]
        below = np.mean(x[:, j] < value) + np.mean(x[:, j] == value) / 2 - 0.5
        return np.array([np.sign(z) * np.log1p(abs(z)), below])

    def cell(value: float, j: int) -> np.ndarray:
        own = applied(tokens.cells, features(value, j))
        return own + applied(tokens.column_codes, columns[j])

    def tokens_of(row: np.ndarray, among: list[int], last: np.ndarray) -> list:
        predicted = regression_by_hand(pfn.regression, features, x, y, row, among)
        said = applied(tokens.targets, predicted @ classes)
        said = said + tokens.predicted.detach().numpy()
        return [*(cell(row[j], j) for j in range(COLUMNS)), said, last]

    every = list(range(ROWS))
    rows = [
        tokens_of(
            x[i],
            [k for k in every if k != i],
            applied(tokens.targets, classes[y[i].argmax()]),
        )
        for i in every
    ]
    unknown = tokens.unknown.detach().numpy()
    rows += [tokens_of(row, every, unknown) for row in asked]
    block: Any
    for block in pfn.blocks:
        n = block.norms
        inner = []
        for row in rows:
            parts = [
                np.split(applied(block.row_projections, normed(n[0], t)), 3)
                for t in row
            ]
            keys, values = [p[1] for p in parts], [p[2] for p in parts]
            inner.append(
                [
                    t
                    + applied(block.row_out, attended(p[0], keys, values, block.heads))
                    for t, p in zip(row, parts)  # noqa: B905
                ]
            )
        rows = []
        for row in inner:
            made = []
            for j, t in enumerate(row):
                column = [normed(n[1], inner[i][j]) for i in range(ROWS)]
                pairs = [np.split(applied(block.keys_and_values, c), 2) for c in column]
                q = applied(block.queries, normed(n[1], t))
                keys, values = [p[0] for p in pairs], [p[1] for p in pairs]
                t = t + applied(
                    block.column_out, attended(q, keys, values, block.heads)
                )
                hidden = torch.from_numpy(applied(block.mlp[0], normed(n[2], t)))
                hidden = torch.nn.functional.gelu(hidden).numpy()
                made.append(t + applied(block.mlp[2], hidden))
            rows.append(made)
    out = [normed(pfn.norm, row[-1]) for row in rows]
    shown: Any
    own: Any
    shown, own = pfn.gates
    common = applied(shown, np.mean(out[:ROWS], 0))
    found = []
    for row, token in zip(asked, out[ROWS:]):  # noqa: B905
        gate = np.log1p(np.exp(common + applied(own, token)))
        said = regression_by_hand(pfn.regression, features, x, y, row, every)
        q = applied(pfn.head, token)
        scores = [q @ applied(tokens.targets, code) / np.sqrt(8) for code in classes]
        found.append(y.mean(0) * np.exp(gate * said + scores))
    return np.array(found)


def test_the_network_follows_its_equations() -> None:
    pfn = network()
    for layer in (*pfn.gates, pfn.head):
        layer.weight.data.normal_()  # pyright: ignore[reportCallIssue]  # zero at first
    support, query = table()
    outputs = pfn.predict(pfn.adapt(support), query)
    expected = by_hand(pfn, support, query)
    expected = expected / expected.sum(1, keepdims=True)
    np.testing.assert_allclose(outputs.softmax(-1).detach(), expected, atol=1e-5)
    assert expected.std() > 1e-3


def test_regression_on_real_targets_follows_its_equations() -> None:
    pfn = network("reals", 2)
    support, query = table("reals")
    x, y = support.x, support.y
    y = (y - y.mean(0)) / y.std(0, correction=0)
    cells = [cell_features(z, x) for z in (x, query)]
    used = torch.ones(COLUMNS, dtype=torch.bool)
    fitted, left_out = pfn.regression.fit(cells[0], used, y)
    found = pfn.regression.predict(fitted, cells[1], cells[0])

    def features(value: float, column: int) -> np.ndarray:
        row = torch.full((1, COLUMNS), value, dtype=torch.float64)
        return cell_features(row, x)[0, column].numpy()

    arrays = x.numpy(), y.numpy()
    every = list(range(ROWS))
    for rows, row, others in (
        (found, query[0].numpy(), every),
        (left_out, arrays[0][0], every[1:]),
    ):
        expected = regression_by_hand(pfn.regression, features, *arrays, row, others)
        np.testing.assert_allclose(rows[0].detach(), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["classes", "reals"])
def test_order_and_units_do_not_matter(kind: str) -> None:
    pfn = network(kind, WAYS if kind == "classes" else 2)
    support, query = table(kind)
    outputs = pfn.predict(pfn.adapt(support), query)
    rows, columns = torch.randperm(ROWS), torch.tensor([2, 0, 1])
    scale = torch.tensor([1e-3, 5.0, 1e4], dtype=torch.float64)
    turn = torch.tensor([1, 2, 0]) if kind == "classes" else torch.tensor([1, 0])
    moved = Examples(
        (scale * support.x + 7)[rows][:, columns], support.y[rows][:, turn]
    )
    found = pfn.predict(pfn.adapt(moved), (scale * query + 7)[:, columns])
    if kind == "reals":
        turn = torch.cat([turn, turn + 2])
    torch.testing.assert_close(found, outputs[:, turn])
    # a column that is constant where labels are known is not used
    wide = Examples(torch.cat([support.x, torch.ones(ROWS, 1)], 1), support.y)
    other = torch.cat([query, torch.randn(2, 1)], 1)
    torch.testing.assert_close(pfn.predict(pfn.adapt(wide), other), outputs)


def test_real_targets_have_any_scale() -> None:
    pfn = network("reals", 2)
    support, query = table("reals")
    moments = Gaussian(learned_scale=True).moments
    mean, deviation = moments(pfn.predict(pfn.adapt(support), query))
    scale = torch.tensor([100.0, 3.0], dtype=torch.float64)
    larger = Examples(support.x, scale * support.y - 5)
    found = moments(pfn.predict(pfn.adapt(larger), query))
    torch.testing.assert_close(found[0], scale * mean - 5)
    torch.testing.assert_close(found[1], scale * deviation)


def test_what_no_task_has_is_left_out_of_a_batch() -> None:
    pfn = network()
    support, query = table()
    answers = torch.eye(WAYS, dtype=torch.float64)[:2]
    task = Task(support, Examples(query, answers))
    expected = pfn.loss(task)[0]
    padded = Task(
        *(
            Examples(
                torch.nn.functional.pad(e.x, (0, 2))[None],
                torch.nn.functional.pad(e.y, (0, 4))[None],
            )
            for e in task
        )
    )
    torch.testing.assert_close(pfn(pfn.trim(padded))[0], expected)


def test_what_it_cannot_be_is_refused() -> None:
    with pytest.raises(InnerloopError, match="multiple of heads"):
        PFN.build(TaskSpec("classes", (2,), 2), width=10, heads=4)
    with pytest.raises(InnerloopError, match="mean and a scale"):
        PFN.build(TaskSpec("reals", (2,), 1), likelihood=Gaussian())
    pfn = network().float()
    with pytest.raises(InnerloopError, match="at most 1024 columns"):
        pfn.adapt(Examples(torch.randn(2, 1025), torch.eye(2)))


def test_codes_are_new_for_every_training_task() -> None:
    pfn = network()
    before = pfn.tokens.draw(4, 3)
    assert torch.equal(pfn.tokens.draw(4, 3)[0], before[0])
    pfn.train()
    drawn = pfn.tokens.draw(4, 3)[0]
    assert drawn.shape == (4, CODE)
    assert not torch.equal(pfn.tokens.draw(4, 3)[0], drawn)
