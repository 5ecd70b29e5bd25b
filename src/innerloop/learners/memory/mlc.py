"""Translation by a transformer that reads the examples of a language."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.memory.translator import END, UNKNOWN, Translator
from innerloop.nets.context_block import Context, ContextBlock, Marks, Seen
from innerloop.nets.norm import LayerNorm

BEGIN = UNKNOWN  # what the decoder reads before the first token; it is never written


class MLC(Translator):
    """MLC: a transformer that learns a language from a few pairs.

    p(y | x, support) = prod_t p(y_t | y_<t, E(x, S), S),  S = E(support pairs)

    Reference: Lake and Baroni 2023, "Human-like systematic generalization through a
    meta-learning neural network", Nature 623, methods, "Architecture and optimizer".
    There one sequence holds a query and all pairs and is encoded for each query. Here
    the pairs are encoded once: layers alternate between attention within a pair and
    between all pairs, so their order does not matter. Equal tokens, and tokens of the
    same place, attend to each other from the beginning, and the embeddings of tokens
    are also the weights of the output layer, which shortens training. Defaults differ
    from the paper: half its width and heads, batches of 16 with twice its learning
    rate, and 4 and 2 layers of encoders instead of 3.

    Objective: the negative log-likelihood of the tokens of the query set and the
    support set, as there, each token from the right ones before it.

    State: the tokens (n (source + target), width) of the pairs after the last layer,
    and their numbers and places.

    Args:
        width: size of a token.
        heads: attention heads.
        layers: layers of the encoder of pairs: half of them within a pair.
        query_layers: layers of the encoder of queries.
        decoder_layers: layers of the decoder.
    """

    _: KW_ONLY
    width: Count = 64
    heads: Count = 4
    layers: Count = 4
    query_layers: Count = 2
    decoder_layers: Count = 3

    defaults = MetaTrainConfig(
        batch=16, optimizer="AdamW", lr=2e-3, weight_decay=0.01, warmup=0.03, clip=1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise InnerloopError(
                f"width must be a multiple of heads; got {self.width} and {self.heads}"
            )
        self.tokens = nn.Embedding(self.vocabulary, self.width)
        self.source_places = nn.Embedding(self.source, self.width)
        self.target_places = nn.Embedding(self.target, self.width)
        self.query = nn.Parameter(torch.randn(self.width))
        self.encoder, self.query_encoder, self.decoder = (
            nn.ModuleList(ContextBlock(self.width, self.heads) for _ in range(count))
            for count in (self.layers, self.query_layers, self.decoder_layers)
        )
        self.norms = nn.ModuleList(LayerNorm(self.width) for _ in range(3))
        self.eval()

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {
            "fields": {"width": 128, "heads": 8},
            "config": {"batch": 25, "lr": 1e-3},
        }

    def adapt(self, support: Examples) -> Context:
        x, y = map(self.tokens_of, support)
        numbers = torch.cat([x, y], 1)  # (n, source + target)
        parts = self._placed(x, self.source_places), self._placed(y, self.target_places)
        h = torch.cat(parts, 1)
        marks = Marks(numbers, torch.cat([places_of(x), places_of(y)], 1))
        flat = Marks(*(part.flatten() for part in marks))
        row = Marks(*(part[None] for part in flat))
        for i, block in enumerate(self.encoder):
            if i % 2:
                visible = (row.numbers > END)[:, None]
                whole, _ = block(h.flatten(0, 1)[None], row, visible)
                h = whole[0].unflatten(0, numbers.shape)
            else:
                h, _ = block(h, marks, (numbers > END)[:, None])
        return Context(self.norms[0](h).flatten(0, 1), flat)

    def read(self, state: Context, x: Tensor) -> tuple[Context, Context]:
        x = self.tokens_of(x)
        h = self._placed(x, self.source_places) + self.query
        marks = Marks(x, places_of(x))
        for block in self.query_encoder:
            h, _ = block(h, marks, (x > END)[:, None], *seen(block, state))
        return state, Context(self.norms[1](h), marks)

    def logits(self, read: tuple[Context, Context], y: Tensor) -> Tensor:
        before = F.pad(y[:, :-1], (1, 0), value=BEGIN)
        h = self._placed(before, self.target_places)
        marks, size = Marks(before, places_of(y)), y.shape[1]
        visible = torch.ones(size, size, dtype=torch.bool, device=y.device).tril()
        for block in self.decoder:
            h, _ = block(h, marks, visible, *seen(block, *read))
        return self._logits(h)

    def write(self, read: tuple[Context, Context], length: int) -> Tensor:
        known = [seen(block, *read) for block in self.decoder]
        token = torch.full_like(read[1].marks.numbers[:, :1], BEGIN)
        itself = torch.ones(1, 1, dtype=torch.bool, device=token.device)
        found: list[Tensor] = []
        for i, place in enumerate(self.target_places.weight[:length]):
            h, marks = self.tokens(token) + place, Marks(token, token * 0 + i)
            for block, others in zip(self.decoder, known, strict=True):
                h, own = block(h, marks, itself, *others)
                others[2:] = [joined(*others[2:], own)]
            token = self._logits(h).argmax(-1)
            found.append(token)
        return torch.cat(found, 1)

    def _logits(self, h: Tensor) -> Tensor:
        logits = self.norms[2](h) @ self.tokens.weight.T / self.width**0.5
        never = torch.arange(self.vocabulary, device=h.device) == UNKNOWN
        return logits.masked_fill(never, -1e4)

    def _placed(self, tokens: Tensor, places: nn.Embedding) -> Tensor:
        return self.tokens(tokens) + places.weight[: tokens.shape[1]]


def seen(block: Any, *contexts: Context) -> list[Seen]:
    """The keys and values of contexts for a block."""
    return [*map(block.seen, contexts)]


def joined(*parts: Seen) -> Seen:
    """The keys and values of all tokens of several parts."""
    keys, values, marks = zip(*parts, strict=True)
    merged = Marks(*(torch.cat(part, -1) for part in zip(*marks, strict=True)))
    return Seen(torch.cat(keys, -2), torch.cat(values, -2), merged)


def places_of(rows: Tensor) -> Tensor:
    """The places (n, length) of tokens in rows (n, length)."""
    return torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
