"""Pools of unlabeled examples, with common and rare classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Range
from innerloop.evaluation.active import Labeling
from innerloop.evaluation.few_shot import evaluate
from innerloop.measurements import Report, TestPlan, merged
from innerloop.readers.base import Reader
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.folder import folder
from innerloop.tasks.omniglot import Protocol, omniglot
from innerloop.tasks.pictures import as_html, episode_picture
from innerloop.tasks.splits import task_source
from innerloop.tasks.strokes import bank as strokes


class Pools(TaskDistribution):
    """Pools of examples of a few classes, the support set, and `queries` examples, as
    many of each class, to classify.

    The share of a class in the pool follows a weight from a log-normal distribution;
    every class has an example there. y has `most` columns; columns without a class stay
    empty.

    Args:
        bank: the classes.
        most, fewest: number of classes of a task.
        size: examples of a pool.
        queries: query examples.
        spread: standard deviation of the logarithm of the weights; 0 makes all classes
            equally common.

    Raises InnerloopError where the classes of the bank are too small.
    """

    prefetch = True

    def __init__(
        self,
        bank: ClassBank,
        most: int = 10,
        fewest: int = 5,
        size: int = 50,
        queries: int = 30,
        spread: float = 1.0,
    ):
        if not 2 <= fewest <= most <= min(size, queries):
            raise InnerloopError(
                "fewest and most must satisfy 2 <= fewest <= most <= "
                f"{min(size, queries)}; got {fewest} and {most}"
            )
        self.most, self.fewest, self.size = most, fewest, size
        self.queries, self.spread = queries, spread
        needed = -(-size // fewest) + -(-queries // fewest)
        self.episodes = Episodes(bank, most, 1, needed - 1)  # checks the bank
        self.bank, self.spec = self.episodes.bank, self.episodes.spec
        self.reader = bank.reader

    def describe(self) -> str:
        classes = f"{self.fewest} to {self.most} of {len(self.bank)} classes"
        return f"pools of {self.size} examples of {classes} of {self.bank.title}"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        bank, most = self.bank, int(self.bank.counts.max())
        # (n, most)
        classes = torch.rand(n, len(bank), generator=generator).topk(self.most).indices
        ways = torch.randint(self.fewest, self.most + 1, (n, 1), generator=generator)
        # (n, most, examples)
        exists = torch.arange(most) < bank.counts[classes][..., None]
        # examples in random order
        drawn = torch.where(
            exists, torch.rand(exists.shape, generator=generator), -1.0
        ).argsort(-1, descending=True)
        position = torch.arange(self.queries)
        query_y = position % ways  # (n, queries)
        query = drawn[torch.arange(n)[:, None], query_y, position // ways]
        weight = self.spread * torch.randn(n, self.most, 1, generator=generator)
        gumbel = -(
            -torch.rand(exists.shape, generator=generator).clamp(1e-7, 1 - 1e-7).log()
        ).log()
        # (n, 1, 1) the first example of a class that is no query
        first = -(-self.queries // ways)[..., None]
        rank = torch.arange(most)
        free = (
            (rank >= first)
            & exists
            & (torch.arange(self.most)[:, None] < ways[..., None])
        )
        score = torch.where(free, weight + gumbel, -torch.inf) + torch.where(
            free & (rank == first), 1e3, 0.0
        )
        chosen = score.flatten(1).topk(self.size).indices  # (n, size)
        # in random order
        chosen = chosen.gather(
            1, torch.rand(n, self.size, generator=generator).argsort(-1)
        )
        pool_y = chosen // most
        pool = drawn.flatten(1).gather(1, chosen)
        return Task(
            self._examples(classes, pool, pool_y, generator),
            self._examples(classes, query, query_y, generator),
        )

    def _examples(
        self, classes: Tensor, which: Tensor, y: Tensor, generator: torch.Generator
    ) -> Examples:
        """The `which`-th examples (n, m) of the y-th (n, m) of a task's classes (n,
        most).
        """
        of = classes.gather(1, y)
        x = self.episodes.examples(
            self.bank.starts[of] + which, self.bank.turns[of], generator
        )
        return Examples(x, torch.eye(self.most)[y])

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report:
        """Few-shot, and for learners that choose labels their learning curves."""
        report, labeling = evaluate(learner, self, plan), Labeling()
        if labeling.supports(learner, self) is not None:
            return report
        return merged([report, labeling(learner, self, plan)])

    def class_keys(self) -> frozenset[str]:
        return self.bank.class_keys()

    def item_keys(self) -> frozenset[str]:
        return self.bank.item_keys()

    def show(self, seed: int = 0) -> Image.Image:
        """A picture of one task: a row for each class, pool and query examples."""
        return episode_picture(self, seed)

    def _repr_html_(self) -> str:
        return as_html(self, self.show() if self.spec.is_image else None)


@task_source
def pools(
    split: str = "train",
    *,
    of: Literal["strokes", "omniglot"] = "strokes",
    protocol: Protocol = "lake",
    holdout: bool = False,
    root: Path | str | None = None,
    size: Annotated[int, Range(1, 4096)] = 28,
    channels: Literal[1, 3] = 1,
    normalize_strokes: bool | None = None,
    all_classes: bool = False,
    reader: Reader | None = None,
) -> Pools:
    """Pools: 50 unlabeled images of 5 to 10 classes to choose from.

    Args:
        of: source of the images.
        protocol: splits of Omniglot, see `omniglot`.
        holdout: keep the validation classes of Omniglot out of training.
        root: your own images, as for `folder`, in place of `of`.
        size: height and width to which images are scaled, in pixels.
        channels: 1 reads images as gray, 3 in color.
        normalize_strokes: center the strokes and scale them to fill the image; None for
            Omniglot only.
        all_classes: use all classes of your own images in every split.
        reader: how images are read, in place of size, channels and normalize_strokes.
    """
    if root is not None:
        own = folder(
            split,
            root=root,
            ways=2,
            queries=1,
            size=size,
            channels=channels,
            normalize_strokes=bool(normalize_strokes),
            all_classes=all_classes,
            reader=reader,
        )
        return Pools(own.bank)
    if of == "strokes":
        return Pools(strokes(split))
    characters = omniglot(
        split,
        protocol=protocol,
        holdout=holdout,
        size=size,
        channels=channels,
        normalize_strokes=normalize_strokes is not False,
        reader=reader,
    )
    return Pools(characters.bank)
