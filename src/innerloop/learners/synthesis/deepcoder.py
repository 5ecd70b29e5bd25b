"""Programs on lists, found by a search in which a network ranks the functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Range
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.synthesis.attribute_net import AttributeNet
from innerloop.learners.synthesis.synthesizer import SearchMethod, Synthesizer, padded
from innerloop.programs import lists
from innerloop.programs.likelihood import Exact
from innerloop.programs.list_search import list_programs_by_cost
from innerloop.programs.lists import (
    ATTRIBUTES,
    INPUTS,
    OPERATIONS,
    SLOT,
    Kind,
    ListProgram,
    Value,
)
from innerloop.programs.search import Budget


class DeepCoder(Synthesizer):
    """DeepCoder: a network predicts which functions to search first.

    p(program has attribute | examples) = sigmoid(W mean_i g(input_i, output_i)); the
    attributes of a program are its functions and their lambdas

    Reference: Balog, Gaunt, Brockschmidt, Nowozin and Tarlow 2017, "DeepCoder: learning
    to write programs", arXiv:1611.01989, sections 4.2 to 4.4. There the probabilities
    order a depth-first search; here they are the costs of an iterative deepening
    search.

    Objective: the binary cross-entropy of the attributes of the program of a task.

    State: the numbers (numbers,) of the program's lines, -1 after its end, or all -1
    where no program was found.

    Args:
        inputs: numbers in the encoding of a row.
        numbers: numbers in the encoding of a program, three for each line.
        width: units of a layer of the perceptron g.
        layers: layers of the perceptron g.
        embedding: size of the embedding of an integer.
        least: lower bound of a probability in the search.
        likelihood: how outputs are scored.
        seconds: limit of the processor time of a search.
    """

    inputs: Count
    numbers: Count
    _: KW_ONLY
    width: Count = 256
    layers: Annotated[int, Range(2)] = 3
    embedding: Count = 20
    least: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.005
    likelihood: Likelihood = Exact(SLOT)

    home = "list-programs"
    defaults = MetaTrainConfig(
        batch=100, optimizer="AdamW", lr=1e-3, weight_decay=0.01, clip=1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.net = AttributeNet(self.width, self.layers, self.embedding)
        names = [
            lists.attributes(lists.Line(*operation, ())) for operation in OPERATIONS
        ]
        has = torch.tensor([[float(a in some) for a in ATTRIBUTES] for some in names])
        self.register_buffer("has", has, persistent=False)
        self.eval()

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        return (TaskSpec("programs", (len(INPUTS) * SLOT,), SLOT + 12),)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        inputs, numbers = spec.x_size, spec.y_dim - SLOT
        sizes_fit = inputs == len(INPUTS) * SLOT and numbers >= 3 and not numbers % 3
        if spec.vocabulary or not sizes_fit:
            raise InnerloopError(
                "DeepCoder reads integers and lists as list-programs encodes them, "
                f"{len(INPUTS)} values of {SLOT} numbers; got {spec}"
            )
        return {"inputs": inputs, "numbers": numbers, "likelihood": Exact(SLOT)}

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        operations = task.query.y[0, SLOT::3].long().clamp(-1, len(OPERATIONS) - 1)
        lines = operations >= 0  # (lines,)
        has = self.get_buffer("has")[operations.clamp_min(0)]  # (lines, attributes)
        target = (has * lines[:, None]).amax(0)  # (attributes,)
        logits = self.logits(task.support)
        right = ((logits.detach() > 0) == (target > 0.5)).to(logits.dtype).mean()
        loss = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))
        return loss, {"attributes": right}

    def logits(self, support: Examples) -> Tensor:
        """Logits (attributes,) of the program for a support set."""
        return self.net(support.x, support.y[:, :SLOT])

    @torch.no_grad()
    def search(self, support: Examples, method: SearchMethod, seconds: float) -> Tensor:
        budget = Budget(seconds)
        probabilities: dict[str, float] = {}
        if method == "guided":
            likely = self.logits(support).sigmoid().clamp_min(self.least).tolist()
            probabilities = dict(zip(ATTRIBUTES, likely, strict=True))
        inputs = _rows(support.x)
        outputs = [lists.value_of(y) for y in support.y[:, :SLOT].long().tolist()]
        kinds = {tuple(map(lists.kind_of, row)) for row in inputs}
        values = {kind for row in kinds for kind in row} | {*outputs}
        program: ListProgram | None = None
        if len(kinds) == 1 and inputs[0] and None not in values:
            programs = list_programs_by_cost(
                inputs,
                cast(list[Value], outputs),
                cast(tuple[Kind, ...], kinds.pop()),
                budget,
                probabilities=probabilities,
                most=self.numbers // 3,
                pruned=method != "plain",
            )
            program, _ = next(programs, (None, 0.0))
        numbers = lists.encode(program) if program is not None else []
        return padded(numbers, self.numbers).to(support.x)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        inputs, numbers = _rows(x), state.long().tolist()
        length = next((i for i in range(0, len(numbers), 3) if numbers[i] < 0), None)
        numbers = numbers[:length]
        outputs: list[Value | None] = [None] * len(x)
        if numbers and inputs[0]:
            kinds = cast(tuple[Kind, ...], tuple(map(lists.kind_of, inputs[0])))
            program = lists.decode(numbers, kinds)
            outputs = [lists.run(program, row) for row in inputs]
        rows = torch.tensor([lists.numbered(value) for value in outputs]).to(x)
        return torch.cat([rows, state.expand(len(x), -1)], 1)


def _rows(x: Tensor) -> list[tuple[Value, ...]]:
    """The inputs of every row of x (m, slots * SLOT)."""
    slots = x.long().unflatten(1, (-1, SLOT)).tolist()
    return [
        tuple(value for slot in row if (value := lists.value_of(slot)) is not None)
        for row in slots
    ]
