"""MAML and its variants: first-order, head only, prototype initialization, MAML++."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from innerloop.core.descent import Descent, Weights
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.norm_stats import use_batch
from innerloop.engine.options import CountOrZero, Fraction, NonNegative
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.metric.distances import class_means
from innerloop.nets.registry import headed


class MAML(Descent):
    """MAML: a few gradient steps from a learned initialization.

    weights <- weights - inner_lr * grad(support loss)

    Reference: Finn, Abbeel and Levine 2017, "Model-agnostic meta-learning for fast
    adaptation of deep networks", arXiv:1703.03400, eq. (1), Algorithm 1.

    Variants: FOMAML (`first_order`, section 5.2); ANIL (`adapted`; Raghu, Raghu, Bengio
    and Vinyals 2020, arXiv:1909.09157); Proto-MAML (`head`; Triantafillou et al. 2020,
    arXiv:1903.03096, section 3); MAML++ (`multi_step`, `second_order_after`; Antoniou,
    Edwards and Storkey 2019, arXiv:1810.09502, section 4; its learned step sizes are
    `MetaSGD(rates="tensor")`). Defaults differ from the paper: batches of 8 tasks with
    5 queries instead of 32 with one.

    Objective: the query loss after adapting, plus `loss_before` times that before.

    State: the adapted weights of `net`, a dict name -> tensor, and the normalization
    statistics of the support set unless `transductive`.

    Args:
        net: the task network; adapted="head" and head="prototype" need one with an
            `encoder` and a linear `head`, such as innerloop.nets.Headed.
        inner_lr: step size of the inner steps.
        inner_steps: number of inner steps.
        first_order: leave out second derivatives.
        adapted: adapt "all" weights, or only the "head".
        head: "learned", for a fixed number of ways; or "prototype", initialized in
            every task from the class means c of the encoded support set, with weight 2c
            and bias -|c|^2, for any number of ways.
        loss_before: weight of the query loss before adapting in the objective.
        multi_step: share of meta-training, from its start, in which the objective
            averages the losses after every inner step, the earlier ones less and less;
            0.15 in MAML++. No effect without inner steps.
        second_order_after: share of meta-training, from its start, without second
            derivatives; 0.5 in MAML++.
    """

    net: nn.Module
    inner_lr: NonNegative = 0.4
    _: KW_ONLY
    inner_steps: CountOrZero = 1
    first_order: bool = False
    adapted: Literal["all", "head"] = "all"
    head: Literal["learned", "prototype"] = "learned"
    loss_before: NonNegative = 0.0
    multi_step: Fraction = 0.0
    second_order_after: Fraction = 0.0
    likelihood: Likelihood = Categorical()

    # as in the authors' code; section 5.1 has 0.01
    regression_defaults: ClassVar[dict[str, Any]] = {"inner_lr": 0.001}
    defaults = MetaTrainConfig(queries=5, batch=8, optimizer="Adam", lr=2e-3)

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        texts = TaskSpec("classes", (12,), 5, vocabulary=100)
        return (*super().specs(), texts)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        if spec.kind == "reals" and build_args.get("head") == "prototype":
            raise InnerloopError(
                'head="prototype" needs classes, and the targets of these tasks are '
                'reals: use head="learned"'
            )
        return {"net": headed(spec, out_dim, build_args.get("net"))}

    @classmethod
    def paper(cls) -> dict[str, Any]:
        config = {"queries": 1, "batch": 32, "lr": 1e-3, "warmup": 0.0, "decay": False}
        return {"config": config}

    def __post_init__(self) -> None:
        parts = dict(self.net.named_children())
        needs_parts = self.head == "prototype" or self.adapted == "head"
        if needs_parts and not ("encoder" in parts and "head" in parts):
            raise InnerloopError(
                'head="prototype" and adapted="head" need a net with an `encoder` and '
                "a linear `head`, such as innerloop.nets.Headed"
            )
        self.progress = 1.0
        self.fixed_ways = self.learned_initialization = self.head == "learned"
        super().__post_init__()

    def on_progress(self, progress: float) -> None:
        if self.multi_step or self.second_order_after:
            # in 20 steps, since every value needs a recording of its own
            self.progress = math.floor(20 * progress) / 20

    def init(self, support: Examples) -> Weights:
        weights = super().init(support)
        if self.head == "prototype":
            encoder = self.net.get_submodule("encoder")
            with use_batch():
                c = class_means(encoder(support.x), support.y)  # (ways, d)
            weights |= {"head.weight": 2 * c, "head.bias": -c.square().sum(-1)}
        return weights

    def step(self, weights: Weights, support: Examples) -> Weights:
        prefix = "head." if self.adapted == "head" else ""
        moving = {name: w for name, w in weights.items() if name.startswith(prefix)}
        if not moving:
            raise InnerloopError(
                'MAML with adapted="head" adapts the head, and all of its parameters '
                "are frozen: call requires_grad_(True) on them"
            )
        still = {name: w for name, w in weights.items() if name not in moving}
        first_order = self.first_order or self.progress < self.second_order_after
        grads = self.gradient(moving, support, still, first_order)
        moved = {
            name: w.sub(grads[name], alpha=self.inner_lr) for name, w in moving.items()
        }
        return {**still, **moved}

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        if self.inner_steps and self.progress < self.multi_step:
            after, metrics = self._multi_step_loss(task)
        else:
            after, metrics = super().loss(task)
        if not self.loss_before:
            return after, metrics
        start = self.finalize(self.init(task.support), task.support)
        outputs = self.predict(start, task.query.x)
        before = self.likelihood.nll(outputs, task.query.y)
        loss = after + self.loss_before * before
        return loss, {**metrics, "loss_before": before.detach()}

    def _multi_step_loss(self, task: Task) -> tuple[Tensor, Metrics]:
        """The weighted mean of the losses after 1, 2, ... steps: in the course of
        training, the weights go from equal ones to the last loss alone.
        """
        y = task.query.y
        _, *states = self.trajectory(task.support, self.inner_steps)
        outputs = [self.predict(state, task.query.x) for state in states]
        losses = torch.stack([self.likelihood.nll(out, y) for out in outputs])
        share = 1 - self.progress / self.multi_step
        loss = share * losses.mean() + (1 - share) * losses[-1]
        return loss, self.likelihood.metrics(outputs[-1], y)
