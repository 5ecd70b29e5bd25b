"""Images to complete: the place of a pixel is the input, its brightness the target."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Range
from innerloop.tasks.episodes import Episodes
from innerloop.tasks.omniglot import omniglot
from innerloop.tasks.pictures import as_html, prediction
from innerloop.tasks.splits import task_source
from innerloop.tasks.strokes import FreshEpisodes, strokes

SIDE = 28
_POINTS = Annotated[int, Range(1, SIDE**2 - 1)]


class Completion(TaskDistribution):
    """A character is a task: some of its pixels are known, others are predicted.

    x (n, m, 2): row and column in -1..1; y (n, m, 1): brightness in 0..1.

    Args:
        characters: where the images come from; they are scaled to 28x28.
        shots: known pixels. queries: pixels to predict.
        exact: whether every task has exactly `shots` known pixels; otherwise each batch
            has a random number of them, from 1 up to it.
    """

    prefetch = True

    def __init__(
        self,
        characters: Episodes | FreshEpisodes,
        shots: int,
        queries: int,
        exact: bool,
    ):
        if min(shots, queries) < 1 or shots + queries > SIDE**2:
            raise InnerloopError(
                f"shots and queries must be at least 1 and together at most {SIDE**2}, "
                f"the pixels of an image; got {shots} and {queries}"
            )
        self.characters, self.shots, self.queries = characters, shots, queries
        self.exact = exact
        self.spec = TaskSpec("reals", (2,), 1)

    def describe(self) -> str:
        shots = f"{'' if self.exact else 'up to '}{self.shots} of {SIDE**2} pixels"
        return f"{SIDE}x{SIDE} characters to complete from {shots}"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        # (n, 1, height, width)
        images = self.characters.sample(n, generator).support.x[:, 0].mean(1, True)
        pixels = F.interpolate(images, (SIDE, SIDE), mode="area").flatten(1)
        shots = (
            self.shots
            if self.exact
            else int(torch.randint(1, self.shots + 1, (), generator=generator))
        )
        order = torch.rand(pixels.shape, generator=generator).argsort(-1)[
            :, : shots + self.queries
        ]
        x, y = places(SIDE)[order], pixels.gather(1, order)[..., None]
        return Task(
            Examples(x[:, :shots], y[:, :shots]), Examples(x[:, shots:], y[:, shots:])
        )

    def class_keys(self) -> frozenset[str]:
        return self.characters.class_keys()

    def item_keys(self) -> frozenset[str]:
        return self.characters.item_keys()

    def plot_task(self, learner: Learner, task: Task, figure: Any) -> None:
        """The known pixels, the learner's mean and standard deviation, and the pixels
        of support and query.
        """
        mean, sd = prediction(learner, task.support, places(SIDE).to(task.support.x))
        pictures = {
            "known": _pixels(task.support),
            "mean": mean.view(SIDE, SIDE).cpu(),
            "deviation": sd.view(SIDE, SIDE).cpu(),
            "truth": _pixels(*task),
        }
        for axes, (title, picture) in zip(
            figure.subplots(1, len(pictures)), pictures.items(), strict=True
        ):
            axes.imshow(picture.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
            axes.set_title(title, fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])

    def show(self, seed: int = 0) -> Image.Image:
        """A picture of one task: the known pixels, and those of support and query."""
        task = self.sample(1, torch.Generator().manual_seed(seed)).unbind()[0]
        both = torch.cat([_pixels(task.support), _pixels(*task)], 1)
        array = (both * 255).round().to(torch.uint8).numpy()
        return Image.fromarray(array).resize((8 * SIDE, 4 * SIDE), Image.Resampling.BOX)

    def _repr_html_(self) -> str:
        return as_html(self, self.show())


def places(side: int) -> Tensor:
    """Row and column of every pixel (side * side, 2), in -1..1."""
    at = torch.linspace(-1, 1, side)
    return torch.cartesian_prod(at, at)


def _pixels(*parts: Examples) -> Tensor:
    """Known pixels in gray, all others blue (side, side, 3)."""
    picture = torch.tensor([0.15, 0.2, 0.5]).expand(SIDE, SIDE, 3).clone()
    for part in parts:
        row, column = ((part.x.cpu() + 1) / 2 * (SIDE - 1)).round().long().T
        picture[row, column] = part.y.cpu().expand(-1, 3)
    return picture


@task_source
def completion(
    split: str = "train",
    *,
    shots: _POINTS = 200,
    queries: _POINTS = 200,
    of: Literal["strokes", "omniglot"] = "strokes",
) -> Completion:
    """Completion: complete characters from some of their pixels.

    Reference: Garnelo, Rosenbaum, Maddison, Ramalho, Saxton, Shanahan, Teh, Rezende and
    Eslami 2018, "Conditional neural processes", arXiv:1807.01613, section 4.2.

    Training tasks have 1 to `shots` known pixels, validation and test tasks exactly
    `shots`.

    Args:
        shots: known pixels of a task.
        queries: pixels to predict.
        of: source of the characters.
    """
    source = strokes if of == "strokes" else omniglot
    characters = source(split, ways=2, shots=1, queries=1)
    return Completion(characters, shots, queries, split != "train")
