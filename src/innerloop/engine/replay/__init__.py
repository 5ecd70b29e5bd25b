"""Replay of recordings by C code: the operations of small networks take less time than
PyTorch needs to start them.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
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
    Call,
    Operation,
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
)
MAX_NUMBERS = 2**23  # in all buffers of a recording; more are worth PyTorch's overhead
COMPARED, ROUNDS = 2**15, 32  # numbers of each operation, in at most so many rounds
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
    intermediate results for these inputs, and of each kind of operation for random
    ones. None while the C code is being built, which does not stop the caller.
    """
    try:
        graph = recording.module.graph
        fake = {node: node.meta.get("val") for node in graph.nodes}
        if sum(planned(graph, fake).sizes) > MAX_NUMBERS:
            return recording
        if not _Library.is_known():
            return None
        if (code := _Library.code) is None:
            return recording
        replay = _Replay(code, recording, inputs)
        return replay if replay.is_faster(inputs) else recording
    except Exception:  # whatever it is, the recording is right
        return recording


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
            library = ctypes.CDLL(str(file))
            products = library.sgemm_, library.cblas_sgemm_batch
        except (OSError, AttributeError):  # torch has another library of products
            return
        code.innerloop_libraries(*(ctypes.cast(f, ctypes.c_void_p) for f in products))
        cls.code = code


def _seconds(way: Way, inputs: Sequence[Tensor]) -> float:
    """The shortest of a few calls."""

    def once() -> float:
        began = time.perf_counter()
        way(inputs)
        return time.perf_counter() - began

    return min(once() for _ in range(TIMED))


class _Replay:
    """A recording as steps of the C code, and calls of PyTorch where there is none.

    Both work on buffers that stay where they are. Raises Unsupported where it cannot be
    replayed so.
    """

    # by the kind of an operation, the candidate that has PyTorch's bits
    choices: ClassVar[dict[Hashable, int | None]] = {}

    def __init__(
        self,
        code: ctypes.CDLL,
        recording: Recording,
        inputs: Sequence[Tensor],
    ):
        graph = recording.module.graph
        with torch.no_grad():
            plan = planned(graph, _values(graph, inputs))
        self.code, self.recording, self.plan = code, recording, plan
        self.buffers = [
            torch.zeros(n, dtype=dtype)
            for n, dtype in zip(plan.sizes, plan.dtypes, strict=True)
        ]
        for value, view in plan.constants.items():
            self.tensor(view).fill_(value)
        self.pointers = (ctypes.c_void_p * len(self.buffers))(
            *(buffer.data_ptr() for buffer in self.buffers)
        )
        with torch.no_grad():
            self.groups = arranged(self.checked(inputs))
        self.outputs = [
            None if view is None else self.tensor(view) for view in plan.outputs
        ]
        calls = [s for group in self.groups for s in group if isinstance(s, Call)]
        read = {view.buffer for call in calls for view in call.views}
        read |= {view.buffer for view in plan.outputs if view is not None}
        # inputs that PyTorch reads, or that are results, are copied to their buffers;
        # the C code reads the others where they are
        self.copied = [
            self.tensor(view) if view.buffer in read else None for view in plan.inputs
        ]
        self.runs = self.cut()
        self.calls = bool(calls)
        self.threads = 1
        self.busy = threading.Lock()

    def __call__(self, inputs: Sequence[Tensor]) -> Results:
        if not self.busy.acquire(blocking=False):  # another thread is here
            return self.recording(inputs)
        try:
            if not self.calls:
                return self.compute(inputs)
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                return self.compute(inputs)
        finally:
            self.busy.release()

    def compute(self, inputs: Sequence[Tensor]) -> Results:
        for i, (x, copy) in enumerate(zip(inputs, self.copied, strict=True)):
            if copy is None:
                self.pointers[i] = x.data_ptr()
            else:
                copy.copy_(x)
        for run in self.runs:
            run()
        return [None if x is None else x.clone() for x in self.outputs]

    def is_faster(self, inputs: Sequence[Tensor]) -> bool:
        """Whether it takes less time than the recording, with one thread or all, and
        has the same results. It keeps the better number of threads.
        """
        constants = {view.buffer for view in self.plan.constants.values()}
        for i, buffer in enumerate(self.buffers):
            if i not in constants:  # nothing is left of the checks
                buffer.fill_(torch.nan if buffer.is_floating_point() else 0)
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

    def cut(self) -> list[Callable[[], None]]:
        """Functions that compute all steps and calls, one after the other."""
        found: list[Callable[[], None]] = []
        records: list[_Record] = []

        def close() -> None:
            if records:
                made = (_Record * len(records))(*records)
                found.append(lambda: self.run(made, self.threads))
                records.clear()

        for number, group in enumerate(self.groups, 1):
            for step in group:
                if isinstance(step, Step):
                    records.append(_record(step, number))
                else:
                    close()
                    found.append(self.called(step))
        close()
        return found

    def called(self, call: Call) -> Callable[[], None]:
        """A call of PyTorch whose results are copied to their buffers."""
        operands = dict(
            zip(call.node.all_input_nodes, call.views[len(call.outs) :], strict=True)
        )
        function: Any = call.node.target
        arguments, options = self.arguments(call.node, operands)
        outs = [self.tensor(view) for view in call.outs]

        def run() -> None:
            results = function(*arguments, **options)
            if isinstance(results, Tensor):
                results = (results,)
            for out, result in zip(outs, results or (), strict=True):
                out.copy_(result)

        return run

    def arguments(self, node: fx.Node, operands: Mapping[fx.Node, View]) -> Any:
        """The positional and the named arguments of a node, on the buffers."""
        at = {n: self.tensor(view) for n, view in operands.items()}
        given: Any = (node.args, node.kwargs)
        return map_arg(given, at.__getitem__)

    def run(self, steps: Any, threads: int) -> None:
        self.code.innerloop_replay(
            steps, Int(len(steps)), self.pointers, Int(self.plan.tiles), Int(threads)
        )

    def checked(self, inputs: Sequence[Tensor]) -> list[Step | Call]:
        """The steps that have PyTorch's bits, see `chosen`, and calls of PyTorch where
        there are none.
        """
        for view, x in zip(self.plan.inputs, inputs, strict=True):
            _put(x, self.tensor(view))
        values = _values(
            self.recording.module.graph, list(map(self.tensor, self.plan.inputs))
        )
        for operation in self.plan.operations:
            results = values[operation.call.node]
            results = (results,) if isinstance(results, Tensor) else results or ()
            for view, result in zip(operation.call.outs, results, strict=True):
                self.tensor(view).copy_(result)
        generator = torch.Generator().manual_seed(0)
        steps = [
            step
            for operation in self.plan.operations
            for step in self.chosen(operation, values, generator)
        ]
        for step in steps:
            if isinstance(step, Call):
                self.check(step, values[step.node])
        return steps

    def check(self, call: Call, expected: Any) -> None:
        """Raises Unsupported where PyTorch itself has other bits on the buffers."""
        expected = [expected] if isinstance(expected, Tensor) else list(expected or ())
        self.called(call)()
        if not same_bits([self.tensor(view) for view in call.outs], expected):
            raise Unsupported(f"other results of {call.node.target} on the buffers")

    def chosen(
        self,
        operation: Operation,
        values: Mapping[fx.Node, Tensor],
        generator: torch.Generator,
    ) -> Sequence[Step | Call]:
        """The first candidate whose result has the bits of `values`, and of what
        PyTorch computes from random numbers. Whole vectors and the numbers left over
        may be computed in different ways, hence so many rounds, once for each kind of
        operation.
        """
        call, candidates = operation.call, operation.candidates
        if not candidates:
            return [call]
        result, expected = self.tensor(call.outs[0]), values[call.node]
        kind = self.plan.kind(operation), torch.get_num_threads()
        if kind in self.choices:
            known = self.choices[kind]
            if known is None:
                return [call]
            if self.has_bits(candidates[known], result, expected):
                return candidates[known]
        left = [c for c in candidates if self.has_bits(c, result, expected)]
        buffers = [self.buffers[view.buffer] for view in operation.operands.values()]
        saved = [buffer.clone() for buffer in buffers]
        function: Any = call.node.target
        arguments, options = self.arguments(call.node, operation.operands)
        for _ in range(min(ROUNDS, max(2, COMPARED // result.numel()))):
            for buffer in buffers:
                buffer.normal_(generator=generator)
                buffer[::7] = 0.0
                buffer[::11] = -0.0
            true = function(*arguments, **options)
            left = [c for c in left if self.has_bits(c, result, true)]
        for buffer, before in zip(buffers, saved, strict=True):
            buffer.copy_(before)
        result.copy_(expected)
        self.choices[kind] = candidates.index(left[0]) if left else None
        return left[0] if left else [call]

    def has_bits(self, steps: Sequence[Step], result: Tensor, expected: Tensor) -> bool:
        result.fill_(torch.nan)
        records = [
            _record(step, number)
            for number, group in enumerate(arranged(steps), 1)
            for step in group
            if isinstance(step, Step)
        ]
        self.run((_Record * len(records))(*records), 1)
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


def _values(graph: fx.Graph, inputs: Sequence[Tensor]) -> dict[fx.Node, Any]:
    """What each node of a graph returns. (The interpreter of torch.fx would do, but it
    starts a thread, for a progress bar.)
    """
    given, values = iter(inputs), dict[fx.Node, Any]()
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = next(given)
        elif node.op == "call_function":
            arguments, options = map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*arguments, **options)
    return values


def _record(step: Step, group: int) -> _Record:
    """A step for the C code; tiled steps of one group are computed together."""
    made = _Record(code=step.code, tiled=group * step.tiled)
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
