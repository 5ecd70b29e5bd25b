"""What the meta-gradients share that act in environments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from innerloop.core.learner import Learner
from innerloop.core.task import TaskDistribution
from innerloop.metagrad.base import MetaGradient
from innerloop.rl.environment import as_environment


class ActingGradient(MetaGradient):
    """A meta-gradient that acts in an environment to collect what it learns from.

    It draws a batch of tasks only when a new round is played.
    """

    plays = True

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        super().check(learner, tasks)
        as_environment(tasks)

    def prepare(
        self, learner: Learner, tasks: TaskDistribution, generator: torch.Generator
    ) -> None:
        super().prepare(learner, tasks, generator)
        self.environment, self.generator = as_environment(tasks), generator
        self.device = next(learner.parameters()).device

    def mine(self, rows: Tensor) -> Tensor:
        """Those rows (n, ...) of a batch of n tasks that this process computes on."""
        return rows if self.own is None else self.own.of(rows)

    def whole(self, rows: Tensor) -> Tensor:
        """The rows (n, ...) of all processes, from those of this one."""
        return rows if self.own is None else self.workers.gather(rows, self.own)

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.get_state(),
            "round": self.round_state(),
            "together": self.together,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"].cpu())
        self.together = state.get("together", 1)
        self.load_round_state(
            tree_map(
                lambda leaf: leaf.to(self.device) if torch.is_tensor(leaf) else leaf,
                state["round"],
            )
        )

    def take_share(self, total: int) -> None:
        """Take the share of a batch of so many tasks that was collected before."""
        alone = self.workers.size == 1
        self.own = None if alone else self.workers.share(total, self.together)

    def round_state(self) -> dict[str, Any]:
        """The collected data that later meta-steps still use, of all processes."""
        return {}

    def load_round_state(self, state: dict[str, Any]) -> None:
        """Continue from `round_state`; its tensors are on the learner's device."""
