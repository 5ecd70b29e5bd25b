"""RL squared: a fast reinforcement learner inside a slow one."""

from __future__ import annotations

from dataclasses import KW_ONLY

import torch
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples
from innerloop.engine.options import Count
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.memory.recurrent import Memory, Recurrent
from innerloop.nets.recurrent import GRUCell


class RL2(Recurrent):
    """RL squared: a recurrent agent that learns in its activations.

    h_t = GRU([x_t, a_(t-1), r_(t-1), d_(t-1)], h_(t-1)); policy and value are linear in
    h_t

    Reference: Duan, Schulman, Chen, Bartlett, Sutskever and Abbeel 2016, "RL^2:
    fast reinforcement learning via slow reinforcement learning", arXiv:1611.02779,
    section 2.2, figure 1; independently: Wang, Kurth-Nelson, Tirumala, Soyer, Leibo,
    Munos, Blundell, Kumaran and Botvinick 2016, "Learning to reinforcement learn",
    arXiv:1611.05763.

    x_t is the observation, a_(t-1) the previous action, r_(t-1) its reward, and d_(t-1)
    whether it ended an episode. h is kept between the episodes of a trial.

    Objective: the reward of whole trials, maximized by the meta-gradient `ppo`, so that
    exploring early pays off in later episodes.

    State: h, and the last action, its reward and whether it ended an episode, as one
    row.

    Args:
        encoder: the network that encodes an observation.
        normal: the normalization of features.
        features: size of the features.
        y_dim: size of a target.
        out_dim: number of outputs.
        hidden: size of h.
    """

    _: KW_ONLY
    hidden: Count = 128
    likelihood: Likelihood = Categorical()

    home = "bandits"
    kinds = ("reals",)
    batched_step = True
    defaults = MetaTrainConfig(
        batch=512, optimizer="Adam", lr=4e-3, warmup=0.01, clip=0.5, meta_gradient="ppo"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cell = GRUCell(self.features + self.y_dim, self.hidden)
        self.head = nn.Linear(self.hidden, self.out_dim)
        self.eval()

    def start(self) -> Memory:
        return self.cell.start(self.head.weight[0])

    def step(self, memory: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        memory = self.cell(inputs, memory)
        return self.head(memory), memory

    def scan_batch(self, examples: Examples) -> Tensor:
        # (n, steps, features)
        z = self.embed(examples.x.flatten(0, 1)).unflatten(0, examples.x.shape[:2])
        y = examples.y
        previous = torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], 1)
        return self.head(self.cell.along(torch.cat([z, previous], -1)))
