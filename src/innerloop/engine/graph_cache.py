"""Recording and replay of the tensor operations of a function, which avoids the
overhead of autograd and Python. It dominates the time of small networks.
"""

from __future__ import annotations

import enum
import functools
import os
import random
import threading
import types
import warnings
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from innerloop.engine import norm_stats
from innerloop.engine.errors import InnerloopError

AFTER = 3  # equal calls before a recording
CHECKS = 2  # calls that it must agree with before it is used
FIRST_RECHECK = 4  # replays before it is compared again; the interval doubles
MAX_RECORDINGS = 8  # of one module
MAX_OPERATIONS = 4000  # in one recording; each takes a millisecond to record
TRUSTED = ("torch", "innerloop", "builtins")  # packages whose code is known
_OWN = frozenset(vars(nn.Module())) - {"training"}
_GLOBAL_HOOKS = [
    hooks
    for name, hooks in vars(torch_module).items()
    if name.startswith("_global_") and isinstance(hooks, dict)
]
_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type,
    enum.Enum,
    torch.dtype,
    torch.device,
    torch.Size,
    types.FunctionType,
)


class _Counting(TorchDispatchMode):
    """Counts tensor operations."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, kinds: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        self.count += 1
        return function(*arguments, **(named or {}))


class _Unknown(Exception):
    """A setting that cannot be compared."""


@dataclass
class _Situation:
    """How often it came up; whether it was recorded, and the recording if that worked;
    how many calls have agreed with it; how often it was replayed, and when it is
    compared again.
    """

    seen: int = 0
    tried: bool = False
    recording: Callable[..., Any] | None = None
    agreed: int = 0
    replays: int = 0
    recheck: int = FIRST_RECHECK


_situations: WeakKeyDictionary[nn.Module, dict[int, _Situation]] = WeakKeyDictionary()
_lock = threading.Lock()  # of the bookkeeping
_recording = threading.Lock()  # one thread records at a time


def graph_cached(
    module: nn.Module,
    function: Callable[..., Any],
    *trees: Any,
    key: Hashable = None,
) -> Any:
    """`function(*trees)`, a pytree of tensors without history, where the function
    depends on `trees`, on the attributes of `module` and on `key` alone.

    After three calls in one situation (shapes, attributes, modules and their modes) its
    tensor operations are recorded. Once the recording has returned the same bits as the
    function in two calls, it takes the function's place, and is compared again after
    4, 8, 16, ... replays. Only modules whose code is known to be recordable are
    recorded, see `is_recordable`; never what is drawn at random, depends on the values
    of tensors or writes to buffers, nor modules with hooks or with attributes that
    cannot be compared, nor torch's convolutions, whose arithmetic takes the time, nor
    very many operations. `INNERLOOP_GRAPH_CACHE=0` in the environment switches all
    recordings off.

    Raises InnerloopError where a recording no longer agrees with the function.
    """
    if (
        os.environ.get("INNERLOOP_GRAPH_CACHE") == "0"
        or not all(is_recordable(type(part)) for part in module.modules())
        or _watched(module, trees)
    ):
        return function(*trees)
    try:
        situation = hash((_situation(module, trees), key))
    except (_Unknown, RecursionError):
        return function(*trees)
    used, recheck = None, False
    with _lock:
        situations = _situations.setdefault(module, {})
        found = situations.get(situation)
        if found is None:
            if len(situations) >= 8 * MAX_RECORDINGS:
                return function(*trees)
            found = situations[situation] = _Situation()
        if found.recording is None or found.agreed < CHECKS:
            found.seen += 1
            used = sum(s.recording is not None for s in situations.values())
        else:
            found.replays += 1
            recheck = found.replays == found.recheck
            found.recheck *= 2 if recheck else 1
    if used is not None:
        return _observed(found, function, trees, room=used < MAX_RECORDINGS)
    try:
        result = _run(found.recording, trees)
    except RuntimeError:  # a situation that the key does not tell apart
        found.recording = None
        return function(*trees)
    if recheck and not _same(result, function(*trees)):
        found.recording = None
        raise InnerloopError(
            f"the gradient of {type(module).__name__} depends on more than its "
            f"attributes, and its recording went out of date: the last "
            f"{found.recheck // 2} gradients may be wrong; set recordable = False in "
            "its class, or INNERLOOP_GRAPH_CACHE=0"
        )
    return result


def _observed(
    found: _Situation, function: Callable[..., Any], trees: Any, *, room: bool
) -> Any:
    """The function's own result, which is recorded or compared with its recording."""
    recording = found.recording
    if recording is not None:
        result = function(*trees)
        if not _agrees(recording, trees, result):
            found.recording = None
        found.agreed += 1
        return result
    if found.tried or found.seen < AFTER or not _recording.acquire(blocking=False):
        return function(*trees)
    try:
        found.tried = True
        before = [leaf._version for leaf in tree_leaves(trees)]
        with _Counting() as operations:
            result = function(*trees)
        written = before != [leaf._version for leaf in tree_leaves(trees)]
        if room and not written and operations.count <= MAX_OPERATIONS:
            recording = _recorded(function, trees)
            if recording is not None and _agrees(recording, trees, result):
                found.recording, found.agreed = recording, 1
    finally:
        _recording.release()
    return result


@functools.cache
def is_recordable(kind: type) -> bool:
    """Whether a module of this class depends on its parameters, buffers, attributes and
    inputs alone: as its own class variable `recordable` says, which subclasses do not
    inherit, because they may override anything; else whether torch or this package
    defines it.
    """
    return vars(kind).get("recordable", _trusted(kind))


def _trusted(thing: Any) -> bool:
    return str(thing.__module__).partition(".")[0] in TRUSTED


def _watched(module: nn.Module, trees: Any) -> bool:
    """Whether hooks or collected moments need every call, or recording does not pay."""
    hooked = any(
        type(m) is nn.Conv2d
        or m._forward_hooks
        or m._forward_pre_hooks
        or m._backward_hooks
        or m._backward_pre_hooks
        for m in module.modules()
    )
    return (
        hooked
        or any(_GLOBAL_HOOKS)
        or norm_stats.collecting()
        or any(t._backward_hooks for t in tree_leaves(trees))
    )


def _run(recording: Any, trees: Any) -> Any:
    with torch.no_grad(), torch.autocast(_device(trees), enabled=False):
        return recording(*tree_map(Tensor.detach, trees))


def _agrees(recording: Callable[..., Any], trees: Any, result: Any) -> bool:
    """Whether a recording returns the same bits as the function did."""
    try:
        pairs = zip(
            tree_leaves(result), tree_leaves(_run(recording, trees)), strict=True
        )
        return all(b is None if a is None else torch.equal(a, b) for a, b in pairs)
    except (RuntimeError, ValueError):
        return False


def _same(result: Any, expected: Any) -> bool:
    """Whether results are the same up to the order of additions, which some kernels
    leave open.
    """
    for a, b in zip(tree_leaves(result), tree_leaves(expected), strict=True):
        if a is None or b is None:
            if a is not b:
                return False
        elif not torch.allclose(
            a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()), equal_nan=True
        ):
            return False
    return True


def _recorded(function: Callable[..., Any], trees: Any) -> Callable[..., Any] | None:
    """A recording of `function`, made on tensors that have shapes and no values, so
    that nothing can be read from them; None where that fails.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # takes a second

    before = _generators()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            leaves = tree_map(
                lambda t: t.detach().requires_grad_(t.requires_grad), trees
            )
            graph = make_fx(function, tracing_mode="fake")(*leaves)
    except Exception:  # anything may refuse to be recorded
        return None
    constants = any(node.op == "get_attr" for node in graph.graph.nodes)
    return None if before != _generators() or constants else graph


def _generators() -> Any:
    """The states of the global generators that are not torch's."""
    numpy: Any = np.random.get_state()  # noqa: NPY002
    return random.getstate(), numpy[1].tobytes(), numpy[2]


def _device(trees: Any) -> str:
    return tree_leaves(trees)[0].device.type


def _attributes(value: Any) -> Iterator[Any]:
    """The parts of an attribute's value, down to those that can be compared. Raises
    _Unknown for values that cannot be compared and for code that is not trusted.
    """
    yield type(value)
    if isinstance(value, types.FunctionType | type) and not _trusted(value):
        raise _Unknown
    if isinstance(value, _PLAIN):
        yield value
    elif isinstance(value, Tensor):
        yield id(value), value._version
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _attributes(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _attributes(inner)
    elif not isinstance(value, nn.Module):  # those are visited by themselves
        if not _trusted(type(value)) or not hasattr(value, "__dict__"):
            raise _Unknown
        yield from _attributes(vars(value))


def _situation(module: nn.Module, trees: Any) -> Any:
    """All that the operations depend on beside the values of tensors."""
    settings: list[Any] = []
    for name, part in module.named_modules():
        settings += [name, type(part)]
        for key, value in vars(part).items():
            if key not in _OWN:
                settings += [key, *_attributes(value)]
    leaves, shape = tree_flatten(trees)
    tensors = tuple(
        (t.shape, t.stride(), t.dtype, t.device, t.requires_grad) for t in leaves
    )
    device = _device(trees)
    context = (
        torch.is_autocast_enabled(device),
        torch.get_autocast_dtype(device),
        norm_stats.modes(),
    )
    return tuple(settings), str(shape), tensors, context
