"""Networks trained with centre loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

from torch import Tensor, nn

from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.precision import widened
from innerloop.learners.metric.distances import class_means, squared_distance
from innerloop.nets.registry import encoder, flat_features


class CentreLossNet(Learner):
    """Centre loss: features that classify all training classes and lie close to their
    class's centre; then the nearest class mean wins.

    cross-entropy + strength/2 * |f(x) - centre of its class|^2
    Wen, Zhang, Li and Qiao 2016, "A discriminative feature learning approach for deep
    face recognition", ECCV, eq. (5).
    The centres are learned by descending the same loss.
    Its objective is that loss over all training classes at once (labels never change):
    no query likelihood.
    State: the mean embeddings of the classes (ways, d).

    encoder: f. base: the classifier of the training classes, dropped after training.
    strength: lambda; the paper has 0.003.
    """

    encoder: nn.Module
    base: nn.Linear
    _: KW_ONLY
    strength: float = 0.003
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(batch=128, optimizer="AdamW", lr=2e-3, supervised=True)

    def __post_init__(self) -> None:
        self.centres = nn.Parameter(self.base.weight.detach().clone())
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        body = encoder(spec, build_args.get("encoder"), vector="wide-mlp")
        return {"encoder": body, "base": nn.Linear(flat_features(body, spec), out_dim)}

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) in the learned metric space (m, d)."""
        return self.encoder(x)

    def adapt(self, support: Examples) -> Tensor:
        return class_means(self.embed(support.x), support.y)  # (ways, d)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return -squared_distance(self.embed(x), state)  # (m, ways)

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        z, y = widened(self.embed(task.query.x)), task.query.y
        outputs = self.base(z)
        centre = (z - y @ self.centres).square().sum(-1).mean() / 2
        return self.likelihood.nll(
            outputs, y
        ) + self.strength * centre, self.likelihood.metrics(outputs, y)
