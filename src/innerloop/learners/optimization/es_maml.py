"""ES-MAML: adapting without a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from innerloop.core.descent import Weights
from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import CountOrZero
from innerloop.learners.optimization.remembering import Remembering
from innerloop.nets.registry import Headed, encoder, flat_features


class ESMAML(Remembering):
    """ES-MAML: a learned initialisation that adapts by losses alone, those of random
    changes of the weights; nothing need be differentiable.

    weights <- weights - inner_lr / (2 K sigma) sum_k (f(weights + sigma e_k) -
    f(weights - sigma e_k)) e_k, f the support loss, e_k ~ N(0, I) Song, Gao, Yang,
    Choromanski, Pacchiano and Tang 2020, "ES-MAML: simple Hessian-free meta learning",
    arXiv:1910.01215, section 3.2, Algorithm 3; hill climbing: section 3.3. Its
    initialisation is learned by the meta-gradient `es`, and may be by others.
    State: the adapted weights of `net`, a dict name -> tensor.

    net: the task network; images too go through a small perceptron, for every weight
        costs evaluations. inner_lr, inner_steps: the step size and the number of steps.
        inner_pairs: K, how many changes are tried, each both ways. inner_sigma: how
        large they are. by: step along their mean, the "gradient"; or "climb" to the
        best of them, where it lowers the loss. Changes are drawn anew for every task in
        training, else always alike.
    """

    net: nn.Module
    inner_lr: float = 0.05
    _: KW_ONLY
    inner_steps: CountOrZero = 1
    inner_pairs: int = 20
    inner_sigma: float = 0.1
    by: Literal["gradient", "climb"] = "gradient"
    likelihood: Likelihood = Categorical()

    regression_defaults: ClassVar[dict[str, Any]] = {"inner_lr": 0.01}
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
        if self.inner_sigma <= 0:
            raise InnerloopError(
                f"inner_sigma, the size of the changes that are tried, must be positive, not {self.inner_sigma}"
            )
        size, generator = (
            sum(w.numel() for w in self.net.parameters()),
            torch.Generator().manual_seed(0),
        )
        self.register_buffer(
            "changes",
            torch.randn(
                max(self.inner_steps, 1), self.inner_pairs, size, generator=generator
            ),
            persistent=False,
        )
        super().__post_init__()

    def start(self, weights: Weights) -> list[Tensor]:
        """How many steps were taken ()."""
        return [next(iter(weights.values())).new_zeros(())]

    def move(
        self, weights: Weights, memory: list[Tensor], support: Examples
    ) -> tuple[Weights, list[Tensor]]:
        drawn: Tensor = self.get_buffer("changes")
        # (pairs, size)
        e = (
            torch.randn_like(drawn[0])
            if self.training
            else drawn[memory[0].long() % len(drawn)]
        )
        e = e[:, : sum(w.numel() for w in weights.values())]  # frozen weights stay
        tried = self.inner_sigma * torch.cat([e, -e])  # (2 pairs, size)
        # (2 pairs,)
        losses = torch.vmap(
            lambda change: self.support_loss(self._changed(weights, change), support),
            randomness="same",
        )(tried)
        if self.by == "gradient":
            # (pairs,)
            slopes = (losses[: self.inner_pairs] - losses[self.inner_pairs :]) / (
                2 * self.inner_sigma
            )
            return self._changed(
                weights, -self.inner_lr * slopes @ e / self.inner_pairs
            ), [memory[0] + 1]
        best = losses.argmin()
        lower = losses[best] < self.support_loss(weights, support)
        return self._changed(weights, torch.where(lower, tried[best], 0.0)), [
            memory[0] + 1
        ]

    def _changed(self, weights: Weights, change: Tensor) -> Weights:
        """The weights after a change (size,)."""
        parts = change.split([w.numel() for w in weights.values()])
        return {
            name: w + part.view(w.shape)
            for (name, w), part in zip(weights.items(), parts, strict=True)
        }
