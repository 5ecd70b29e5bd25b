"""The formats of programs."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.export import ExportedProgram

from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.exporting.gradients import DECOMPOSITIONS
from innerloop.exporting.tracing import quiet

ABOUT = "innerloop"  # under which a file holds its description
Runner = Callable[..., Sequence[Tensor]]


class Format(ABC):
    """A format of files with one program each.

    Class variables:
        suffix: of a file.
    """

    suffix: ClassVar[str]

    @abstractmethod
    def content(
        self,
        program: ExportedProgram,
        inputs: Sequence[str],
        outputs: Sequence[str],
        about: str,
    ) -> bytes:
        """A file with the program, the names of what it takes and returns, and its
        description.
        """

    @abstractmethod
    def runner(self, content: bytes) -> Runner:
        """The program in a file as a function of tensors."""


class TorchProgram(Format):
    """`torch.export.load` reads it; needs torch alone."""

    suffix = ".pt2"

    def content(
        self,
        program: ExportedProgram,
        inputs: Sequence[str],
        outputs: Sequence[str],
        about: str,
    ) -> bytes:
        file = io.BytesIO()
        with quiet():
            torch.export.save(program, file, extra_files={ABOUT: about})
        return file.getvalue()

    def runner(self, content: bytes) -> Runner:
        with quiet():
            return torch.export.load(io.BytesIO(content)).module()


class ONNX(Format):
    """ONNX, for onnxruntime and others."""

    suffix = ".onnx"

    def __init__(self) -> None:
        for name in ("onnxruntime", "onnxscript"):
            try:
                import_module(name)
            except ImportError as error:
                raise MissingPackageError(
                    f"ONNX needs {name}: pip install 'innerloop[onnx]', or export in "
                    "the format torch"
                ) from error

    def content(
        self,
        program: ExportedProgram,
        inputs: Sequence[str],
        outputs: Sequence[str],
        about: str,
    ) -> bytes:
        try:
            with quiet():
                plain = program.run_decompositions(
                    {**torch.export.default_decompositions(), **DECOMPOSITIONS}
                )
                made = torch.onnx.export(
                    plain,
                    dynamo=True,
                    input_names=inputs,
                    output_names=outputs,
                    verbose=False,
                )
        except Exception as error:  # of the exporter: of any type
            reason = " ".join(str(error.__cause__ or error).split())
            raise InnerloopError(
                f"ONNX cannot hold this program ({reason:.150}): try the format torch"
            ) from error
        assert made is not None
        _rename(made.model.graph, {*inputs, *outputs})
        made.model.metadata_props[ABOUT] = about
        return made.model_proto.SerializeToString()

    def runner(self, content: bytes) -> Runner:
        ort: Any = import_module("onnxruntime")
        try:
            session = ort.InferenceSession(content)
        except Exception as error:  # of onnxruntime: of any type
            raise InnerloopError(
                f"onnxruntime cannot read this program ({error!s:.150}): try the "
                "format torch"
            ) from error
        names = [given.name for given in session.get_inputs()]

        def run(*tensors: Tensor) -> list[Tensor]:
            arrays = {n: t.numpy() for n, t in zip(names, tensors, strict=True)}
            return [torch.from_numpy(array) for array in session.run(None, arrays)]

        return run


def _rename(graph: Any, names: set[str]) -> None:
    """Other names for what a graph computes on the way, where it has one of `names`:
    the exporter calls results by their operation, such as "mean".
    """
    ends = {id(value) for value in graph.outputs}
    for node in graph:
        for value in node.outputs:
            if value.name in names and id(value) not in ends:
                value.name = f"{value.name}.inside"
