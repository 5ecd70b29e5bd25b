"""Online-aware meta-learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.options import Count, Positive
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.class_incremental_learner import ClassIncremental
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.registry import encoder, flat_features


class OML(FeatureLearner, ClassIncremental):
    """Online-aware meta-learning: features for a linear head that learns without
    forgetting.

    W <- W - inner_lr * grad_W cross-entropy(W f(x), y) = W + inner_lr * (y - softmax(W
    f(x))) f(x)^T, one step for each example, in their order

    Reference: Javed and White 2019, "Meta-learning representations for continual
    learning", arXiv:1905.12588, eq. (2)-(3), Algorithm 2.

    Differs from the paper: the head has one layer instead of two and begins at zero, as
    in Beaulieu, Frati, Miconi, Lehman, Stanley, Clune and Cheney 2020, "Learning to
    continually learn", arXiv:2002.09571, so that it takes any number of classes; a
    class is predicted from its first example on; the inner step size is learned.

    Objective: the loss of the query set after the support set in the hardest order,
    class by class.

    State: weight (ways, width) of the head, and which classes have occurred (ways,).

    Args:
        encoder: the first part of f.
        features: number of its features.
        width: number of features of f, the outputs of a further ReLU layer, scaled to
            length 1; many, so that they can be sparse.
        inner_lr: initial value of the learned inner step size.
    """

    encoder: nn.Module
    features: Count
    _: KW_ONLY
    width: Count = 1024
    inner_lr: Positive = 2.0
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    contextual = True  # the order of the support examples matters
    defaults = MetaTrainConfig(
        ways=40, shots=5, queries=3, batch=1, optimizer="AdamW", lr=1e-3
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.last = nn.Linear(self.features, self.width)
        self.log_rate = log_parameter(self.inner_lr)
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"))
        return {"encoder": body, "features": flat_features(body, spec)}

    def embed(self, x: Tensor) -> Tensor:
        z = widened(self.last(self.encoder(x).flatten(1)).relu())
        return F.normalize(z.to(self.log_rate.dtype), dim=-1)  # (m, width)

    def learned(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._extended(None, z, y)

    def extend(
        self, state: tuple[Tensor, Tensor] | None, examples: Examples
    ) -> tuple[Tensor, Tensor]:
        return self._extended(state, self.embed(examples.x), examples.y)

    def answers(self, state: tuple[Tensor, Tensor], z: Tensor) -> Tensor:
        weight, occurred = state
        with torch.autocast(z.device.type, enabled=False):
            return _masked(z @ weight.T, occurred)  # (m, ways)

    def outcome(
        self, z: Tensor, y: Tensor, query_z: Tensor, query_y: Tensor
    ) -> tuple[Tensor, Metrics]:
        by_class = y.argmax(-1).argsort(stable=True)
        return super().outcome(z[by_class], y[by_class], query_z, query_y)

    def _extended(
        self, state: tuple[Tensor, Tensor] | None, z: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The state after a step for each example, features z (n, width) and labels y
        (n, ways).

        A step adds the product of its error, its step size and the inner product of
        both features to the scores of a later example; the weights themselves are
        computed once, at the end.
        """
        if state is None:
            state = z.new_zeros(0, z.shape[1]), z.new_zeros(0)
        weight, occurred = state
        weight = F.pad(weight, (0, 0, 0, y.shape[1] - len(weight)))
        occurred = F.pad(occurred, (0, y.shape[1] - len(occurred)))
        with torch.autocast(z.device.type, enabled=False):
            rate = self.log_rate.exp()
            products = rate * z @ z.T  # (n, n)
            scores = z @ weight.T  # (n, ways)
            errors: list[Tensor] = []
            for i, so_far in enumerate(torch.maximum(y.cummax(0).values, occurred)):
                errors.append(y[i] - _masked(scores[i], so_far).softmax(-1))  # (ways,)
                scores = torch.addr(scores, products[:, i], errors[-1])
            weight = weight + rate * torch.stack(errors).T @ z
            return weight, torch.maximum(y.amax(0), occurred)


def _masked(scores: Tensor, occurred: Tensor) -> Tensor:
    """Scores (..., ways) without the classes that have not occurred (ways,)."""
    return torch.where(occurred > 0, scores, torch.finfo(scores.dtype).min / 2)
