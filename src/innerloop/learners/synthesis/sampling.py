"""Programs sampled from a network, and their reward."""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.engine.precision import widened
from innerloop.learners.synthesis.expression_decoder import ExpressionDecoder
from innerloop.programs import strings
from innerloop.programs.grammar import Program
from innerloop.programs.search import InputOutput, Position

MOST = 16  # expressions in a program


def sample_programs(
    decoder: ExpressionDecoder, rest: Tensor, tasks: list[InputOutput], samples: int
) -> tuple[list[Program | None], Tensor]:
    """For every task `samples` random programs, and the log probability (tasks *
    samples,) of what was sampled for each.

    Expressions are sampled one after the other. One that does not continue the outputs
    ends its sample, whose program is None. rest (tasks, shots, length, features): the
    features of the rest of each output from every position on.
    """
    task_of = [task for task in range(len(tasks)) for _ in range(samples)]
    log_p = widened(rest).new_zeros(len(task_of))
    positions: list[Position] = [(0,) * rest.shape[1]] * len(task_of)
    prefixes: list[Program] = [()] * len(task_of)
    programs: list[Program | None] = [None] * len(task_of)
    active = [i for i, task in enumerate(task_of) if all(tasks[task].end)]
    shots = torch.arange(rest.shape[1])
    for _ in range(MOST):
        if not active:
            break
        task = torch.tensor([task_of[i] for i in active])
        at = torch.tensor([positions[i] for i in active])  # (active, shots)
        sampled = decoder.sample(rest[task[:, None], shots, at])
        index = torch.tensor(active, device=log_p.device)
        log_p = log_p.index_add(0, index, sampled.log_p)
        unfinished: list[int] = []
        for i, numbers in zip(active, sampled.symbols.tolist(), strict=True):
            examples = tasks[task_of[i]]
            expression = decoder.expression(numbers)
            after = examples.advance(positions[i], examples.texts(expression))
            if after is None:
                continue
            positions[i], prefixes[i] = after, (*prefixes[i], expression)
            if after == examples.end:
                programs[i] = prefixes[i]
            else:
                unfinished.append(i)
        active = unfinished
    return programs, log_p


def reinforce_loss(
    decoder: ExpressionDecoder,
    rest: Tensor,
    samples: int,
    inputs: list[list[str]],
    outputs: list[list[str]],
    query_inputs: list[list[str]],
    query_outputs: list[list[str]],
) -> tuple[Tensor, Tensor]:
    """REINFORCE loss and mean reward over tasks, for `samples` programs of each: -(r -
    mean r of the task's other samples) log p(program), where r is 1 if the program is
    right on the examples and on the query examples, else 0.

    The baseline: Kool, van Hoof and Welling 2019, "Buy 4 REINFORCE samples, get a
    baseline for free!", ICLR workshop.
    """
    tasks = [
        InputOutput(strings.evaluate, *pair)
        for pair in zip(inputs, outputs, strict=True)
    ]
    programs, log_p = sample_programs(decoder, rest, tasks, samples)
    right: list[bool] = []
    for i, program in enumerate(programs):
        texts, expected = query_inputs[i // samples], query_outputs[i // samples]
        right.append(
            program is not None
            and [strings.run(program, text) for text in texts] == expected
        )
    reward = torch.tensor(right).to(log_p).view(-1, samples)
    baseline = (reward.sum(1, keepdim=True) - reward) / max(1, samples - 1)
    loss = -((reward - baseline) * log_p.view(-1, samples)).mean()
    return loss, reward.mean()
