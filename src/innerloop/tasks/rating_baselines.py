"""What is predicted of a person without meta-learning, and how well."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Task
from innerloop.engine.scores import roc_auc
from innerloop.measurements import Estimate, Measurement, Row, TestPlan, Unit
from innerloop.tasks.rating_tables import RatingTable

if TYPE_CHECKING:
    from innerloop.tasks.ratings import Ratings

RANKS, STRENGTHS = (1, 2, 4, 8), (3.0, 10.0, 30.0)
BIAS_STRENGTHS = (1.0, 3.0, 10.0, 30.0)
SWEEPS = 10  # of alternating least squares
NODES = torch.linspace(-4, 4, 41, dtype=torch.float64)  # of an ability
LEAST = 0.01  # the least probability that a linear method predicts
CHUNK = 100  # persons at once

# items (n, s) and ratings (n, s) that are known, and items (n, q) that are asked, to
# ratings (n, q) or the probability of the second class
Method = Callable[[Tensor, Tensor, Tensor], Tensor]


class Factors:
    """Ratings as mean + item bias + person bias + the product of factors of item and
    person, with a ridge penalty, by alternating least squares.

    A new person's bias and factors are a ridge regression on those of the items. Rank 0
    leaves the biases.

    Reference: Koren, Bell and Volinsky 2009, "Matrix factorization techniques for
    recommender systems", Computer 42(8), eq. (3)-(5).
    """

    def __init__(self, table: RatingTable, rank: int, bias: float, strength: float):
        training = table.of("train")
        _, person = table.person[training].unique(return_inverse=True)
        item, rating = table.item[training], table.rating[training].double()
        self.mean = rating.mean()
        items, persons = len(table.items) + 1, int(person.max()) + 1
        self.penalty = torch.tensor([bias] + rank * [strength]).double().diag()
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(items, rank, generator=generator).double()
        # (items, 1 + rank): bias and factors
        self.item = torch.cat([torch.zeros(items, 1).double(), 0.1 * start], 1)
        of_person = torch.zeros(persons, 1 + rank).double()
        for sweep in range(SWEEPS if rank else 3):
            if sweep:
                of_person = self._solved(
                    person, self.item[item], rating - self.item[item, 0], persons
                )
            residual = rating - of_person[person, 0]
            first = sweep == 0
            self.item = self._solved(item, of_person[person], residual, items)
            if first:  # means alone; then factors at random
                self.item[:, 1:] = 0.1 * start

    def _solved(self, of: Tensor, rows: Tensor, target: Tensor, n: int) -> Tensor:
        """The ridge regressions of n persons, or items, on bias and factors."""
        rows = torch.cat([torch.ones_like(rows[:, :1]), rows[:, 1:]], 1)
        size = rows.shape[1]
        gram = torch.zeros(n, size, size).double()
        gram.index_add_(0, of, rows[:, :, None] * rows[:, None])
        right = torch.zeros(n, size).double()
        right.index_add_(0, of, rows * (target - self.mean)[:, None])
        return torch.linalg.solve(gram + self.penalty, right[..., None])[..., 0]

    def __call__(self, item: Tensor, rating: Tensor, asked: Tensor) -> Tensor:
        bias, rows = self.item[item, 0], self.item[item].clone()
        rows[..., 0] = 1.0  # (n, s, 1 + rank)
        right = rows.mT @ (rating.double() - self.mean - bias)[..., None]
        person = torch.linalg.solve(rows.mT @ rows + self.penalty, right)
        wanted = self.item[asked].clone()
        wanted[..., 0] = 1.0
        return self.mean + self.item[asked, 0] + (wanted @ person)[..., 0]


class ItemResponse:
    """The two-parameter model p(right) = sigmoid(a_i theta + d_i), theta from a
    standard normal distribution; the Rasch model has the same a for all items.

    Items are fitted by marginal maximum likelihood, and predictions are means over the
    posterior of theta, both on a grid. Differs from a prediction from the most probable
    theta, which is worse after few answers.

    Reference: Bock and Aitkin 1981, "Marginal maximum likelihood estimation of item
    parameters", Psychometrika 46(4).
    """

    def __init__(self, table: RatingTable, rasch: bool):
        training = table.of("train")
        _, person = table.person[training].unique(return_inverse=True)
        item, right = table.item[training], table.rating[training].double()
        items, persons = len(table.items) + 1, int(person.max()) + 1
        self.prior = torch.distributions.Normal(0.0, 1.0).log_prob(NODES)
        self.prior = self.prior - self.prior.logsumexp(0)
        slope = torch.zeros(1 if rasch else items).double().requires_grad_()
        easy = torch.zeros(items).double().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [slope, easy], max_iter=100, line_search_fn="strong_wolfe"
        )

        places, size = torch.stack([person, item]), (persons, items)
        answers = [
            (
                sign,
                torch.sparse_coo_tensor(places, values, size, check_invariants=False),
            )
            for sign, values in ((1, right), (-1, 1 - right))
        ]

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = self._logits(slope, easy, items)
            # (persons, nodes)
            of_person = self.prior + sum(
                torch.sparse.mm(which, F.logsigmoid(sign * logits))
                for sign, which in answers
            )
            penalty = 0.5 * (slope.square().sum() + (easy / 3).square().sum())
            total = penalty - of_person.logsumexp(-1).sum()
            total.backward()
            return total

        with torch.enable_grad():
            optimizer.step(loss)
        self.logits = self._logits(slope, easy, items).detach()  # (items, nodes)

    def _logits(self, slope: Tensor, easy: Tensor, items: int) -> Tensor:
        return slope.exp().expand(items)[:, None] * NODES + easy[:, None]

    def __call__(self, item: Tensor, rating: Tensor, asked: Tensor) -> Tensor:
        sign = (2 * rating.double() - 1)[..., None]  # (n, s, 1)
        posterior = F.logsigmoid(sign * self.logits[item]).sum(1) + self.prior
        return (self.logits[asked].sigmoid() @ posterior.softmax(-1)[..., None])[..., 0]


@dataclass(frozen=True)
class Answers:
    """Ratings of persons, of which `shots` are known and all others asked; each by its
    number in the table.

    Args:
        support: the known ones (n, s).
        query: the others (n, q).
        counts: which of these exist (n, q); a person has fewer ratings than another.
    """

    tasks: Ratings
    support: Tensor
    query: Tensor
    counts: Tensor

    @classmethod
    def drawn(
        cls, tasks: Ratings, generator: torch.Generator, most: int | None = None
    ) -> Answers:
        """Those of every person, or of at most so many."""
        persons = torch.randperm(len(tasks.rows), generator=generator)[:most]
        rows = tasks.shuffled(persons, generator)
        first, last = tasks.queries, tasks.queries + tasks.shots
        query = torch.cat([rows[:, :first], rows[:, last:]], 1)
        return cls(tasks, rows[:, first:last], query.clamp_min(0), query >= 0)

    @property
    def truth(self) -> Tensor:
        return self.tasks.table.rating.double()[self.query]

    def predicted(self, method: Method) -> Tensor:
        """What a method predicts (n, q)."""
        table = self.tasks.table
        known = table.item[self.support], table.rating[self.support]
        return method(*known, table.item[self.query])

    def predicted_by(self, learner: Learner) -> Tensor:
        """What a learner predicts (n, q)."""
        reader = self.tasks.table.reader
        device = next(learner.parameters(), torch.empty(0)).device

        def predict(task: Task) -> Tensor:
            outputs = learner.predict(learner.adapt(task.support), task.query.x)
            return learner.likelihood.mean(outputs)

        parts = zip(self.support.split(CHUNK), self.query.split(CHUNK), strict=True)
        found = [
            learner.mapped(predict, self.tasks.task(*part).to(device)).cpu()
            for part in parts
        ]
        mean = torch.cat(found).double()[..., -1]
        return mean if reader.classes else mean * reader.deviation + reader.center

    def mean(self, values: Tensor) -> Tensor:
        """The mean (n,) over the ratings of each person."""
        counts = self.counts.double()
        return (values * counts).sum(1) / counts.sum(1)


def baselines(table: RatingTable, validation: Ratings) -> dict[str, Method]:
    """Methods fitted to the training persons; ranks and penalties are those with the
    smallest squared error for the validation persons.
    """
    means = Factors(table, 0, 3.0, 1.0)

    def overall(item: Tensor, rating: Tensor, asked: Tensor) -> Tensor:
        return means.mean.expand(asked.shape)

    def of_items(item: Tensor, rating: Tensor, asked: Tensor) -> Tensor:
        return means.mean + means.item[asked, 0]

    held_out = Answers.drawn(validation, torch.Generator().manual_seed(0))

    def best(candidates: list[Factors]) -> Method:
        def error(method: Factors) -> float:
            wrong = held_out.predicted(method) - held_out.truth
            return float(held_out.mean(wrong.square()).mean())

        return min(candidates, key=error)

    found: dict[str, Method] = {
        "mean": overall,
        "item means": of_items,
        "item and person means": best(
            [Factors(table, 0, bias, 1.0) for bias in BIAS_STRENGTHS]
        ),
        "matrix factorization": best(
            [Factors(table, r, 10.0, s) for r, s in product(RANKS, STRENGTHS)]
        ),
    }
    if table.reader.classes:
        found = {name: _clamped(method) for name, method in found.items()}
        found["Rasch model"] = ItemResponse(table, rasch=True)
        found["two-parameter model"] = ItemResponse(table, rasch=False)
    return found


def _clamped(method: Method) -> Method:
    def probability(item: Tensor, rating: Tensor, asked: Tensor) -> Tensor:
        return method(item, rating, asked).clamp(LEAST, 1 - LEAST)

    return probability


@torch.no_grad()
def compared(learner: Learner, tasks: Ratings, plan: TestPlan) -> tuple[Row, ...]:
    """A row for the learner and for each of the baselines, on the same known ratings of
    every person (of `plan.n` persons, where there are more), of whom all others are
    predicted: means over persons. The last column is by how much the loss is above that
    of the learner.
    """
    learner.eval()
    answers = Answers.drawn(tasks, plan.generator(), plan.n)
    own = type(learner).__name__
    predicted = {own: answers.predicted_by(learner)}
    validation = type(tasks)(tasks.table, "val", tasks.shots, tasks.queries)
    for name, method in baselines(tasks.table, validation).items():
        predicted[name] = answers.predicted(method)
    classes = bool(tasks.table.reader.classes)
    measure = _of_classes if classes else _of_reals
    reference, found = measure(predicted[own], answers)[0], []
    for name, values in predicted.items():
        loss, measurements = measure(values, answers)
        if name != own:
            what = f"{'log loss' if classes else 'squared error'} above {own}"
            above = Estimate.of(loss - reference)
            measurements.append(Measurement.of(what, above, len(loss)))
        found.append(Row({**plan.labels, "method": name}, tuple(measurements)))
    return tuple(found)


def _of_reals(values: Tensor, answers: Answers) -> tuple[Tensor, list[Measurement]]:
    """The squared error (n,) of every person, and what is reported."""
    gap = values - answers.truth
    loss, absolute = answers.mean(gap.square()), answers.mean(gap.abs())
    mse, n = Estimate.of(loss), len(loss)
    root = math.sqrt(mse.mean)
    # to first order
    half = None if mse.interval is None else mse.interval / (2 * max(root, 1e-12))
    return loss, [
        Measurement.of("rmse", Estimate(root, half), n),
        Measurement.of("mae", Estimate.of(absolute), n),
    ]


def _of_classes(values: Tensor, answers: Answers) -> tuple[Tensor, list[Measurement]]:
    """The log loss (n,) of every person, and what is reported; the area under the ROC
    curve is that of all answers together.
    """
    p, truth = values.clamp(1e-6, 1 - 1e-6), answers.truth
    loss = -answers.mean(truth * p.log() + (1 - truth) * (1 - p).log())
    correct = answers.mean(((values > 0.5) == (truth > 0.5)).double())
    area = float(roc_auc(values[answers.counts], truth[answers.counts]))
    unit: Unit = "%"
    return loss, [
        Measurement.of("log loss", Estimate.of(loss), len(loss)),
        Measurement.of("accuracy", Estimate.of(correct), len(loss), unit),
        Measurement("roc_auc", area, None, len(loss)),
    ]
