"""Matching networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.likelihood import Categorical, Gaussian, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.learners.metric.distances import cosine
from innerloop.nets.log_parameter import positive
from innerloop.nets.recurrent import LSTMCell
from innerloop.nets.registry import encoder, flat_features


class MatchingNet(Learner):
    """Matching networks: an answer is the average of the support answers, weighted by
    attention to the support examples.

    y = sum_i a(f(x), g(x_i)) y_i, a = softmax(scale * cosine)
    Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra 2016, "Matching networks for
    one shot learning", arXiv:1606.04080, eq. (1) and section 2.1.1
    State: the embedded support set (n, d) and its targets (n, y_dim). Works for reals
    as it does for classes.

    encoder: f' and g', shared. contextual: full-context embeddings (section 2.1.2,
        appendices A.1 and A.2): a bidirectional LSTM reads the support set, an
        attending LSTM reads it again for every query; the order of the support set then
        matters.
    reads: steps of the attending LSTM. scale: where the learned sharpness of the
    attention begins; the paper has 1, fixed.
    """

    encoder: nn.Module
    features: int
    _: KW_ONLY
    contextual: bool = False
    reads: int = 5
    scale: float = 10.0
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
        if self.likelihood not in (Categorical(), Gaussian()):
            raise InnerloopError(
                f"attention averages targets, so outputs are class probabilities or means: {self.likelihood} cannot read them"
            )
        self.log_scale = positive(self.scale, "the scale of similarities")
        if self.contextual:
            self.forwards, self.backwards = (
                LSTMCell(self.features, self.features),
                LSTMCell(self.features, self.features),
            )
            self.attending = LSTMCell(2 * self.features, self.features)
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"))
        return {"encoder": body, "features": flat_features(body, spec)}

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) in the learned metric space (m, d), out of context."""
        return self.encoder(x)

    def adapt(self, support: Examples) -> tuple[Tensor, Tensor]:
        z = self.embed(support.x)  # (n, d)
        return (self._in_context(z) if self.contextual else z), support.y

    def predict(self, state: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        g, y = state
        f = self.embed(x)  # (m, d)
        if self.contextual:
            f = self._attend(f, g)
        attention = (self.log_scale.exp() * cosine(f, g)).softmax(-1)  # (m, n)
        with torch.autocast(x.device.type, enabled=False):
            answers = attention @ y
        # (m, y_dim)
        return (
            (answers + 1e-6).log()
            if isinstance(self.likelihood, Categorical)
            else answers
        )

    def _in_context(self, z: Tensor) -> Tensor:
        """g: every support embedding plus what both readers say at its place."""
        sums = list(z)
        for cell, order in (
            (self.forwards, range(len(z))),
            (self.backwards, reversed(range(len(z)))),
        ):
            state = cell.start(z[0])
            for i in order:
                state = cell(z[i], state)
                sums[i] = sums[i] + state[0]
        return torch.stack(sums)  # (n, d)

    def _attend(self, z: Tensor, g: Tensor) -> Tensor:
        """f: the query embedding after `reads` looks at the support set."""
        (h, c), read = self.attending.start(z), torch.zeros_like(z)
        for _ in range(self.reads):
            h, c = self.attending(torch.cat([z, read], -1), (h, c))
            h = h + z
            read = (h @ g.T).softmax(-1) @ g  # (m, d)
        return h
