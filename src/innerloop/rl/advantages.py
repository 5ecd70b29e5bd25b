"""Advantages: returns less a baseline."""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.engine.solvers import solvable
from innerloop.rl.rollout import Rollout


def generalized_advantages(
    reward: Tensor, value: Tensor, discount: float, trace: float
) -> Tensor:
    """Generalized advantage estimates (..., steps), from rewards and values (...,
    steps) of whole trials.

    A_t = sum_k (discount trace)^k delta_(t+k), delta_t = r_t + discount V_(t+1) - V_t,
    with V = 0 after the end of the trial.

    Schulman, Moritz, Levine, Jordan and Abbeel 2016, "High-dimensional continuous
    control using generalized advantage estimation", arXiv:1506.02438, eq. (16). The sum
    continues over the ends of episodes, because the trial does: an agent that explores
    in one episode is rewarded in the next ones.
    """
    advantage = next_value = torch.zeros_like(reward[..., 0])
    rows = []
    for r, v in zip(reward.unbind(-1)[::-1], value.unbind(-1)[::-1], strict=True):
        delta = r + discount * next_value - v
        advantage, next_value = delta + discount * trace * advantage, v
        rows.append(advantage)
    return torch.stack(rows[::-1], -1)


def first_episode(rollout: Rollout) -> Tensor:
    """1 in the first episode of every row, 0 after its end (n, k, steps)."""
    return (rollout.done.cumsum(-1) - rollout.done == 0).to(rollout.done.dtype)


def returns(rollout: Rollout, discount: float = 1.0) -> Tensor:
    """The discounted sum of the rewards from every step to the end of its episode
    (n, k, steps).
    """
    total, rows = torch.zeros_like(rollout.reward[..., 0]), []
    for reward, done in zip(
        rollout.reward.unbind(-1)[::-1], rollout.done.unbind(-1)[::-1], strict=True
    ):
        total = reward + discount * (1 - done) * total  # (n, k)
        rows.append(total)
    return torch.stack(rows[::-1], -1)


def mean_return(rollout: Rollout) -> Tensor:
    """The undiscounted return of every task (n,), a mean over the first episodes of its
    rows.
    """
    return (rollout.reward * first_episode(rollout)).sum(-1).mean(-1)


@solvable()
def linear_baseline(rollout: Rollout, targets: Tensor, ridge: float = 1e-5) -> Tensor:
    """A prediction (n, k, steps) of `targets` (n, k, steps) from observation and time,
    fitted to each task by least squares.

    Duan, Chen, Houthooft, Schulman and Abbeel 2016, "Benchmarking deep reinforcement
    learning for continuous control", arXiv:1604.06778: linear in the features x, x^2,
    t, t^2, t^3 and 1, with x clipped to -10..10 and t in hundreds of steps. Steps after
    the first episode of a row are not fitted.
    """
    x = rollout.x.flatten(3).double().clamp(-10, 10)  # (n, k, steps, d)
    # (steps, 1)
    t = torch.arange(x.shape[2], dtype=x.dtype, device=x.device)[:, None] / 100
    powers = torch.cat([t, t**2, t**3, torch.ones_like(t)], -1)
    time = powers.expand(*x.shape[:2], -1, -1)  # (n, k, steps, 4)
    features = torch.cat([x, x.square(), time], -1).flatten(1, 2)  # (n, k steps, f)
    fitted = features * first_episode(rollout).double().flatten(1)[..., None]
    # (n, f, f)
    gram = fitted.mT @ features + ridge * torch.eye(features.shape[-1]).to(features)
    right = fitted.mT @ targets.double().flatten(1)[..., None]
    weights = torch.linalg.solve(gram, right)  # (n, f, 1)
    return (features @ weights).reshape(targets.shape).to(targets.dtype)


def advantages(
    rollout: Rollout, discount: float = 0.99, standardized: bool = True
) -> Tensor:
    """Discounted returns less the linear baseline (n, k, steps), task by task; 0 after
    the first episode of a row.

    `standardized`: scale to mean 0 and variance 1 over the steps of a task, so that the
    size of an inner step does not depend on the scale of the rewards.
    """
    target, mask = returns(rollout, discount), first_episode(rollout)
    advantage = (target - linear_baseline(rollout, target)) * mask
    if standardized:
        number = mask.sum((1, 2), keepdim=True)
        mean = advantage.sum((1, 2), keepdim=True) / number
        advantage = (advantage - mean) * mask
        variance = advantage.square().sum((1, 2), keepdim=True) / number
        advantage = advantage / variance.sqrt().clamp_min(1e-8)
    return advantage
