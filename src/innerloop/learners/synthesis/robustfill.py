"""Programs written from examples, by a search that a network guides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.learners.synthesis.expression_decoder import ExpressionDecoder
from innerloop.learners.synthesis.sampling import draw_programs
from innerloop.learners.synthesis.synthesizer import Search, Synthesizer
from innerloop.nets.string_pair_encoder import StringPairEncoder
from innerloop.programs import strings
from innerloop.programs.likelihood import Exact
from innerloop.programs.search import (
    Budget,
    Found,
    Places,
    Proposals,
    Written,
    best_first,
    enumerated,
    plain,
    pruned,
    readable,
)


class RobustFill(Synthesizer):
    """RobustFill: a network reads inputs and outputs and guides the search for a
    program that makes one of the other; the program is then run.

    log p(program | examples) = sum_k log p(symbol_k | what is left of every output
    before its expression, the symbols of the expression so far) Devlin, Uesato,
    Bhupatiraju, Singh, Mohamed and Kohli 2017, "RobustFill: neural program learning
    under noisy I/O", arXiv:1703.07469, sections 3 to 5, with a transformer; what is
    left of the outputs stands for the decoder's memory, as in Chen, Liu and Song 2019,
    "Execution-guided neural program synthesis". The search follows the likeliest
    programs first, and only those whose output so far begins that of every example. Its
    objective is the likelihood of the symbols of a solution; in the last `reinforce` of
    training the reward of programs that are drawn, 1 where all rows are right, by
    REINFORCE beside the mean reward of the other draws of a task (Bunel et al. 2018,
    arXiv:1805.04276, section 4). State: the symbols (symbols,) of the program by
    number, -1 after its end, or all -1 where none was found.

    length, symbols: of a text and of a program. width, heads, layers: of the
        transformer. hidden: units of the writer's layers. beam: how many expressions
        are proposed at a place; where the search finds nothing, 4 and 16 times as many.
        places: how often it may ask for proposals. seconds: of the processor that it
        may take. draws: programs that are drawn of every task. reinforce: the share of
        training for their reward.
    """

    length: int
    symbols: int
    _: KW_ONLY
    width: int = 128
    heads: int = 4
    layers: int = 2
    hidden: int = 256
    beam: int = 32
    places: int = 1000
    draws: int = 8
    reinforce: float = 0.2
    likelihood: Likelihood = Exact(32)

    defaults = MetaTrainConfig(
        batch=32, optimizer="AdamW", lr=1.5e-3, weight_decay=0.01, clip=1.0
    )

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InnerloopError(
                f"a width of {self.width} cannot be shared by {self.heads} heads"
            )
        self.pair_encoder = StringPairEncoder(
            *strings.classes(), self.width, self.heads, self.layers
        )
        self.writer = ExpressionDecoder(strings.GRAMMAR, self.width, self.hidden)
        self.now = 0.0
        super().__post_init__()

    def on_progress(self, progress: float) -> None:
        self.now = progress

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        length, symbols = spec.x_size, spec.y_dim - spec.x_size
        if spec.vocabulary != strings.VOCABULARY or symbols < 1:
            raise InnerloopError(
                f"RobustFill reads texts as string-programs gives them, {strings.VOCABULARY} characters by number, not {spec}"
            )
        return {"length": length, "symbols": symbols, "likelihood": Exact(length)}

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        if self.training and self.now > 1 - self.reinforce:
            return self._rewarded(tasks)
        x, y, begins, symbols = self._parts(tasks)
        ends = [max(1, int((part > 0).sum(-1).max())) for part in (x, y, symbols + 1)]
        losses, metrics = torch.vmap(self._nll)(
            x[..., : ends[0]],
            y[..., : ends[1]],
            begins[..., : ends[2]],
            symbols[..., : ends[2]],
        )
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        return self._nll(*self._parts(task))

    def _parts(self, task: Task) -> tuple[Tensor, ...]:
        """Inputs and outputs (..., shots, length), where each symbol's expression
        begins (..., shots, symbols), and the symbols (..., symbols).
        """
        x, y = (
            part.long().clamp(0, strings.VOCABULARY - 1)
            for part in (task.support.x, task.support.y[..., : self.length])
        )
        begins = task.support.y[..., self.length :].long()
        return (
            x,
            y,
            begins,
            task.query.y[..., 0, self.length :]
            .long()
            .clamp(-1, self.writer.vocabulary - 1),
        )

    def _nll(
        self, x: Tensor, y: Tensor, begins: Tensor, symbols: Tensor
    ) -> tuple[Tensor, Metrics]:
        there, symbols, begins = (
            symbols >= 0,
            symbols.clamp_min(0),
            begins.clamp(0, y.shape[-1] - 1),
        )
        same = begins[0, :, None] == begins[0]  # (symbols, symbols)
        slots = (same.long().tril(-1).sum(-1)).clamp_max(self.writer.longest - 1)
        left = self.pair_encoder(x, y)  # (shots, length, width)
        left = left.gather(1, begins[..., None].expand(-1, -1, left.shape[-1]))
        log_p = self.writer.score(left, symbols, slots, same) * there
        return -log_p.sum(), {
            "symbol": (log_p.detach().exp() * there).sum() / there.sum().clamp_min(1)
        }

    def _rewarded(self, tasks: Task) -> tuple[Tensor, Metrics]:
        """REINFORCE: -(r - mean r of a task's other draws) log p(program), r whether it
        is right on support and query set.
        """
        x, y, *_ = self._parts(tasks)
        left = torch.vmap(self.pair_encoder)(
            x[..., : max(1, int((x > 0).sum(-1).max()))],
            y[..., : max(1, int((y > 0).sum(-1).max()))],
        )
        parts = (x, y, tasks.query.x, tasks.query.y[..., : self.length])
        inputs, outputs, asked, wanted = (
            [[strings.text_of(row) for row in some] for some in part.long().tolist()]
            for part in parts
        )
        written = [
            Written(strings.evaluate, *some)
            for some in zip(inputs, outputs, strict=True)
        ]
        programs, log_p = draw_programs(self.writer, left, written, self.draws)
        right = [
            program is not None
            and [strings.run(program, text) for text in asked[i // self.draws]]
            == wanted[i // self.draws]
            for i, program in enumerate(programs)
        ]
        r, log_p = (
            torch.tensor(right).to(log_p).view(-1, self.draws),
            log_p.view(-1, self.draws),
        )
        others = (r.sum(1, keepdim=True) - r) / max(1, self.draws - 1)
        return -((r - others) * log_p).mean(), {"reward": r.mean()}

    @torch.no_grad()
    def search(
        self, inputs: list[str], outputs: list[str], seconds: float, wanted: int = 1
    ) -> list[Found]:
        """Programs that make the outputs of the inputs, likeliest first; as many as are
        wanted, or those found within seconds and `places`.
        """
        budget, written = (
            Budget(seconds, self.places),
            Written(strings.evaluate, inputs, outputs),
        )
        # what the network reads; programs are right about all
        some, device = readable(inputs, outputs), self.writer.examples.weight.device
        shots, read = (
            torch.arange(len(some)),
            ([texts[i] for i in some] for texts in (inputs, outputs)),
        )
        x, y = (
            torch.tensor(
                [strings.numbered(text, max(1, *map(len, texts))) for text in texts],
                device=device,
            )
            for texts in read
        )
        left = self.pair_encoder(x, y).transpose(0, 1)  # (length, shots, width)
        found: list[Found] = []
        for wider, together in ((1, 8), (4, 4), (16, 1)):

            def propose(
                places: list[Places], beam: int = wider * self.beam
            ) -> list[Proposals]:
                return self.writer.propose(
                    left[torch.tensor(places)[:, some], shots], beam
                )

            found = found or best_first(
                propose, written, budget, wanted=wanted, together=together
            )
        return found

    def adapt(self, support: Examples) -> Tensor:
        return self.found(support, "guided", self.seconds)

    def found(self, support: Examples, search: Search, seconds: float) -> Tensor:
        inputs, outputs = (
            [strings.text_of(row) for row in part.long().tolist()]
            for part in (support.x, support.y[:, : self.length])
        )
        if search == "guided":
            found = self.search(inputs, outputs, seconds)
        else:
            how = pruned if search == "pruned" else plain
            found = how(
                enumerated(strings.GRAMMAR),
                Written(strings.evaluate, inputs, outputs),
                Budget(seconds),
            )
        numbers = strings.GRAMMAR.encode(found[0].program) if found else []
        numbers = numbers if len(numbers) <= self.symbols else []
        return torch.tensor([*numbers, *[-1] * (self.symbols - len(numbers))]).to(
            support.x
        )

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        program = strings.GRAMMAR.decode(
            [number for number in state.long().tolist() if number >= 0]
        )
        told = [
            strings.run(program, strings.text_of(row)) or ""
            for row in x.long().tolist()
        ]
        rows = [
            strings.numbered(text if len(text) <= self.length else "", self.length)
            for text in told
        ]
        return torch.cat([torch.tensor(rows).to(x), state.expand(len(x), -1)], 1)
