"""A simulated device that stands for a GPU: its tensors hold the numbers of tensors on
the CPU, an operation that a GPU would refuse raises an error, and it is counted how
often the host waits for the device.

There can be one in a process, made before the first derivative is taken.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, fallthrough_kernel
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "simulated"
aten = torch.ops.aten
COPIES = {aten._to_copy, aten.copy_}
# the rows that these take may be on the CPU
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
# and these return what depends on the values of tensors
WAITING = {aten._local_scalar_dense, aten.equal, aten.nonzero, aten.masked_select}

waits: Counter[str] = Counter()  # for the device, by operation


class Device(_DummyBackendModule):
    """What torch asks a device for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor) -> None:
        torch.set_rng_state(state)

    def device(self, index: int) -> Any:
        return nullcontext()


class Far(Tensor):
    """A tensor on the device."""

    near: Tensor  # its numbers

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        made = Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=torch.device(NAME, 0),
        )
        made.near = near
        return made

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Far({self.near})"

    def tolist(self) -> Any:
        waits["tolist"] += 1
        return self.near.tolist()

    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return dispatched(func, args, kwargs or {})


class SimulatedDevice(TorchDispatchMode):
    """Within this context, there is the device."""

    def __init__(self) -> None:
        super().__init__()
        _setup_privateuseone_for_python_backend(NAME, Device())
        self.kept = [Library("_", "IMPL"), Library("aten", "IMPL")]
        self.kept[0].fallback(fallthrough_kernel, "AutocastPrivateUse1")
        self.kept[1].impl("empty_strided", _empty_strided, "PrivateUse1")
        self.kept[1].impl("_copy_from", _copy_from, "PrivateUse1")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return dispatched(func, args, kwargs or {})


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return Far(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Far, non_blocking: bool = False) -> Tensor:
    waits["copy"] += 1
    target.near.copy_(_near(source))
    return target


def _near(value: Any) -> Any:
    return value.near if isinstance(value, Far) else value


def _far(value: Any) -> Any:
    return Far(value) if isinstance(value, Tensor) else value


def dispatched(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on the numbers. Raises RuntimeError where a GPU would."""
    packet, device = func.overloadpacket, kwargs.get("device")
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    far = any(isinstance(t, Far) for t in tensors)
    if far and packet not in COPIES:
        for t in (args[0], *args[2:3]) if packet in INDEXING else tensors:
            if t.dim() and not isinstance(t, Far):
                raise RuntimeError(f"{func}: {tuple(t.shape)} is on the CPU")
    if device is not None:
        after = torch.device(device).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")}
    else:
        after = isinstance(args[0], Far) if packet is aten.copy_ else far
    if after and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: the generator is on the CPU")
    if _waits(packet, tensors, after) and not kwargs.get("non_blocking"):
        waits[str(packet)] += 1
    if torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)
    result = func(*tree_map(_near, args), **tree_map(_near, kwargs))
    if func._schema.is_mutable and isinstance(result, Tensor):
        return next(t for t in tensors if _near(t) is result)
    return tree_map(_far, result) if after else result


def _waits(packet: Any, tensors: list[Tensor], after: bool) -> bool:
    """Whether the host waits for the device."""
    far = any(isinstance(t, Far) for t in tensors)
    if packet in COPIES:
        return not all(isinstance(t, Far) == after for t in tensors)
    masked = packet in INDEXING and any(t.dtype == torch.bool for t in tensors[1:])
    return far and (packet in WAITING or masked)
