"""Learning in the context of a transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig, State, Streaming
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.attention import AttentionBlock
from innerloop.nets.norm import LayerNorm
from innerloop.nets.registry import reading


class InContext(FeatureLearner, Streaming):
    """In-context transformer: examples are tokens, and a query attends to those that
    came before it.

    token of an example = W f(x_i) + V y_i + b, of a query = W f(x) + c; an example
    attends to those up to it, a query to the examples and itself Mishra, Rohaninejad,
    Chen and Abbeel 2018, "A simple neural attentive meta-learner", arXiv:1707.03141,
    section 3, with the transformer of Vaswani et al. 2017, arXiv:1706.03762, in the
    place of its convolutions; as in Kirsch et al. 2022, arXiv:2212.04458, without
    positions Its objective is the loss of every answer: for each support example before
    its label is shown, and for the query set.
    State: the keys and values (n, width) of the examples in every layer.

    encoder: f. width: of a token. layers, heads: of the transformer.
    """

    encoder: nn.Module
    features: int
    y_dim: int
    out_dim: int
    _: KW_ONLY
    width: int = 128
    layers: int = 4
    heads: int = 4
    likelihood: Likelihood = Categorical()

    kinds = ("classes", "reals", "bits")
    defaults = MetaTrainConfig(
        shots=1, queries=5, optimizer="AdamW", lr=1e-3, weight_decay=0.01, warmup=0.05
    )

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InnerloopError(
                f"a width of {self.width} cannot be shared by {self.heads} heads"
            )
        self.tokens, self.labels = (
            nn.Linear(self.features, self.width),
            nn.Linear(self.y_dim, self.width),
        )
        self.asked = nn.Parameter(torch.zeros(self.width))
        self.blocks = nn.ModuleList(
            AttentionBlock(self.width, self.heads) for _ in range(self.layers)
        )
        self.head = nn.Sequential(
            LayerNorm(self.width), nn.Linear(self.width, self.out_dim)
        )
        super().__post_init__()

    fixed_ways = True

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        return reading(spec, out_dim, build_args.get("encoder"))

    def init(self) -> State:
        return [
            (self.asked.new_zeros(0, self.width), self.asked.new_zeros(0, self.width))
            for _ in self.blocks
        ]

    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        return self._through(
            state,
            self._told(self.encoder(x[None]), y[None]),
            torch.ones(1, 1, dtype=torch.bool, device=x.device),
        )[1]

    def scan(self, examples: Examples) -> tuple[State, Tensor]:
        z = self.encoder(examples.x)
        return self._at_once(z, z, examples.y)

    def embed(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def learned(self, z: Tensor, y: Tensor) -> State:
        told = self._told(z, y)
        return self._through(self.init(), told, _before(len(told), told, itself=True))[
            1
        ]

    def answers(self, state: State, z: Tensor) -> Tensor:
        asked = self._asked(z)
        return self.head(
            self._through(
                state, asked, torch.eye(len(asked), dtype=torch.bool, device=z.device)
            )[0]
        )

    def outcome(
        self, z: Tensor, y: Tensor, asked: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Metrics]:
        outputs = self._at_once(z, torch.cat([z, asked]), y)[1]
        return self.likelihood.nll(
            outputs, torch.cat([y, wanted])
        ), self.likelihood.metrics(outputs[len(y) :], wanted)

    def _told(self, z: Tensor, y: Tensor) -> Tensor:
        return self.tokens(z) + self.labels(y)  # (n, width)

    def _asked(self, z: Tensor) -> Tensor:
        return self.tokens(z) + self.asked  # (m, width)

    def _at_once(self, z: Tensor, asked: Tensor, y: Tensor) -> tuple[State, Tensor]:
        """The state after n examples with features z, and answers for m features: the
        first n from the examples before, the others from all.
        """
        n, m = len(z), len(asked)
        tokens = torch.cat([self._told(z, y), self._asked(asked)])
        # (n + m, n)
        visible = torch.cat(
            [_before(n, z, itself=True), _before(m, z, itself=False)[:, :n]]
        )
        itself = torch.cat(
            [visible.new_zeros(n, m), torch.eye(m, dtype=torch.bool, device=z.device)]
        )
        h, state = self._through(self.init(), tokens, torch.cat([visible, itself], 1))
        return [(k[:n], v[:n]) for k, v in state], self.head(h[n:])

    def _through(
        self, state: State, tokens: Tensor, visible: Tensor
    ) -> tuple[Tensor, State]:
        """Tokens (m, width) through all layers; all see the state, `visible` (m, m)
        says who sees whom. The state after them, too.
        """
        after = []
        for block, kept in zip(self.blocks, state, strict=True):
            tokens, kept = block(tokens, visible, kept)
            after.append(kept)
        return tokens, after


def _before(n: int, like: Tensor, *, itself: bool) -> Tensor:
    """Whether the one of a column comes before the one of a row (n, n)."""
    return torch.ones(n, n, dtype=torch.bool, device=like.device).tril(
        0 if itself else -1
    )
