"""Which item to ask a person about next, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Gaussian
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.chunks import measured
from innerloop.measurements import Estimate, Measurement, Report, Row, Table, TestPlan

Order = Literal["information", "uncertainty", "random"]


def information(learner: Learner, known: Examples, pool: Tensor) -> Tensor:
    """By how much the answer for each input of a pool (p, m, *x_shape) is expected to
    lower the entropy of the predictions for the others, (p, m) in nats for each of
    them, where p persons have answered `known` already.

    Expected over the answers that the learner predicts: the classes, or its mean plus
    and minus its standard deviation. This is the choice of Roy and McCallum 2001,
    "Toward optimal active learning through sampling estimation of error reduction",
    ICML, with the log loss.
    """
    predict = partial(_predictions, learner)
    outputs = learner.mapped(predict, known, pool)  # (p, m, out)
    before = entropy(learner, outputs)  # (p, m)
    answers, chances = _answers(learner, outputs)  # (a, p, m, y_dim), (a, p, m)
    gains = []
    for i in range(pool.shape[1]):
        rest = [j for j in range(pool.shape[1]) if j != i] or [i]
        others = pool[:, rest]
        after = torch.zeros_like(before[:, 0])
        for answer, chance in zip(answers[:, :, i], chances[:, :, i], strict=True):
            more = Examples(
                torch.cat([known.x, pool[:, i : i + 1]], 1),
                torch.cat([known.y, answer[:, None]], 1),
            )
            hypothetical = learner.mapped(predict, more, others)
            after = after + chance * entropy(learner, hypothetical).mean(1)
        gains.append(before[:, rest].mean(1) - after)
    return torch.stack(gains, 1)


def uncertainty(learner: Learner, known: Examples, pool: Tensor) -> Tensor:
    """The entropy (p, m) of the prediction for each input of a pool."""
    return entropy(learner, learner.mapped(partial(_predictions, learner), known, pool))


def entropy(learner: Learner, outputs: Tensor) -> Tensor:
    """The entropy (...) of predictions (..., out_dim) in nats, without a constant."""
    std = learner.likelihood.std(outputs)
    if std is not None:
        return std.log().sum(-1)
    p = learner.likelihood.mean(outputs)
    return -(p * p.clamp_min(1e-12).log()).sum(-1)


ORDERS: dict[Order, Callable[[Learner, Examples, Tensor], Tensor]] = {
    "information": information,
    "uncertainty": uncertainty,
    "random": lambda learner, known, pool: torch.zeros(pool.shape[:2]).to(pool),
}


def problem(learner: Learner) -> str | None:
    """Why the uncertainty of a learner is not known, or None."""
    if learner.likelihood in (Categorical(), Gaussian(learned_scale=True)):
        return None
    return (
        f"{type(learner).__name__} predicts no standard deviation: train one that "
        "does, such as alpaca, cnp or dkt"
    )


@torch.no_grad()
def next_questions(
    learner: Learner,
    known: Examples,
    pool: Tensor,
    count: int = 1,
    order: Order = "information",
) -> list[int]:
    """The places of the inputs of a pool (m, *x_shape) that are worth most to ask one
    person about, the best first, who has answered `known`, at least one.

    Raises InnerloopError for a learner whose uncertainty is not known.
    """
    if (reason := problem(learner)) is not None:
        raise InnerloopError(reason)
    one = Examples(known.x[None], known.y[None])
    values = ORDERS[order](learner, one, pool[None])[0]
    return values.argsort(descending=True, stable=True)[:count].tolist()


class Questions(Evaluation):
    """The loss by number of answers, for several orders of the questions: random, the
    least certain prediction first, and the largest expected information first.

    The first answer of a person is a random one, the same for all orders. Questions
    come from the support set of the task.

    Args:
        answers: the largest number of answers; by default half of the support set.
    """

    answers: Count | None = None

    @classmethod
    def supports(cls, learner: Learner, tasks: TaskDistribution) -> str | None:
        if (reason := problem(learner)) is not None:
            return reason
        one = tasks.sample(1, torch.Generator().manual_seed(0))
        if one.support.y.shape[1] < 4:
            return "it needs support sets of at least 4 examples to choose from"
        return None

    def measure(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:
        @torch.no_grad()
        def on_batch(batch: Task) -> dict[str, Tensor]:
            return {
                name: self._losses(learner, batch, name).cpu()
                for name in get_args(Order)
            }

        parts = measured(learner, tasks, on_batch, n=plan.n, generator=plan.generator())
        # (n, answers)
        losses = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
        below = {
            f"random minus {name}": losses["random"] - values
            for name, values in losses.items()
            if name != "random"
        }
        titles = {
            "loss by number of answers and order of the questions": losses,
            "loss of random questions minus that of chosen ones": below,
        }
        tables = [
            Table(title, _rows(columns, plan)) for title, columns in titles.items()
        ]
        return Report(tuple(tables), (), {"tasks": plan.n, "seed": plan.seed})

    def _losses(self, learner: Learner, batch: Task, order: Order) -> Tensor:
        """The query loss (p, answers) after 1, 2, ... answers."""
        pool, losses = batch.support, []
        p, m = pool.y.shape[:2]
        each = torch.arange(p, device=pool.x.device)[:, None]
        asked = torch.zeros(p, m, dtype=torch.bool, device=pool.x.device)
        asked[:, 0] = True
        for count in range(1, (self.answers or m // 2) + 1):
            place = asked.int().argsort(dim=1, descending=True, stable=True)
            known, left = place[:, :count], place[:, count:]
            answered = Examples(pool.x[each, known], pool.y[each, known])
            losses.append(learner.mapped(_loss(learner), answered, batch.query))
            if count < m:
                values = ORDERS[order](learner, answered, pool.x[each, left])
                asked[each[:, 0], left.gather(1, values.argmax(1)[:, None])[:, 0]] = (
                    True
                )
        return torch.stack(losses, 1)


def _rows(columns: dict[str, Tensor], plan: TestPlan) -> tuple[Row, ...]:
    """A row for each number of answers, of losses (n, answers) by name."""
    count = next(iter(columns.values())).shape[1]
    return tuple(
        Row(
            {**plan.labels, "answers": i + 1},
            tuple(
                Measurement.of(name, Estimate.of(values[:, i]), plan.n)
                for name, values in columns.items()
            ),
        )
        for i in range(count)
    )


def _predictions(learner: Learner, known: Examples, x: Tensor) -> Tensor:
    return learner.predict(learner.adapt(known), x)


def _loss(learner: Learner) -> Callable[[Examples, Examples], Tensor]:
    def loss(known: Examples, query: Examples) -> Tensor:
        return learner.likelihood.nll(_predictions(learner, known, query.x), query.y)

    return loss


def _answers(learner: Learner, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Possible answers (a, ..., y_dim) and their probabilities (a, ...)."""
    mean, std = learner.likelihood.mean(outputs), learner.likelihood.std(outputs)
    if std is not None:
        answers = torch.stack([mean - std, mean + std])
        return answers, torch.full_like(answers[..., 0], 0.5)
    classes = torch.eye(mean.shape[-1]).to(mean)
    answers = torch.stack([row.expand_as(mean) for row in classes])
    return answers, mean.movedim(-1, 0)
