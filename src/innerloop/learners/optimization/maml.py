"""MAML, and its first-order, head-only and prototype-initialised forms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from innerloop.core.descent import Descent, Weights
from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.norm_stats import use_batch
from innerloop.engine.options import CountOrZero
from innerloop.learners.metric.distances import class_means
from innerloop.nets.registry import headed


class MAML(Descent):
    """Model-agnostic meta-learning: a few gradient steps from a learned initialisation.

    weights <- weights - inner_lr * grad(support loss)
    Finn, Abbeel and Levine 2017, "Model-agnostic meta-learning for fast adaptation of
    deep networks", arXiv:1703.03400, eq. (1), Algorithm 1 State: the adapted weights of
    `net`, a dict name -> tensor, with the support set's normalisation statistics unless
    `transductive`.

    net: the task network; with `adapted="head"` or `head="prototype"` it has an
    `encoder` and a linear `head` (innerloop.nets.Headed). inner_lr, inner_steps: the
    step size and the number of steps.
    first_order: leave out second derivatives, FOMAML (section 5.2).
    adapted: "all" weights, or the "head" alone, ANIL (Raghu et al. 2020,
    arXiv:1909.09157).
    head: "learned", with a fixed number of ways; or "prototype", begun at every task
        from the class means c of the encoded support set as weight 2c and bias -|c|^2,
        for any number of ways (Triantafillou et al. 2020, arXiv:1903.03096, section 3,
        Proto-MAML). loss_before: weight of the loss before adapting in the objective,
        beside the loss after it; the paper has 0.
    multi_step: the share of meta-training, from its begin, in which the losses after
    all steps count, the earlier ones less and less; and second_order_after: the share
    that is first-order (MAML++, Antoniou et al. 2019, arXiv:1810.09502, section 4: 0.15
    and 0.5; its learned rates are `MetaSGD(rates="tensor")`).
    """

    net: nn.Module
    inner_lr: float = 0.4
    _: KW_ONLY
    inner_steps: CountOrZero = 1
    first_order: bool = False
    adapted: Literal["all", "head"] = "all"
    head: Literal["learned", "prototype"] = "learned"
    loss_before: float = 0.0
    multi_step: float = 0.0
    second_order_after: float = 0.0
    likelihood: Likelihood = Categorical()

    # as in the authors' code; section 5.1 has 0.01
    regression_defaults: ClassVar[dict[str, Any]] = {"inner_lr": 0.001}
    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=2e-3)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        if spec.kind == "reals" and build_args.get("head") == "prototype":
            raise InnerloopError(
                "a prototype head is made of class means: these tasks have no classes"
            )
        return {"net": headed(spec, out_dim, build_args.get("net"))}

    def __post_init__(self) -> None:
        if (self.head == "prototype" or self.adapted == "head") and not (
            hasattr(self.net, "encoder") and hasattr(self.net, "head")
        ):
            raise InnerloopError(
                'head="prototype" and adapted="head" need a net with an encoder and a linear head: innerloop.nets.Headed'
            )
        self.progress = 1.0
        self.fixed_ways = self.learned_initialization = self.head == "learned"
        super().__post_init__()

    def on_progress(self, progress: float) -> None:
        if self.multi_step or self.second_order_after:
            # few values: a recording is of one
            self.progress = math.floor(20 * progress) / 20

    def init(self, support: Examples) -> Weights:
        weights = super().init(support)
        if self.head == "prototype":
            with use_batch():
                prototypes = class_means(
                    self.net.encoder(support.x), support.y
                )  # (ways, d)  # pyright: ignore[reportCallIssue]
            weights |= {
                "head.weight": 2 * prototypes,
                "head.bias": -prototypes.square().sum(-1),
            }
        return weights

    def step(self, weights: Weights, support: Examples) -> Weights:
        moving = {
            name: w
            for name, w in weights.items()
            if self.adapted == "all" or name.startswith("head.")
        }
        still = {name: w for name, w in weights.items() if name not in moving}
        grads = self.gradient(
            moving,
            support,
            still,
            self.first_order or self.progress < self.second_order_after,
        )
        return {
            **still,
            **{name: w - self.inner_lr * grads[name] for name, w in moving.items()},
        }

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        if self.progress < self.multi_step:
            return self._every_step(task)
        after, metrics = super().loss(task)
        if not self.loss_before:
            return after, metrics
        outputs = self.predict(
            self.finalize(self.init(task.support), task.support), task.query.x
        )
        before = self.likelihood.nll(outputs, task.query.y)
        return after + self.loss_before * before, {
            **metrics,
            "loss_before": before.detach(),
        }

    def _every_step(self, task: Task) -> tuple[Tensor, Metrics]:
        """The losses after 1, 2, ... steps, with weights that fall, as training goes
        on, from all alike to the last alone.
        """
        _, *states = self.trajectory(task.support, self.inner_steps)
        outputs = [self.predict(state, task.query.x) for state in states]
        # (inner_steps,)
        losses = torch.stack(
            [self.likelihood.nll(answer, task.query.y) for answer in outputs]
        )
        alike = 1 - self.progress / self.multi_step
        return alike * losses.mean() + (1 - alike) * losses[
            -1
        ], self.likelihood.metrics(outputs[-1], task.query.y)
