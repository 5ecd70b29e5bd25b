"""What learners share that encode every input by itself and then read the features of a task."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Task


class Encoded(Learner):
    """A learner that reads a task's features, which do not depend on the task.

    All tasks of a meta-step, support and query, are encoded at once, and so normalised together, as they are by the settled statistics later on; by
    its own statistics, a small task would look unlike any that is tested.
    """

    together: ClassVar[bool] = True

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) as features (m, features)."""

    @abstractmethod
    def outcome(self, z: Tensor, y: Tensor, asked: Tensor, answers: Tensor) -> tuple[Tensor, Metrics]:
        """The loss of a task with features z (n, features) and targets y (n, y_dim) of its support set, `asked` and `answers` of its query set."""

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        z = self.embed(torch.cat([task.support.x, task.query.x]))
        return self.outcome(z[: len(task.support.y)], task.support.y, z[len(task.support.y) :], task.query.y)

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        shots, x = tasks.support.x.shape[1], torch.cat([tasks.support.x, tasks.query.x], 1)  # (tasks, n + m, *x_shape)
        z = self.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        losses, metrics = self.mapped(self.outcome, z[:, :shots], tasks.support.y, z[:, shots:], tasks.query.y)
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}
