"""Which statistics a normalization layer uses: those of its batch, or stored ones.

Batch statistics make a prediction depend on the examples beside it (transductive). An
inductive learner normalizes by statistics that are fixed beforehand: those of the
support set, or those estimated on training tasks. A normalizer in training mode uses
the statistics of its batch, in evaluation mode those in its buffers, as in torch.
Inside `use_batch(net)` it uses its batch in either mode, and the moments are collected
under the names of its buffers; inside `use_stored()` it uses its buffers in either
mode. A forward pass never writes to the module, so all of this works under `vmap` and
`grad`. Both contexts hold for the current thread alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from innerloop.engine.functional import original


class Moments:
    """The moments of the normalizers of a network, collected pass by pass."""

    def __init__(self, net: nn.Module | None, fixed: Collection[nn.Module] = ()):
        modules = net.named_modules() if net is not None else ()
        self.fixed = frozenset(original(module) for module in fixed)
        self.names = {
            original(module): name
            for name, module in modules
            if isinstance(module, Normalizer) and original(module) not in self.fixed
        }
        self.passes: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def moments(self) -> dict[str, Tensor]:
        """Mean and variance over all passes, under the names of the buffers."""
        result = {}
        for name, passes in self.passes.items():
            means, variances = (
                torch.stack(values) for values in zip(*passes, strict=True)
            )
            prefix = f"{name}." if name else ""
            result[f"{prefix}mean"] = means.mean(0)
            # law of total variance
            result[f"{prefix}var"] = variances.mean(0) + means.var(0, correction=0)
        return result


# context variables, and so of the current thread
_collecting: ContextVar[Moments | None] = ContextVar("collecting", default=None)
_stored: ContextVar[bool] = ContextVar("stored", default=False)


class Normalizer(nn.Module):
    """A layer that subtracts a mean and divides by a standard deviation; `mean` and
    `var` (features,) are its stored statistics.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))

    def uses_batch(self) -> bool:
        """Whether this pass normalizes by the statistics of its batch."""
        if _stored.get():
            return False
        collecting = _collecting.get()
        if collecting is None:
            return self.training
        return original(self) not in collecting.fixed

    def noted(self) -> bool:
        """Whether the moments of this pass are collected."""
        collecting = _collecting.get()
        return collecting is not None and original(self) in collecting.names

    def note(self, mean: Tensor, var: Tensor) -> None:
        """Pass on the moments of this pass, if they are collected."""
        collecting = _collecting.get()
        if collecting is not None and (key := original(self)) in collecting.names:
            name = collecting.names[key]
            collecting.passes.setdefault(name, []).append((mean, var))


def collecting() -> bool:
    """Whether the moments of some normalizers are collected."""
    return (moments := _collecting.get()) is not None and bool(moments.names)


def modes() -> tuple[bool, bool]:
    """Whether normalizers use their buffers, and whether they use the batch, in either
    mode.
    """
    return _stored.get(), _collecting.get() is not None


@contextmanager
def use_batch(
    net: nn.Module | None = None, fixed: Collection[nn.Module] = ()
) -> Iterator[Moments]:
    """Normalize by the batch, except in the modules `fixed`, which use their buffers;
    `.moments()` of the yielded object returns the moments of the normalizers of `net`.
    """
    moments = Moments(net, fixed)
    tokens = _collecting.set(moments), _stored.set(False)
    try:
        yield moments
    finally:
        _collecting.reset(tokens[0])
        _stored.reset(tokens[1])


@contextmanager
def use_stored() -> Iterator[None]:
    """Normalize by the statistics in the buffers."""
    token = _stored.set(True)
    try:
        yield
    finally:
        _stored.reset(token)
