"""Programs on lists, by a search that knows which functions are likely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.precision import widened
from innerloop.learners.synthesis.synthesizer import Search, Synthesizer
from innerloop.nets.decoder import perceptron
from innerloop.programs import lists
from innerloop.programs.likelihood import Exact
from innerloop.programs.list_search import list_programs_by_cost
from innerloop.programs.lists import (
    ATTRIBUTES,
    INPUTS,
    LIMIT,
    OPERATIONS,
    SLOT,
    Kind,
    Value,
)
from innerloop.programs.search import Budget


class DeepCoder(Synthesizer):
    """DeepCoder: a network says which functions the program for some examples may have,
    and the search tries those first; the program is then run.

    p(program has attribute | examples) = sigmoid(W mean_i g(input_i, output_i)), the
    functions of a program and their lambdas its attributes Balog, Gaunt, Brockschmidt,
    Nowozin and Tarlow 2017, "DeepCoder: learning to write programs", arXiv:1611.01989,
    sections 4.2 to 4.4; there the chances order a depth-first search, here they are the
    costs of one that goes deeper by and by.
    Its objective is the cross-entropy of the attributes of a solution.
    State: the numbers (numbers,) of the program's lines, -1 after its end, or all -1
    where none was found.

    inputs, numbers: of a row, and of a program. width, layers: of g, a perceptron.
        embedded: numbers that stand for an integer. least: no attribute is less likely
        than that in the search. seconds: of the processor that it may take.
    """

    inputs: int
    numbers: int
    _: KW_ONLY
    width: int = 256
    layers: int = 3
    embedded: int = 20
    least: float = 0.005
    likelihood: Likelihood = Exact(SLOT)

    defaults = MetaTrainConfig(
        batch=100, optimizer="AdamW", lr=1e-3, weight_decay=0.01, clip=1.0
    )

    def __post_init__(self) -> None:
        if not 0 < self.least < 1:
            raise InnerloopError(
                f"least is a probability between 0 and 1, not {self.least}"
            )
        slots = self.inputs // SLOT + 1
        # the last integer is none
        self.integers, self.kind = (
            nn.Embedding(2 * LIMIT + 2, self.embedded),
            nn.Embedding(3, self.embedded),
        )
        self.body = perceptron(
            slots * (1 + SLOT - 2) * self.embedded,
            self.width,
            self.width,
            self.layers - 1,
        )
        self.head = perceptron(self.width, len(ATTRIBUTES), self.width, 1)
        names = [
            lists.attributes(lists.Line(*operation, ())) for operation in OPERATIONS
        ]
        self.register_buffer(
            "has",
            torch.tensor([[float(a in some) for a in ATTRIBUTES] for some in names]),
            persistent=False,
        )
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        inputs, numbers = spec.x_size, spec.y_dim - SLOT
        if (
            spec.vocabulary
            or inputs != len(INPUTS) * SLOT
            or numbers < 3
            or numbers % 3
        ):
            raise InnerloopError(
                f"DeepCoder reads integers and lists as list-programs gives them, {len(INPUTS)} values of {SLOT} numbers, not {spec}"
            )
        return {"inputs": inputs, "numbers": numbers, "likelihood": Exact(SLOT)}

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        # (lines,)
        operations = task.query.y[0, SLOT::3].long().clamp(-1, len(OPERATIONS) - 1)
        has = self.get_buffer("has")
        # (attributes,)
        wanted = (has[operations.clamp_min(0)] * (operations >= 0)[:, None]).amax(0)
        logits = self._logits(task.support)
        right = ((logits.detach() > 0) == (wanted > 0.5)).to(logits.dtype).mean()
        return F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype)), {
            "attributes": right
        }

    def _logits(self, support: Examples) -> Tensor:
        """Of every attribute (attributes,)."""
        # (shots, slots, SLOT)
        slots = (
            torch.cat([support.x, support.y[:, :SLOT]], 1)
            .long()
            .unflatten(1, (-1, SLOT))
        )
        there = torch.arange(SLOT - 2, device=slots.device) < slots[..., 1:2]
        integers = torch.where(
            there, slots[..., 2:].clamp(-LIMIT, LIMIT) + LIMIT, 2 * LIMIT + 1
        )
        # (shots, slots, SLOT - 1, embedded)
        read = torch.cat(
            [self.kind(slots[..., :1].clamp(0, 2)), self.integers(integers)], -2
        )
        return widened(self.head(self.body(read.flatten(1)).relu().mean(0)))

    def adapt(self, support: Examples) -> Tensor:
        return self.found(support, "guided", self.seconds)

    @torch.no_grad()
    def found(self, support: Examples, search: Search, seconds: float) -> Tensor:
        budget, chances = Budget(seconds), {}
        if search == "guided":
            chances = dict(
                zip(
                    ATTRIBUTES,
                    self._logits(support).sigmoid().clamp_min(self.least).tolist(),
                    strict=True,
                )
            )
        inputs, outputs = (
            _rows(support.x),
            [lists.value_of(row) for row in support.y[:, :SLOT].long().tolist()],
        )
        kinds = {tuple(map(lists.kind_of, row)) for row in inputs}
        numbers: list[int] = []
        if (
            len(kinds) == 1
            and inputs[0]
            and None not in (*outputs, *(kind for some in kinds for kind in some))
        ):
            given = cast(tuple[Kind, ...], kinds.pop())
            programs = list_programs_by_cost(
                inputs,
                cast(list[Value], outputs),
                given,
                budget,
                chances=chances,
                most=self.numbers // 3,
                pruned=search != "plain",
            )
            numbers = (
                lists.encode(program[0]) if (program := next(programs, None)) else []
            )
        return torch.tensor([*numbers, *[-1] * (self.numbers - len(numbers))]).to(
            support.x
        )

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        inputs, numbers = _rows(x), state.long().tolist()
        lines = [
            number
            for i in range(0, len(numbers), 3)
            for number in numbers[i : i + 3]
            if numbers[i] >= 0
        ]
        told: list[Value | None] = [None] * len(x)
        if lines and inputs[0]:
            kinds = cast(
                tuple[Kind, ...],
                tuple(
                    "int" if isinstance(value, int) else "list" for value in inputs[0]
                ),
            )
            told = [lists.run(lists.decode(lines, kinds), row) for row in inputs]
        return torch.cat(
            [
                torch.tensor([lists.numbered(value) for value in told]).to(x),
                state.expand(len(x), -1),
            ],
            1,
        )


def _rows(x: Tensor) -> list[tuple[Value, ...]]:
    """The inputs of every row, of x (m, slots SLOT)."""
    slots = x.long().unflatten(1, (-1, SLOT)).tolist()
    return [
        tuple(value for slot in row if (value := lists.value_of(slot)) is not None)
        for row in slots
    ]
