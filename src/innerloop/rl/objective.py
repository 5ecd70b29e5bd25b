"""What evolution strategies maximize in environments."""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Task
from innerloop.rl.environment import Environment
from innerloop.rl.rollout import PopulationAgent, check_streaming, interact, rollout


class TrialReward:
    """The negative training reward of one trial of every task, as a loss.

    It ranks members as the reward does, with less variance where the environment knows
    more than the sampled rewards (`Environment.training_reward`).
    """

    def __init__(self, environment: Environment):
        self.environment = environment

    def __call__(
        self, learner: Learner, tasks: Task, rng: torch.Generator
    ) -> tuple[Tensor, Metrics]:
        params = self.environment.params_of(tasks)
        trials = rollout(learner, self.environment, params, rng)
        reward = trials.reward.sum(-1).mean()
        return -trials.training_reward.sum(-1).mean(), {"reward": reward}

    @torch.no_grad()
    def of_members(
        self,
        learner: Learner,
        members: dict[str, Tensor],
        tasks: Task,
        rng: torch.Generator,
    ) -> Tensor:
        """The losses (members,) of a learner with other parameters, by name, each
        (members, *shape); all members act in the same tasks side by side.
        """
        environment = self.environment
        agent = PopulationAgent(check_streaming(learner), members, rng)
        size = len(next(iter(members.values())))
        rows = environment.params_of(tasks).repeat(size, 1)  # (members tasks, p)
        total = rows.new_zeros(len(rows))
        with torch.random.fork_rng([rows.device] if rows.is_cuda else []):
            for step in interact(agent, environment, rows, rng, environment.steps):
                total = total + step.training_reward
        return -total.unflatten(0, (size, -1)).mean(1)
