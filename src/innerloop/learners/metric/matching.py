"""Matching networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import SEQUENTIAL, Learner
from innerloop.core.likelihood import Categorical, Gaussian, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Positive
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.metric.distances import cosine_similarity
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.recurrent import LSTMCell
from innerloop.nets.registry import encoder, flat_features


class MatchingNet(Learner):
    """Matching networks: predicts an attention-weighted average of support targets.

    y = sum_i a(f(x), g(x_i)) y_i, a = softmax(scale * cosine similarity)

    Reference: Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra 2016, "Matching
    networks for one shot learning", arXiv:1606.04080, eq. (1) and section 2.1.1.

    Real-valued targets are averaged like class labels. Defaults differ from the paper:
    the scale is learned, from 10; there it is 1, fixed.

    State: the embedded support set (n, d) and its targets (n, y_dim).

    Args:
        encoder: the embedding of f and g.
        features: number of its features.
        contextual: full-context embeddings (section 2.1.2, appendices A.1 and A.2): a
            bidirectional LSTM over the support set for g, an LSTM with attention to it
            for f; the order of the support set then matters.
        reads: steps of the LSTM of f.
        scale: initial value of the learned scale of similarities.
    """

    encoder: nn.Module
    features: Count
    _: KW_ONLY
    contextual: bool = False
    reads: Count = 5
    scale: Positive = 10.0
    likelihood: Likelihood = Categorical()

    defaults = MetaTrainConfig(
        ways=20,
        shots=1,
        queries=5,
        batch=1,
        optimizer="AdamW",
        lr=1e-3,
        weight_decay=0.01,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.likelihood not in (Categorical(), Gaussian()):
            raise InnerloopError(
                "MatchingNet predicts class probabilities or means, without a scale: "
                f"{self.likelihood} cannot read them"
            )
        self.log_scale = log_parameter(self.scale)
        if self.contextual:
            self.export_problem = SEQUENTIAL
            self.forwards = LSTMCell(self.features, self.features)
            self.backwards = LSTMCell(self.features, self.features)
            self.attending = LSTMCell(2 * self.features, self.features)
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"))
        return {"encoder": body, "features": flat_features(body, spec)}

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {"fields": {"scale": 1.0}}

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) in the learned metric space (m, d), without context."""
        return self.encoder(x)

    def adapt(self, support: Examples) -> tuple[Tensor, Tensor]:
        z = self.embed(support.x)  # (n, d)
        return (self._in_context(z) if self.contextual else z), support.y

    def predict(self, state: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        g, y = state
        f = self.embed(x)  # (m, d)
        if self.contextual:
            f = self._attend(f, g)
        similarity = self.log_scale.exp() * cosine_similarity(f, g)  # (m, n)
        with torch.autocast(x.device.type, enabled=False):
            mean = similarity.softmax(-1) @ y  # (m, y_dim)
        if isinstance(self.likelihood, Categorical):
            return (mean + 1e-6).log()
        return mean

    def _in_context(self, z: Tensor) -> Tensor:
        """g (n, d): every support embedding plus the states of both LSTMs at its
        place.
        """
        sums = list(z)
        n = range(len(z))
        for cell, order in ((self.forwards, n), (self.backwards, reversed(n))):
            state = cell.start(z[0])
            for i in order:
                state = cell(z[i], state)
                sums[i] = sums[i] + state[0]
        return torch.stack(sums)

    def _attend(self, z: Tensor, g: Tensor) -> Tensor:
        """f (m, d): the query embeddings z after `reads` steps of attention to g."""
        h, c = self.attending.start(z)
        read = torch.zeros_like(z)
        for _ in range(self.reads):
            h, c = self.attending(torch.cat([z, read], -1), (h, c))
            h = h + z
            read = (h @ g.T).softmax(-1) @ g  # (m, d)
        return h
