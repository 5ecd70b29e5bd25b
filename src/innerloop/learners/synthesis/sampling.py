"""Programs drawn from a network, for their reward."""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.engine.precision import widened
from innerloop.learners.synthesis.expression_decoder import ExpressionDecoder
from innerloop.programs.grammar import Program
from innerloop.programs.search import Places, Written

MOST = 16  # expressions in a program


def draw_programs(
    writer: ExpressionDecoder, left: Tensor, written: list[Written], draws: int
) -> tuple[list[Program | None], Tensor]:
    """For every task, as many random programs as `draws`, and the log probability
    (tasks draws,) of what was drawn of each.

    Expressions are drawn one after the other, from what is left of the outputs; one
    that does not go on with them ends a draw: its program is None. left (tasks, shots,
    length, features): what is left from every place on.
    """
    of = [task for task in range(len(written)) for _ in range(draws)]
    log_p = widened(left).new_zeros(len(of))
    places: list[Places] = [(0,) * left.shape[1]] * len(of)
    programs: list[Program] = [()] * len(of)
    whole: list[Program | None] = [None] * len(of)
    going = [i for i, task in enumerate(of) if all(written[task].end)]
    for _ in range(MOST):
        if not going:
            break
        # (going,), (going, shots)
        task, at = (
            torch.tensor([of[i] for i in going]),
            torch.tensor([places[i] for i in going]),
        )
        drawn = writer.draw(left[task[:, None], torch.arange(left.shape[1]), at])
        log_p = log_p.index_add(
            0, torch.tensor(going, device=log_p.device), drawn.log_p
        )
        still = []
        for i, numbers in zip(going, drawn.symbols.tolist(), strict=True):
            expression = writer.expression(numbers)
            after = written[of[i]].after(places[i], expression)
            if after is not None:
                places[i], programs[i] = after, (*programs[i], expression)
                if after == written[of[i]].end:
                    whole[i] = programs[i]
                else:
                    still.append(i)
        going = still
    return whole, log_p
