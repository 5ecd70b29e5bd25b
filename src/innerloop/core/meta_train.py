"""The outer loop."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch

from innerloop.core.learner import Learner, Recipe
from innerloop.core.likelihood import Metrics
from innerloop.core.metagrad import MetaGradient, backprop
from innerloop.core.task import TaskDistribution
from innerloop.engine.ahead import Ahead

Precision = Literal["float32", "bf16"]
# (step, progress in 0..1) -> factor of the learning rate
Schedule = Callable[[int, float], float]

CALIBRATION_SEED = 2021


class Step(NamedTuple):
    """One meta-step: its number from 0, the loss and metrics on its training tasks, and
    how far training is, 0 to 1.
    """

    number: int
    metrics: Metrics
    progress: float


def warmup_cosine(warmup: int = 100, decay: bool = True) -> Schedule:
    """Linear warm-up over `warmup` steps, then half a cosine down to zero at the end
    (Loshchilov and Hutter 2017, arXiv:1608.03983).
    """

    def factor(step: int, progress: float) -> float:
        return min(1.0, (step + 1) / max(warmup, 1)) * (
            0.5 * (1 + math.cos(math.pi * progress)) if decay else 1.0
        )

    return factor


def build_optimizer(learner: Learner, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the learner's trainable parameters."""
    trainable = [p for p in learner.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(
            f"{type(learner).__name__} has nothing to meta-train: test it as it is"
        )
    kind = getattr(torch.optim, recipe.optimizer, None)
    if not isinstance(kind, type) or not issubclass(kind, torch.optim.Optimizer):
        raise ValueError(
            f"torch.optim has no optimizer {recipe.optimizer!r}: try Adam, AdamW or SGD"
        )
    return kind(trainable, lr=recipe.lr, weight_decay=recipe.weight_decay)  # pyright: ignore[reportCallIssue]


def calibrate(
    learner: Learner, tasks: TaskDistribution, precision: Precision = "float32"
) -> None:
    """Settle normalisation statistics on tasks that are always the same for one
    distribution.
    """
    device = next(learner.parameters()).device
    sample = tasks.sample(
        64 if learner.together else 8, torch.Generator().manual_seed(CALIBRATION_SEED)
    ).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        learner.calibrate(sample)


def meta_train(
    learner: Learner,
    tasks: TaskDistribution,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    batch: int = 16,
    meta_gradient: MetaGradient = backprop,
    optimizer: torch.optim.Optimizer | None = None,
    schedule: Schedule | None = None,
    clip: float | None = None,
    precision: Precision = "float32",
    generator: torch.Generator | None = None,
    start: int = 0,
    elapsed: float = 0.0,
) -> Iterator[Step]:
    """Meta-train `learner` on `tasks`; every `next` is one meta-step, so the caller
    watches, saves and stops as it likes.

    steps, seconds: how long, one of the two; with seconds the schedule follows the
    clock. batch: tasks in a meta-step.
    optimizer: any torch optimiser over the learner's parameters (default Adam at 1e-3).
    schedule: factor of its rates over time.
    clip: largest norm of the meta-gradient. precision: "bf16" computes in bfloat16
    where that is safe, weights stay float32.
    generator: draws the tasks (default: seed 0). start, elapsed: where a resumed
    training stands. The learner is trained on the device that it is on. When the loop
    ends, or is left, normalisation statistics are settled on training tasks and the
    learner is in evaluation mode; inside the loop, call `calibrate` first to test or
    save. Raises ValueError for a missing length and FloatingPointError for a loss that
    is no number.
    """
    if (steps is None) == (seconds is None):
        raise ValueError("say how long to train: either steps or seconds")
    if optimizer is None:
        optimizer = torch.optim.Adam(
            [p for p in learner.parameters() if p.requires_grad], lr=1e-3
        )
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    rates = [
        group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups
    ]
    parameters = dict(learner.named_parameters())
    device = next(iter(parameters.values())).device
    ahead = Ahead(
        lambda generator: tasks.sample(batch, generator), generator, allowed=tasks.ahead
    )
    clock = time.monotonic() - elapsed
    index, settle = start, False
    try:
        while True:
            # zero of either is done
            progress = (
                index / steps
                if steps
                else (time.monotonic() - clock) / seconds
                if seconds
                else 1.0
            )
            if progress >= 1:
                settle = True
                return
            learner.train()
            learner.at(progress)
            if schedule is not None:
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * schedule(index, progress)
            batch_of_tasks = ahead.next().to(device)
            with torch.autocast(
                device.type, torch.bfloat16, enabled=precision == "bf16"
            ):
                grads, metrics = meta_gradient(learner, batch_of_tasks)
            seen: set[int] = set()
            for name, parameter in parameters.items():
                # clipping scales each in place
                parameter.grad = (
                    g
                    if (g := grads.get(name)) is None or id(g) not in seen
                    else g.clone()
                )
                seen.add(id(g))
            norm = torch.nn.utils.clip_grad_norm_(
                parameters.values(), math.inf if clip is None else clip
            )
            if not math.isfinite(float(metrics["loss"]) + float(norm)):
                what = f"the loss is {float(metrics['loss'])} at step {index}, the norm of the meta-gradient {float(norm)}"
                raise FloatingPointError(
                    f"{what}: lower the learning rate, or clip the meta-gradient"
                )
            optimizer.step()
            index += 1
            yield Step(
                index - 1, metrics, index / steps if steps is not None else progress
            )
    except GeneratorExit:  # the caller left the loop
        settle = not sys.is_finalizing()
        raise
    finally:
        ahead.close()
        learner.zero_grad()
        learner.at(1.0)
        learner.eval()
        if settle:
            calibrate(learner, tasks, precision)
