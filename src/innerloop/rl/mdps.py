"""Random Markov decision processes with few states: everything about them must be found out by acting."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.rl.environment import Environment
from innerloop.tasks.parts import check_part


class MDPs(Environment):
    """Tabular: S states, A actions, episodes of a few steps that begin in state 0, which is seen.

    Mean rewards R(s, a) are normal with mean 1 and deviation 1, rewards normal around them with deviation 1, and transitions P(. | s, a) flat
    Dirichlet. Osband et al. 2013, arXiv:1306.0940; as in Duan et al. 2016, arXiv:1611.02779, section 3.2.
    """

    def __init__(self, states: int = 10, actions: int = 5, horizon: int = 10, episodes: int = 10):
        super().__init__((states,), actions, horizon, episodes)
        self.states = states

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        table = n, self.states, self.actions
        rewards = 1 + torch.randn(table, generator=generator)  # (n, S, A)
        share = -torch.rand(*table, self.states, generator=generator).clamp_min(1e-12).log()  # exponential: Dirichlet, once they sum to 1
        return torch.cat([rewards.flatten(1), (share / share.sum(-1, keepdim=True)).flatten(1)], 1)  # (n, S A + S A S)

    def tables(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """R (n, S, A) and P (n, S, A, S)."""
        size = self.states * self.actions
        shape = self.states, self.actions
        return parameters[:, :size].unflatten(1, shape), parameters[:, size:].unflatten(1, (*shape, self.states))

    def start(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        return parameters.new_zeros(len(parameters), 1)  # the number of the state

    def look(self, parameters: Tensor, where: Tensor) -> Tensor:
        return F.one_hot(where[:, 0].long(), self.states).to(parameters.dtype)

    def step(self, parameters: Tensor, where: Tensor, action: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        rows, s, a = torch.arange(len(where), device=where.device), where[:, 0].long(), action.argmax(-1)
        P = self.tables(parameters)[1][rows, s, a]  # (n, S)
        u = torch.rand(len(where), 1, generator=generator, device=generator.device).to(P)
        after = (P.cumsum(-1) < u).sum(-1, keepdim=True).clamp_max(self.states - 1).to(where.dtype)
        noise = torch.randn(len(where), generator=generator, device=generator.device).to(P)
        return after, self.expected(parameters, where, action) + noise, torch.zeros_like(noise, dtype=torch.bool)

    def expected(self, parameters: Tensor, where: Tensor, action: Tensor) -> Tensor:
        rows = torch.arange(len(where), device=where.device)
        return self.tables(parameters)[0][rows, where[:, 0].long(), action.argmax(-1)]


def mdps(part: str = "train", *, states: int = 10, actions: int = 5, horizon: int = 10, episodes: int = 10) -> MDPs:
    """Random tabular MDPs; every part draws from the same continuum, in which no task comes twice."""
    check_part(part)
    return MDPs(states, actions, horizon, episodes)
