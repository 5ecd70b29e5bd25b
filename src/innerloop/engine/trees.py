"""Nested dictionaries, tuples and lists of tensors as flat lists, in less time than by
torch.utils._pytree, in the same order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from torch import Tensor

_LEAF = None  # the structure of a tensor


def flatten(tree: Any) -> tuple[list[Any], Hashable]:
    """The leaves of a tree, and its structure: whatever is no dict, tuple or list (of
    these types exactly, or named tuples) is a leaf.
    """
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def unflatten(structure: Any, leaves: Sequence[Any]) -> Any:
    """The tree of such a structure with these leaves."""
    return _unflatten(structure, iter(leaves))


def _flatten(tree: Any, leaves: list[Any]) -> Hashable:
    kind = type(tree)
    if kind is Tensor:
        leaves.append(tree)
        return _LEAF
    if kind is dict:
        return kind, (*tree,), tuple([_flatten(t, leaves) for t in tree.values()])
    if kind is tuple or kind is list or (isinstance(tree, tuple) and _named(kind)):
        return kind, None, tuple([_flatten(t, leaves) for t in tree])
    leaves.append(tree)
    return _LEAF


def _named(kind: type) -> bool:
    return hasattr(kind, "_fields")


def _unflatten(structure: Any, leaves: Iterator[Any]) -> Any:
    if structure is _LEAF:
        return next(leaves)
    kind, keys, inner = structure
    values = [_unflatten(part, leaves) for part in inner]
    if keys is not None:
        return dict(zip(keys, values, strict=True))
    return kind(*values) if _named(kind) else kind(values)
