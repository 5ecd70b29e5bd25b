"""Programs on strings, by a search that a network guides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from itertools import islice
from typing import Annotated, Any

import torch
from torch import Tensor

from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Fraction, Range
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.synthesis.expression_decoder import ExpressionDecoder
from innerloop.learners.synthesis.guided_search import guided_search, texts_of
from innerloop.learners.synthesis.sampling import reinforce_loss
from innerloop.learners.synthesis.synthesizer import SearchMethod, Synthesizer, padded
from innerloop.nets.string_pair_encoder import StringPairEncoder
from innerloop.programs import strings
from innerloop.programs.likelihood import Exact
from innerloop.programs.search import Budget, InputOutput, enumerated, plain, pruned
from innerloop.programs.version_space import VersionSpace

READY = 500_000  # expressions that are enumerated before time is measured


class RobustFill(Synthesizer):
    """RobustFill: a network guides the search for string programs.

    log p(program | examples) = sum_k log p(symbol_k | rest of every output before its
    expression, the symbols of the expression so far)

    Reference: Devlin, Uesato, Bhupatiraju, Singh, Mohamed and Kohli 2017, "RobustFill:
    neural program learning under noisy I/O", arXiv:1703.07469, sections 3 to 5. Here a
    transformer reads the examples, and the rest of the outputs replaces the decoder's
    memory, as in Chen, Liu and Song 2019, "Execution-guided neural program synthesis",
    ICLR. The search extends the likeliest programs first, and only those whose output
    so far is a prefix of the output of every example.

    Objective: the negative log-likelihood of the symbols of the program of a task. In
    the last `reinforce` of training, REINFORCE: sampled programs have reward 1 if they
    are right on all rows, with the mean reward of the other samples as baseline (Bunel,
    Hausknecht, Devlin, Singh and Kohli 2018, "Leveraging grammar and reinforcement
    learning for neural program synthesis", arXiv:1805.04276, section 4). These samples
    are drawn from torch's global generator, in training only.

    State: the numbers (symbols,) of the program's symbols, -1 after its end, or all -1
    where no program was found.

    Args:
        length: characters of a text.
        symbols: symbols of a program.
        width: size of a token of the transformer.
        heads, layers: attention heads and layers of the transformer.
        hidden: units of the decoder's layers.
        beam: expressions that are proposed at a position; where the search finds
            nothing, 4 and then 16 times as many.
        positions: limit on positions for which the network proposes expressions.
        samples: programs that are sampled for a task under REINFORCE.
        reinforce: share of training with REINFORCE.
        likelihood: how outputs are scored.
        seconds: limit of the processor time of a search.
    """

    length: Count
    symbols: Count
    _: KW_ONLY
    width: Count = 128
    heads: Count = 4
    layers: Count = 2
    hidden: Count = 256
    beam: Count = 32
    positions: Count = 1000
    samples: Annotated[int, Range(2)] = 8
    reinforce: Fraction = 0.2
    likelihood: Likelihood = Exact(32)

    home = "string-programs"
    defaults = MetaTrainConfig(
        batch=32, optimizer="AdamW", lr=1.5e-3, weight_decay=0.01, clip=1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise InnerloopError(
                f"width must be a multiple of heads; got {self.width} and {self.heads}"
            )
        self.encoder = StringPairEncoder(
            *strings.classes(), self.width, self.heads, self.layers
        )
        self.decoder = ExpressionDecoder(strings.GRAMMAR, self.width, self.hidden)
        self.progress = 0.0
        self.eval()

    def on_progress(self, progress: float) -> None:
        self.progress = progress

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        return (TaskSpec("programs", (32,), 64, vocabulary=strings.VOCABULARY),)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        length, symbols = spec.x_size, spec.y_dim - spec.x_size
        if spec.vocabulary != strings.VOCABULARY or symbols < 1:
            raise InnerloopError(
                "RobustFill reads texts as string-programs encodes them, "
                f"{strings.VOCABULARY} characters by number; got {spec}"
            )
        return {"length": length, "symbols": symbols, "likelihood": Exact(length)}

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        if self.training and self.progress > 1 - self.reinforce:
            return self._reinforce(tasks)
        x, y, begins, symbols = self._parts(tasks)
        # what all tasks leave empty need not be read
        x, y = (part[..., : max(1, int((part > 0).sum(-1).max()))] for part in (x, y))
        steps = max(1, int((symbols >= 0).sum(-1).max()))
        begins, symbols = begins[..., :steps], symbols[..., :steps]
        losses, metrics = torch.vmap(self._nll)(x, y, begins, symbols)
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        return self._nll(*self._parts(task))

    def _parts(self, task: Task) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Inputs and outputs (..., shots, length), where the expression of each symbol
        begins (..., shots, symbols), and the symbols (..., symbols).
        """
        support, query = task
        x = support.x.long().clamp(0, strings.VOCABULARY - 1)
        y = support.y[..., : self.length].long().clamp(0, strings.VOCABULARY - 1)
        begins = support.y[..., self.length :].long()
        symbols = query.y[..., 0, self.length :].long()
        return x, y, begins, symbols.clamp(-1, self.decoder.vocabulary - 1)

    def _nll(
        self, x: Tensor, y: Tensor, begins: Tensor, symbols: Tensor
    ) -> tuple[Tensor, Metrics]:
        present = symbols >= 0
        begins = begins.clamp(0, y.shape[-1] - 1)
        same = begins[0, :, None] == begins[0]  # (symbols, symbols)
        slots = same.long().tril(-1).sum(-1).clamp_max(self.decoder.longest - 1)
        rest = self.encoder(x, y)  # (shots, length, width)
        rest = rest.gather(1, begins[..., None].expand(-1, -1, rest.shape[-1]))
        log_p = self.decoder.score(rest, symbols.clamp_min(0), slots, same) * present
        mean_p = (log_p.detach().exp() * present).sum() / present.sum().clamp_min(1)
        return -log_p.sum(), {"symbol": mean_p}

    def _reinforce(self, tasks: Task) -> tuple[Tensor, Metrics]:
        x, y, *_ = self._parts(tasks)
        ends = [max(1, int((part > 0).sum(-1).max())) for part in (x, y)]
        rest = torch.vmap(self.encoder)(x[..., : ends[0]], y[..., : ends[1]])
        parts = (x, y, tasks.query.x, tasks.query.y[..., : self.length])
        texts = [[texts_of(rows) for rows in part] for part in parts]
        loss, reward = reinforce_loss(self.decoder, rest, self.samples, *texts)
        return loss, {"reward": reward}

    def version_space(
        self, inputs: list[str], outputs: list[str], seconds: float, wanted: int = 1
    ) -> VersionSpace:
        """The programs that fit, of those that the network proposes until `wanted` of
        them are found, or `seconds` or `positions` are used up.
        """
        examples = InputOutput(strings.evaluate, inputs, outputs)
        budget = Budget(seconds, self.positions)
        nets = self.encoder, self.decoder
        return guided_search(*nets, examples, budget, self.beam, wanted)

    def prepare(self, method: SearchMethod) -> None:
        if method != "guided":
            enumerated(strings.GRAMMAR).first(READY)

    def search(self, support: Examples, method: SearchMethod, seconds: float) -> Tensor:
        inputs, outputs = texts_of(support.x), texts_of(support.y[:, : self.length])
        if method == "guided":
            space = self.version_space(inputs, outputs, seconds)
            found = [*islice(space.programs(), 1)]
        else:
            enumeration = pruned if method == "pruned" else plain
            examples = InputOutput(strings.evaluate, inputs, outputs)
            known = enumerated(strings.GRAMMAR)
            found = enumeration(known, examples, Budget(seconds))
        numbers = strings.GRAMMAR.encode(found[0].program) if found else []
        return padded(numbers, self.symbols).to(support.x)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        program = strings.GRAMMAR.decode([n for n in state.long().tolist() if n >= 0])
        found = (strings.run(program, text) or "" for text in texts_of(x))
        outputs = [text if len(text) <= self.length else "" for text in found]
        rows = [strings.numbered(text, self.length) for text in outputs]
        return torch.cat([torch.tensor(rows).to(x), state.expand(len(x), -1)], 1)
