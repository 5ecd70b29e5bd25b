"""Random Markov decision processes with few states: everything about them must be found
out by acting.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.rl.environment import Environment
from innerloop.tasks.splits import check_split


class MDPs(Environment):
    """Tabular: S states, A actions, episodes of a few steps that begin in state 0,
    which is seen.

    Mean rewards R(s, a) are normal with mean 1 and deviation 1, rewards normal around
    them with deviation 1, and transitions P(. | s, a) flat Dirichlet. Osband et al.
    2013, arXiv:1306.0940; as in Duan et al. 2016, arXiv:1611.02779, section 3.2.
    The credit of an action is how much less than the best one it is worth, Q*(s, a) -
    V*(s), for who knew the tables: over a trial that is the reward less that of the
    best policy, without the luck of rewards and transitions (Ng, Harada and Russell
    1999, "Policy invariance under reward transformations", with V* as potential).
    """

    def __init__(
        self, states: int = 10, actions: int = 5, horizon: int = 10, episodes: int = 10
    ):
        super().__init__((states,), actions, horizon, episodes)
        self.states = states

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        table = n, self.states, self.actions
        rewards = 1 + torch.randn(table, generator=generator)  # (n, S, A)
        # exponential: Dirichlet, once they sum to 1
        share = (
            -torch.rand(*table, self.states, generator=generator).clamp_min(1e-12).log()
        )
        P = share / share.sum(-1, keepdim=True)  # (n, S, A, S)
        Q = solved(rewards, P, self.horizon)  # (horizon, n, S, A)
        short = (Q - Q.amax(-1, keepdim=True)).transpose(0, 1)  # (n, horizon, S, A)
        # (n, S A + S A S + horizon S A)
        return torch.cat([split.flatten(1) for split in (rewards, P, short)], 1)

    def tables(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """R (n, S, A) and P (n, S, A, S)."""
        size = self.states * self.actions
        shape = self.states, self.actions
        return parameters[:, :size].unflatten(1, shape), parameters[
            :, size : size + size * self.states
        ].unflatten(1, (*shape, self.states))

    def start(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        # the number of the state, and of the step
        return parameters.new_zeros(len(parameters), 2)

    def look(self, parameters: Tensor, where: Tensor) -> Tensor:
        return F.one_hot(where[:, 0].long(), self.states).to(parameters.dtype)

    def step(
        self,
        parameters: Tensor,
        where: Tensor,
        action: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, s, a = (
            torch.arange(len(where), device=where.device),
            where[:, 0].long(),
            action.argmax(-1),
        )
        P = self.tables(parameters)[1][rows, s, a]  # (n, S)
        u = torch.rand(len(where), 1, generator=generator, device=generator.device).to(
            P
        )
        after = (
            (P.cumsum(-1) < u)
            .sum(-1, keepdim=True)
            .clamp_max(self.states - 1)
            .to(where.dtype)
        )
        noise = torch.randn(
            len(where), generator=generator, device=generator.device
        ).to(P)
        after = torch.cat([after, where[:, 1:] + 1], 1)
        return (
            after,
            self.expected(parameters, where, action) + noise,
            torch.zeros_like(noise, dtype=torch.bool),
        )

    def expected(self, parameters: Tensor, where: Tensor, action: Tensor) -> Tensor:
        rows = torch.arange(len(where), device=where.device)
        return self.tables(parameters)[0][rows, where[:, 0].long(), action.argmax(-1)]

    def credit(self, parameters: Tensor, where: Tensor, action: Tensor) -> Tensor:
        rows, (s, step) = (
            torch.arange(len(where), device=where.device),
            where.long().unbind(1),
        )
        short = parameters[:, -self.horizon * self.states * self.actions :].unflatten(
            1, (self.horizon, self.states, self.actions)
        )
        return short[rows, step, s, action.argmax(-1)]


def solved(R: Tensor, P: Tensor, horizon: int) -> Tensor:
    """Q (horizon, ..., S, A) of the best policy with as many steps left as there are
    from each step on: Bellman 1957.
    """
    Q, rows = R, [R]
    for _ in range(horizon - 1):
        Q = R + torch.einsum("...sat,...t->...sa", P, Q.amax(-1))
        rows.append(Q)
    return torch.stack(rows[::-1])


def mdps(
    split: str = "train",
    *,
    states: int = 10,
    actions: int = 5,
    horizon: int = 10,
    episodes: int = 10,
) -> MDPs:
    """Random tabular MDPs; every split draws from the same continuum, in which no task
    comes twice.
    """
    check_split(split)
    return MDPs(states, actions, horizon, episodes)
