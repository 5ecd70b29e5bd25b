"""The prior-data fitted network beside its equations, cell by cell."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from innerloop import Examples, Gaussian, TaskSpec
from innerloop.core.task import Task
from innerloop.engine.errors import InnerloopError
from innerloop.learners.memory.pfn import PFN
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


def by_hand(pfn: PFN, support: Examples, query: Tensor) -> np.ndarray:
    """The probabilities of the classes of every query."""
    x, y, asked = support.x.numpy(), support.y.numpy(), query.numpy()
    mean, deviation = x.mean(0), x.std(0)
    columns, classes = (c.detach().numpy() for c in pfn.adapt(support)["codes"])
    tokens, regression = pfn.tokens, pfn.regression
    sources = tokens.sources.detach().numpy()
    scales = regression.scales.detach().numpy()
    width, *strengths = [
        np.exp(float(v.detach()))
        for v in (regression.log_width, *regression.log_strengths)
    ]

    def features(value: float, j: int) -> np.ndarray:
        z = (value - mean[j]) / deviation[j]
        below = np.mean(x[:, j] < value) + np.mean(x[:, j] == value) / 2 - 0.5
        return np.array([np.sign(z) * np.log1p(abs(z)), below])

    def cell(value: float, j: int) -> np.ndarray:
        own = applied(tokens.cells, features(value, j))
        return own + applied(tokens.column_codes, columns[j])

    def kernel(kind: int, a: np.ndarray, b: np.ndarray) -> float:
        f, g = (
            np.concatenate([scales * features(row[j], j) for j in range(COLUMNS)])
            for row in (a, b)
        )
        if kind == 0:
            return float(f @ g)
        return float(np.exp(-width * ((f - g) ** 2).sum() / (2 * COLUMNS)))

    def regressed(kind: int, row: np.ndarray, among: list[int]) -> np.ndarray:
        """The solution of the equations of these rows alone."""
        gram = np.array([[kernel(kind, x[i], x[k]) for k in among] for i in among])
        left = gram + strengths[kind] * np.eye(len(among))
        found = np.linalg.solve(left, (y - y.mean(0))[among])
        return np.array([kernel(kind, row, x[k]) for k in among]) @ found

    def tokens_of(row: np.ndarray, among: list[int], last: np.ndarray) -> list:
        said = [
            applied(tokens.targets, regressed(kind, row, among) @ classes) + source
            for kind, source in enumerate(sources)
        ]
        return [*(cell(row[j], j) for j in range(COLUMNS)), *said, last]

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
        gates = np.log1p(np.exp(common + applied(own, token)))
        said = [regressed(kind, row, every) for kind in (0, 1)]
        q = applied(pfn.head, token)
        scores = [q @ applied(tokens.targets, code) / np.sqrt(8) for code in classes]
        found.append(y.mean(0) * np.exp(gates @ said + scores))
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
