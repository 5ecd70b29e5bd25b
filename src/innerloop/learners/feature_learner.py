"""The base class of learners that encode every input separately."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from innerloop.core.learner import Learner, State
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Examples, Task


class FeatureLearner(Learner):
    """A learner from features that do not depend on the task.

    All tasks of a meta-step, support and query, are encoded together, and so normalized
    together, as later by the stored statistics; normalized on its own, a small task
    would look unlike any that is tested.
    """

    encode_jointly: ClassVar[bool] = True

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) as features (m, d)."""

    @abstractmethod
    def learned(self, z: Tensor, y: Tensor) -> State:
        """The state after a support set with features z (n, d) and targets y (n,
        y_dim).
        """

    @abstractmethod
    def answers(self, state: State, z: Tensor) -> Tensor:
        """The outputs (m, out_dim) for features z (m, d)."""

    def adapt(self, support: Examples) -> State:
        return self.learned(self.embed(support.x), support.y)

    def predict(self, state: State, x: Tensor) -> Tensor:
        return self.answers(state, self.embed(x))

    def outcome(
        self, z: Tensor, y: Tensor, query_z: Tensor, query_y: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Loss and metrics of a task, from the features and targets of its support set,
        z (n, d) and y (n, y_dim), and of its query set.
        """
        outputs = self.answers(self.learned(z, y), query_z)
        nll = self.likelihood.nll(outputs, query_y)
        return nll, self.likelihood.metrics(outputs, query_y)

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        n = len(task.support.y)
        z = self.embed(torch.cat([task.support.x, task.query.x]))  # (n + m, d)
        return self.outcome(z[:n], task.support.y, z[n:], task.query.y)

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        n = tasks.support.x.shape[1]
        x = torch.cat([tasks.support.x, tasks.query.x], 1)  # (tasks, n + m, *x_shape)
        z = self.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        losses, metrics = self.mapped(
            self.outcome, z[:, :n], tasks.support.y, z[:, n:], tasks.query.y
        )
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}
