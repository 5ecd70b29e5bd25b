"""A population: one module with many sets of tensors, on the same inputs and the same
random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from innerloop.engine.checkpointing import Calling

# members that are evaluated at once have so many numbers in their inputs, or there is
# only one
AT_ONCE = 2**20

_refused: WeakSet[nn.Module] = WeakSet()  # modules that vmap could not map


def evaluated(
    module: nn.Module,
    function: Callable[..., Any],
    members: dict[str, Tensor],
    *trees: Any,
) -> Any:
    """`function(*trees)`, a pytree of tensors that uses `module`, for every member of a
    population: the results, stacked.

    members: tensors (members, *shape) in the place of the module's parameters and
    buffers, by name. Members go through vmap, some at a time; one by one where vmap
    cannot map the function, and where it is slower, which is torch's convolutions on a
    CPU. No gradient is taken. Whatever is drawn from the global random generator is
    drawn alike for every member, and the generator is left where it stood.
    """
    calling = Calling(module, function)
    first = next(iter(members.values()))
    size = max(1, AT_ONCE // max(1, sum(leaf.numel() for leaf in tree_leaves(trees))))
    slow = first.device.type == "cpu" and any(
        type(m) is nn.Conv2d for m in module.modules()
    )
    size = 1 if slow or module in _refused else size

    def one(member: dict[str, Tensor]) -> Any:
        return functional_call(
            calling,
            {f"module.{name}": tensor for name, tensor in member.items()},
            trees,
        )

    def some(part: dict[str, Tensor]) -> Any:
        with (
            torch.no_grad(),
            torch.random.fork_rng(
                [first.device] if first.device.type == "cuda" else []
            ),
        ):
            if size > 1:
                return torch.vmap(one, randomness="same")(part)
            return tree_map(
                lambda leaf: leaf[None],
                one({name: tensor[0] for name, tensor in part.items()}),
            )

    parts = [
        dict(zip(members, tensors, strict=True))
        for tensors in zip(
            *(tensor.split(size) for tensor in members.values()), strict=True
        )
    ]
    try:
        results = [some(part) for part in parts]
    except RuntimeError:
        if size == 1:
            raise
        _refused.add(module)  # it reads values, say
        return evaluated(module, function, members, *trees)
    return tree_map(lambda *leaves: torch.cat(leaves), *results)
