"""A gradient recorded once and replayed: small networks spend their time in the machinery around their arithmetic, and a recording has none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from innerloop.core.likelihood import Metrics
from innerloop.core.task import Task

LossGrads = tuple[Tensor, Metrics, tuple[Tensor | None, ...]]
AFTER = 3  # calls that are alike before one is recorded


class _Recordings:
    """Of one learner: how often a situation came up, and what was recorded of it; None where it cannot be."""

    def __init__(self) -> None:
        self.seen: dict[Any, int] = {}
        self.kept: dict[Any, Callable[..., LossGrads] | None] = {}


_recordings: WeakKeyDictionary[nn.Module, _Recordings] = WeakKeyDictionary()


def loss_and_gradient(learner: nn.Module, tasks: Task) -> LossGrads:
    """The loss of `learner(tasks)`, its metrics, and its gradient for the parameters that want one, in their order.

    From the fourth call in one situation (shapes, settings, modules and their modes) the tensor operations of the third are repeated, provided
    that they then gave the very same numbers again. What is drawn at random or read from values is never recorded, nor are networks with hooks,
    networks with torch's convolutions, whose arithmetic is what takes the time, and learners that recompute: recording takes memory.
    """
    theta: dict[str, Tensor] = {}
    rest = dict(learner.named_buffers())
    for name, parameter in learner.named_parameters():
        (theta if parameter.requires_grad else rest)[name] = parameter

    def direct(theta: dict[str, Tensor], rest: dict[str, Tensor], tasks: Task) -> LossGrads:
        loss, metrics = functional_call(learner, {**theta, **rest}, (tasks,))
        return loss.detach(), metrics, torch.autograd.grad(loss, list(theta.values()), allow_unused=True)

    if getattr(learner, "recompute", False) or any(type(m) is nn.Conv2d or m._forward_hooks or m._forward_pre_hooks for m in learner.modules()):
        return direct(theta, rest, tasks)
    recordings = _recordings.setdefault(learner, _Recordings())
    situation = _situation(learner, theta, tasks)
    if (replay := recordings.kept.get(situation)) is not None:
        with torch.no_grad(), torch.autocast(_device(tasks), enabled=False):
            return replay({name: p.detach() for name, p in theta.items()}, rest, tasks)
    result = direct(theta, rest, tasks)
    seen = recordings.seen[situation] = recordings.seen.get(situation, 0) + 1
    if seen == AFTER:
        recordings.kept[situation] = _recorded(direct, theta, rest, tasks, result)
    return result


def _recorded(function: Callable[..., LossGrads], theta: dict[str, Tensor], rest: dict[str, Tensor], tasks: Task, result: LossGrads) -> Any:
    """A recording of `function`, if it gives the same result."""
    from torch.fx.experimental.proxy_tensor import make_fx  # takes a second

    leaves = {name: p.detach().requires_grad_() for name, p in theta.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = make_fx(function)(leaves, rest, tasks)
            with torch.no_grad(), torch.autocast(_device(tasks), enabled=False):
                again = graph({name: p.detach() for name, p in theta.items()}, rest, tasks)
    except Exception:  # anything may refuse to be recorded
        return None
    pairs = zip(tree_leaves(result), tree_leaves(again), strict=True)
    return graph if all(b is None if a is None else torch.equal(a, b) for a, b in pairs) else None


def _identity(value: Any) -> Any:
    return (id(value), value._version) if isinstance(value, Tensor) else repr(value)


def _device(tasks: Task) -> str:
    return tasks.query.x.device.type


def _situation(learner: nn.Module, theta: dict[str, Tensor], tasks: Task) -> Any:
    """All that the operations depend on beside the values of tensors."""
    settings = [
        (id(module), [(name, _identity(value)) for name, value in vars(module).items() if name[0] != "_" and not isinstance(value, nn.Module)])
        for module in learner.modules()
    ]
    tensors = tuple((t.shape, t.dtype, t.device) for t in (*theta.values(), *tree_leaves(tasks)))
    return str(settings), tuple(theta), tensors, torch.is_autocast_enabled(_device(tasks))
