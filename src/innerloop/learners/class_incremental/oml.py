"""Online-aware meta-learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.precision import widened
from innerloop.learners.class_incremental_learner import ClassIncremental
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.log_parameter import positive
from innerloop.nets.registry import encoder, flat_features


class OML(FeatureLearner, ClassIncremental):
    """Online-aware meta-learning: features on which a linear head can learn class after
    class, example by example, and forget none.

    W <- W - inner_lr * grad_W cross-entropy(W f(x), y) = W + inner_lr * (y - softmax(W
    f(x))) f(x)^T, once for each example, as they come Javed and White 2019,
    "Meta-learning representations for continual learning", arXiv:1905.12588, eq.
    (2)-(3), Algorithm 2
    The head has one layer and begins at zero, as in later work (Beaulieu et al. 2020,
    arXiv:2002.09571), so that it takes any number of classes; the paper's has two. A
    class takes part from its first example on.
    Its objective is the loss of the query set after the support set has come in the
    worst order, class by class.
    State: weight (ways, width) of the head, and which classes were met (ways,).

    encoder: what f begins with. width: features that f ends with, after a further layer
        and a ReLU, scaled to length 1; many, so that they can be sparse. inner_lr:
        where the learned step size begins; the paper's is chosen by hand.
    """

    encoder: nn.Module
    features: int
    _: KW_ONLY
    width: int = 1024
    inner_lr: float = 2.0
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    contextual: ClassVar[bool] = True  # the order of examples counts
    defaults = MetaTrainConfig(
        ways=40, shots=5, queries=3, batch=1, optimizer="AdamW", lr=1e-3
    )

    def __post_init__(self) -> None:
        self.last, self.log_rate = (
            nn.Linear(self.features, self.width),
            positive(self.inner_lr, "the step size"),
        )
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"))
        return {"encoder": body, "features": flat_features(body, spec)}

    def embed(self, x: Tensor) -> Tensor:
        # (m, width)
        return F.normalize(
            widened(self.last(self.encoder(x).flatten(1)).relu()).to(
                self.log_rate.dtype
            ),
            dim=-1,
        )

    def learned(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._followed(None, z, y)

    def further(
        self, state: tuple[Tensor, Tensor] | None, examples: Examples
    ) -> tuple[Tensor, Tensor]:
        return self._followed(state, self.embed(examples.x), examples.y)

    def answers(self, state: tuple[Tensor, Tensor], z: Tensor) -> Tensor:
        weight, met = state
        with torch.autocast(z.device.type, enabled=False):
            # (m, ways)
            return torch.where(met > 0, z @ weight.T, torch.finfo(z.dtype).min / 2)

    def outcome(
        self, z: Tensor, y: Tensor, asked: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Metrics]:
        by_class = y.argmax(-1).argsort(stable=True)
        return super().outcome(z[by_class], y[by_class], asked, wanted)

    def _followed(
        self, state: tuple[Tensor, Tensor] | None, z: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The state after features z (n, width) with labels y (n, ways), one step for
        each.

        What a step adds to the scores of a later example is its error times the product
        of both features: the weights are made at the end.
        """
        weight, met = (
            state if state is not None else (z.new_zeros(0, z.shape[1]), z.new_zeros(0))
        )
        weight, met = (
            F.pad(weight, (0, 0, 0, y.shape[1] - len(weight))),
            F.pad(met, (0, y.shape[1] - len(met))),
        )
        with torch.autocast(z.device.type, enabled=False):
            errors, rate = [], self.log_rate.exp()
            products, scores = rate * z @ z.T, z @ weight.T  # (n, n), (n, ways)
            for i, seen in enumerate(torch.maximum(y.cummax(0).values, met)):
                # (ways,)
                errors.append(
                    y[i]
                    - torch.where(
                        seen > 0, scores[i], torch.finfo(z.dtype).min / 2
                    ).softmax(-1)
                )
                scores = torch.addr(scores, products[:, i], errors[-1])
            return weight + rate * torch.stack(errors).T @ z, torch.maximum(
                y.amax(0), met
            )
