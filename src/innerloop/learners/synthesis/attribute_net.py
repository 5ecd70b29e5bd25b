"""A network that predicts which functions the program for some examples contains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from innerloop.engine.precision import widened
from innerloop.nets.decoder import perceptron
from innerloop.programs.lists import ATTRIBUTES, INPUTS, LIMIT, SLOT


class AttributeNet(nn.Module):
    """Logits (attributes,) from examples: embedded values, a perceptron for each
    example, the mean over examples, and another perceptron.

    Balog et al. 2017, arXiv:1611.01989, section 4.3 and appendix C.
    """

    def __init__(self, width: int, layers: int, embedding: int):
        super().__init__()
        # the last index stands for an empty place
        self.integers = nn.Embedding(2 * LIMIT + 2, embedding)
        self.kind = nn.Embedding(3, embedding)
        size = (len(INPUTS) + 1) * (SLOT - 1) * embedding
        self.body = perceptron(size, width, width, layers - 1)
        self.head = perceptron(width, len(ATTRIBUTES), width, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x (n, inputs * SLOT) and y (n, SLOT), values as `lists.numbered` encodes
        them.
        """
        slots = torch.cat([x, y], 1).long().unflatten(1, (-1, SLOT))
        present = torch.arange(SLOT - 2, device=slots.device) < slots[..., 1:2]
        integers = slots[..., 2:].clamp(-LIMIT, LIMIT) + LIMIT
        integers = torch.where(present, integers, 2 * LIMIT + 1)
        kinds = self.kind(slots[..., :1].clamp(0, 2))
        # (n, slots, SLOT - 1, embedding)
        values = torch.cat([kinds, self.integers(integers)], -2)
        return widened(self.head(self.body(values.flatten(1)).relu().mean(0)))
