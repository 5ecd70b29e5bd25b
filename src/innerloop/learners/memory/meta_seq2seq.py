"""Translation by a recurrent network with a memory of the examples of a language."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.task import Examples
from innerloop.engine.options import Count, Fraction
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.memory.translator import END, UNKNOWN, Translator
from innerloop.nets.attention import attention
from innerloop.nets.recurrent import LSTMCell


class Memory(NamedTuple):
    """Keys and values (n, width), the encoded sources and targets of the examples."""

    keys: Tensor
    values: Tensor


class MetaSeq2Seq(Translator):
    """MetaSeq2Seq: recurrent translation with a memory of example pairs.

    M = softmax(Q K' / sqrt(d)) V,  C = tanh(W [Q; M])

    The keys and values of the memory are the encoded sources and targets of the pairs.

    Q (words, d) encodes the words of a source in context, and a decoder with attention
    to C writes the target.

    Reference: Lake 2019, "Compositional generalization through meta
    sequence-to-sequence learning", arXiv:1906.05381, figure 1, with the attention of
    Luong, Pham and Manning 2015, "Effective approaches to attention-based neural
    machine translation", arXiv:1508.04025. Defaults differ from the paper: one layer of
    128 units without dropout instead of two of 200 with 0.5, and batches of 4 tasks.

    Objective: the negative log-likelihood of the tokens of the query set and the
    support set (there the "support loss"), each token from the right ones before it.

    State: keys and values (n, width) of the examples.

    Args:
        width: units of a recurrent layer, and size of a token.
        layers: layers of each of the three recurrent networks.
        dropout: share of the units that are dropped in training.
        memory: whether there is a memory; without, it is a sequence-to-sequence network
            that never sees the examples.
    """

    _: KW_ONLY
    width: Count = 128
    layers: Count = 1
    dropout: Fraction = 0.0
    memory: bool = True

    home = "scan"
    defaults = MetaTrainConfig(batch=4, optimizer="Adam", lr=1e-3, clip=50.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        width, layers = self.width, self.layers
        self.sources, self.targets, self.outputs = (
            nn.Embedding(self.vocabulary, width) for _ in range(3)
        )
        self.source_encoder = Encoder(width, layers, self.dropout)
        self.target_encoder = Encoder(width, layers, self.dropout)
        self.context = nn.Linear(2 * width, width)
        self.decoder = nn.ModuleList(LSTMCell(width, width) for _ in range(layers))
        self.drop = nn.Dropout(self.dropout)
        self.combined = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, self.vocabulary)
        self.eval()

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {
            "fields": {"width": 200, "layers": 2, "dropout": 0.5},
            "config": {"batch": 1, "schedule": "steps"},
        }

    def adapt(self, support: Examples) -> Memory:
        x, y = map(self.tokens_of, support)
        return Memory(
            self.source_encoder(self.sources(x), x > END)[1],
            self.target_encoder(self.targets(y), y > END)[1],
        )

    def read(self, state: Memory, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.tokens_of(x)
        steps, _ = self.source_encoder(self.sources(x), x > END)  # (m, words, width)
        found = torch.zeros_like(steps)
        if self.memory:
            found = attention(steps, state.keys, state.values)
        return torch.tanh(self.context(torch.cat([steps, found], -1))), x > END

    def logits(self, read: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        state, logits = self._start(read), []
        for before in F.pad(y[:, :-1], (1, 0)).unbind(1):
            state, out = self._step(read, state, before)
            logits.append(out)
        return torch.stack(logits, 1)

    def write(self, read: tuple[Tensor, Tensor], length: int) -> Tensor:
        state, found = self._start(read), []
        token = read[1].new_zeros(len(read[1]), dtype=torch.long)
        for _ in range(length):
            state, out = self._step(read, state, token)
            token = out.argmax(-1)
            found.append(token)
        return torch.stack(found, 1)

    def _start(self, read: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
        context, present = read
        last = (present.sum(-1) - 1).clamp_min(0)[:, None, None]
        message = context.gather(1, last.expand(-1, -1, self.width))[:, 0]
        return [(message, message) for _ in self.decoder]

    def _step(
        self,
        read: tuple[Tensor, Tensor],
        state: list[tuple[Tensor, Tensor]],
        token: Tensor,
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """The state after one more token (m,), and the logits of the next."""
        context, present = read
        h, after = self.drop(self.outputs(token)), []
        for i, (cell, before) in enumerate(zip(self.decoder, state, strict=True)):
            after.append(cell(self.drop(h) if i else h, before))
            h = after[-1][0]
        found = attention(h[:, None], context, context, present[:, None])[:, 0]
        logits = self.head(torch.tanh(self.combined(torch.cat([h, found], -1))))
        hidden = torch.arange(self.vocabulary, device=token.device) == UNKNOWN
        return after, logits.masked_fill(hidden, -1e4)


class Encoder(nn.Module):
    """A bidirectional LSTM over rows of tokens (n, length, width), and which there are
    (n, length): the outputs at every token, sums over both directions, and the sum of
    their last outputs (n, width).
    """

    def __init__(self, width: int, layers: int, dropout: float):
        super().__init__()
        self.ahead, self.back = (
            nn.ModuleList(
                LSTMCell(width if i == 0 else 2 * width, width) for i in range(layers)
            )
            for _ in range(2)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        h, ends = self.drop(x), (x[:, 0], x[:, 0])
        parts = (x, x)
        for i, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            h = self.drop(h) if i else h
            (one, end), (other, begin) = (
                _along(ahead, h, present, 1),
                _along(back, h, present, -1),
            )
            parts, ends = (one, other), (end, begin)
            h = torch.cat(parts, -1)
        return parts[0] + parts[1], ends[0] + ends[1]


def _along(cell: Any, x: Tensor, present: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Outputs (n, length, width) of a cell from left to right, or from right to left,
    and the last of them. Where no token is present, the state stays as it is.
    """
    zero = x.new_zeros(len(x), cell.hidden)
    state, outputs = (zero, zero), []
    for t in range(x.shape[1])[::step]:
        here = present[:, t, None]
        state = tuple(
            torch.where(here, new, old)
            for new, old in zip(cell(x[:, t], state), state, strict=True)
        )
        outputs.append(state[0])
    return torch.stack(outputs[::step], 1), state[0]
