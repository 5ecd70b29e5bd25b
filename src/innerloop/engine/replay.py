"""A function recorded once and replayed: small networks spend their time in the machinery around their arithmetic, and a recording has none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

AFTER = 3  # calls that are alike before one is recorded


class _Recordings:
    """Of one module: how often a situation came up, and what was recorded of it; None where it cannot be."""

    def __init__(self) -> None:
        self.seen: dict[Any, int] = {}
        self.kept: dict[Any, Callable[..., Any] | None] = {}


_recordings: WeakKeyDictionary[nn.Module, _Recordings] = WeakKeyDictionary()


def replayed(module: nn.Module, function: Callable[..., Any], *trees: Any) -> Any:
    """`function(*trees)`, a pytree of tensors without history, where the function depends on `trees` and on the settings of `module` alone.

    From the fourth call in one situation (shapes, settings, modules and their modes) the tensor operations of the third are repeated, provided
    that they then gave the very same numbers again. What is drawn at random or read from values is never recorded, nor are modules with hooks,
    or with torch's convolutions, whose arithmetic is what takes the time.
    """
    if any(type(m) is nn.Conv2d or m._forward_hooks or m._forward_pre_hooks for m in module.modules()):
        return function(*trees)
    recordings = _recordings.setdefault(module, _Recordings())
    situation = _situation(module, trees)
    if (replay := recordings.kept.get(situation)) is not None:
        return _run(replay, trees)
    result = function(*trees)
    seen = recordings.seen[situation] = recordings.seen.get(situation, 0) + 1
    if seen == AFTER:
        recordings.kept[situation] = _recorded(function, trees, result)
    return result


def _run(recording: Callable[..., Any], trees: Any) -> Any:
    with torch.no_grad(), torch.autocast(_device(trees), enabled=False):
        return recording(*tree_map(Tensor.detach, trees))


def _recorded(function: Callable[..., Any], trees: Any, result: Any) -> Callable[..., Any] | None:
    """A recording of `function`, if it gives the same result."""
    from torch.fx.experimental.proxy_tensor import make_fx  # takes a second

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = make_fx(function)(*tree_map(lambda t: t.detach().requires_grad_(t.requires_grad), trees))
            again = _run(graph, trees)
    except Exception:  # anything may refuse to be recorded
        return None
    pairs = zip(tree_leaves(result), tree_leaves(again), strict=True)
    return graph if all(b is None if a is None else torch.equal(a, b) for a, b in pairs) else None


def _device(trees: Any) -> str:
    return tree_leaves(trees)[0].device.type


def _identity(value: Any) -> Any:
    return (id(value), value._version) if isinstance(value, Tensor) else repr(value)


def _situation(module: nn.Module, trees: Any) -> Any:
    """All that the operations depend on beside the values of tensors."""
    settings = [
        (id(part), [(name, _identity(value)) for name, value in vars(part).items() if name[0] != "_" and not isinstance(value, nn.Module)])
        for part in module.modules()
    ]
    leaves, shape = tree_flatten(trees)
    tensors = tuple((t.shape, t.dtype, t.device, t.requires_grad) for t in leaves)
    return str(settings), str(shape), tensors, torch.is_autocast_enabled(_device(trees))
