"""Normalisation statistics: measured on the batch at hand, or given.

Batch statistics make a prediction depend on the examples beside it (transductive); an
inductive learner normalises by statistics settled before: those of the support set, or
those estimated on training tasks. A normaliser in training mode measures its batch, in
evaluation mode it uses its buffers (torch's usual meaning). Inside `use_batch(net)` it
measures, whatever its mode, and hands the moments out under the names of its buffers;
inside `use_stored()` it uses its buffers, whatever its mode. A forward pass never writes to
the module, so all of this crosses `vmap` and `grad`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn


class _Notes:
    """The moments seen so far, layer by layer."""

    def __init__(self, net: nn.Module | None):
        modules = net.named_modules() if net is not None else ()
        self.names = {
            module: name for name, module in modules if isinstance(module, Normalizer)
        }
        self.seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def moments(self) -> dict[str, Tensor]:
        """Mean and variance over all passes, under the names of the buffers."""
        found = {}
        for name, passes in self.seen.items():
            means, variances = (
                torch.stack(values) for values in zip(*passes, strict=True)
            )
            prefix = f"{name}." if name else ""
            found[f"{prefix}mean"] = means.mean(0)
            # law of total variance
            found[f"{prefix}var"] = variances.mean(0) + means.var(0, correction=0)
        return found


_notes: ContextVar[_Notes | None] = ContextVar("notes", default=None)
_given: ContextVar[bool] = ContextVar("given", default=False)


class Normalizer(nn.Module):
    """A layer that subtracts a mean and divides by a standard deviation; `mean` and
    `var` (features,) are its settled statistics.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))

    def uses_batch(self) -> bool:
        """Whether this pass normalises by its own batch."""
        return not _given.get() and (self.training or _notes.get() is not None)

    def noted(self) -> bool:
        """Whether somebody wants the moments of this pass."""
        notes = _notes.get()
        return notes is not None and self in notes.names

    def note(self, mean: Tensor, var: Tensor) -> None:
        """Hand out the moments of this pass, where somebody wants them."""
        if (notes := _notes.get()) is not None and self in notes.names:
            notes.seen.setdefault(notes.names[self], []).append((mean, var))


def noting() -> bool:
    """Whether somebody wants the moments of some normalisers."""
    return (notes := _notes.get()) is not None and bool(notes.names)


def using_given() -> tuple[bool, bool]:
    """Whether normalisers must use their buffers, and whether they must measure."""
    return _given.get(), _notes.get() is not None


@contextmanager
def use_batch(net: nn.Module | None = None) -> Iterator[_Notes]:
    """Normalise by the batch; `.moments()` of what is yielded gives the moments of the
    normalisers of `net`.
    """
    notes = _Notes(net)
    tokens = _notes.set(notes), _given.set(False)
    try:
        yield notes
    finally:
        _notes.reset(tokens[0])
        _given.reset(tokens[1])


@contextmanager
def use_stored() -> Iterator[None]:
    """Normalise by the statistics in the buffers."""
    token = _given.set(True)
    try:
        yield
    finally:
        _given.reset(token)
