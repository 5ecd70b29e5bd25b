"""Learned optimizers (L2O)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
from torch import Tensor, nn

from innerloop.core.descent import Weights
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.functional import trainable_names
from innerloop.engine.options import Count, CountOrZero
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.optimization.remembering import Remembering
from innerloop.nets.learned_update_rules import RULES
from innerloop.nets.registry import headed


class L2O(Remembering):
    """Learned optimizer: a network, shared by all weights, computes the updates.

    weights, memory <- weights + change, memory', (change, memory') = rule(grad(support
    loss), memory)

    Reference: Andrychowicz, Denil, Gomez, Hoffman, Pfau, Schaul, Shillingford and de
    Freitas 2016, "Learning to learn by gradient descent by gradient descent",
    arXiv:1606.04474, eq. (2)-(3).

    Objective: the query loss averaged over all steps of a training of `net` from random
    weights; gradients flow through at most `unroll` steps.

    State: the trained weights of `net`, a dict name -> tensor; they are not
    meta-learned.

    Args:
        net: the network that is trained. By default it is linear without a bias for
            reals, which makes the loss quadratic, and has 20 sigmoid units for classes
            (section 3.2).
        rule: the learned network: "lstm" as in the paper; "mlp", a perceptron that
            reads moving averages of the gradient (Metz et al. 2019, arXiv:1810.10180);
            or "star", the same beside a step of Adam (Harrison et al. 2022,
            arXiv:2209.11208).
        inner_steps: number of steps of a training.
        unroll: number of steps through which gradients flow.
        minibatch: support examples of each step, taken in order and repeatedly; 0 for
            all.
        first_order: treat gradients of the support loss as constants, as in the paper.
    """

    net: nn.Module
    rule: Literal["lstm", "mlp", "star"] = "lstm"
    _: KW_ONLY
    inner_steps: Count = 100
    unroll: Count = 20
    minibatch: CountOrZero = 0
    first_order: bool = True
    likelihood: Likelihood = Categorical()

    home = "quadratics"
    defaults = MetaTrainConfig(batch=16, optimizer="Adam", lr=3e-3, clip=1.0)

    def __post_init__(self) -> None:
        moving = trainable_names(self.net)
        self.moving = moving  # pyright: ignore[reportAttributeAccessIssue]
        self.net.requires_grad_(False)
        self.change = RULES[self.rule]()
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        if build_args.get("net") is not None:
            return {"net": headed(spec, out_dim, build_args["net"])}
        if spec.kind == "reals":
            return {
                "net": nn.Sequential(
                    nn.Flatten(), nn.Linear(spec.x_size, out_dim, bias=False)
                )
            }
        return {
            "net": nn.Sequential(
                nn.Flatten(),
                nn.Linear(spec.x_size, 20),
                nn.Sigmoid(),
                nn.Linear(20, out_dim),
            )
        }

    def init(self, support: Examples) -> Weights:
        """The weights of `net`; in training mode each tensor is permuted, with random
        signs, which gives new weights of the same distribution.
        """
        weights = super().init(support)
        return (
            {name: _shuffled(w) for name, w in weights.items()}
            if self.training
            else weights
        )

    def start(self, weights: Weights) -> list[Tensor]:
        """The number of steps (), and the memory of the rule."""
        return [next(iter(weights.values())).new_zeros(()), *self.change.start(weights)]

    def move(
        self, weights: Weights, memory: list[Tensor], support: Examples
    ) -> tuple[Weights, list[Tensor]]:
        steps, *state = memory
        part = self.part(support, steps)
        grads = self.gradient(weights, part, first_order=self.first_order)
        changes, state = self.change(grads, weights, state)
        moved = {name: w + changes[name] for name, w in weights.items()}
        return moved, [steps + 1, *state]

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        weights, losses, metrics = self.init(task.support), [], {}
        for i in range(self.inner_steps):
            if i % self.unroll == 0:
                weights = {name: tensor.detach() for name, tensor in weights.items()}
            weights = self.step(weights, task.support)
            outputs = self.predict(self.finalize(weights, task.support), task.query.x)
            losses.append(self.likelihood.nll(outputs, task.query.y))
            metrics = self.likelihood.metrics(outputs, task.query.y)
        return torch.stack(losses).mean(), {**metrics, "last_loss": losses[-1].detach()}

    def part(self, support: Examples, steps: Tensor) -> Examples:
        """The support examples of a step."""
        if not 0 < self.minibatch < len(support.y):
            return support
        offsets = torch.arange(self.minibatch, device=steps.device)
        rows = (steps * self.minibatch + offsets).long() % len(support.y)
        return Examples(support.x[rows], support.y[rows])


def _shuffled(w: Tensor) -> Tensor:
    flat = w.flatten()
    permuted = flat[torch.rand_like(flat).argsort()]
    return (permuted * (torch.rand_like(flat) - 0.5).sign()).view_as(w)
