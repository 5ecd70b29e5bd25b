"""Pools without labels: many examples of a few classes, some of them rare."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.readers.image import Preprocess
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.tasks.folder import read_classes
from innerloop.tasks.omniglot import PREPROCESS, omniglot
from innerloop.tasks.splits import split_indices
from innerloop.tasks.strokes import bank as strokes


class Pools(TaskDistribution):
    """Pools of `size` examples of `fewest` to `most` classes, the support set, and
    `queries` examples, as many of each class, to be classified.

    How common a class is in the pool, its weight is drawn from a log-normal
    distribution with a deviation of `spread`: 0 makes all alike. Every class has an
    example there. y has `most` columns; those without a class stay empty. Raises
    ValueError where the classes of a bank are too small.
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
                f"a pool of {size} and {queries} queries need 2 <= fewest <= most classes of no more, got {fewest} and {most}"
            )
        self.most, self.fewest, self.size, self.queries, self.spread = (
            most,
            fewest,
            size,
            queries,
            spread,
        )
        least = -(-size // fewest) + -(-queries // fewest)
        # turns images, and says what is too small
        self.episodes = Episodes(bank, most, 1, least - 1)
        self.bank, self.spec = self.episodes.bank, self.episodes.spec

    def sample(self, n: int, generator: torch.Generator) -> Task:
        bank, most = self.bank, int(self.bank.counts.max())
        # (n, most)
        classes = torch.rand(n, len(bank), generator=generator).topk(self.most).indices
        ways = torch.randint(self.fewest, self.most + 1, (n, 1), generator=generator)
        # (n, most, examples)
        there = torch.arange(most) < bank.counts[classes][..., None]
        # examples in random order
        drawn = torch.where(
            there, torch.rand(there.shape, generator=generator), -1.0
        ).argsort(-1, descending=True)
        asked = torch.arange(self.queries)
        query_y = asked % ways  # (n, queries)
        query = drawn[torch.arange(n)[:, None], query_y, asked // ways]
        weight = self.spread * torch.randn(n, self.most, 1, generator=generator)
        gumbel = -(
            -torch.rand(there.shape, generator=generator).clamp(1e-7, 1 - 1e-7).log()
        ).log()
        # (n, 1, 1) the first drawing of a class that is not asked
        first = -(-self.queries // ways)[..., None]
        rank = torch.arange(most)
        free = (
            (rank >= first)
            & there
            & (torch.arange(self.most)[:, None] < ways[..., None])
        )
        score = torch.where(free, weight + gumbel, -torch.inf) + torch.where(
            free & (rank == first), 1e3, 0.0
        )
        chosen = score.flatten(1).topk(self.size).indices  # (n, size)
        # those that come first are no others
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
        x = self.episodes._images(
            self.bank.starts[of] + which, self.bank.turns[of], generator
        )
        return Examples(x, torch.eye(self.most)[y])


def pools(
    split: str = "train",
    *,
    of: Literal["strokes", "omniglot"] = "strokes",
    protocol: str = "lake",
    holdout: bool = False,
    root: Path | str | None = None,
    preprocess: Preprocess | None = None,
) -> Pools:
    """Pools of drawings of strokes, of Omniglot, or of the images of a user's own
    folder: 50 of 5 to 10 classes, common and rare ones.
    """
    if root is not None:
        own = read_classes(root, preprocess or Preprocess())
        return Pools(own.pick(split_indices(own.names, split)))
    if of not in ("omniglot", "strokes"):
        raise InnerloopError(f"pools are of strokes or omniglot, not {of!r}")
    if of == "strokes":
        return Pools(strokes(split))
    return Pools(
        omniglot(
            split,
            protocol=protocol,
            holdout=holdout,
            preprocess=preprocess or PREPROCESS,
        ).bank
    )
