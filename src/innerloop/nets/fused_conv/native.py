"""The functions of `block.c` as operators of torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

from innerloop.engine.errors import InnerloopError
from innerloop.nets.fused_conv.loading import library

# up to so many input channels, a convolution's result is computed again for the way
# back instead of being kept
CHEAP = 3


_switched_off: ContextVar[bool] = ContextVar("switched_off", default=False)


@contextmanager
def switched_off() -> Iterator[None]:
    """Within this context, torch computes every block, in the current thread."""
    token = _switched_off.set(True)
    try:
        yield
    finally:
        _switched_off.reset(token)


class Settings(NamedTuple):
    """What a block does. eps: of the normalization, negative where statistics are
    given. stride: of the convolution, 1 or 2. bf16: products in bfloat16. keep: for the
    way back.
    """

    eps: float
    stride: int
    pool: int
    relu: bool
    bf16: bool
    keep: bool

    def result(self, size: int) -> int:
        """The height or width of the convolution's result."""
        return -(-size // self.stride)


class Shape(ctypes.Structure):
    """As in block.c."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            "tasks",
            "images",
            "rows",
            "columns",
            "height",
            "width",
            "in",
            "out",
            "stride",
            "pool",
            "relu",
            "bf16",
            "threads",
        )
    ]


class Filters(ctypes.Structure):
    """As in block.c."""

    _fields_ = [("data", ctypes.c_void_p), ("task", ctypes.c_long)]


def usable(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
    pool: int,
    stride: int = 1,
) -> bool:
    """Whether the compiled code can compute this block: on a CPU, in float32 or under
    autocast, with output channels in whole vectors. Torch computes, or refuses, the
    rest.
    """
    if any(t.device.type != "cpu" for t in (x, weight, scale, shift)):
        return False
    if weight.dtype != torch.float32 or not (
        x.dtype == torch.float32 or _autocast_to_float32(x)
    ):
        return False
    if not (scale.is_floating_point() and shift.is_floating_point()):
        return False
    if (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0  # it has no forward-mode derivative
        or _switched_off.get()
    ):
        return False
    if (
        x.dim() != 4
        or not x.numel()
        or (*x.shape[1:2], 3, 3) != weight.shape[1:]
        or not scale.shape == shift.shape == weight.shape[:1]
        or -(-min(x.shape[2:]) // stride) < pool
    ):
        return False
    code = library()
    return code is not None and weight.shape[0] % code.innerloop_lanes() == 0


def _autocast_to_float32(x: Tensor) -> bool:
    return torch.is_autocast_enabled("cpu") and x.dtype in (
        torch.bfloat16,
        torch.float16,
    )


def forward(
    x: Tensor, filters: Tensor, a: Tensor, b: Tensor, *options: Any
) -> tuple[Tensor, ...]:
    """out, mean and var; and y and the extremes of it (see block.c), empty unless they
    are to be kept.

    x (tasks, images, in, height, width), filters (tasks, out, in, 3, 3), a and b
    (tasks, out); the options are `Settings`.
    """
    settings = Settings(*options)
    call = _Call(x, filters, a, b, settings)
    tasks, images, *size, channels = call.x.shape
    height, width = (settings.result(length) for length in size)
    out = x.new_empty(
        tasks, images, height // settings.pool, width // settings.pool, a.shape[1]
    )
    extreme = torch.empty_like(out) if settings.keep else x.new_empty(tasks, 0)
    y = (
        x.new_empty(tasks, images, height, width, a.shape[1])
        if settings.keep and channels > CHEAP
        else x.new_empty(tasks, 0)
    )
    mean, var = a.new_zeros(a.shape), a.new_zeros(a.shape)
    call("innerloop_forward", y, extreme if settings.keep else out, out, mean, var)
    return out.movedim(-1, -3), mean, var, y, extreme


def backward(
    g: Tensor,
    g_mean: Tensor | None,
    g_var: Tensor | None,
    g_y: Tensor | None,
    x: Tensor,
    filters: Tensor,
    a: Tensor,
    b: Tensor,
    mean: Tensor,
    var: Tensor,
    y: Tensor,
    extreme: Tensor,
    with_x: bool,
    *options: Any,
) -> tuple[Tensor, ...]:
    """The gradient for x (empty unless `with_x`), filters, a and b, from those for out
    (g), for the moments and for y.

    After them come the inputs of `forward` and what it made of them.
    """
    call = _Call(x, filters, a, b, Settings(*options))
    gx = torch.empty_like(call.x) if with_x else x.new_empty(len(x), 0)
    gw, ga, gb = (
        torch.empty_like(filters, memory_format=torch.contiguous_format),
        torch.empty_like(a),
        torch.empty_like(a),
    )
    call(
        "innerloop_backward",
        y,
        extreme,
        mean,
        var,
        _last(g),
        g_mean,
        g_var,
        g_y,
        gx,
        gw,
        ga,
        gb,
    )
    return gx.movedim(-1, -3) if with_x else gx, gw, ga, gb


def double_backward(
    g: Tensor,
    g_mean: Tensor | None,
    g_var: Tensor | None,
    x: Tensor,
    filters: Tensor,
    a: Tensor,
    b: Tensor,
    mean: Tensor,
    var: Tensor,
    y: Tensor,
    extreme: Tensor,
    hx: Tensor | None,
    hw: Tensor | None,
    ha: Tensor | None,
    hb: Tensor | None,
    with_x: bool,
    *options: Any,
) -> tuple[Tensor, ...]:
    """The gradient of `backward` for g, g_mean, g_var, x (empty unless `with_x`),
    filters, a and y (empty where it was not kept).

    hx, hw, ha and hb are the gradients for its outputs.
    """
    call = _Call(x, filters, a, b, Settings(*options))
    hx = _last(hx) if hx is not None and hx.numel() else None
    hw, ha, hb = (
        torch.zeros_like(like) if h is None else h
        for h, like in ((hw, filters), (ha, a), (hb, b))
    )
    gg, gx = (
        torch.empty_like(extreme),
        torch.empty_like(call.x) if with_x else x.new_empty(len(x), 0),
    )
    gg_mean, gg_var, ga = (torch.zeros_like(a) for _ in range(3))
    gw, gy = (
        torch.empty_like(filters, memory_format=torch.contiguous_format),
        torch.empty_like(y),
    )
    given = (
        y,
        extreme,
        mean,
        var,
        _last(g),
        g_mean,
        g_var,
        hx,
        call.filters(hw),
        ha,
        hb,
    )
    call("innerloop_double_backward", *given, gg, gg_mean, gg_var, gx, gw, ga, gy)
    return (
        gg.movedim(-1, -3),
        gg_mean,
        gg_var,
        gx.movedim(-1, -3) if with_x else gx,
        gw,
        ga,
        gy,
    )


def _operator(
    function: Callable[..., tuple[Tensor, ...]], arguments: str, results: int
) -> Any:
    """`function` as an operator of torch's, which can then be recorded like its own."""
    options = "float eps, int stride, int pool, bool relu, bool bf16, bool keep"
    _OPERATORS.define(
        f"{function.__name__}({arguments}, {options}) -> "
        f"({', '.join(['Tensor'] * results)})"
    )
    _OPERATORS.impl(function.__name__, function, "CPU")
    torch.library.register_fake(
        f"innerloop::{function.__name__}",
        lambda *inputs: function(*inputs),
        lib=_OPERATORS,
    )
    return getattr(torch.ops.innerloop, function.__name__).default


_OPERATORS = torch.library.Library("innerloop", "FRAGMENT")
_GRADIENTS = "Tensor g, Tensor? g_mean, Tensor? g_var"
_INPUTS = "Tensor x, Tensor filters, Tensor a, Tensor b"
_MADE = "Tensor mean, Tensor var, Tensor y, Tensor extreme"
block = _operator(forward, _INPUTS, 5)
block_backward = _operator(
    backward, f"{_GRADIENTS}, Tensor? g_y, {_INPUTS}, {_MADE}, bool with_x", 4
)
block_double_backward = _operator(
    double_backward,
    f"{_GRADIENTS}, {_INPUTS}, {_MADE}, Tensor? hx, Tensor? hw, Tensor? ha, Tensor? "
    "hb, bool with_x",
    7,
)


def _last(x: Tensor) -> Tensor:
    """(..., channels, height, width) as (..., height, width, channels)."""
    return x.movedim(-3, -1).contiguous()


def _check(tensor: Tensor, name: str, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
        raise InnerloopError(
            f"got {name} of shape {tuple(tensor.shape)} and {tensor.dtype}; expected "
            f"{shape} and float32"
        )


class _Call:
    """The arguments that all calls of block.c begin with; they live as long as this
    does.
    """

    def __init__(
        self, x: Tensor, filters: Tensor, a: Tensor, b: Tensor, settings: Settings
    ):
        if x.dim() != 5:
            raise InnerloopError(
                f"got images of shape {tuple(x.shape)}; expected (tasks, images, "
                "channels, height, width)"
            )
        self.x, self.kept = _last(x), []
        self.shapes_only = isinstance(x, FakeTensor)  # while a gradient is recorded
        tasks, images, rows, columns, channels = self.x.shape
        code = library()
        if code is None:
            raise InnerloopError(
                "the compiled convolution block is not available; call "
                "native.usable() first"
            )
        out = a.shape[-1]
        _check(filters, "filters", (tasks, out, channels, 3, 3))
        _check(a, "scale", (tasks, out))
        _check(b, "shift", (tasks, out))
        if out % code.innerloop_lanes() or not self.x.numel():
            raise InnerloopError(
                f"got {out} output channels and {self.x.numel()} values; expected a "
                f"multiple of {code.innerloop_lanes()} channels and at least one value"
            )
        if settings.stride not in (1, 2):
            raise InnerloopError(f"got a stride of {settings.stride}; expected 1 or 2")
        height, width = settings.result(rows), settings.result(columns)
        if not 1 <= settings.pool <= min(height, width):
            raise InnerloopError(
                f"got a pooling window of {settings.pool} for images of {height} x "
                f"{width}; expected one that fits"
            )
        self.code, threads = code, max(1, min(torch.get_num_threads(), tasks * images))
        bf16 = settings.bf16 and code.innerloop_multiplies_bf16()
        self.shape = Shape(
            tasks,
            images,
            rows,
            columns,
            height,
            width,
            channels,
            a.shape[1],
            settings.stride,
            settings.pool,
            settings.relu,
            bf16,
            threads,
        )
        if self.shapes_only:
            return
        self.first = (
            ctypes.byref(self.shape),
            self.pointer(self.x),
            self.filters(filters),
            self.pointer(a),
            self.pointer(b),
        )
        self.eps = ctypes.c_double(settings.eps)

    def pointer(self, tensor: Tensor | None) -> ctypes.c_void_p:
        if tensor is None or not tensor.numel():
            return ctypes.c_void_p(None)
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise InnerloopError(
                f"got a tensor of {tensor.dtype} on {tensor.device}; expected float32 "
                "on the CPU"
            )
        self.kept.append(tensor := tensor.contiguous())
        return ctypes.c_void_p(tensor.data_ptr())

    def filters(self, filters: Tensor) -> Any:
        if self.shapes_only:
            return None
        one = filters[0].is_contiguous()
        self.kept.append(filters := filters if one else filters.contiguous())
        return ctypes.byref(Filters(filters.data_ptr(), filters.stride(0)))

    def __call__(self, name: str, *arguments: Any) -> None:
        if self.shapes_only:
            return
        failed = getattr(self.code, name)(
            *self.first,
            self.eps,
            *(
                self.pointer(v) if v is None or isinstance(v, Tensor) else v
                for v in arguments
            ),
        )
        if failed:
            raise MemoryError(
                "not enough memory for a convolution of images of shape "
                f"{tuple(self.x.shape[2:])}"
            )
