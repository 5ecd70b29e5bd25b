"""What a support set says about predictions for new examples: thresholds for rejecting
examples of no class, and sets of labels that hold the true one with a given rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Fraction, checked

FOLDS = 20


@dataclass(frozen=True)
class HeldOut:
    """Predictions for support examples by learners that adapted without them, in order
    of their class.

    Args:
        y: the labels (n, ways).
        outputs: of the example's fold (n, ways).
        novelty: (n,), see `Learner.novelty`.
        known: whether other examples of the same class remained (n,).
        fold: the fold of every example (n,).
        order: its place in the support set (n,).
        states: the state of every fold.
    """

    y: Tensor
    outputs: Tensor
    novelty: Tensor
    known: Tensor
    fold: Tensor
    order: Tensor
    states: list[Any]


@torch.no_grad()
def held_out(learner: Learner, support: Examples, folds: int = FOLDS) -> HeldOut:
    """Cross-validation on a support set: leave-one-out for at most `folds` examples.
    The examples of a class are in different folds.
    """
    n = len(support.y)
    folds = min(folds, n)
    order = support.y.argmax(-1).argsort(stable=True)
    x, y = support.x[order], support.y[order]
    fold = torch.arange(n, device=y.device) % folds
    outputs, novelty, known, states = [], [], [], []
    for k in range(folds):
        kept = [i for i in range(n) if i % folds != k]
        state = learner.adapt(Examples(x[kept], y[kept]))
        outputs.append(learner.predict(state, x[k::folds]))
        novelty.append(learner.novelty(state, x[k::folds]))
        known.append((y[k::folds] @ y[kept].sum(0)) > 0.5)
        states.append(state)
    back = [i // folds + sum(len(p) for p in outputs[: i % folds]) for i in range(n)]
    return HeldOut(
        y=y,
        outputs=torch.cat(outputs)[back],
        novelty=torch.cat(novelty)[back],
        known=torch.cat(known)[back],
        fold=fold,
        order=order,
        states=states,
    )


def rejection_threshold(
    learner: Learner, support: Examples, *, rate: Fraction = 0.05
) -> Tensor:
    """The novelty above which an example is rejected as none of the classes, so that
    about `rate` of the examples of the classes are rejected wrongly; a scalar.

    It is a quantile of the novelty of n held-out support examples (the largest where
    `rate` is below 1 / (n + 1)), and infinite where no class has two examples. Examples
    that the learner has more examples for are less novel, so the rate in use is lower.
    """
    checked(rejection_threshold, {"rate": rate}, "rejection_threshold")
    return threshold(held_out(learner, support), rate)


def threshold(found: HeldOut, rate: float) -> Tensor:
    """The threshold of `rejection_threshold`, from held-out predictions."""
    ordered = found.novelty.masked_fill(~found.known, torch.inf).sort().values
    n = found.known.sum()
    rank = ((1 - rate) * (n + 1)).ceil().clamp(max=n).clamp_min(1)
    return ordered.gather(0, (rank - 1).long()[None])[0]


def prediction_sets(
    learner: Learner, support: Examples, x: Tensor, *, error: Fraction = 0.1
) -> Tensor:
    """Which labels (m, ways) cannot be excluded for x (m, *x_shape); the most likely
    one never is.

    Romano, Sesia and Candès 2020, "Classification with valid and adaptive coverage",
    arXiv:2006.02544, section 2.3: cross-validation+, with one minus the probability of
    a label as its score. A label is excluded where its score is larger than that of
    (1 - error) (n + 1) or more of n held-out support examples.

    If queries are distributed as the support examples, the set holds the true label
    with a probability of at least 1 - 2 error - sqrt(2 / n) for more than 20 examples,
    and of 1 - 2 error for fewer; usually it is about 1 - error. With fewer than
    1 / error - 1 examples in classes of at least two, nothing is excluded.
    """
    checked(prediction_sets, {"error": error}, "prediction_sets")
    if learner.transductive:
        raise InnerloopError(
            "prediction sets need predictions that do not depend on other queries: "
            f"build {type(learner).__name__} with transductive=False"
        )
    found = held_out(learner, support)
    mean = learner.likelihood.mean
    own = (mean(found.outputs) * found.y).sum(-1)  # (n,)
    larger = torch.zeros(len(x), support.y.shape[1], device=x.device)
    for k, state in enumerate(found.states):
        p = mean(learner.predict(state, x))  # (m, ways)
        mine = (found.fold == k) & found.known
        larger = larger + ((own[:, None, None] > p) & mine[:, None, None]).sum(0)
    kept = larger < (1 - error) * (found.known.sum() + 1)
    best = learner.predict(learner.adapt(support), x)
    return kept | (best == best.amax(-1, keepdim=True))
