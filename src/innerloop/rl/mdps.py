"""Random tabular Markov decision processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.engine.options import Count, Range
from innerloop.rl.baselines import Baseline
from innerloop.rl.environment import Environment
from innerloop.rl.mdp_baselines import (
    PSRL,
    EpsilonGreedyModel,
    GreedyModel,
    GreedyModelPrior0,
    PSRLPrior0,
    optimal_q,
)
from innerloop.tasks.splits import task_source


class MDPs(Environment):
    """Tabular MDPs with S states and A actions, see `mdps`.

    The observation is the state, one-hot; every episode starts in state 0. The training
    reward of an action is its advantage for the optimal policy, Q*(s, a) - V*(s): the
    reward with V* as a shaping potential (Ng, Harada and Russell 1999, "Policy
    invariance under reward transformations: theory and application to reward shaping",
    ICML), less the optimal return, and without the noise of rewards and transitions.
    """

    def __init__(
        self,
        states: int = 10,
        actions: int = 5,
        horizon: int = 10,
        episodes: int = 10,
        split: str = "train",
    ):
        super().__init__((states,), actions, horizon, episodes, split)
        self.states = states
        self.title = f"MDPs with {states} states and {actions} actions"

    def sample_params(self, n: int, generator: torch.Generator) -> Tensor:
        shape = n, self.states, self.actions
        R = 1 + torch.randn(shape, generator=generator)  # (n, S, A)
        uniform = torch.rand(*shape, self.states, generator=generator)
        share = -uniform.clamp_min(1e-12).log()  # exponential; normalized, Dirichlet
        P = share / share.sum(-1, keepdim=True)  # (n, S, A, S)
        Q = optimal_q(R, P, self.horizon)  # (horizon, n, S, A)
        advantage = (Q - Q.amax(-1, keepdim=True)).transpose(0, 1)
        # (n, S A + S A S + horizon S A)
        return torch.cat([table.flatten(1) for table in (R, P, advantage)], 1)

    def tables(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean rewards R (n, S, A), transitions P (n, S, A, S) and the optimal policy's
        advantages (n, horizon, S, A).
        """
        shape = self.states, self.actions
        size = self.states * self.actions
        R, P, advantage = params.split(
            [size, size * self.states, size * self.horizon], 1
        )
        return (
            R.unflatten(1, shape),
            P.unflatten(1, (*shape, self.states)),
            advantage.unflatten(1, (self.horizon, *shape)),
        )

    def start(self, params: Tensor, rng: torch.Generator) -> Tensor:
        # the index of the state, and that of the step
        return params.new_zeros(len(params), 2)

    def observe(self, params: Tensor, state: Tensor) -> Tensor:
        return F.one_hot(state[:, 0].long(), self.states).to(params.dtype)

    def step(
        self, params: Tensor, state: Tensor, action: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(state)
        rows, s = torch.arange(n, device=state.device), state[:, 0].long()
        P = self.tables(params)[1][rows, s, action.argmax(-1)]  # (n, S)
        u = torch.rand(n, 1, generator=rng, device=rng.device).to(P)
        following = (P.cumsum(-1) < u).sum(-1, keepdim=True).clamp_max(self.states - 1)
        noise = torch.randn(n, generator=rng, device=rng.device).to(P)
        return (
            torch.cat([following.to(state.dtype), state[:, 1:] + 1], 1),
            self.expected_reward(params, state, action) + noise,
            torch.zeros_like(noise, dtype=torch.bool),
        )

    def expected_reward(self, params: Tensor, state: Tensor, action: Tensor) -> Tensor:
        rows = torch.arange(len(state), device=state.device)
        return self.tables(params)[0][rows, state[:, 0].long(), action.argmax(-1)]

    def training_reward(self, params: Tensor, state: Tensor, action: Tensor) -> Tensor:
        rows = torch.arange(len(state), device=state.device)
        s, step = state.long().unbind(1)
        return self.tables(params)[2][rows, step, s, action.argmax(-1)]

    def baselines(self) -> dict[str, Callable[..., Baseline]]:
        return super().baselines() | {
            "PSRL": PSRL,
            "epsilon-greedy": EpsilonGreedyModel,
            "greedy": GreedyModel,
            "PSRL, prior mean 0": PSRLPrior0,
            "greedy, prior mean 0": GreedyModelPrior0,
        }


@task_source
def mdps(
    split: str = "train",
    *,
    states: Annotated[int, Range(2)] = 10,
    actions: Annotated[int, Range(2)] = 5,
    horizon: Count = 10,
    episodes: Count = 10,
) -> MDPs:
    """MDPs: explore a random tabular MDP for several short episodes.

    Reference: Duan, Schulman, Chen, Bartlett, Sutskever and Abbeel 2016, "RL^2:
    fast reinforcement learning via slow reinforcement learning", arXiv:1611.02779,
    section 3.2; the distribution: Osband, Russo and Van Roy 2013, "(More) efficient
    reinforcement learning via posterior sampling", arXiv:1306.0940.

    Mean rewards R(s, a) are normal with mean 1 and standard deviation 1, rewards are
    normal around them with standard deviation 1, and transitions P(. | s, a) are flat
    Dirichlet. All splits draw from the same continuum, from different seeds.

    Args:
        states: number of states.
        actions: number of actions.
        horizon: steps in an episode.
        episodes: episodes in a trial.
    """
    return MDPs(states, actions, horizon, episodes, split)
