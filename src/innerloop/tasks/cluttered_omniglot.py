"""Cluttered Omniglot: a character to be segmented among many others."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from innerloop.core.task import Examples, Task
from innerloop.engine.options import Count
from innerloop.readers.image import ImageReader
from innerloop.tasks.episodes import ClassBank
from innerloop.tasks.omniglot import bank
from innerloop.tasks.scenes import (
    SIDE,
    Scenes,
    bounds,
    examples,
    pasted,
    targets,
    turns,
    warped,
)
from innerloop.tasks.splits import task_source

READER = ImageReader(1, (105, 105), dark_background=True)
DRAWERS = 10  # the first draw the training images, the others those of the test
CHARACTER, PATCH = 32, 88  # pixels of an unscaled drawing, and of a patch for one
CHUNK = 256  # characters that are drawn at once


class Cluttered(Scenes):
    """Scenes of so many characters in random colors, the symbol on top.

    Args:
        bank: the characters, each with the drawings of one half of the drawers.
        characters: of a scene.
    """

    channels = 3
    matching: ClassVar[dict[str, Any]] = {
        "angles": 5,
        "most_degrees": 20.0,
        "sizes": 7,
        "largest": 2.0,
        "even": 0.45,
    }

    def __init__(self, bank: ClassBank, characters: int):
        super().__init__()
        self.bank, self.characters = bank, characters

    def describe(self) -> str:
        return (
            f"tasks to segment one of {self.characters} colored characters in a scene, "
            f"from {len(self.bank)} characters"
        )

    def sample(self, n: int, generator: torch.Generator) -> Task:
        bank, k = self.bank, self.characters
        classes = torch.randint(len(bank), (n, k), generator=generator)
        drawn = torch.rand(n, k, generator=generator) * bank.counts[classes]
        rows = bank.starts[classes] + drawn.long()
        angle, shear = (
            (torch.rand(n, k + 1, generator=generator) * 2 - 1) * limit * math.pi / 180
            for limit in (20, 10)
        )
        scale = (torch.rand(n, k + 1, 2, generator=generator) * 2 - 1).exp2()
        scale[:, -1] = 1  # the example, which is the same drawing as the symbol
        rows = torch.cat([rows, rows[:, -1:]], 1)
        matrices = turns(angle, shear, scale * CHARACTER / bank.values.shape[-1])
        patches, boxes = self._patches(rows.flatten(), matrices.flatten(0, 1))
        patches, boxes = (t.unflatten(0, (n, k + 1)) for t in (patches, boxes))
        size = boxes[..., 2:] - boxes[..., :2]
        free = torch.rand(n, k + 1, 2, generator=generator) * (SIDE + 1 - size)
        corners = free.long()
        corners[:, -1] = (SIDE - size[:, -1]) // 2
        colors = torch.rand(n, k + 1, 3, generator=generator)
        parts = []
        for part in (slice(k, k + 1), slice(0, k)):
            _, top = pasted(patches[:, part], boxes[:, part], corners[:, part])
            palette = torch.cat([torch.zeros(n, 1, 3), colors[:, part]], 1)
            index = top.flatten(1)[..., None].expand(-1, -1, 3)
            x = palette.gather(1, index).mT.view(n, 1, 3, SIDE, SIDE)
            parts.append((x, top))
        (example, shown), (scene, top) = parts
        wanted = torch.arange(k).expand(n, k) == k - 1
        around = torch.cat([corners, corners + size], -1)[:, :k]
        return Task(
            examples(example, (shown > 0)[:, None]),
            Examples(scene, targets(top, wanted, around)[:, None]),
        )

    def _patches(self, rows: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
        """Drawings by their index in the bank (n,) after linear maps, as patches of
        zeros and ones (n, 88, 88), with the boxes around their ink (n, 4).
        """
        parts = []
        for some, maps in zip(rows.split(CHUNK), matrices.split(CHUNK), strict=True):
            glyphs = (self.bank.values[some, 0] > 127).float()
            parts.append(warped(glyphs, maps, PATCH, "nearest"))
        patches = torch.cat(parts)
        return patches, bounds(patches)

    def class_keys(self) -> frozenset[str]:
        return self.bank.class_keys()

    def class_names(self) -> tuple[str, ...]:
        return self.bank.names

    def item_keys(self) -> frozenset[str]:
        return self.bank.item_keys()


def drawers(chosen: ClassBank, later: bool) -> ClassBank:
    """The bank with the drawings of the first ten people alone, or of the others."""
    low = min(DRAWERS, int(chosen.counts.min()) // 2)
    first = chosen.starts + low if later else chosen.starts
    counts = chosen.counts - low if later else torch.full_like(chosen.counts, low)
    return ClassBank(
        chosen.values,
        first,
        counts,
        chosen.groups,
        chosen.turns,
        chosen.names,
        title=chosen.title,
    )


@task_source
def cluttered_omniglot(
    split: str = "train",
    *,
    characters: Count = 4,
    of: Literal["one-shot", "training"] = "one-shot",
) -> Cluttered:
    """Cluttered Omniglot: segment a character among many, from one example.

    Reference: Michaelis, Bethge and Ecker 2018, "One-shot segmentation in clutter",
    arXiv:1803.09597, section 3.

    A scene of 96x96 pixels has so many characters in random colors, the last of which,
    on top, is the symbol. They are turned by up to 20 degrees, sheared by up to 10 and
    scaled by 1/2 to 2 along each axis, and lie anywhere. The example is the same
    drawing, turned, sheared and colored anew. Training has the 30 background alphabets
    as drawn by ten people, validation the same characters as drawn by the ten others,
    and the test the last ten evaluation alphabets, by these. This follows the authors'
    program; differences are that scenes are drawn anew instead of from 2,000,000
    stored ones, that a drawing is turned and scaled in one step instead of two, and
    that the last row and column of a drawing are not cut off.

    Args:
        characters: how many are in a scene, the symbol included: 4, 8, 16, 32, 64, 128
            or 256 in the paper.
        of: which characters the test has: those of unseen alphabets, or those of
            training as drawn by the other people.
    """
    if split == "test" and of == "one-shot":
        whole = bank("lake", "test", reader=READER)
        alphabets = sorted({name.split("/")[0] for name in whole.names})[10:]
        kept = [i for i, m in enumerate(whole.names) if m.split("/")[0] in alphabets]
        return Cluttered(drawers(whole.pick(kept), later=True), characters)
    whole = bank("lake", "train", reader=READER)
    return Cluttered(drawers(whole, later=split != "train"), characters)
