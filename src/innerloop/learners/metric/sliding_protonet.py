"""Prototypical networks that slide over images to find a symbol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.likelihood import Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.mapping import loops_on_cpu
from innerloop.engine.options import Count
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.metric.symbol_learner import SymbolLearner, window
from innerloop.learners.metric.symbol_maps import (
    SYMBOL,
    SymbolMaps,
    best_places,
    ink_boxes,
    painted,
)
from innerloop.nets.registry import encoder

INPUT = 28  # pixels a side that the encoder reads
RATIO = 1.35  # of the sizes of windows
ONCE = 2048  # windows that are encoded at once
MARGIN = 1.12  # of a window around a symbol, as images of characters have


class SlidingProtoNet(SymbolLearner):
    """Sliding ProtoNet: finds a symbol by the distance of windows to its prototype.

    p(symbol in window u) = sigmoid(b - s |f(u) - c|^2), c the mean of f over the
    examples

    Reference: Snell, Swersky and Zemel 2017, "Prototypical networks for few-shot
    learning", arXiv:1703.05175, eq. (1): the prototype.

    The baseline of learners that are trained to find: with `--init-from` a run of
    ProtoNet and `--pretrained-lr 0` the encoder is as that was trained, and only b and
    s are learned.

    State: the prototype (d,), and the box of the symbol (4,), from the middle of an
    example.

    Args:
        encoder: the network f, of images of 28x28 pixels.
        sizes: how many sizes of windows are tried; each is 1.35 times the one before.
        stride: pixels from a window to the next.
        matches: most places in an image.
    """

    encoder: nn.Module
    _: KW_ONLY
    sizes: Count = 3
    stride: Count = 4
    matches: Count = 32
    likelihood: Likelihood = SymbolMaps()

    named_networks = ("encoder",)
    defaults = MetaTrainConfig(
        shots=1, queries=1, batch=4, optimizer="AdamW", lr=0.03, weight_decay=0.0
    )

    def __post_init__(self) -> None:
        self.b = nn.Parameter(torch.zeros(()))
        self.log_s = nn.Parameter(torch.zeros(()))
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        found = super().networks(spec, build_args, out_dim)
        image = TaskSpec("classes", (spec.x_shape[0], INPUT, INPUT), 1)
        body = encoder(image, build_args.get("encoder"), image="conv6")
        return {**found, "encoder": body}

    def _sides(self) -> list[tuple[float, int]]:
        """The sizes of windows, relative to the example and in pixels."""
        scales = [RATIO ** (i - (self.sizes - 1) / 2) for i in range(self.sizes)]
        return [(scale, round(MARGIN * SYMBOL * scale)) for scale in scales]

    def _embed(self, x: Tensor) -> Tensor:
        """Images (n, channels, side, side) of any size as features (n, d)."""
        x = F.interpolate(x, (INPUT, INPUT), mode="bilinear")
        return torch.cat([self.encoder(part) for part in x.split(ONCE)])

    def adapt(self, support: Examples) -> tuple[Tensor, Tensor]:
        crops = window(support.x, round(MARGIN * SYMBOL))
        box = ink_boxes(window(support.x).amax(1)).mean(0)
        return self._embed(crops).mean(0), box

    def maps(self, state: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        c, box = state
        m, channels, height, width = x.shape
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        logits, boxes = [], []
        for scale, side in self._sides():
            around = side // 2
            views = F.unfold(
                F.pad(x, (around, side, around, side)), side, stride=self.stride
            )  # (m, channels side side, places)
            down = (height + around) // self.stride + 1
            views = views.unflatten(-1, (down, -1))[..., :rows, :columns]
            views = views.flatten(2).mT.reshape(-1, channels, side, side)
            far = (self._embed(views) - c).square().mean(-1)
            logits.append(self.b - self.log_s.exp() * far.view(m, rows, columns))
            boxes.append(box * scale)
        best, which = torch.stack(logits).max(0)  # (m, rows, columns)
        logit, place = best_places(best, 1, self.matches)  # (m, t)
        size = which.flatten(1).gather(1, place)
        y, at = place // columns * self.stride, place % columns * self.stride
        found = torch.stack(boxes)[size] + torch.stack([at, y, at, y], -1).to(x)
        return painted(logit, inked(found, x), found)


def inked(boxes: Tensor, x: Tensor) -> Tensor:
    """The ink (m, t, height, width) of images x (m, channels, height, width) that lies
    in boxes (m, t, 4).
    """
    ink = x.amax(1)[:, None]  # (m, 1, height, width)
    left, top, right, bottom = (side[..., None, None] for side in boxes.unbind(-1))
    at = torch.arange(x.shape[-1], device=x.device) + 0.5
    y = (torch.arange(x.shape[-2], device=x.device) + 0.5)[:, None]
    inside = (at > left) & (at < right) & (y > top) & (y < bottom)
    return inside & (ink > 0.4 * ink.amax((-2, -1), keepdim=True))


@loops_on_cpu.register
def _(learner: SlidingProtoNet) -> bool:
    return True  # all windows of all tasks at once would take gigabytes
