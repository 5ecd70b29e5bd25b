"""Images to complete: a pixel's place goes in, its brightness comes out."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.tasks.episodes import Episodes
from innerloop.tasks.omniglot import omniglot
from innerloop.tasks.strokes import FreshEpisodes, strokes


class Completion(TaskDistribution):
    """A character is a task: some of its pixels are shown, others are asked for.
    Garnelo et al. 2018, arXiv:1807.01613, section 4.2.

    x (n, m, 2): row and column in -1..1; y (n, m, 1): brightness in 0..1. The
    characters come from `drawings`, at 28x28.
    shots: exactly so many pixels are shown with `exact`, else each batch has a number
    of its own, from 1 up to it. queries: pixels asked for.
    """

    prefetch = True
    SIDE = 28

    def __init__(
        self, drawings: Episodes | FreshEpisodes, shots: int, queries: int, exact: bool
    ):
        if min(shots, queries) < 1 or shots + queries > self.SIDE**2:
            raise InnerloopError(
                f"of {self.SIDE**2} pixels at least 1 is shown and 1 asked for, got {shots} and {queries}"
            )
        self.drawings, self.shots, self.queries, self.exact = (
            drawings,
            shots,
            queries,
            exact,
        )
        self.spec = TaskSpec("reals", (2,), 1)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        # (n, 1, height, width)
        images = self.drawings.sample(n, generator).support.x[:, 0]
        pixels = F.interpolate(images, (self.SIDE, self.SIDE), mode="area").flatten(1)
        shots = (
            self.shots
            if self.exact
            else int(torch.randint(1, self.shots + 1, (), generator=generator))
        )
        order = torch.rand(pixels.shape, generator=generator).argsort(-1)[
            :, : shots + self.queries
        ]
        x, y = places(self.SIDE)[order], pixels.gather(1, order)[..., None]
        return Task(
            Examples(x[:, :shots], y[:, :shots]), Examples(x[:, shots:], y[:, shots:])
        )


def places(side: int) -> Tensor:
    """Row and column of every pixel (side * side, 2), in -1..1."""
    at = torch.linspace(-1, 1, side)
    return torch.cartesian_prod(at, at)


def completion(
    split: str = "train",
    *,
    shots: int = 200,
    queries: int = 200,
    of: Literal["strokes", "omniglot"] = "strokes",
) -> Completion:
    """Characters to complete: up to `shots` pixels are shown in training, exactly so
    many in validation and testing.
    """
    if of not in ("strokes", "omniglot"):
        raise InnerloopError(f"characters are of strokes or omniglot, not {of!r}")
    drawings = (strokes if of == "strokes" else omniglot)(
        split, ways=2, shots=1, queries=1
    )
    return Completion(drawings, shots, queries, split != "train")
