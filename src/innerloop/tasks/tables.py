"""Small random tables, drawn from structural causal models and random networks."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Range
from innerloop.tasks.splits import task_source

CAUSES, WIDTH, DEPTH = 10, 16, 3  # variables without parents, of a layer; layers
TREES, SPLITS = 4, 3  # of a target that is a sum of decision trees
RELATED = 0.8  # share of the tables whose columns were chosen for the target
POOL = 2  # rows that are drawn for each row of a task


class Tables(TaskDistribution):
    """Tables with a column to predict. Every table has its own mechanism: independent
    causes, and layers of variables that are random functions of those before, with
    noise. Columns and target are some of these variables, in a random order, in most
    tables the columns that are most correlated with the target, so that
    columns cause the target, are caused by it, or have causes in common.

    A column is a number, perhaps rounded or with a long tail; one of the columns of 0
    and 1 that stand for a column of words; or a number with gaps, which are 0, beside a
    column that says where they are. Columns of numbers have mean 0 and variance 1.
    Support x (n, s, columns), y (n, s, ways or 1); columns and classes that a task does
    not have are 0.

    Args:
        ways: classes.
        shots: support rows of a class, or of a regression task.
        queries: query rows of a class, or of a regression task.
        columns: largest number of columns.
        regression: whether the target is a number.
        exact: whether every task has `ways` classes with `shots` rows each; otherwise
            each batch has a random number of classes and rows, up to the same total.
    """

    prefetch = True

    def __init__(
        self,
        ways: int,
        shots: int,
        queries: int,
        columns: int,
        regression: bool,
        exact: bool,
    ):
        self.ways = 1 if regression else ways
        self.shots, self.queries, self.columns = shots, queries, columns
        self.regression, self.exact = regression, exact
        self.spec = TaskSpec(
            "reals" if regression else "classes", (columns,), self.ways
        )

    def describe(self) -> str:
        upto = "" if self.exact else "up to "
        classes = "" if self.regression else f" of {upto}{self.ways} classes"
        rows = f"{upto}{self.shots * self.ways} rows"
        return f"random tables{classes}, {rows}, up to {self.columns} columns"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        draw = Draw(n, generator)
        ways, rows, queries, columns, even = self._sizes(draw)
        found: list[tuple[Tensor, Tensor]] = []
        while sum(len(x) for x, _ in found) < n:
            pool = POOL * (rows + queries)
            x, target, scores = _variables(draw, pool, columns, ways)
            if self.regression:
                found.append(_take(x, target[..., None], torch.arange(rows + queries)))
                continue
            labels = _classes(draw, target, scores, ways)
            found.append(_selected(draw, x, labels, ways, rows, queries, even))
        x, y = (torch.cat(parts)[:n] for parts in zip(*found, strict=True))
        x = F.pad(_standardized(x, rows), (0, self.columns - x.shape[-1]))
        y = F.pad(y, (0, self.spec.y_dim - y.shape[-1]))
        return Task(
            Examples(x[:, :rows], y[:, :rows]), Examples(x[:, rows:], y[:, rows:])
        )

    def test_settings(self, fixed_ways: int | None) -> list[dict[str, Any]]:
        if self.regression:
            return [{"shots": shots} for shots in (10, 20, 50)]
        ways = [fixed_ways] if fixed_ways else [2, 5]
        return [{"ways": w, "shots": s} for w in ways for s in (2, 5, 10, 20)]

    def plot_task(self, learner: Learner, task: Task, figure: Any) -> None:
        """The table's rows as points in the plane of its two columns, rows to predict
        smaller, and behind them what the learner predicts: the colors of the classes,
        mixed by their probabilities, or the mean.

        Raises InnerloopError for tables with more columns.
        """
        if self.columns != 2:
            raise InnerloopError("tables have a picture with two columns: columns=2")
        at = torch.linspace(-3, 3, 61)
        grid = torch.cartesian_prod(at, at).flip(-1).to(task.support.x)
        with torch.no_grad():
            outputs = learner.predict(learner.adapt(task.support), grid)
        mean = learner.likelihood.mean(outputs).cpu().numpy()
        axes = figure.subplots()
        if self.regression:
            axes.imshow(mean.reshape(61, 61), extent=(-3, 3, -3, 3), origin="lower")
            colors = [examples.y[:, 0].numpy(force=True) for examples in task]
            how = {"vmin": float(mean.min()), "vmax": float(mean.max())}
        else:
            generator = torch.Generator().manual_seed(1)
            shades = torch.rand(self.ways, 3, generator=generator).numpy()
            mixed = (mean @ shades).reshape(61, 61, 3)
            axes.imshow(mixed, extent=(-3, 3, -3, 3), origin="lower", alpha=0.6)
            colors, how = [e.y.numpy(force=True) @ shades for e in task], {}
        for examples, color, size in zip(task, colors, (24, 6), strict=True):
            x, y = examples.x.clamp(-3, 3).numpy(force=True).T
            axes.scatter(x, y, size, color, edgecolors="black", linewidths=0.3, **how)
        axes.set_xticks([])
        axes.set_yticks([])

    def _sizes(self, draw: Draw) -> tuple[int, int, int, int, bool]:
        """Classes, support rows, query rows, columns, and whether classes have equal
        numbers of rows, of the tasks of a batch.
        """
        rows, queries = self.ways * self.shots, self.ways * self.queries
        if self.exact:
            return self.ways, rows, queries, self.columns, True
        ways = min(self.ways, 2 + int((self.ways - 1) * draw.uniform() ** 2))
        least = min(rows, 3 if self.regression else 2 * ways)
        rows = round(least * (rows / least) ** draw.uniform())
        columns = round(self.columns ** draw.uniform(0.3))
        even = draw.uniform() < 0.5
        if even:
            rows -= rows % ways
            queries -= queries % ways
        return ways, rows, queries, columns, even


class Draw:
    """Random numbers for `n` tasks, from one generator."""

    def __init__(self, n: int, generator: torch.Generator):
        self.n, self.generator = n, generator

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """One number for the whole batch."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(self.n, *shape, generator=self.generator)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(self.n, *shape, generator=self.generator)

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low * (high / low) ** self.rand(*shape)

    def happens(self, probability: float | Tensor, *shape: int) -> Tensor:
        return self.rand(*shape) < probability

    def integers(self, most: int | Tensor, *shape: int) -> Tensor:
        """From 0 to `most` - 1."""
        return (self.rand(*shape) * most).long()


def _variables(
    draw: Draw, rows: int, columns: int, ways: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Columns (n, rows, columns), the target as a number (n, rows), and scores (n,
    rows, ways) of which the largest is the class in some of the tasks.
    """
    layer, cluster = _causes(draw, rows)
    layers = [layer]
    linear = draw.happens(0.3, 1, 1)
    noise = draw.log_uniform(0.01, 0.3, 1, 1) * draw.happens(0.7, 1, 1)
    # few variables of a layer matter to the next, and are columns before others are
    sizes = torch.tensor([CAUSES, *[WIDTH] * DEPTH])
    matter = [
        torch.arange(size) < draw.log_uniform(1.0, size, 1).ceil()
        for size in sizes.tolist()
    ]
    for parents in matter[:-1]:
        layers.append(_layer(draw, layers[-1], parents, linear, noise))
    every = torch.cat(layers, -1)  # (n, rows, variables)
    depth = torch.arange(1 + DEPTH).repeat_interleave(sizes)
    # the outcomes: variables of one depth, trees, or clusters
    key = draw.rand(len(depth)) + (depth == 1 + draw.integers(DEPTH, 1))
    outcomes = key.topk(1 + ways, 1).indices
    found = _pick(every, outcomes)
    # the columns: others, of any depth, or causes first, or what is related to outcomes
    first = draw.happens(0.5, 1) * depth + len(sizes) * ~torch.cat(matter, 1)
    related = (every.mT @ _centered(found)).abs().amax(-1) / rows  # (n, variables)
    first = first - len(sizes) * draw.happens(RELATED, 1) * related
    order = (draw.rand(len(depth)) + first).scatter(1, outcomes, torch.inf).argsort(-1)
    sources = _pick(every, order[:, :columns])
    found = torch.where(
        draw.happens(0.25, 1, 1), _centered(_trees(draw, sources, 1 + ways)), found
    )
    found = found + draw.log_uniform(0.05, 3.0, 1, 1) * draw.randn(rows, 1 + ways)
    clusters = 3 * F.one_hot(cluster % ways, ways)
    scores = torch.where(draw.happens(0.3, 1, 1), clusters, found[..., 1:])
    return _columns(draw, sources, columns), found[..., 0], scores


def _causes(draw: Draw, rows: int) -> tuple[Tensor, Tensor]:
    """Independent causes (n, rows, causes), few of which matter, or clusters that all
    of them share; and the cluster (n, rows) of every row.
    """
    normal, uniform = draw.randn(rows, CAUSES), 3.5 * (draw.rand(rows, CAUSES) - 0.5)
    cluster = (draw.rand(rows) * (2 + draw.integers(9, 1))).long()  # (n, rows)
    centers = draw.log_uniform(0.5, 4.0, 1, 1) * draw.randn(10, CAUSES)
    clustered = normal + centers.gather(1, cluster[..., None].expand(-1, -1, CAUSES))
    mixed = torch.where(draw.happens(0.3, 1, CAUSES), uniform, normal)
    return torch.where(draw.happens(0.4, 1, 1), _centered(clustered), mixed), cluster


def _layer(
    draw: Draw, before: Tensor, parents: Tensor, linear: Tensor, noise: Tensor
) -> Tensor:
    """Variables (n, rows, width) that are functions of some of those before (n, rows,
    d), of which `parents` (n, d) matter.
    """
    d = before.shape[-1]
    weights = draw.randn(d, WIDTH) * draw.log_uniform(0.05, 1.0, d, 1)
    weights = weights * draw.happens(draw.log_uniform(0.3, 1.0, 1, 1), d, WIDTH)
    one = draw.integers(parents.sum(-1)[:, None], WIDTH)[:, None]  # at least one
    one = one == torch.arange(d)[:, None]
    weights = torch.where(one, draw.randn(d, WIDTH).sign(), weights)
    z = _centered(before @ (weights * parents[..., None]))
    bent = z * draw.log_uniform(0.5, 2.0, 1, WIDTH) + 0.5 * draw.randn(1, WIDTH)
    bends = (  # those that keep an order stand here twice
        bent,
        bent,
        bent.tanh(),
        bent.tanh(),
        bent.relu(),
        bent.relu(),
        bent.abs(),
        bent.square(),
        bent.sin(),
        bent.sign(),
        (-bent.square()).exp(),
    )
    same = draw.happens(0.5, 1, 1)  # for all variables of a task
    kind = torch.where(
        same, draw.integers(len(bends), 1, 1), draw.integers(len(bends), 1, WIDTH)
    )
    kind = torch.where(linear, 0, kind)
    made = torch.stack([(kind == i) * bend for i, bend in enumerate(bends)]).sum(0)
    return _centered(_centered(made) + noise * draw.randn(*z.shape[1:]))


def _trees(draw: Draw, x: Tensor, outcomes: int) -> Tensor:
    """Sums (n, rows, outcomes) of decision trees on columns x (n, rows, d), in each of
    which all nodes of one depth ask the same question.
    """
    asked = _pick(x, draw.integers(x.shape[-1], TREES * SPLITS))
    answers = asked > 0.7 * draw.randn(1, TREES * SPLITS)
    answers &= draw.happens(0.7, 1, TREES * SPLITS)  # some ask nothing
    powers = 2 ** torch.arange(SPLITS)
    leaf = (answers.unflatten(-1, (TREES, SPLITS)) * powers).sum(-1)  # (n, rows, trees)
    values = draw.randn(TREES, 2**SPLITS, outcomes)
    values = values * 0.5 ** torch.arange(TREES)[:, None, None]
    chosen = F.one_hot(leaf, 2**SPLITS).float()  # (n, rows, trees, leaves)
    return chosen.flatten(-2) @ values.flatten(1, 2)


def _columns(draw: Draw, sources: Tensor, columns: int) -> Tensor:
    """The columns (n, rows, columns) of a table from variables (n, rows, d)."""
    rows, d = sources.shape[1:]
    at = torch.arange(columns)
    share = draw.rand(1) * 0.6 * draw.happens(0.3, 1)  # columns that belong together
    starts = ~draw.happens(share, columns) | (at == 0)  # (n, columns)
    block = starts.long().cumsum(-1) - 1
    first = torch.where(starts, at, 0).cummax(-1).values
    place = at - first  # in its block
    length = torch.zeros_like(block).scatter_add_(1, block, torch.ones_like(block))
    length = length.gather(1, block)[:, None]  # (n, 1, columns)
    z = _pick(sources, block % d)  # (n, rows, columns)
    useless = draw.happens(0.1, 1, columns).gather(-1, first[:, None])
    other = draw.randn(rows, columns).gather(-1, first[:, None].expand_as(z))
    z = torch.where(useless, other, z)
    u = (1 + torch.erf(z / math.sqrt(2))) / 2 * 0.999  # about its quantiles
    # numbers: as they are, quantiles, rounded, in two parts, or with a long tail
    levels = 2 + draw.integers(8, 1, columns)
    skew = draw.log_uniform(0.4, 2.5, 1, columns)
    kind = draw.rand(1, columns)
    number = torch.where(kind < 0.3, z, u)
    number = torch.where(
        (kind > 0.5) & (kind < 0.7), (u**skew * levels).floor(), number
    )
    number = torch.where((kind > 0.7) & (kind < 0.75), (u**skew > 0.5).float(), number)
    number = torch.where(kind > 0.75, (z.clamp(-4, 4) * skew).exp(), number)
    # words: a column for each of them
    fold = length * (1 + draw.integers(3, 1, columns) * draw.happens(0.3, 1, columns))
    skew, fold = (v.gather(-1, first[:, None]) for v in (skew, fold))
    word = (u**skew * fold).floor() % length
    cells = torch.where(length == 1, number, (word == place[:, None]).float())
    # gaps: a number, and whether it is missing
    gaps = draw.happens(0.3, 1, columns).gather(-1, first[:, None]) & (length == 2)
    rate = draw.log_uniform(0.02, 0.5, 1, columns).gather(-1, first[:, None])
    chance = draw.rand(rows, columns).gather(-1, first[:, None].expand_as(z))
    hidden = draw.happens(0.3, 1, columns).gather(-1, first[:, None])
    missing = torch.where(hidden, u, chance) < rate
    gapped = torch.where((place == 0)[:, None], z * ~missing, missing.float())
    cells = torch.where(gaps, gapped, cells)
    return cells * (at < columns * draw.rand(1) ** 0.25)[:, None]


def _classes(draw: Draw, target: Tensor, scores: Tensor, ways: int) -> Tensor:
    """Labels (n, rows): intervals of the target in a random order, or the largest of
    the scores; every class has a share of the rows.
    """
    shares = (0.5 * draw.randn(ways)).softmax(-1) * 0.7 + 0.3 / ways  # (n, ways)
    rows = target.shape[1]
    u = target.argsort(1).argsort(1) / rows
    interval = (u[..., None] >= shares.cumsum(-1)[:, None, :-1]).sum(-1)
    interval = draw.rand(ways).argsort(-1).gather(1, interval)
    scores = scores / 0.3
    bias = shares.log()[:, None]
    for _ in range(8):  # until the classes have about these shares
        bias = bias + (shares / (scores + bias).softmax(-1).mean(1))[:, None].log()
    largest = (scores + bias).argmax(-1)
    labels = torch.where(draw.happens(0.5, 1), interval, largest)
    wrong = draw.happens(draw.log_uniform(0.001, 0.3, 1), rows)
    return torch.where(wrong, draw.integers(ways, rows), labels)


def _selected(
    draw: Draw,
    x: Tensor,
    labels: Tensor,
    ways: int,
    rows: int,
    queries: int,
    even: bool,
) -> tuple[Tensor, Tensor]:
    """The tables that have enough rows of every class, with `rows` support rows and
    then `queries` others: as many of every class, if they are to be even.
    """
    y = F.one_hot(labels, ways).float()  # (n, pool, ways), in a random order
    if not even:
        enough = (y[:, :rows].sum(1) > 0).all(-1)
        return _take(x[enough], y[enough], torch.arange(rows + queries))
    rank = (y * y.cumsum(1)).sum(-1).long() - 1  # the place among those of its class
    s, q = rows // ways, queries // ways
    enough = (y.sum(1) >= s + q).all(-1)
    x, y, rank, labels = x[enough], y[enough], rank[enough], labels[enough]
    # support before queries, and rows of all classes in turn
    key = (rank * ways + labels).masked_fill(rank >= s + q, (s + q) * ways)
    return _take(x, y, key.argsort(1)[:, : rows + queries])


def _take(x: Tensor, y: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of x and y (n, pool, ...) at places (rows,) or (n, rows)."""
    places = places.expand(len(x), -1)[..., None]
    return (
        x.gather(1, places.expand(-1, -1, x.shape[-1])),
        y.gather(1, places.expand(-1, -1, y.shape[-1])),
    )


def _pick(x: Tensor, columns: Tensor) -> Tensor:
    """Columns (n, k) of x (n, rows, d), (n, rows, k)."""
    return x.gather(-1, columns[:, None].expand(-1, x.shape[1], -1))


def _centered(x: Tensor) -> Tensor:
    """With mean 0 and variance 1 over the rows (n, rows, d); constants are 0."""
    var, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(var + 1e-6)


def _standardized(x: Tensor, rows: int) -> Tensor:
    """Columns (n, all, columns) of numbers with mean 0 and variance 1 over the first
    `rows`, the support set; columns of 0 and 1 as they are.
    """
    binary = ((x == 0) | (x == 1)).all(1, keepdim=True)
    var, mean = torch.var_mean(x[:, :rows], 1, correction=0, keepdim=True)
    scaled = (x - mean) / var.sqrt().where(var > 1e-6, torch.ones(()))
    return torch.where(binary, x, scaled)


@task_source
def tables(
    split: str = "train",
    *,
    ways: Annotated[int, Range(2)] = 10,
    shots: Count = 10,
    queries: Count = 3,
    columns: Count = 20,
    regression: bool = False,
) -> Tables:
    """Tables: random small tables with a column to predict.

    Reference: Hollmann, Müller, Eggensperger and Hutter 2023, "TabPFN: a transformer
    that solves small tabular classification problems in a second", arXiv:2207.01848,
    section 4: tables from structural causal models and random networks.

    Training tasks have 2 to `ways` classes and up to `ways` times `shots` support rows;
    validation and test tasks exactly `ways` classes with `shots` rows each. Every split
    draws from the same distribution; no table is drawn twice.

    Args:
        ways: classes of a task.
        shots: support rows of each class, or of a regression task.
        queries: query rows of each class, or of a regression task.
        columns: largest number of columns.
        regression: predict a number instead of a class.
    """
    return Tables(ways, shots, queries, columns, regression, split != "train")
