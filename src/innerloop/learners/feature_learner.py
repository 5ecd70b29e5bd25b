"""What learners share that encode every input by itself and then read the features of a
task.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from innerloop.core.learner import Learner, State
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Examples, Task


class FeatureLearner(Learner):
    """A learner that reads a task's features, which do not depend on the task.

    All tasks of a meta-step, support and query, are encoded at once, and so normalised
    together, as they are by the settled statistics later on; by its own statistics, a
    small task would look unlike any that is tested.
    """

    encode_jointly: ClassVar[bool] = True

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) as features (m, features)."""

    @abstractmethod
    def learned(self, z: Tensor, y: Tensor) -> State:
        """The state after a support set with features z (n, features) and targets y (n,
        y_dim).
        """

    @abstractmethod
    def answers(self, state: State, z: Tensor) -> Tensor:
        """The outputs (m, out_dim) for features z (m, features)."""

    def adapt(self, support: Examples) -> State:
        return self.learned(self.embed(support.x), support.y)

    def predict(self, state: State, x: Tensor) -> Tensor:
        return self.answers(state, self.embed(x))

    def outcome(
        self, z: Tensor, y: Tensor, asked: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Loss and metrics of a task with features z (n, features) and targets y of its
        support set, `asked` and `wanted` of its query set.
        """
        outputs = self.answers(self.learned(z, y), asked)
        return self.likelihood.nll(outputs, wanted), self.likelihood.metrics(
            outputs, wanted
        )

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        z = self.embed(torch.cat([task.support.x, task.query.x]))
        return self.outcome(
            z[: len(task.support.y)],
            task.support.y,
            z[len(task.support.y) :],
            task.query.y,
        )

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        # (tasks, n + m, *x_shape)
        shots, x = (
            tasks.support.x.shape[1],
            torch.cat([tasks.support.x, tasks.query.x], 1),
        )
        z = self.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        losses, metrics = self.mapped(
            self.outcome, z[:, :shots], tasks.support.y, z[:, shots:], tasks.query.y
        )
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}
