"""How much better than expected an action was: what was earned after it, less a
baseline.
"""

from __future__ import annotations

import torch
from torch import Tensor

from innerloop.rl.rollout import Played


def counted(played: Played) -> Tensor:
    """1 in the first episode of every row, 0 in what was played after its end (n, k,
    steps).
    """
    return (played.over.cumsum(-1) - played.over == 0).to(played.over.dtype)


def returns(played: Played, discount: float = 1.0) -> Tensor:
    """The discounted sum of the rewards from every step on, to the end of its episode
    (n, k, steps).
    """
    after, rows = torch.zeros_like(played.reward[..., 0]), []
    for reward, over in zip(
        played.reward.unbind(-1)[::-1], played.over.unbind(-1)[::-1], strict=True
    ):
        after = reward + discount * (1 - over) * after  # (n, k)
        rows.append(after)
    return torch.stack(rows[::-1], -1)


def linear_baseline(played: Played, targets: Tensor, ridge: float = 1e-5) -> Tensor:
    """What `targets` (n, k, steps) are expected to be, from what was seen and when: (n,
    k, steps), fitted to each task by least squares.

    Duan, Chen, Houthooft, Schulman and Abbeel 2016, "Benchmarking deep reinforcement
    learning for continuous control", arXiv:1604.06778: linear in the features x, x^2,
    t, t^2, t^3 and 1, x clipped to 10, t in hundreds of steps. What came after the
    first episode of a row is not fitted.
    """
    x = played.x.flatten(3).double().clamp(-10, 10)  # (n, k, steps, d)
    # (steps, 1)
    t = torch.arange(x.shape[2], dtype=x.dtype, device=x.device)[:, None] / 100
    # (n, k, steps, 4)
    when = torch.cat([t, t**2, t**3, torch.ones_like(t)], -1).expand(
        *x.shape[:2], -1, -1
    )
    features = torch.cat([x, x.square(), when], -1).flatten(1, 2)  # (n, k steps, f)
    fitted = features * counted(played).double().flatten(1)[..., None]
    # (n, f, f)
    gram = fitted.mT @ features + ridge * torch.eye(features.shape[-1]).to(features)
    # (n, f, 1)
    weights = torch.linalg.solve(
        gram, fitted.mT @ targets.double().flatten(1)[..., None]
    )
    return (features @ weights).reshape(targets.shape).to(targets.dtype)


def advantages(
    played: Played, discount: float = 0.99, standardised: bool = True
) -> Tensor:
    """Discounted returns less the linear baseline (n, k, steps), of every task on its
    own; 0 after the first episode of a row.

    `standardised` to mean 0 and variance 1 over the steps of a task, which keeps the
    size of an inner step independent of that of the rewards.
    """
    target, counts = returns(played, discount), counted(played)
    advantage = (target - linear_baseline(played, target)) * counts
    if standardised:
        number = counts.sum((1, 2), keepdim=True)
        advantage = (advantage - advantage.sum((1, 2), keepdim=True) / number) * counts
        advantage = advantage / (
            advantage.square().sum((1, 2), keepdim=True) / number
        ).sqrt().clamp_min(1e-8)
    return advantage
