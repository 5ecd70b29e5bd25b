"""The compiled code of `block.c`: built once for a machine, with its C compiler, and
kept in the user's cache.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

SOURCE = Path(__file__).with_name("block.c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-pthread")
# up to so many input channels, a convolution's result is computed again for the way
# back instead of being kept
CHEAP = 3


class Settings(NamedTuple):
    """What a block does. eps: of the normalisation, negative where statistics are
    given. bf16: products in bfloat16. keep: for the way back.
    """

    eps: float
    pool: int
    relu: bool
    bf16: bool
    keep: bool


class Shape(ctypes.Structure):
    """As in block.c."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            "tasks",
            "images",
            "height",
            "width",
            "in",
            "out",
            "pool",
            "relu",
            "bf16",
            "threads",
        )
    ]


class Filters(ctypes.Structure):
    """As in block.c."""

    _fields_ = [("data", ctypes.c_void_p), ("task", ctypes.c_long)]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled code, or None, with a warning, where there is no C compiler that can
    build it.
    """
    processor = Path("/proc/cpuinfo")
    flags = (
        next(
            (
                line
                for line in processor.read_text().splitlines()
                if line.startswith(("flags", "Features"))
            ),
            "",
        )
        if processor.is_file()
        else ""
    )
    made_of = (
        f"{platform.machine()} {platform.processor()} {flags} {FLAGS}".encode()
        + SOURCE.read_bytes()
    )
    name = f"block-{hashlib.sha256(made_of).hexdigest()[:16]}.so"
    try:
        try:
            return _loaded(_cache() / name)
        except (OSError, RuntimeError):  # no home, or none that can be written to
            with tempfile.TemporaryDirectory() as folder:
                return _loaded(Path(folder) / name)
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip()
        warnings.warn(
            "convolutions run at less than half their speed, because their C code "
            f"could not be built: {why}",
            stacklevel=2,
        )
        return None


def _cache() -> Path:
    return Path(
        os.environ.get("INNERLOOP_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "innerloop"
    )


def _loaded(built: Path) -> ctypes.CDLL:
    """The compiled code in that file, built where it is missing or damaged."""
    if built.is_file():
        try:
            return ctypes.CDLL(str(built))
        except OSError:  # half a file, or one of another system
            built.unlink()
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        fresh = Path(folder) / built.name
        command = [
            *shlex.split(os.environ.get("CC", "cc")),
            *FLAGS,
            str(SOURCE),
            "-o",
            str(fresh),
            "-lm",
        ]
        subprocess.run(
            command, check=True, capture_output=True, text=True, errors="replace"
        )
        fresh.replace(built)  # in one move: others may be building it too
    return ctypes.CDLL(str(built))


def usable(x: Tensor, weight: Tensor, pool: int) -> bool:
    """Whether the compiled code can take these: on a CPU, filters in float32, output
    channels in whole vectors; the rest is torch's.
    """
    if (
        x.device.type != "cpu"
        or weight.dtype != torch.float32
        or torch.compiler.is_compiling()
    ):
        return False
    if (
        x.dim() != 4
        or not x.numel()
        or (*x.shape[1:2], 3, 3) != weight.shape[1:]
        or min(x.shape[2:]) < pool
    ):
        return False
    code = library()
    return code is not None and weight.shape[0] % code.innerloop_lanes() == 0


def forward(
    x: Tensor, filters: Tensor, a: Tensor, b: Tensor, *options: Any
) -> tuple[Tensor, ...]:
    """out, mean and var; and y and the extremes of it (see block.c), empty unless they
    are to be kept.

    x (tasks, images, in, height, width), filters (tasks, 3, 3, in, out), a and b
    (tasks, out); the options are `Settings`.
    """
    settings = Settings(*options)
    call = _Call(x, filters, a, b, settings)
    tasks, images, height, width, channels = call.x.shape
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
    options = "float eps, int pool, bool relu, bool bf16, bool keep"
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


class _Call:
    """The arguments that all calls of block.c begin with; they live as long as this
    does.
    """

    def __init__(
        self, x: Tensor, filters: Tensor, a: Tensor, b: Tensor, settings: Settings
    ):
        self.x, self.kept = _last(x), []
        self.shapes_only = isinstance(x, FakeTensor)  # while a gradient is recorded
        tasks, images, height, width, channels = self.x.shape
        code = library()
        assert code is not None
        self.code, threads = code, max(1, min(torch.get_num_threads(), tasks * images))
        bf16 = settings.bf16 and code.innerloop_multiplies_bf16()
        self.shape = Shape(
            tasks,
            images,
            height,
            width,
            channels,
            a.shape[1],
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
        assert tensor.dtype == torch.float32
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
        getattr(self.code, name)(
            *self.first,
            self.eps,
            *(
                self.pointer(v) if v is None or isinstance(v, Tensor) else v
                for v in arguments
            ),
        )
