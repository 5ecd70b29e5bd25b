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
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils._python_dispatch import TorchDispatchMode

from innerloop.engine import norm_stats
from innerloop.engine.errors import InnerloopError
from innerloop.engine.recording import Recording, Way, same_bits
from innerloop.engine.replay import faster
from innerloop.engine.trees import flatten, unflatten

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
_SIMPLE = frozenset((type(None), bool, int, float, str))
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
    """How often it came up; whether it was recorded, the recording if that worked, and
    the structure of its results; how many calls have agreed with it; how often it was
    replayed, and when it is compared again.
    """

    seen: int = 0
    tried: bool = False
    recording: Way | None = None
    structure: Hashable = None
    improved: bool = False  # whether faster code was looked for
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
    if os.environ.get("INNERLOOP_GRAPH_CACHE") == "0":
        return function(*trees)
    leaves, structure = flatten(trees)
    try:
        situation = hash((_situation(module, leaves), structure, key))
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
    recording = found.recording
    assert recording is not None
    try:
        result = unflatten(found.structure, recording(leaves))
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
    if recheck and not found.improved:
        _improve(found, leaves)
    return result


def _improve(found: _Situation, leaves: Sequence[Tensor]) -> None:
    """Looks for code that is faster than the recording, unless it is being built."""
    if isinstance(found.recording, Recording):
        better = faster(found.recording, leaves)
        if better is not None:
            found.recording, found.improved = better, True


def _observed(
    found: _Situation, function: Callable[..., Any], trees: Any, *, room: bool
) -> Any:
    """The function's own result, which is recorded or compared with its recording."""
    leaves, structure = flatten(trees)
    recording = found.recording
    if recording is not None:
        result = function(*trees)
        found.agreed += 1
        if not _agrees(recording, leaves, result):
            found.recording = None
        elif found.agreed == CHECKS:
            _improve(found, leaves)
        return result
    if found.tried or found.seen < AFTER or not _recording.acquire(blocking=False):
        return function(*trees)
    try:
        found.tried = True
        before = [leaf._version for leaf in leaves]
        with _Counting() as operations:
            result = function(*trees)
        written = before != [leaf._version for leaf in leaves]
        if room and not written and operations.count <= MAX_OPERATIONS:
            recording = _recorded(function, leaves, structure)
            if recording is not None and _agrees(recording, leaves, result):
                found.recording, found.agreed = recording, 1
                found.structure = flatten(result)[1]
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


def _watched(part: nn.Module) -> bool:
    """Whether hooks of a module need every call, or a recording of it does not pay."""
    return bool(
        type(part) is nn.Conv2d
        or part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
    )


def _agrees(recording: Way, leaves: Sequence[Tensor], result: Any) -> bool:
    """Whether a recording returns the same bits as the function did."""
    try:
        return same_bits(flatten(result)[0], recording(leaves))
    except RuntimeError:
        return False


def _same(result: Any, expected: Any) -> bool:
    """Whether results are the same up to the order of additions, which some kernels
    leave open.
    """
    for a, b in zip(flatten(result)[0], flatten(expected)[0], strict=True):
        if a is None or b is None:
            if a is not b:
                return False
        elif not torch.allclose(
            a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()), equal_nan=True
        ):
            return False
    return True


def _recorded(
    function: Callable[..., Any], leaves: Sequence[Tensor], structure: Hashable
) -> Recording | None:
    """A recording of `function`, made on tensors that have shapes and no values, so
    that nothing can be read from them; None where that fails.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # takes a second

    def flat(*leaves: Tensor) -> list[Tensor | None]:
        return flatten(function(*unflatten(structure, leaves)))[0]

    before = _generators()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            like = [t.detach().requires_grad_(t.requires_grad) for t in leaves]
            module = make_fx(flat, tracing_mode="fake")(*like)
    except Exception:  # anything may refuse to be recorded
        return None
    if before != _generators() or any(n.op == "get_attr" for n in module.graph.nodes):
        return None
    return Recording(module)


def _generators() -> Any:
    """The states of the global generators that are not torch's."""
    numpy: Any = np.random.get_state()  # noqa: NPY002
    return random.getstate(), numpy[1].tobytes(), numpy[2]


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


def _situation(module: nn.Module, leaves: Sequence[Tensor]) -> Any:
    """All that the operations depend on beside the values of tensors. Raises _Unknown
    where that cannot be told, or where every call counts.
    """
    if (
        any(_GLOBAL_HOOKS)
        or norm_stats.collecting()
        or any(leaf._backward_hooks for leaf in leaves)
    ):
        raise _Unknown
    settings: list[Any] = []
    parts = [module]
    for part in parts:
        if not is_recordable(type(part)) or _watched(part):
            raise _Unknown
        settings += type(part), *part._modules
        for key, value in vars(part).items():
            if key not in _OWN:
                settings.append(key)
                if type(value) in _SIMPLE:
                    settings += type(value), value
                else:
                    settings += _attributes(value)
        parts += [child for child in part._modules.values() if child is not None]
    tensors = [
        (t.shape, t.stride(), t.dtype, t.device, t.requires_grad) for t in leaves
    ]
    device = leaves[0].device.type
    context = (
        torch.is_autocast_enabled(device),
        torch.get_autocast_dtype(device),
        norm_stats.modes(),
    )
    return tuple(settings), tuple(tensors), context
