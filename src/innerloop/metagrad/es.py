"""Evolution strategies: a meta-gradient from losses alone."""

from __future__ import annotations

from typing import Any

import torch

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Positive
from innerloop.engine.population import evaluated
from innerloop.engine.workers import ALONE, Workers
from innerloop.metagrad.base import Draw, Gradient, Grads, MetaGradient, Update


class ES(MetaGradient):
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
        self.generator = torch.Generator().manual_seed(0)

    def prepare(
        self, learner: Learner, tasks: TaskDistribution, generator: torch.Generator
    ) -> None:
        super().prepare(learner, tasks, generator)
        self.generator = generator

    def __call__(self, learner: Learner, draw: Draw) -> Gradient:
        options: dict[str, Any] = {
            "sigma": self.sigma,
            "pairs": self.pairs,
            "ranked": self.ranked,
            "generator": self.generator,
            "workers": self.workers,
        }
        return Gradient(*es(learner, draw(), **options))

    def part(self, learner: Learner, draw: Draw) -> tuple[Update, float | None]:
        return self(learner, draw), None  # the pairs are shared, not the tasks

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"].cpu())


def es(
    learner: Learner,
    tasks: Task,
    *,
    sigma: float = 0.05,
    pairs: int = 16,
    ranked: bool = False,
    generator: torch.Generator | None = None,
    workers: Workers = ALONE,
) -> tuple[Grads, Metrics]:
    """The smoothed gradient of the mean loss over `tasks`, by parameter name, and
    metrics. All perturbations meet the same tasks and random draws, evaluated by vmap.

    workers: processes that make the same call; each evaluates a share of the pairs.
    """
    if pairs < 1 or sigma <= 0:
        raise InnerloopError(
            f"es needs at least one pair and a positive sigma, got {pairs} and {sigma}"
        )
    theta = {n: p.detach() for n, p in learner.named_parameters() if p.requires_grad}
    noise = {
        n: torch.randn(pairs, *p.shape, generator=generator, dtype=p.dtype).to(p.device)
        for n, p in theta.items()
    }
    share = workers.share(pairs, what="pairs")
    population = {}  # (2 pairs, *shape), of the pairs of this process
    for n, p in theta.items():
        change = sigma * share.of(noise[n])
        population[n] = torch.stack([p + change, p - change], 1).flatten(0, 1)
    values = evaluated(learner, lambda tasks: learner(tasks)[0], population, tasks)
    values = workers.gather(values.unflatten(0, (-1, 2)), share).flatten()
    if ranked:
        values = values.argsort().argsort().to(values.dtype) / (len(values) - 1) - 0.5
    weights = (values[0::2] - values[1::2]) / (2 * sigma * pairs)  # (pairs,)
    with torch.autocast(values.device.type, enabled=False):
        grads: Grads = {
            n: torch.tensordot(weights.to(e.dtype), e, 1) for n, e in noise.items()
        }
    with torch.no_grad():
        loss, metrics = learner(tasks)
    return grads, {"loss": loss, **metrics}
