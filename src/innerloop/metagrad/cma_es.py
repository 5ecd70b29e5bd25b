"""CMA-ES as the outer loop."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Positive, Range
from innerloop.engine.solvers import solvable
from innerloop.metagrad.population import EvolutionStrategy

FULL = 400  # parameters; with more of them the covariance is diagonal
SMALLEST = 1e-8  # takes the place of eigenvalues that are rounded below 0
LARGEST_SIGMA = 1e32


class AdaptiveGaussian:
    """The search distribution N(mean, sigma^2 C) of CMA-ES, and its update.

    Equation numbers are those of Hansen 2016, arXiv:1604.00772; the constants of the
    diagonal form are those of Ros and Hansen 2008.

    Args:
        mean: the first mean (n,), in float64.
        sigma: the first step size.
        members: members of a generation (default: 4 + 3 log n).
        diagonal: whether C is diagonal.
    """

    def __init__(self, mean: Tensor, sigma: float, members: int | None, diagonal: bool):
        n = len(mean)
        self.members = members or 4 + int(3 * math.log(n))
        self.mean, self.sigma, self.diagonal = mean, sigma, diagonal
        self.C = torch.ones_like(mean) if diagonal else torch.eye(n).to(mean)
        self.path, self.path_sigma = torch.zeros_like(mean), torch.zeros_like(mean)
        self.generation = 0
        self.parents = self.members // 2
        rank = torch.arange(1, self.members + 1).to(mean)
        middle = self.parents + 1 if diagonal else (self.members + 1) / 2
        raw = math.log(middle) - rank.log()  # (49)
        best, rest = raw[: self.parents], raw[self.parents :]
        self.mass = mass = float(best.sum() ** 2 / best.square().sum())
        self.rate_1 = 2 / ((n + 1.3) ** 2 + mass)  # (57)
        if diagonal:
            first = 2 / mass / (n + math.sqrt(2)) ** 2
            second = min(1, (2 * mass - 1) / ((n + 2) ** 2 + mass))
            self.rate_mu = (n + 2) / 3 * (first + (1 - 1 / mass) * second)
            self.weights = raw.clamp_min(0) / best.sum()
            self.weights[self.parents :] = 0
            self.rate_path, delay = 4 / (n + 4), 3
        else:
            numerator = 2 * (mass - 2 + 1 / mass)
            rate_mu = numerator / ((n + 2) ** 2 + mass)  # (58)
            self.rate_mu = min(1 - self.rate_1 - 1e-8, rate_mu)
            mass_rest = float(rest.sum() ** 2 / rest.square().sum())
            alpha = min(
                1 + self.rate_1 / self.rate_mu,  # (50)
                1 + 2 * mass_rest / (mass + 2),  # (51)
                (1 - self.rate_1 - self.rate_mu) / (n * self.rate_mu),  # (52)
            )
            positive, negative = raw.clamp_min(0), raw.clamp_max(0)
            self.weights = (
                positive / positive.sum() - alpha * negative / negative.sum()
            )  # (53)
            self.rate_path = (4 + mass / n) / (n + 4 + 2 * mass / n)  # (56)
            delay = 5
        self.rate_sigma = (mass + 2) / (n + mass + delay)  # (55)
        excess = max(0.0, math.sqrt((mass - 1) / (n + 1)) - 1)
        self.damping = 1 + 2 * excess + self.rate_sigma
        self.expected_norm = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))
        self._decompose()

    @solvable()
    def _decompose(self) -> None:
        if self.diagonal:
            self.scale = self.C.clamp_min(0).sqrt()
            return
        self.C = (self.C + self.C.T) / 2
        eigenvalues, self.axes = torch.linalg.eigh(self.C)
        self.scale = torch.where(eigenvalues < 0, SMALLEST, eigenvalues).sqrt()

    def sample(self, rng: torch.Generator) -> Tensor:
        """A generation (members, n)."""
        shape = self.members, len(self.mean)
        z = torch.randn(shape, generator=rng, dtype=self.mean.dtype) * self.scale
        return self.mean + self.sigma * (z if self.diagonal else z @ self.axes.T)

    def whitened(self, y: Tensor) -> Tensor:
        """C^(-1/2) y for rows y (..., n)."""
        if self.diagonal:
            return y / self.scale
        return (y @ self.axes / self.scale) @ self.axes.T

    def update(self, members: Tensor, losses: Tensor) -> None:
        """Learn from the losses (members,) of members (members, n)."""
        n = len(self.mean)
        self.generation += 1
        y = (members[losses.argsort(stable=True)] - self.mean) / self.sigma
        step = self.weights[: self.parents] @ y[: self.parents]  # (41)
        self.mean = self.mean + self.sigma * step

        keep = 1 - self.rate_sigma
        gain = math.sqrt(self.rate_sigma * (2 - self.rate_sigma) * self.mass)
        self.path_sigma = keep * self.path_sigma + gain * self.whitened(step)  # (43)
        norm = float(self.path_sigma.norm())
        change = self.rate_sigma / self.damping * (norm / self.expected_norm - 1)
        self.sigma = min(self.sigma * math.exp(change), LARGEST_SIGMA)  # (44)

        usual = norm / math.sqrt(1 - keep ** (2 * (self.generation + 1)))
        h = float(usual < (1.4 + 2 / (n + 1)) * self.expected_norm)
        gain = math.sqrt(self.rate_path * (2 - self.rate_path) * self.mass)
        self.path = (1 - self.rate_path) * self.path + h * gain * step  # (45)

        lost = (1 - h) * self.rate_path * (2 - self.rate_path)
        kept = 1 + self.rate_1 * (lost - 1) - self.rate_mu * float(self.weights.sum())
        length = self.whitened(y).square().sum(-1) + SMALLEST
        weights = self.weights * torch.where(self.weights >= 0, 1, n / length)  # (46)
        if self.diagonal:
            rank_1, rank_mu = self.path.square(), weights @ y.square()
        else:
            rank_1 = self.path.outer(self.path)
            rank_mu = (weights[:, None] * y).T @ y
        self.C = kept * self.C + self.rate_1 * rank_1 + self.rate_mu * rank_mu  # (47)
        self._decompose()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _STATE:
            value = state[name]
            setattr(self, name, value.cpu() if torch.is_tensor(value) else value)
        self._decompose()


_STATE = ("mean", "sigma", "C", "path", "path_sigma", "generation")


class CMAES(EvolutionStrategy):
    """CMA-ES: evolves the mean and covariance of a Gaussian.

    theta_i ~ N(m, sigma^2 C); m <- sum_i w_i theta_i over the best members

    Reference: Hansen and Ostermeier 2001, "Completely derandomized self-adaptation in
    evolution strategies", Evolutionary Computation 9 (2); tutorial: Hansen 2016, "The
    CMA evolution strategy: a tutorial", arXiv:1604.00772; diagonal form: Ros and Hansen
    2008, "A simple modification in CMA-ES achieving linear time and space complexity".

    The covariance is diagonal for more than 400 parameters.

    Args:
        sigma: the first step size.
        population: members of a generation (default: 4 + 3 log parameters).
    """

    sigma: Positive = 0.1
    population: Annotated[int, Range(4)] | None = None

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        super().check(learner, tasks)
        size = sum(p.numel() for p in learner.parameters() if p.requires_grad)
        if size < 2:
            raise InnerloopError(
                f"CMA-ES needs at least 2 parameters; {type(learner).__name__} has "
                f"{size}"
            )

    def start(self, learner: Learner) -> None:
        trainable = {n: p for n, p in learner.named_parameters() if p.requires_grad}
        self.shapes = {name: p.shape for name, p in trainable.items()}
        vectors = [p.detach().flatten() for p in trainable.values()]
        mean = torch.cat(vectors).double().cpu()
        self.gaussian = AdaptiveGaussian(
            mean, self.sigma, self.population, diagonal=len(mean) > FULL
        )

    def ask(self) -> dict[str, Tensor]:
        self.members = self.gaussian.sample(self.generator)
        return self._named(self.members)

    def tell(self, losses: Tensor) -> dict[str, Tensor]:
        self.gaussian.update(self.members, losses)
        self.members = self.members[:0]
        return self._named(self.gaussian.mean)

    def _named(self, vectors: Tensor) -> dict[str, Tensor]:
        """Vectors (..., parameters) as parameters by name."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        parts = vectors.split(sizes, -1)
        return {
            name: part.reshape((*vectors.shape[:-1], *shape))
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "gaussian": self.gaussian.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.gaussian.load_state_dict(state["gaussian"])
