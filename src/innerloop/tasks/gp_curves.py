"""Curves drawn from a Gaussian process, whose exact posterior is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Gaussian
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.evaluation.chunks import measured
from innerloop.evaluation.few_shot import evaluate
from innerloop.measurements import (
    Estimate,
    Measurement,
    Report,
    Row,
    Table,
    TestPlan,
)
from innerloop.tasks.pictures import plot_curves, prediction
from innerloop.tasks.splits import task_source

Kernel = Literal["rbf", "matern", "periodic"]
# of all kernels; of the periodic one; standard deviation of the observations
LENGTH, PERIOD, NOISE = 0.4, 1.0, 0.1


def covariance(kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
    """k(a, b) of a (..., n, 1) and b (..., m, 1), variance 1. Rasmussen and Williams
    2006, "Gaussian processes for machine learning", MIT Press, eq. (4.9), (4.17) with
    nu 5/2, and (4.31).
    """
    gap = (a - b.mT).abs()  # (..., n, m)
    if kernel == "rbf":
        return torch.exp(-(gap**2) / (2 * LENGTH**2))
    if kernel == "periodic":
        return torch.exp(
            -2 * torch.sin(math.pi * gap / PERIOD) ** 2 / (2 * LENGTH) ** 2
        )
    scaled = math.sqrt(5) * gap / LENGTH
    return (1 + scaled + scaled**2 / 3) * torch.exp(-scaled)


class Curves(TaskDistribution):
    """y = f(x) + noise at random x in -2..2; f is a draw from a Gaussian process with
    mean 0 and variance 1, the noise has a standard deviation of 0.1. Support x (n,
    shots, 1), y (n, shots, 1).

    Args:
        kernel: covariance function.
        shots: support points.
        queries: query points.
        exact: whether every task has exactly `shots` support points; otherwise each
            batch has a random number of them, from 3 up to it.
    """

    prefetch = True

    def __init__(self, kernel: Kernel, shots: int, queries: int, exact: bool):
        if kernel not in ("rbf", "matern", "periodic"):
            raise InnerloopError(
                f"kernel must be one of rbf, matern, periodic; got {kernel!r}"
            )
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1; got {shots} and {queries}"
            )
        self.kernel: Kernel = kernel
        self.shots, self.queries, self.exact = shots, queries, exact
        self.spec = TaskSpec("reals", (1,), 1)

    def describe(self) -> str:
        shots = f"{'' if self.exact else 'up to '}{self.shots}"
        return f"{self.kernel} curves, {shots} support and {self.queries} query points"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        fewest = min(3, self.shots)
        shots = (
            self.shots
            if self.exact
            else int(torch.randint(fewest, self.shots + 1, (), generator=generator))
        )
        x = torch.rand(n, shots + self.queries, 1, generator=generator) * 4 - 2
        noise = torch.randn(2, *x.shape, generator=generator)
        wide = x.double()
        k = covariance(self.kernel, wide, wide) + 1e-6 * torch.eye(
            x.shape[1], dtype=torch.float64
        )
        y = (torch.linalg.cholesky(k) @ noise[0].double()).float() + NOISE * noise[1]
        return Task(
            Examples(x[:, :shots], y[:, :shots]), Examples(x[:, shots:], y[:, shots:])
        )

    def posterior(self, support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (..., m, 1) of the observations at x (..., m, 1).
        Rasmussen and Williams 2006, eq. (2.22)-(2.24).
        """
        seen, y, query = support.x.double(), support.y.double(), x.double()
        k = covariance(self.kernel, seen, seen) + NOISE**2 * torch.eye(
            seen.shape[-2], dtype=torch.float64, device=x.device
        )
        across = covariance(self.kernel, seen, query)  # (..., n, m)
        solved = torch.linalg.solve(k, torch.cat([y, across], -1))  # (..., n, 1 + m)
        mean = across.mT @ solved[..., :1]
        var = 1 + NOISE**2 - (across * solved[..., 1:]).sum(-2)[..., None]
        return mean.to(x.dtype), var.clamp_min(NOISE**2).sqrt().to(x.dtype)

    def best_loss(self, tasks: Task) -> Tensor:
        """The negative log-likelihood (n,) in nats per query point under the exact
        posterior: the smallest expected loss of any learner.
        """
        mean, sd = self.posterior(tasks.support, tasks.query.x)
        return (
            -torch.distributions.Normal(mean, sd).log_prob(tasks.query.y).mean((-2, -1))
        )

    def test_settings(self, fixed_ways: int | None) -> list[dict[str, Any]]:
        return [{"shots": shots} for shots in (5, 10, 20)]

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report:
        """Few-shot, and for learners with a learned scale the loss above that of the
        exact posterior.
        """
        report = evaluate(learner, self, plan)
        likelihood = learner.likelihood
        if not (isinstance(likelihood, Gaussian) and likelihood.learned_scale):
            return report  # its loss is a squared error

        def loss(task: Task) -> Tensor:
            outputs = learner.predict(learner.adapt(task.support), task.query.x)
            return likelihood.nll(outputs, task.query.y)

        @torch.no_grad()
        def losses(batch: Task) -> tuple[Tensor, Tensor]:
            return learner.mapped(loss, batch).cpu(), self.best_loss(batch).cpu()

        found = measured(learner, self, losses, n=plan.n, generator=plan.generator())
        reached, exact = map(torch.cat, zip(*found, strict=True))
        values = {
            "loss above the exact posterior": reached - exact,
            "loss of the exact posterior": exact,
        }
        row = Row(
            {**plan.labels},
            tuple(
                Measurement.of(name, Estimate.of(value), plan.n)
                for name, value in values.items()
            ),
        )
        table = Table("negative log-likelihood in nats per query point", (row,))
        return replace(report, tables=(*report.tables, table))

    def plot_task(self, learner: Learner, task: Task, figure: Any) -> None:
        x = torch.linspace(-2, 2, 200, device=task.support.x.device)[:, None]
        bands = {
            "learner": prediction(learner, task.support, x),
            "exact posterior": self.posterior(task.support, x),
        }
        plot_curves(figure, task, x, bands)


@task_source
def gp_curves(
    split: str = "train",
    *,
    shots: Count = 20,
    queries: Count = 50,
    kernel: Kernel = "rbf",
) -> Curves:
    """GP curves: samples of a Gaussian process, with the exact posterior.

    Reference: Garnelo, Rosenbaum, Maddison, Ramalho, Saxton, Shanahan, Teh, Rezende and
    Eslami 2018, "Conditional neural processes", arXiv:1807.01613, section 4.1.

    Training tasks have 3 to `shots` support points, validation and test tasks exactly
    `shots`. Every split draws from the same distribution; no curve is drawn twice.

    Args:
        shots: support points of a task.
        queries: query points of a task.
        kernel: covariance function of the Gaussian process.
    """
    return Curves(kernel, shots, queries, split != "train")
