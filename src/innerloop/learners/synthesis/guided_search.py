"""The search for string programs that a network guides."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from innerloop.learners.synthesis.expression_decoder import ExpressionDecoder
from innerloop.nets.string_pair_encoder import StringPairEncoder
from innerloop.programs import strings
from innerloop.programs.search import (
    Budget,
    Edges,
    InputOutput,
    Position,
    Proposals,
    best_first,
    readable,
)
from innerloop.programs.version_space import VersionSpace

# rounds of the search: how many times the beam, and positions in a batch
ROUNDS = ((1, 8), (4, 4), (16, 1))


@torch.no_grad()
def guided_search(
    encoder: StringPairEncoder,
    decoder: ExpressionDecoder,
    examples: InputOutput,
    budget: Budget,
    beam: int,
    wanted: int,
) -> VersionSpace:
    """The programs that fit, of those that the network proposes until `wanted` of them
    are found or the budget is used up. Where none fits, the search starts again with a
    wider beam.
    """
    # what the network reads; the programs found are right on all examples
    some = readable(examples.inputs, examples.outputs)
    x, y = (
        _numbers([texts[i] for i in some], decoder.examples.weight.device)
        for texts in (examples.inputs, examples.outputs)
    )
    rest, shots = encoder(x, y).transpose(0, 1), torch.arange(len(some))

    def propose(width: int, positions: list[Position]) -> list[Proposals]:
        at = torch.tensor(positions)[:, some]  # (positions, shots)
        return decoder.propose(rest[at, shots], width)

    edges: Edges = {}
    for factor, at_once in ROUNDS:
        edges.clear()
        if best_first(
            partial(propose, factor * beam),
            examples,
            budget,
            wanted=wanted,
            at_once=at_once,
            edges=edges,
        ):
            break
    return VersionSpace(edges, examples.start, examples.end)


def texts_of(rows: Tensor) -> list[str]:
    """The texts (n,) of rows (n, length) of characters by number."""
    return [strings.text_of(row) for row in rows.long().tolist()]


def _numbers(texts: list[str], device: torch.device) -> Tensor:
    length = max(1, *map(len, texts))
    return torch.tensor(
        [strings.numbered(text, length) for text in texts], device=device
    )
