"""Likelihoods: how a learner's outputs are scored against targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from innerloop.engine.precision import widened
from innerloop.engine.scores import roc_auc

Metrics = dict[str, Tensor]


class Likelihood(ABC):
    """A reading of outputs (m, out_dim) against targets (m, y_dim)."""

    score: str  # the metric that matters most
    higher_is_better: bool
    percent: ClassVar[tuple[str, ...]] = ()  # metrics that are shown in per cent

    def out_dim(self, y_dim: int) -> int:
        """How many outputs a learner gives for targets of `y_dim` values."""
        return y_dim

    @abstractmethod
    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Negative log-likelihood in nats, averaged over the m examples; a scalar."""

    @abstractmethod
    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        """Metrics for reports, as detached scalars."""

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """The expected target (m, y_dim): class probabilities, or the predicted
        reals.
        """

    def std(self, outputs: Tensor) -> Tensor | None:
        """The predicted standard deviation (m, y_dim), None where none is predicted."""
        return None


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Outputs are logits, targets are one-hot rows (or rows of class probabilities)."""

    score = "accuracy"
    percent = ("accuracy",)
    higher_is_better = True

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        return -(y * F.log_softmax(widened(outputs), -1)).sum(-1).mean()

    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        outputs = outputs.detach()
        found = {"accuracy": (outputs.argmax(-1) == y.argmax(-1)).float().mean()}
        if y.shape[-1] == 2:
            found["roc_auc"] = roc_auc(outputs[:, 1] - outputs[:, 0], y[:, 1])
        return found

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(-1)


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Outputs are means, or with `learned_scale` means and raw scales (softplus makes
    them standard deviations, at least 0.01).

    Without it the variance is one half and the constant is left out, which makes the
    negative log-likelihood the squared error, summed over y_dim: the loss that
    regression papers descend.
    """

    learned_scale: bool = False
    score = "mse"
    higher_is_better = False

    def out_dim(self, y_dim: int) -> int:
        return 2 * y_dim if self.learned_scale else y_dim

    def moments(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (m, y_dim), of outputs with a learned
        scale.
        """
        mean, raw = outputs.chunk(2, -1)
        return mean, 0.01 + 0.99 * F.softplus(raw)

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        if not self.learned_scale:
            return (widened(outputs) - y).square().sum(-1).mean()
        mean, scale = self.moments(widened(outputs))
        squares = 0.5 * ((y - mean) / scale).square()
        return (squares + scale.log() + 0.9189385332046727).sum(-1).mean()

    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        return {"mse": (self.mean(outputs.detach()) - y).square().mean()}

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.chunk(2, -1)[0] if self.learned_scale else outputs

    def std(self, outputs: Tensor) -> Tensor | None:
        return self.moments(outputs)[1] if self.learned_scale else None


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Outputs are logits of independent binary targets."""

    score = "accuracy"
    percent = ("accuracy",)
    higher_is_better = True

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        outputs = widened(outputs)
        return (F.softplus(outputs) - outputs * y).sum(-1).mean()

    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        return {"accuracy": ((outputs.detach() > 0) == (y > 0.5)).float().mean()}

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()


# by the name that a run's experiment uses
LIKELIHOODS: dict[str, type[Likelihood]] = {
    "categorical": Categorical,
    "gaussian": Gaussian,
    "bernoulli": Bernoulli,
}
