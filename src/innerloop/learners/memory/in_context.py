"""Learning in the context of a transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import State, Streaming
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.attention import AttentionBlock
from innerloop.nets.norm import LayerNorm
from innerloop.nets.registry import reading


@Streaming.register
class InContext(FeatureLearner):
    """In-context transformer: a transformer whose queries attend to earlier examples.

    token of an example = W f(x_i) + V y_i + b, of a query = W f(x) + c; an example
    attends to those up to and including itself, a query to the examples and itself

    Reference: Mishra, Rohaninejad, Chen and Abbeel 2018, "A simple neural attentive
    meta-learner", arXiv:1707.03141, section 3. The transformer, instead of the
    convolutions there: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and
    Polosukhin 2017, "Attention is all you need", arXiv:1706.03762; without positions,
    as in Kirsch, Harrison, Sohl-Dickstein and Metz 2022, "General-purpose in-context
    learning by meta-learning transformers", arXiv:2212.04458.

    It also has the interface of `Streaming`, whose methods it all implements.

    Objective: the loss of every prediction: of each support example before its label is
    read, and of the query set.

    State: the keys and values (n, width) of the examples in every layer.

    Args:
        encoder: the network f.
        features: size of the features.
        y_dim: size of a target.
        out_dim: number of outputs.
        width: size of a token.
        layers: layers of the transformer.
        heads: attention heads of the transformer.
    """

    encoder: nn.Module
    features: int
    y_dim: int
    out_dim: int
    _: KW_ONLY
    width: Count = 128
    layers: Count = 4
    heads: Count = 4
    likelihood: Likelihood = Categorical()

    kinds = ("classes", "reals", "bits")
    fixed_ways = True
    defaults = MetaTrainConfig(
        shots=1, queries=5, optimizer="AdamW", lr=1e-3, weight_decay=0.01, warmup=0.05
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise InnerloopError(
                f"width must be a multiple of heads; got {self.width} and {self.heads}"
            )
        self.tokens = nn.Linear(self.features, self.width)
        self.labels = nn.Linear(self.y_dim, self.width)
        self.no_label = nn.Parameter(torch.zeros(self.width))
        self.blocks = nn.ModuleList(
            AttentionBlock(self.width, self.heads) for _ in range(self.layers)
        )
        self.head = nn.Sequential(
            LayerNorm(self.width), nn.Linear(self.width, self.out_dim)
        )
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        return reading(spec, out_dim, build_args.get("encoder"))

    def init(self) -> State:
        """The state before any example."""
        empty = self.no_label.new_zeros(0, self.width)
        return [(empty, empty) for _ in self.blocks]

    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        """The state after one more example x (*x_shape), y (y_dim,)."""
        token = self._example_tokens(self.encoder(x[None]), y[None])
        visible = torch.ones(1, 1, dtype=torch.bool, device=x.device)
        return self._transformed(state, token, visible)[1]

    def scan(self, examples: Examples) -> tuple[State, Tensor]:
        """The state after the examples, and the outputs (n, out_dim) for each of them,
        predicted before its label is read.
        """
        z = self.encoder(examples.x)
        return self._at_once(z, z, examples.y)

    def predict_support(self, support: Examples) -> Tensor:
        return self.scan(support)[1]

    def embed(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def learned(self, z: Tensor, y: Tensor) -> State:
        tokens = self._example_tokens(z, y)
        visible = _causal(len(tokens), tokens, inclusive=True)
        return self._transformed(self.init(), tokens, visible)[1]

    def answers(self, state: State, z: Tensor) -> Tensor:
        tokens = self._query_tokens(z)
        visible = torch.eye(len(tokens), dtype=torch.bool, device=z.device)
        return self.head(self._transformed(state, tokens, visible)[0])

    def outcome(
        self, z: Tensor, y: Tensor, query_z: Tensor, query_y: Tensor
    ) -> tuple[Tensor, Metrics]:
        outputs = self._at_once(z, torch.cat([z, query_z]), y)[1]
        nll = self.likelihood.nll(outputs, torch.cat([y, query_y]))
        return nll, self.likelihood.metrics(outputs[len(y) :], query_y)

    def _example_tokens(self, z: Tensor, y: Tensor) -> Tensor:
        return self.tokens(z) + self.labels(y)  # (n, width)

    def _query_tokens(self, z: Tensor) -> Tensor:
        return self.tokens(z) + self.no_label  # (m, width)

    def _at_once(self, z: Tensor, query_z: Tensor, y: Tensor) -> tuple[State, Tensor]:
        """The state after n examples with features z, and outputs for m queries: for
        the first n of them from the examples before, for the others from all.
        """
        n, m = len(z), len(query_z)
        tokens = torch.cat([self._example_tokens(z, y), self._query_tokens(query_z)])
        among_examples = _causal(n, z, inclusive=True)
        of_queries = _causal(m, z, inclusive=False)[:, :n]
        examples = torch.cat([among_examples, of_queries])  # (n + m, n)
        itself = torch.eye(m, dtype=torch.bool, device=z.device)
        queries = torch.cat([itself.new_zeros(n, m), itself])  # (n + m, m)
        visible = torch.cat([examples, queries], 1)
        h, state = self._transformed(self.init(), tokens, visible)
        return [(k[:n], v[:n]) for k, v in state], self.head(h[n:])

    def _transformed(
        self, state: State, tokens: Tensor, visible: Tensor
    ) -> tuple[Tensor, State]:
        """Tokens (m, width) after all layers, and the state with them. All tokens see
        the state; `visible` (m, m) says which tokens each of them sees.
        """
        after = []
        for block, cache in zip(self.blocks, state, strict=True):
            tokens, cache = block(tokens, visible, cache)
            after.append(cache)
        return tokens, after


def _causal(n: int, like: Tensor, *, inclusive: bool) -> Tensor:
    """Whether the index of a column is less than that of a row (n, n), or equal."""
    ones = torch.ones(n, n, dtype=torch.bool, device=like.device)
    return ones.tril(0 if inclusive else -1)
