"""Evolution strategies: a meta-gradient from losses alone."""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Task
from innerloop.engine.options import Count, Positive
from innerloop.metagrad.base import Gradient, Grads
from innerloop.metagrad.population import Losses, Population


class ES(Population):
    """Evolution strategies: a gradient estimated from losses of perturbations.

    1 / (2 n sigma) sum_i (F(theta + sigma e_i) - F(theta - sigma e_i)) e_i

    Reference: Salimans, Ho, Chen, Sidor and Sutskever 2017, "Evolution strategies as a
    scalable alternative to reinforcement learning", arXiv:1703.03864, section 2;
    antithetic pairs and rank shaping: section 2.1. The learner need not be
    differentiable.

    Args:
        sigma: standard deviation of the perturbations.
        pairs: antithetic pairs of perturbations in a meta-step.
        ranked: replace the losses by their centered ranks.
    """

    sigma: Positive = 0.05
    pairs: Count = 16
    ranked: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.noise: dict[str, Tensor] = {}  # of the members whose losses are awaited

    def generation(self, learner: Learner) -> dict[str, Tensor]:
        theta = {
            n: p.detach() for n, p in learner.named_parameters() if p.requires_grad
        }
        self.noise = {
            n: torch.randn(
                self.pairs, *p.shape, generator=self.generator, dtype=p.dtype
            ).to(p.device)
            for n, p in theta.items()
        }
        members = {}  # (2 pairs, *shape)
        for n, p in theta.items():
            change = self.sigma * self.noise[n]
            members[n] = torch.stack([p + change, p - change], 1).flatten(0, 1)
        return members

    def step(self, learner: Learner, tasks: Task, losses: Losses) -> Gradient:
        values = losses(learner, tasks)  # (2 pairs,)
        noise, self.noise = self.noise, {}
        if self.ranked:
            values = values.argsort().argsort().to(values.dtype) / (len(values) - 1)
            values = values - 0.5
        weights = (values[0::2] - values[1::2]) / (2 * self.sigma * self.pairs)
        with torch.autocast(values.device.type, enabled=False):
            grads: Grads = {
                n: torch.tensordot(weights.to(e.dtype), e, 1) for n, e in noise.items()
            }
        with torch.no_grad():
            loss, metrics = self.objective(learner, tasks, self.generator)
        return Gradient(grads, {"loss": loss, **metrics})


def es(
    learner: Learner,
    tasks: Task,
    *,
    sigma: float = 0.05,
    pairs: int = 16,
    ranked: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Grads, Metrics]:
    """The smoothed gradient of the mean loss over `tasks`, by parameter name, and
    metrics, see `ES`. All perturbations meet the same tasks and random draws, evaluated
    by vmap.

    generator: draws the perturbations (default: torch's global generator).
    """
    rule = ES(sigma, pairs, ranked)  # pyright: ignore[reportCallIssue]
    rule.generator = generator if generator is not None else torch.default_generator
    update = rule.step(learner, tasks, rule.losses)
    return update.grads, update.metrics
