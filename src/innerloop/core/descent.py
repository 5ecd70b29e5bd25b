"""Learners whose state is a network's weights, reached by gradient steps on the support
set.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY
from typing import ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples
from innerloop.engine.attention import differentiable_attention
from innerloop.engine.checkpointing import checkpointed
from innerloop.engine.errors import InnerloopError
from innerloop.engine.functional import functional_call, trainable_names
from innerloop.engine.norm_stats import Normalizer, use_batch, use_stored
from innerloop.engine.options import CountOrZero

# parameters of `net` by name, and the normalization statistics that go with them
Weights = dict[str, Tensor]


class Descent(Learner):
    """A learner that moves the weights of `net` by gradient steps on the support set.

    Its state is a dict name -> tensor of the weights that move; frozen parameters
    (`requires_grad_(False)`) stay in `net`. It is inductive by default: the state also
    holds the normalization statistics of the support set under the adapted weights, and
    predictions use those. With `transductive`, the query set is normalized by its own
    statistics. With `recompute`, an inner step stores only the weights that it returns
    and is computed again in the backward pass: many steps in little memory, in more
    time.

    Args:
        net: the task network.
        inner_steps: number of inner steps.
        transductive: normalize the query set by its own statistics.
        recompute: recompute inner steps in the backward pass to save memory.
    """

    net: nn.Module
    _: KW_ONLY
    inner_steps: CountOrZero = 1
    transductive: bool = False
    recompute: bool = False
    likelihood: Likelihood = Categorical()

    low_precision = False
    fixed_ways = True
    learned_initialization = True  # False where a part of `init` is computed per task
    proximal = 0.0  # weight of a proximal term in the inner loss
    # the weights that adapt, where `net` is frozen because it is not meta-learned
    moving: ClassVar[Sequence[str]] = ()

    def init(self, support: Examples) -> Weights:
        """The weights before the first step, without the frozen ones."""
        weights = dict(self.net.named_parameters())
        moving = self.moving or trainable_names(self.net)
        if not moving:
            raise InnerloopError(
                f"{type(self).__name__} adapts the weights of net, and all of them are "
                "frozen: call requires_grad_(True) on those that should adapt"
            )
        return {name: weights[name] for name in moving}

    @abstractmethod
    def step(self, weights: Weights, support: Examples) -> Weights:
        """The weights after one more step."""

    def finalize(self, weights: Weights, support: Examples) -> Weights:
        """The state to predict from: the weights with the support set's statistics,
        where the net has any and they count.
        """
        if self.transductive or not any(
            isinstance(module, Normalizer) for module in self.net.modules()
        ):
            return weights
        with use_batch(self.net) as notes:
            functional_call(self.net, weights, (support.x,))
        return {**weights, **notes.moments()}

    def adapt(self, support: Examples) -> Weights:
        weights = self.init(support)
        for _ in range(self.inner_steps):
            weights = (
                checkpointed(self, self.step, weights, support)
                if self.recompute
                else self.step(weights, support)
            )
        return self.finalize(weights, support)

    def trajectory(self, support: Examples, steps: int) -> Iterator[Weights]:
        """The states after 0, 1, ..., `steps` steps."""
        weights = self.init(support)
        yield self.finalize(weights, support)
        for _ in range(steps):
            weights = self.step(weights, support)
            yield self.finalize(weights, support)

    def set_steps(self, steps: int) -> None:
        self.inner_steps = steps

    def predict(self, state: Weights, x: Tensor) -> Tensor:
        if self.transductive:
            with use_batch():
                return functional_call(self.net, state, (x,))
        with use_stored():
            return functional_call(self.net, state, (x,))

    def support_loss(self, weights: Weights, support: Examples) -> Tensor:
        """The loss that the steps descend: the negative log-likelihood of the support
        set, normalized by its own statistics.
        """
        with use_batch():
            return self.likelihood.nll(
                functional_call(self.net, weights, (support.x,)), support.y
            )

    def gradient(
        self,
        moving: Weights,
        support: Examples,
        still: Weights | None = None,
        first_order: bool = False,
    ) -> Weights:
        """The gradient of `support_loss` for the weights in `moving`, by name; it can
        be differentiated itself unless `first_order` or gradients are disabled.

        still: weights that do not move, in the place of those of `net`.
        """
        if not moving:
            return {}

        second_order = torch.is_grad_enabled() and not first_order
        fixed = dict(still or {})
        if not second_order:  # nothing is recorded of the weights that do not move
            others = {**dict(self.net.named_parameters()), **fixed}
            fixed = {
                name: w.detach()
                for name, w in others.items()
                if name not in moving and (w.requires_grad or name in fixed)
            }

        def loss_at(weights: Weights) -> Tensor:
            return self.support_loss({**fixed, **weights}, support)

        with differentiable_attention(second_order):
            if torch._C._are_functorch_transforms_active():
                grads = torch.func.grad(loss_at)(moving)
                if first_order:
                    grads = {name: g.detach() for name, g in grads.items()}
                return grads
            with torch.enable_grad():
                # fresh views: no weight is then a function of another, as a prototype
                # head would be of its encoder
                at = {
                    name: w.view_as(w)
                    if second_order and w.requires_grad
                    else w.detach().requires_grad_()
                    for name, w in moving.items()
                }
                grads = torch.autograd.grad(
                    loss_at(at),
                    list(at.values()),
                    create_graph=second_order,
                    allow_unused=True,
                )
        return {
            name: torch.zeros_like(w) if g is None else g
            for (name, w), g in zip(at.items(), grads, strict=True)
        }
