"""A population: one module with many sets of tensors, on the same inputs and the same
random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from innerloop.engine.checkpointing import Calling
from innerloop.engine.functional import functional_call
from innerloop.engine.mapping import mapped

# members are evaluated at once up to this many numbers in their inputs, at least one
CHUNK_NUMBERS = 2**20


def evaluated(
    module: nn.Module,
    function: Callable[..., Any],
    members: dict[str, Tensor],
    *trees: Any,
) -> Any:
    """`function(*trees)`, a pytree of tensors that uses `module`, for every member of a
    population: the results, stacked.

    members: tensors (members, *shape) in the place of the module's parameters and
    buffers, by name. Members go through vmap, some at a time, or one by one where vmap
    is slower or cannot map the function. No gradient is taken. What is drawn from the
    global random generator is the same for every member, and the generator is left
    where it was.
    """
    calling = Calling(module, function)

    def one(member: dict[str, Tensor]) -> Any:
        tensors = {f"module.{name}": tensor for name, tensor in member.items()}
        return functional_call(calling, tensors, trees)

    numbers = sum(leaf.numel() for leaf in tree_leaves(trees))
    size = max(1, CHUNK_NUMBERS // max(1, numbers))
    with torch.no_grad():
        return mapped(module, one, members, randomness="same", size=size)
