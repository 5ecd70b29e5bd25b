"""Context-aware meta-learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from innerloop.core.learner import State
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Range
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.metric.distances import class_means
from innerloop.nets.attention import AttentionBlock
from innerloop.nets.norm import LayerNorm
from innerloop.nets.registry import encoder, flat_features


def equiangular(count: int) -> Tensor:
    """`count` vectors (count, count) of length 1 whose angles are equal and as large as
    possible: the corners of a regular simplex, with inner products -1 / (count - 1).
    """
    corners = torch.eye(count) - 1 / count
    return corners * (count / (count - 1)) ** 0.5


class CAML(FeatureLearner):
    """CAML: a non-causal transformer over the support set and one query.

    token of an example = [W f(x_i); sqrt(most) code of its label], of a query = [W
    f(x); u]; all examples attend to each other, a query to the examples and itself;
    score of class k = inner product of its code and V h(query)

    Reference: Fifty, Duan, Junkins, Amid, Leskovec, Ré and Thrun 2024, "Context-aware
    meta-learning", arXiv:2310.10971, section 4.

    The codes have equal lengths and equal angles, the largest possible (ELMES, section
    4.2). In training, each task uses random ones of the `most` codes, which torch's
    global generator draws; in evaluation mode the first ones, in an order of the
    classes that does not depend on their labels. Differs from the paper: the examples
    do not attend to the query, so that a support set is read once for all queries;
    scores are inner products with the codes instead of the outputs of a head for a
    fixed number of ways; the transformer is smaller; queries and keys start with equal
    projections, so that examples attend to similar ones at first; and f is trained too,
    unless it is frozen as in the paper.

    State: the codes of the classes (ways, most), and the keys and values (n, width) of
    the examples in every layer.

    Args:
        encoder: the network f.
        features: size of the features.
        width: size of a token.
        layers: layers of the transformer.
        heads: attention heads of the transformer.
        most: number of codes, and so the largest number of ways.
    """

    encoder: nn.Module
    features: int
    _: KW_ONLY
    width: Count = 256
    layers: Count = 4
    heads: Count = 4
    most: Annotated[int, Range(2)] = 32
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(
        queries=5, optimizer="AdamW", lr=1e-3, weight_decay=0.01, warmup=0.05
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads or self.width <= self.most:
            raise InnerloopError(
                "width must be a multiple of heads and greater than most; got "
                f"width={self.width}, heads={self.heads} and most={self.most}"
            )
        self.register_buffer("codes", equiangular(self.most))
        self.tokens = nn.Linear(self.features, self.width - self.most)
        self.unknown = nn.Parameter(torch.zeros(self.most))
        self.blocks = nn.ModuleList(
            AttentionBlock(self.width, self.heads) for _ in range(self.layers)
        )
        for block in self.blocks:  # at first, examples attend to similar ones
            queries, keys, _ = cast(nn.Linear, block.projections).weight.data.chunk(3)
            keys.copy_(queries)
        self.head = nn.Sequential(
            LayerNorm(self.width), nn.Linear(self.width, self.most)
        )
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        most = build_args.get("most", cls.most)
        if spec.y_dim > most:
            raise InnerloopError(
                f"CAML with {most} codes predicts at most {most} classes; got "
                f"{spec.y_dim}: raise most"
            )
        body = encoder(spec, build_args.get("encoder"), vector="flatten")
        return {"encoder": body, "features": flat_features(body, spec)}

    def embed(self, x: Tensor) -> Tensor:
        return self.tokens(self.encoder(x).flatten(1))  # (m, width - most)

    def learned(self, z: Tensor, y: Tensor) -> State:
        codes = self._codes_of(class_means(z, y))
        labels = self.most**0.5 * y @ codes  # as large as the features
        h = torch.cat([z, labels.to(z.dtype)], 1)  # (n, width)
        visible = torch.ones(1, len(h), dtype=torch.bool, device=z.device)
        kept = []
        for block in self.blocks:
            h, keys_and_values = block(h, visible)
            kept.append(keys_and_values)
        return codes, kept

    def answers(self, state: State, z: Tensor) -> Tensor:
        codes, kept = state
        h = torch.cat([z, self.unknown.to(z.dtype).expand(len(z), -1)], 1)
        itself = torch.eye(len(h), dtype=torch.bool, device=z.device)
        for block, keys_and_values in zip(self.blocks, kept, strict=True):
            h, _ = block(h, itself, keys_and_values)
        return self.head(h) @ codes.to(h.dtype).T  # (m, ways)

    def _codes_of(self, means: Tensor) -> Tensor:
        """The codes (ways, most) of classes with token means (ways, d): random ones in
        training mode, else in the order of the first components of the means, so that
        permuting the labels permutes the outputs.
        """
        codes, ways = self.get_buffer("codes"), len(means)
        if ways > self.most:
            raise InnerloopError(
                f"this CAML was built for at most {self.most} classes; got {ways}: "
                "train it with a larger value of most"
            )
        if self.training:
            return codes[torch.rand(self.most, device=codes.device).argsort()[:ways]]
        return codes[means[:, 0].argsort().argsort()]
