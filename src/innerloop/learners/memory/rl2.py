"""RL squared: a fast learner of acting, inside a slow one."""

from __future__ import annotations

from dataclasses import KW_ONLY

import torch
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples
from innerloop.learners.memory.recurrent import Memory, Recurrent
from innerloop.nets.recurrent import GRUCell


class RL2(Recurrent):
    """RL squared: a recurrent network whose activations are the learning algorithm of
    an agent, and whose weights are learned by acting.

    h_t = GRU([x_t, a_(t-1), r_(t-1), d_(t-1)], h_(t-1)); policy and value are linear in
    h_t
    Duan, Schulman, Chen, Bartlett, Sutskever and Abbeel 2016, "RL squared: fast
    reinforcement learning via slow reinforcement learning", arXiv:1611.02779, section
    2.2, figure 1; the same, found at the same time: Wang et al. 2016, arXiv:1611.05763.
    x_t is what is seen, a the action before, r its reward, and d says that it ended an
    episode. h is kept from one episode to the next, and forgotten at the end of a trial
    Its objective is the reward of whole trials, raised by the meta-gradient `ppo`:
    exploring is worth what it finds out for later episodes. State: h, and the last
    action, its reward and whether it ended an episode, one row.

    encoder: what an input goes through first. hidden: the size of h.
    """

    _: KW_ONLY
    hidden: int = 128
    likelihood: Likelihood = Categorical()

    kinds = ("reals",)
    side_by_side = True
    defaults = MetaTrainConfig(
        batch=512, optimizer="Adam", lr=4e-3, warmup=0.01, clip=0.5, meta_gradient="ppo"
    )

    def __post_init__(self) -> None:
        self.cell = GRUCell(self.features + self.y_dim, self.hidden)
        self.head = nn.Linear(self.hidden, self.out_dim)
        super().__post_init__()

    def start(self) -> Memory:
        return self.cell.start(self.head.weight[0])

    def step(self, memory: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        memory = self.cell(inputs, memory)
        return self.head(memory), memory

    def along(self, examples: Examples) -> Tensor:
        # (n, steps, features)
        z = self.embed(examples.x.flatten(0, 1)).unflatten(0, examples.x.shape[:2])
        late = torch.cat([torch.zeros_like(examples.y[:, :1]), examples.y[:, :-1]], 1)
        return self.head(self.cell.along(torch.cat([z, late], -1)))
