"""Curves drawn from a Gaussian process, of which the best possible answer is known."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.tasks.splits import check_split

Kernel = Literal["rbf", "matern", "periodic"]
# of all kernels; of the periodic one; standard deviation of the observations
LENGTH, PERIOD, NOISE = 0.4, 1.0, 0.1


def covariance(kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
    """k(a, b) of a (..., n, 1) and b (..., m, 1), variance 1. Rasmussen and Williams
    2006, eq. (4.9), (4.17) with nu 5/2, and (4.31).
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
    """y = f(x) + noise at random x in -2..2, f a draw from a Gaussian process with mean
    0 and variance 1; noise 0.1.

    The 1-D regression of neural processes (Garnelo et al. 2018, arXiv:1807.01613,
    section 4.1; Kim et al. 2019, arXiv:1901.05761, section 4). Support x (n, shots, 1),
    y (n, shots, 1). shots: exactly so many with `exact`, else each batch has a number
    of its own, from 3 up to it.
    """

    prefetch = True

    def __init__(self, kernel: Kernel, shots: int, queries: int, exact: bool):
        if kernel not in ("rbf", "matern", "periodic"):
            raise InnerloopError(f"a kernel is rbf, matern or periodic, not {kernel!r}")
        if min(shots, queries) < 1:
            raise InnerloopError(
                f"shots and queries must be at least 1, got {shots}, {queries}"
            )
        self.kernel: Kernel = kernel
        self.shots, self.queries, self.exact = shots, queries, exact
        self.spec = TaskSpec("reals", (1,), 1)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        few = min(3, self.shots)
        shots = (
            self.shots
            if self.exact
            else int(torch.randint(few, self.shots + 1, (), generator=generator))
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
        """Mean and standard deviation (..., m, 1) of what would be observed at x (...,
        m, 1). Rasmussen and Williams 2006, eq. (2.22)-(2.24).
        """
        seen, y, asked = support.x.double(), support.y.double(), x.double()
        k = covariance(self.kernel, seen, seen) + NOISE**2 * torch.eye(
            seen.shape[-2], dtype=torch.float64, device=x.device
        )
        across = covariance(self.kernel, seen, asked)  # (..., n, m)
        solved = torch.linalg.solve(k, torch.cat([y, across], -1))  # (..., n, 1 + m)
        mean = across.mT @ solved[..., :1]
        var = 1 + NOISE**2 - (across * solved[..., 1:]).sum(-2)[..., None]
        return mean.to(x.dtype), var.clamp_min(NOISE**2).sqrt().to(x.dtype)

    def oracle(self, tasks: Task) -> Tensor:
        """The negative log-likelihood (n,) in nats a query point under the exact
        posterior: no learner does better in the mean.
        """
        mean, sd = self.posterior(tasks.support, tasks.query.x)
        return (
            -torch.distributions.Normal(mean, sd).log_prob(tasks.query.y).mean((-2, -1))
        )


def gp_curves(
    split: str = "train", *, shots: int = 20, queries: int = 50, kernel: Kernel = "rbf"
) -> Curves:
    """Curves from a Gaussian process: 3 to `shots` points in training, exactly so many
    in validation and testing; no curve comes twice.
    """
    check_split(split)
    return Curves(kernel, shots, queries, split != "train")
