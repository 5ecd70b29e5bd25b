"""Replay of recordings by C code: the operations of small networks take less time than
PyTorch needs to start them.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from innerloop.engine import native_code
from innerloop.engine.recording import Recording, Results, Way, same_bits
from innerloop.engine.replay.arrangement import arranged
from innerloop.engine.replay.plan import (
    OPERANDS,
    RANK,
    Operation,
    Plan,
    Step,
    Unsupported,
    View,
    planned,
)

SOURCE = native_code.Source(
    Path(__file__).with_name("steps.c"),
    (
        *("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno"),
        *("-fno-trapping-math", "-fopenmp", "-fPIC", "-shared"),
    ),
    abi=1,
    lack="recorded gradients of small networks take two to four times as long",
)
MAX_NUMBERS = 2**23  # in all buffers of a recording; more are worth PyTorch's overhead
COMPARED = 64  # numbers of each operation, or more
TIMED = 3  # calls
LOADED = 0.3  # seconds; code from the cache takes less

Int = ctypes.c_int64
_starting = threading.Lock()


class _Record(ctypes.Structure):
    """`Step` of steps.c."""

    _fields_ = [
        ("code", Int),
        ("tiled", Int),
        ("buffer", Int * OPERANDS),
        ("offset", Int * OPERANDS),
        ("size", Int * RANK),
        ("stride", Int * RANK * OPERANDS),
        ("number", Int * 3),
    ]


def faster(recording: Recording, inputs: Sequence[Tensor]) -> Way | None:
    """The recording, or C code that has the same bits in less time: the bits of all
    intermediate results, for these inputs and for random ones. None while the C code is
    being built, which does not stop the caller.
    """
    try:
        plan = planned(recording.module.graph)
        if sum(plan.sizes) > MAX_NUMBERS:
            return recording
        if not _Library.is_known():
            return None
        if (code := _Library.code) is None:
            return recording
        replay = _Replay(code, recording, plan, inputs)
    except Unsupported:
        return recording
    return replay if replay.is_faster(inputs) else recording


class _Library:
    """The C code, built in a thread of its own at the first call of `is_known`."""

    code: ClassVar[ctypes.CDLL | None] = None
    _building: ClassVar[threading.Thread | None] = None

    @classmethod
    def is_known(cls, seconds: float = LOADED) -> bool:
        """Whether `code` is there, or known to be missing, after so many seconds."""
        with _starting:
            if cls._building is None:
                cls._building = threading.Thread(target=cls._build)
                cls._building.start()
        cls._building.join(seconds)
        return not cls._building.is_alive()

    @classmethod
    def _build(cls) -> None:
        code = native_code.load(SOURCE)
        if code is None:
            return
        ending = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
        file = Path(torch.__file__).parent / "lib" / f"libtorch_cpu.{ending}"
        try:
            products = ctypes.CDLL(str(file))
            functions = products.sgemm_, products.cblas_sgemm_batch
        except (OSError, AttributeError):  # torch has another library of products
            return
        code.innerloop_libraries(*(ctypes.cast(f, ctypes.c_void_p) for f in functions))
        cls.code = code


def _seconds(way: Way, inputs: Sequence[Tensor]) -> float:
    """The shortest of a few calls."""

    def once() -> float:
        began = time.perf_counter()
        way(inputs)
        return time.perf_counter() - began

    return min(once() for _ in range(TIMED))


class _Replay:
    """A recording as steps of the C code, over buffers of its own.

    Raises Unsupported where no step has the bits of an operation of PyTorch.
    """

    def __init__(
        self,
        code: ctypes.CDLL,
        recording: Recording,
        plan: Plan,
        inputs: Sequence[Tensor],
    ):
        self.code, self.recording, self.plan = code, recording, plan
        self.buffers = [torch.zeros(n) for n in self.plan.sizes]
        for value, view in self.plan.constants.items():
            self.tensor(view).fill_(value)
        self.pointers = (ctypes.c_void_p * len(self.buffers))(
            *(buffer.data_ptr() for buffer in self.buffers)
        )
        with torch.no_grad():
            self.steps = _records(*arranged(self.checked(inputs)))
        self.outputs = [
            None if view is None else self.tensor(view) for view in self.plan.outputs
        ]
        self.threads = 1
        self.busy = threading.Lock()

    def __call__(self, inputs: Sequence[Tensor]) -> Results:
        if not self.busy.acquire(blocking=False):  # another thread is here
            return self.recording(inputs)
        try:
            for i, x in enumerate(inputs):
                self.pointers[i] = x.data_ptr()
            self.run(self.steps, self.threads)
            return [None if x is None else x.clone() for x in self.outputs]
        finally:
            self.busy.release()

    def is_faster(self, inputs: Sequence[Tensor]) -> bool:
        """Whether it takes less time than the recording, with one thread or all, and
        has the same results. It keeps the better number of threads.
        """
        constants = {view.buffer for view in self.plan.constants.values()}
        for i, buffer in enumerate(self.buffers):
            if i not in constants:
                buffer.fill_(torch.nan)  # nothing is left of the checks
        if not same_bits(self(inputs), self.recording(inputs)):
            return False
        seconds = {}
        for self.threads in {1, torch.get_num_threads()}:
            seconds[self.threads] = _seconds(self, inputs)
        self.threads = min(seconds, key=seconds.__getitem__)
        return seconds[self.threads] < _seconds(self.recording, inputs)

    def tensor(self, view: View) -> Tensor:
        return self.buffers[view.buffer].as_strided(
            view.sizes, view.strides, view.offset
        )

    def run(self, steps: Any, threads: int) -> None:
        self.code.innerloop_replay(
            steps, Int(len(steps)), self.pointers, Int(self.plan.tiles), Int(threads)
        )

    def checked(self, inputs: Sequence[Tensor]) -> list[Step]:
        """The steps that have PyTorch's bits, for these inputs and for random ones."""
        for view, x in zip(self.plan.inputs, inputs, strict=True):
            _put(x, self.tensor(view))
        values = _Values(self.recording.module)
        values.run(*map(self.tensor, self.plan.inputs))
        for operation in self.plan.operations:
            self.tensor(operation.out).copy_(values.kept[operation.node])
        generator = torch.Generator().manual_seed(0)
        return [
            step
            for operation in self.plan.operations
            for step in self.chosen(operation, values.kept, generator)
        ]

    def chosen(
        self,
        operation: Operation,
        values: Mapping[fx.Node, Tensor],
        generator: torch.Generator,
    ) -> Sequence[Step]:
        """The first candidate whose result has the bits of `values`, and of what
        PyTorch computes from random numbers: COMPARED of them, at least.
        """
        node, result = operation.node, self.tensor(operation.out)
        expected = values[node]
        left = [c for c in operation.candidates if self.has_bits(c, result, expected)]
        operands = {n: self.tensor(operation.operands[n]) for n in node.all_input_nodes}
        saved = {
            n: self.buffers[operation.operands[n].buffer].clone() for n in operands
        }
        for _ in range(max(2, COMPARED // result.numel())):
            for n in operands:
                buffer = self.buffers[operation.operands[n].buffer]
                buffer.normal_(generator=generator)
                buffer[::7] = 0.0
                buffer[::11] = -0.0
            arguments: Any = map_arg(node.args, operands.__getitem__)  # pyright: ignore[reportArgumentType]
            true = node.target(*arguments, **node.kwargs)  # pyright: ignore[reportCallIssue]
            left = [c for c in left if self.has_bits(c, result, true)]
        if not left:
            raise Unsupported(str(node.target))
        for n, before in saved.items():
            self.buffers[operation.operands[n].buffer].copy_(before)
        result.copy_(expected)
        return left[0]

    def has_bits(self, steps: Sequence[Step], result: Tensor, expected: Tensor) -> bool:
        result.fill_(torch.nan)
        self.run(_records(*arranged(steps)), 1)
        return same_bits([result], [expected])


def _put(x: Tensor, into: Tensor) -> None:
    """Copies to a tensor that may have been expanded."""
    for d, stride in enumerate(into.stride()):
        if not stride and into.shape[d] > 1:
            x, into = x.narrow(d, 0, 1), into.narrow(d, 0, 1)
    try:
        into.copy_(x)
    except RuntimeError as error:
        raise Unsupported("an input whose numbers overlap") from error


class _Values(fx.Interpreter):
    """Runs a graph and keeps all of its values."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.kept: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.kept[n] = super().run_node(n)
        return self.kept[n]


def _records(*groups: Sequence[Step]) -> Any:
    """Groups of steps for the C code."""
    made = [
        _record(step, number * step.tiled)
        for number, group in enumerate(groups, 1)
        for step in group
    ]
    return (_Record * len(made))(*made)


def _record(step: Step, tiled: int) -> _Record:
    made = _Record(code=step.code, tiled=tiled)
    rank = len(step.views[0].sizes)
    ahead = rank if step.is_product else int(step.tiled)
    places = [*range(ahead), *range(RANK - rank + ahead, RANK)]
    sizes = [1] * RANK
    for place, size in zip(places, step.views[0].sizes, strict=True):
        sizes[place] = size
    made.size = (Int * RANK)(*sizes)
    # operands that a step does not have are read and not used
    for k in range(OPERANDS):
        view = step.views[k if k < len(step.views) else 0]
        made.buffer[k], made.offset[k] = view.buffer, view.offset
    for k, view in enumerate(step.views):
        for place, stride in zip(places, view.strides, strict=True):
            made.stride[k][place] = stride
    made.number = (Int * 3)(*step.numbers)
    return made
