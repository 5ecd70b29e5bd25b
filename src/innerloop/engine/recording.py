"""The tensor operations of a function as a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx
from torch.fx.graph import CodeGen

Results = list[Tensor | None]
Way = Callable[[Sequence[Tensor]], Results]  # of computing results from inputs


class Recording:
    """A graph as a function of the flat list of its inputs."""

    def __init__(self, module: fx.GraphModule):
        module.graph.set_codegen(CodeGen())  # inputs and results have no structure
        module.recompile()
        self.module = module

    def __call__(self, inputs: Sequence[Tensor]) -> Results:
        device = inputs[0].device.type
        with torch.no_grad(), torch.autocast(device, enabled=False):
            return self.module(*(x.detach() for x in inputs))


def same_bits(some: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> bool:
    """Whether all numbers are the same, signs of zeros included; NaNs are equal."""
    return len(some) == len(others) and all(map(_same, some, others))


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    same = (a == b) & (a.signbit() == b.signbit())
    return bool((same | a.isnan() & b.isnan()).all())
