"""ES-MAML: adaptation without gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from innerloop.core.descent import Weights
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.options import Count, CountOrZero, Positive
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.optimization.remembering import Remembering
from innerloop.nets.registry import Headed, encoder, flat_features


class ESMAML(Remembering):
    """ES-MAML: MAML with gradients estimated from losses alone.

    weights <- weights - inner_lr / (2 K sigma) sum_k (f(weights + sigma e_k) -
    f(weights - sigma e_k)) e_k, f the support loss, e_k ~ N(0, I)

    Reference: Song, Gao, Yang, Choromanski, Pacchiano and Tang 2020, "ES-MAML: simple
    Hessian-free meta learning", arXiv:1910.01215, section 3.2, Algorithm 3;
    hill climbing: section 3.3.

    The meta-gradient `es` trains the initialization without gradients; others can train
    it, too. Perturbations are random in training, and fixed otherwise.

    State: the adapted weights of `net`, a dict name -> tensor.

    Args:
        net: the task network; by default a small perceptron also for images, because
            the number of evaluations grows with that of the weights.
        inner_lr: step size of the inner steps.
        inner_steps: number of inner steps.
        inner_pairs: K, the number of antithetic pairs of perturbations.
        inner_sigma: standard deviation of the perturbations.
        inner_rule: "gradient" steps along the estimated gradient, "hill-climbing" moves
            to the best perturbation where that lowers the loss.
    """

    net: nn.Module
    inner_lr: Positive = 0.05
    _: KW_ONLY
    inner_steps: CountOrZero = 1
    inner_pairs: Count = 20
    inner_sigma: Positive = 0.1
    inner_rule: Literal["gradient", "hill-climbing"] = "gradient"
    likelihood: Likelihood = Categorical()

    regression_defaults: ClassVar[dict[str, Any]] = {"inner_lr": 0.01}
    export_problem = "its perturbations are chosen by a number that a step computes"
    defaults = MetaTrainConfig(
        queries=5, batch=8, optimizer="Adam", lr=2e-3, meta_gradient="es"
    )

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        if isinstance(net := build_args.get("net"), nn.Module):
            return {"net": net}
        body = encoder(spec, net, image="mlp")
        return {"net": Headed(body, flat_features(body, spec), out_dim)}

    def __post_init__(self) -> None:
        super().__post_init__()
        size = sum(w.numel() for w in self.net.parameters())
        noise = torch.randn(
            max(self.inner_steps, 1),
            self.inner_pairs,
            size,
            generator=torch.Generator().manual_seed(0),
        )
        self.register_buffer("noise", noise, persistent=False)

    def start(self, weights: Weights) -> list[Tensor]:
        """The number of steps so far ()."""
        return [next(iter(weights.values())).new_zeros(())]

    def move(
        self, weights: Weights, memory: list[Tensor], support: Examples
    ) -> tuple[Weights, list[Tensor]]:
        fixed, (step,) = self.get_buffer("noise"), memory
        # (pairs, size)
        e = (
            torch.randn_like(fixed[0])
            if self.training
            else fixed[step.long()[None] % len(fixed)][0]
        )
        e = e[:, : sum(w.numel() for w in weights.values())]  # frozen weights stay
        perturbations = self.inner_sigma * torch.cat([e, -e])  # (2 pairs, size)
        losses = torch.vmap(
            lambda change: self.support_loss(_moved(weights, change), support),
            randomness="same",
        )(perturbations)  # (2 pairs,)
        if self.inner_rule == "gradient":
            plus, minus = losses.chunk(2)
            slopes = (plus - minus) / (2 * self.inner_sigma)  # (pairs,)
            change = -self.inner_lr * slopes @ e / self.inner_pairs
        else:
            lower = losses.amin() < self.support_loss(weights, support)
            best = perturbations[losses.argmin()[None]][0]
            change = torch.where(lower, best, 0.0)
        return _moved(weights, change), [step + 1]


def _moved(weights: Weights, change: Tensor) -> Weights:
    """The weights after a change (size,)."""
    parts = change.split([w.numel() for w in weights.values()])
    return {
        name: w + part.view(w.shape)
        for (name, w), part in zip(weights.items(), parts, strict=True)
    }
