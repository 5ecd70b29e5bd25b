"""Networks trained with center loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.options import NonNegative
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.metric.distances import class_means, squared_distance
from innerloop.nets.registry import encoder, flat_features


class CentreLossNet(Learner):
    """Center loss: a classifier with a center loss; predicts the nearest mean.

    cross-entropy + strength/2 * |f(x) - center of the class of x|^2

    Reference: Wen, Zhang, Li and Qiao 2016, "A discriminative feature learning approach
    for deep face recognition", ECCV, eq. (5).

    The centers are learned by gradient descent on the same loss. Defaults differ from
    the paper: a small batch and AdamW instead of SGD, for small images.

    Objective: this loss over all training classes at once, with fixed labels.

    State: the mean embeddings of the classes (ways, d).

    Args:
        encoder: the network f.
        base: the classifier of the training classes, unused after training.
        strength: weight of the distance to the centers.
    """

    encoder: nn.Module
    base: nn.Linear
    _: KW_ONLY
    strength: NonNegative = 0.003
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(batch=128, optimizer="AdamW", lr=2e-3, supervised=True)

    def __post_init__(self) -> None:
        self.centers = nn.Parameter(self.base.weight.detach().clone())  # (classes, d)
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        body = encoder(spec, build_args.get("encoder"), vector="wide-mlp")
        return {"encoder": body, "base": nn.Linear(flat_features(body, spec), out_dim)}

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {"config": {"batch": 256, "optimizer": "SGD", "lr": 0.1}}

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) in the learned metric space (m, d)."""
        return self.encoder(x)

    def adapt(self, support: Examples) -> Tensor:
        return class_means(self.embed(support.x), support.y)  # (ways, d)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return -squared_distance(self.embed(x), state)  # (m, ways)

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        y = task.query.y
        z = widened(self.embed(task.query.x))  # (m, d)
        outputs = self.base(z)  # (m, classes)
        to_center = (z - y @ self.centers).square().sum(-1).mean() / 2
        loss = self.likelihood.nll(outputs, y) + self.strength * to_center
        return loss, self.likelihood.metrics(outputs, y)
