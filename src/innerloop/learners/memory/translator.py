"""Learners that translate: sequences of tokens to sequences of tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from innerloop.core.learner import Learner, State
from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.options import Count

END, UNKNOWN = 0, 1  # after the last token; a token that stands for nothing


@dataclass(frozen=True)
class ExactMatch(Likelihood):
    """Outputs are the tokens themselves: a row is right where it is the target, which
    holds no unknown token.

    The negative log-likelihood is the share of wrong rows: there is nothing to
    differentiate.
    """

    score = "exact"
    percent = ("exact", "tokens")
    higher_is_better = True

    def right(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Which rows (m,) are right."""
        return ((outputs == y) & (y != UNKNOWN)).all(-1)

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        return 1 - self.right(outputs, y).to(y.dtype).mean()

    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        either = (outputs > END) | (y > END)
        same = either & (outputs == y) & (y != UNKNOWN)
        share = same.sum(-1) / either.sum(-1).clamp_min(1)
        exact = self.right(outputs, y).to(y.dtype).mean()
        return {"exact": exact, "tokens": share.to(y.dtype).mean()}

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs


class Translator(Learner):
    """A learner that reads pairs of a source and a target, rows of token numbers, and
    writes the targets of other sources one token after the other, always the likeliest.

    Args:
        vocabulary: number of tokens; 0 is the end of a row, and 1 is never written.
        source, target: tokens of the longest source and target.
    """

    vocabulary: Count
    source: Count
    target: Count
    _: KW_ONLY
    likelihood: Likelihood = ExactMatch()

    kinds = ("tokens",)
    home = "instructions"
    export_problem = "it writes its outputs token by token"

    @abstractmethod
    def read(self, state: State, x: Tensor) -> Any:
        """What the decoder looks at: sources x (m, source), read beside the state."""

    @abstractmethod
    def logits(self, read: Any, y: Tensor) -> Tensor:
        """Logits (m, length, vocabulary) of every token of y (m, length), from those
        before it.
        """

    @abstractmethod
    def write(self, read: Any, length: int) -> Tensor:
        """The targets (m, length), each token the likeliest after those before it."""

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        return (TaskSpec("tokens", (5,), 6, vocabulary=12),)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        return {
            "vocabulary": spec.vocabulary,
            "source": spec.x_size,
            "target": spec.y_dim,
            "likelihood": ExactMatch(),
        }

    def tokens_of(self, rows: Tensor) -> Tensor:
        """Rows of token numbers as integers."""
        return rows.long().clamp(END, self.vocabulary - 1)

    def trim(self, tasks: Task) -> Task:
        """The tasks without what is empty in all of them at the end of the rows."""

        def cut(*parts: Tensor, extra: int) -> list[Tensor]:
            used = max(int((part > END).sum(-1).max()) for part in parts)
            return [part[..., : max(1, used + extra)] for part in parts]

        support, query = tasks
        x = cut(support.x, query.x, extra=0)
        y = cut(support.y, query.y, extra=1)
        return Task(Examples(x[0], y[0]), Examples(x[1], y[1]))

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        losses, metrics = torch.vmap(self.loss, randomness="different")(tasks)
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        x = torch.cat([task.support.x, task.query.x])
        y = self.tokens_of(torch.cat([task.support.y, task.query.y]))
        log_p = self.logits(self.read(self.adapt(task.support), x), y).log_softmax(-1)
        began = torch.nn.functional.pad(y[:, :-1], (1, 0), value=UNKNOWN) > END
        counts = (began & (y != UNKNOWN)).to(log_p.dtype)  # (m, length)
        nll = -log_p.gather(-1, y[..., None])[..., 0] * counts
        right = (log_p.detach().argmax(-1) == y) * counts
        total = counts.sum().clamp_min(1)
        return nll.sum() / total, {"token": right.sum() / total}

    def predict(self, state: State, x: Tensor) -> Tensor:
        with torch.no_grad():
            written = self.write(self.read(state, x), self.target)
        ended = (written == END).cummax(-1).values
        return written.masked_fill(ended, END).to(x.dtype)
