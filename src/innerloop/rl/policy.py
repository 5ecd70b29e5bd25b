"""Outputs as a policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.engine.errors import InnerloopTypeError
from innerloop.engine.options import check_options
from innerloop.engine.precision import widened
from innerloop.engine.rows import drawing

Estimator = Literal["lvc", "dice", "biased"]


@dataclass(frozen=True)
class Policy(Likelihood):
    """Policy: outputs are logits of discrete actions, or means and raw scales of
    continuous ones.

    loss = -mean over steps of weight * log pi(action)

    Reference: Williams 1992, "Simple statistical gradient-following algorithms for
    connectionist reinforcement learning", Machine Learning 8, section 4.

    Targets y (m, actions + 2) are [action | weight | done]. With an advantage as weight
    this is the loss of REINFORCE. Scales are 0.05 + softplus(raw scale).

    Args:
        discrete: whether actions are discrete (one-hot rows) or continuous.
        value: whether the last output is a value estimate.
    """

    discrete: bool = True
    value: bool = False
    score = "reward"
    higher_is_better = True

    def __post_init__(self) -> None:
        check_options(self)

    def out_dim(self, y_dim: int) -> int:
        return (y_dim - 2) * (1 if self.discrete else 2) + self.value

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """The parameters of the action distribution (..., actions), or twice as many
        where actions are continuous; and the value (...,).
        """
        outputs = widened(outputs)
        return (outputs[..., :-1], outputs[..., -1]) if self.value else (outputs, None)

    def moments(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (..., actions) of continuous actions."""
        mean, raw = parameters.chunk(2, -1)
        return mean, 0.05 + F.softplus(raw)

    def sample(self, outputs: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """An action (..., actions) for every row of outputs: one-hot, or reals."""
        parameters = self.split(outputs.detach())[0]
        if self.discrete:
            noise = _noise(torch.rand, parameters, rng).clamp(1e-12, 1 - 1e-7)
            # the Gumbel-max trick
            best = (parameters - (-noise.log()).log()).argmax(-1)
            return F.one_hot(best, parameters.shape[-1]).to(parameters.dtype)
        mean, scale = self.moments(parameters)
        return mean + scale * _noise(torch.randn, mean, rng)

    def log_prob(self, outputs: Tensor, action: Tensor) -> Tensor:
        """The log probability (...,) of actions (..., actions)."""
        parameters = self.split(outputs)[0]
        if self.discrete:
            return (action * F.log_softmax(parameters, -1)).sum(-1)
        mean, scale = self.moments(parameters)
        squared = ((action - mean) / scale).square()
        return (-0.5 * squared - scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        """The entropy of the action distribution in nats (...,)."""
        parameters = self.split(outputs)[0]
        if self.discrete:
            log_p = F.log_softmax(parameters, -1)
            return -(log_p.exp() * log_p).sum(-1)
        scale = self.moments(parameters)[1]
        return (scale.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        return -(self.log_prob(outputs, y[..., :-2]) * y[..., -2]).mean()

    def metrics(self, outputs: Tensor, y: Tensor) -> Metrics:
        return {
            "reward": y[..., -2].mean(),
            "entropy": self.entropy(outputs.detach()).mean(),
        }

    def mean(self, outputs: Tensor) -> Tensor:
        """The probabilities of discrete actions, or the means of continuous ones
        (m, actions).
        """
        parameters = self.split(outputs)[0]
        return parameters.softmax(-1) if self.discrete else parameters.chunk(2, -1)[0]


@dataclass(frozen=True)
class PolicyGradient(Policy):
    """Policy gradient: a policy whose loss can be differentiated twice, as the
    meta-gradient through an adaptation step requires.

    lvc: loss = -mean over t of exp(log p_t - stop(log p_t)) A_t

    Reference: Rothfuss, Lee, Clavera, Asfour and Abbeel 2019, "ProMP: proximal
    meta-policy search", arXiv:1810.06784, section 5; DiCE: Foerster, Farquhar,
    Al-Shedivat, Rocktäschel, Xing and Whiteson 2018, "DiCE: the infinitely
    differentiable Monte Carlo estimator", arXiv:1802.05098; DiCE with advantages:
    Farquhar, Whiteson and Foerster 2019, "Loaded DiCE: trading off bias and variance in
    any-order score function estimators for reinforcement learning", arXiv:1909.10549.

    A_t is the weight of step t, log p_t the log probability of its action, and stop()
    stops gradients. The first derivative is that of REINFORCE for every estimator. The
    second one must account for the fact that other weights sample other episodes:

    - dice: (M_t - M_(t-1)) A_t with M_t = exp(sum of log p - stop(log p) over the
      episode up to t). Unbiased in all derivatives, of high variance.
    - lvc: low variance curvature; leaves out the products of two different steps. Exact
      for episodes of one step.
    - biased: log p_t A_t, as in `Policy`; ignores that sampling depends on the weights.

    Args:
        discrete: whether actions are discrete (one-hot rows) or continuous.
        value: whether the last output is a value estimate.
        estimator: which surrogate is differentiated.
    """

    estimator: Estimator = "lvc"

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        if self.estimator == "biased":
            return super().nll(outputs, y)
        log_p = self.log_prob(outputs, y[..., :-2])  # (m,)
        log_ratio = log_p - log_p.detach()
        if self.estimator == "lvc":
            return -(log_ratio.exp() * y[..., -2]).mean()
        total = torch.cat([log_ratio.new_zeros(1), log_ratio.cumsum(0)])  # (m + 1,)
        step = torch.arange(len(y), device=y.device)
        ends = ((step + 1) * (y[..., -1] > 0.5)).cummax(0).values  # (m,)
        # (m,) the sum before the first step of each step's episode
        before = total[torch.cat([ends.new_zeros(1), ends[:-1]])]
        magic = (total[1:] - before).exp() - (total[:-1] - before).exp()
        return -(magic * y[..., -2]).mean()


def policy_of(learner: Learner) -> Policy:
    """The likelihood of a learner that acts.

    Raises InnerloopTypeError where its outputs are not a policy.
    """
    if not isinstance(learner.likelihood, Policy):
        raise InnerloopTypeError(
            f"the outputs of a learner that acts must be a policy: build "
            f"{type(learner).__name__} with likelihood=Policy(...); got "
            f"{learner.likelihood}"
        )
    return learner.likelihood


def _noise(draw: object, like: Tensor, rng: torch.Generator | None) -> Tensor:
    """Noise of the shape of a tensor, drawn on the device of the generator."""
    device = rng.device if rng is not None else like.device
    with drawing(rng, len(like)):
        return draw(like.shape, generator=rng, device=device).to(like)  # pyright: ignore
