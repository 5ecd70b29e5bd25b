"""A function over the leading axis of its arguments: by `vmap` where that works, is
right and is faster, else by a loop.
"""

from __future__ import annotations

import functools
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves, tree_map

from innerloop.engine.errors import InnerloopError
from innerloop.engine.functional import original

# modules that vmap failed to map, and that a loop could
_failed: WeakSet[nn.Module] = WeakSet()


def mapped(
    module: nn.Module,
    function: Callable[..., Any],
    *trees: Any,
    randomness: Literal["same", "different"] = "different",
    size: int | None = None,
) -> Any:
    """`function` over the leading axis of `trees`, results stacked; `function` uses
    `module` and returns a pytree of tensors.

    Where vmap cannot map the function (it depends on the values of tensors, writes to
    buffers, or calls an operation without a rule), a loop takes its place, with one
    warning for each module. Errors in the loop are the function's own.

    randomness: "same" draws the same random numbers for every entry, and leaves the
    global generator where it was.
    size: how many entries go through vmap at once; all by default.
    """
    first = tree_leaves(trees)[0]
    count = len(first)
    size = count if size is None else min(size, count)
    key = original(module)
    if size <= 1 or key in _failed or needs_loop(module, first.device):
        return _looped(function, trees, randomness)
    try:
        return _vmapped(function, trees, randomness, size)
    except (InnerloopError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        result = _looped(function, trees, randomness)
        _failed.add(key)
        warnings.warn(_explanation(module, error), RuntimeWarning, stacklevel=3)
        return result


def needs_loop(module: nn.Module, device: torch.device) -> bool:
    """Whether tasks are looped over: because a layer runs faster that way on a CPU, or
    because second derivatives of some normalization layers are wrong under vmap.
    """
    on_cpu = device.type == "cpu"
    return any(
        (on_cpu and loops_on_cpu(part)) or wrong_under_vmap(part)
        for part in module.modules()
    )


@functools.singledispatch
def loops_on_cpu(layer: nn.Module) -> bool:
    """Whether a CPU runs this layer faster in a loop over tasks than under `vmap`. A
    layer that differs from its base class registers an answer of its own.
    """
    return False


@loops_on_cpu.register
def _(layer: nn.Conv2d) -> bool:
    # filters that differ from task to task make it a grouped convolution, which is
    # slower than a loop
    return True


def wrong_under_vmap(part: nn.Module) -> bool:
    """Whether torch's `vmap` gives wrong second derivatives of this layer, without an
    error (torch 2.13): normalization with a scale and a shift.
    """
    return isinstance(part, nn.LayerNorm | _NormBase) and part.weight is not None


def _vmapped(
    function: Callable[..., Any], trees: Any, randomness: str, size: int
) -> Any:
    parts = _split(trees, size)
    results = []
    for part in parts:
        with _generator_kept(part, randomness):
            results.append(torch.vmap(function, randomness=randomness)(*part))
    if len(results) == 1:
        return results[0]
    return tree_map(lambda *leaves: torch.cat(leaves), *results)


def _looped(function: Callable[..., Any], trees: Any, randomness: str) -> Any:
    results = []
    for i in range(len(tree_leaves(trees)[0])):
        part = tree_map(lambda leaf: leaf[i], trees)  # noqa: B023
        with _generator_kept(part, randomness):
            results.append(function(*part))
    return tree_map(lambda *leaves: torch.stack(leaves), *results)


def _split(trees: Any, size: int) -> list[Any]:
    count = len(tree_leaves(trees)[0])
    if size >= count:
        return [trees]
    return [
        tree_map(lambda leaf: leaf[start : start + size], trees)  # noqa: B023
        for start in range(0, count, size)
    ]


def _generator_kept(trees: Any, randomness: str) -> Any:
    device = tree_leaves(trees)[0].device
    return torch.random.fork_rng(
        [device] if device.type == "cuda" else [], enabled=randomness == "same"
    )


def _explanation(module: nn.Module, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0].partition(". ")[0][:120]
    return (
        f"{type(module).__name__} is run task by task, because vmap cannot map "
        f"it{_place(error)}: {reason}; see docs/gotchas.md"
    )


def _place(error: Exception) -> str:
    """Where in a user's code the error arose, or nothing."""
    ours = [Path(torch.__file__).parent, Path(__file__).parents[1]]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_absolute() and not any(path.is_relative_to(home) for home in ours):
            return f" ({path.name}, line {frame.lineno})"
    return ""
