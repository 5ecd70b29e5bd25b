"""The likelihood of programs: an output is correct or not."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from innerloop.core.likelihood import Likelihood, Metrics


@dataclass(frozen=True)
class Exact(Likelihood):
    """Outputs are the answers themselves: a row is right where its first `columns`
    numbers are those of the target, a task solved where all rows are.

    The negative log-likelihood is the share of wrong rows: there is nothing to
    differentiate.
    """

    columns: int
    score = "solved"
    percent = ("solved", "rows")
    higher_is_better = True

    def right(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Which rows (m,) are right."""
        return (outputs[..., : self.columns] == y[..., : self.columns]).all(-1)

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        return 1 - self.right(outputs, y).to(y.dtype).mean()

    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        right = self.right(outputs, y)
        return {"solved": right.all().to(y.dtype), "rows": right.to(y.dtype).mean()}

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs
