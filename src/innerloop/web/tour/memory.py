"""The memory of a neural Turing machine while it copies a sequence."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from innerloop.learners.memory.ntm import NTM
from innerloop.web.http import COUNT, SHARE, array, record
from innerloop.web.tour.piece import Piece, numbers, ready

BITS, LONGEST = 5, 10  # the run was trained with up to 6 vectors
VECTOR = array({"enum": [0, 1]}, BITS, BITS)


def run(body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a sequence of vectors, and the memory and the attention after every
    step: one for each vector, one for the sign of the end, and one for each vector of
    the answer.
    """
    learner = cast(NTM, ready("memory"))
    sequence = torch.tensor(body["bits"], dtype=torch.float32)
    n = len(sequence)
    x = sequence.new_zeros(2 * n + 1, BITS + 2)
    x[:n, :BITS], x[n, BITS] = sequence, 1
    memory, label, outputs, after = learner.start(), x.new_zeros(BITS), [], []
    for features in learner.embed(x):
        output, memory = learner.step(memory, torch.cat([features, label]))
        outputs.append(output)
        after.append(memory)
    answer = torch.stack(outputs[n + 1 :]).sigmoid()
    contents, attention = (
        torch.stack(part) for part in list(zip(*after, strict=True))[:2]
    )
    return {
        "answer": rows(answer),
        "correct": int(((answer > 0.5) == (sequence > 0.5)).sum()),
        "of": sequence.numel(),
        "memory": [rows(step) for step in contents],
        "write": rows(attention[:, : learner.writers].mean(1)),
        "read": rows(attention[:, learner.writers :].mean(1)),
    }


def rows(matrix: Tensor) -> list[list[float]]:
    return [numbers(row) for row in matrix]


SHARES, VALUES = array(array(SHARE)), array(array({"type": "number"}))
PIECE = Piece(
    "memory",
    "A neural Turing machine copies a sequence: its answer, its memory and attention.",
    run,
    record(bits=array(VECTOR, LONGEST, 1)),
    record(
        answer=SHARES,
        correct=COUNT,
        of=COUNT,
        memory=array(VALUES),
        write=SHARES,
        read=SHARES,
    ),
)
