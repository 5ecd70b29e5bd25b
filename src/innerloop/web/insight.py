"""What a classifier that was fitted to the examples of a project says: predictions,
nearest examples, a map, and which examples it doubts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples
from innerloop.estimators import FewShotClassifier
from innerloop.evaluation.held_out import HeldOut, held_out, threshold
from innerloop.readers.base import Inputs

NEIGHBORS = 5
REJECTED = 0.05  # share of the inputs of the classes that may be rejected wrongly
# held-out examples below which nothing is rejected, see `Fitted.threshold`
FEW, MANY = 4, 10
EXACT = 256  # examples or features, above which components are found by iteration
ITERATIONS = 30
# examples, and the folds of a cross-validation of so many at most
FOLDS = ((200, 20), (500, 10), (1000, 5))


@dataclass(frozen=True)
class Map:
    """A plane through vectors (n, d): their two principal components.

    Args:
        center: (d,).
        basis: (d, 2), scaled so that all points lie in -1..1.
        points: by the identifier of the example.
    """

    center: Tensor
    basis: Tensor
    points: dict[str, tuple[float, float]]

    def point(self, z: Tensor) -> list[float]:
        """Where a vector (d,) lies, at most at the edge."""
        found = ((z.double() - self.center) @ self.basis).clamp(-1, 1)
        return [round(float(value), 4) for value in found]


def make_map(ids: Sequence[str], z: Tensor, before: Map | None) -> Map:
    """The map of vectors (n, d), turned so that examples that were on the map before
    stay as near to their places as they can.
    """
    z = z.double()
    center = z.mean(0)
    basis = _components(z - center)
    flat = (z - center) @ basis  # (n, 2)
    common = (
        [] if before is None else [i for i, e in enumerate(ids) if e in before.points]
    )
    if before is not None and len(common) > 1:
        old = torch.tensor([before.points[ids[i]] for i in common]).to(flat)
        new = flat[torch.tensor(common)]
        u, _, v = torch.linalg.svd((new - new.mean(0)).T @ (old - old.mean(0)))
        basis = basis @ u @ v
    else:  # a sign that does not depend on the algorithm
        basis = basis * torch.where((flat**3).sum(0) < 0, -1.0, 1.0)
    flat = (z - center) @ basis
    basis = basis / flat.abs().amax().clamp_min(1e-9)
    places = ((z - center) @ basis).tolist()
    points = {
        e: (round(x, 4), round(y, 4)) for e, (x, y) in zip(ids, places, strict=True)
    }
    return Map(center, basis, points)


def _components(z: Tensor) -> Tensor:
    """The first two principal components (d, 2) of centered vectors (n, d)."""
    n, d = z.shape
    if min(n, d) <= EXACT:
        if n < d:
            _, vectors = torch.linalg.eigh(z @ z.T)
            found = z.T @ vectors[:, -2:].flip(-1)
        else:
            _, vectors = torch.linalg.eigh(z.T @ z)
            found = vectors[:, -2:].flip(-1)
    else:
        generator = torch.Generator().manual_seed(0)
        found = torch.randn(d, 6, generator=generator, dtype=z.dtype)
        for _ in range(ITERATIONS):
            found = torch.linalg.qr(z.T @ (z @ found)).Q
        _, turn = torch.linalg.eigh((z @ found).T @ (z @ found))
        found = found @ turn[:, -2:].flip(-1)
    found = F.pad(found, (0, 2 - found.shape[1]))
    return F.normalize(found, dim=0)


class Fitted:
    """A classifier of the examples of a project.

    Args:
        head: learns from vectors, see `Model`.
        ids: of the examples.
        labels: of the examples, the names of their classes.
        z: their vectors (n, ...).
        before: the map that was shown before.
    """

    def __init__(
        self,
        head: Learner,
        ids: Sequence[str],
        labels: Sequence[str],
        z: Tensor,
        before: Map | None = None,
    ):
        self.ids, self.labels = list(ids), list(labels)
        self._head, self._z, self._before = head, z, before
        self.classifier = FewShotClassifier(head)
        self.classifier.fit(_inputs(z), self.labels)
        self.classes = [str(name) for name in self.classifier.classes_]
        flat = z.flatten(1)
        self._center = flat.mean(0)
        self._unit = F.normalize(flat - self._center, dim=-1)

    def probabilities(self, z: Tensor) -> NDArray[np.float64]:
        """(m, classes) of vectors, columns in the order of `classes`."""
        return self.classifier.predict_proba(_inputs(z))

    def rejected(self, z: Tensor) -> NDArray[np.bool_]:
        """Which vectors are like none of the classes (m,)."""
        if not np.isfinite(self.threshold):
            return np.zeros(len(z), bool)
        return self.classifier.novelty(_inputs(z)) > self.threshold

    def neighbors(self, z: Tensor) -> list[dict[str, Any]]:
        """The examples most like a vector, by the cosine of centered vectors."""
        similarity = self._unit @ F.normalize(z.flatten() - self._center, dim=0)
        found = similarity.topk(min(NEIGHBORS, len(self.ids)))
        return [
            {"example": self.ids[i], "similarity": round(s, 4)}
            for s, i in zip(found.values.tolist(), found.indices.tolist(), strict=True)
        ]

    @cached_property
    def map(self) -> Map:
        return make_map(self.ids, self._z.flatten(1), self._before)

    @property
    def shown(self) -> Map | None:
        """The map, or the one before where it was not needed."""
        return self.__dict__.get("map", self._before)

    @cached_property
    def support(self) -> Examples:
        """The examples with their labels (n, ways) in the order of `classes`."""
        spec = self._head.spec
        assert spec is not None
        places = torch.tensor([self.classes.index(label) for label in self.labels])
        ways = spec.y_dim if self._head.fixed_ways else len(self.classes)
        return Examples(self._z, F.one_hot(places, ways).to(self._z.dtype))

    @cached_property
    def held_out(self) -> HeldOut | None:
        """Predictions for examples by learners without them; None for so many that it
        takes too long.
        """
        folds = next((k for most, k in FOLDS if len(self.ids) <= most), 0)
        if not folds or self.support.y.sum(0).max() < 2:
            return None
        return held_out(self._head, self.support, folds)

    @cached_property
    def threshold(self) -> float:
        """The novelty above which an input is rejected; infinite for few examples.

        A quantile of few held-out examples is too low. Where the novelty is minus the
        largest output, it is therefore at least half way to what the examples would
        have without their own class.
        """
        found = self.held_out
        plain = type(self._head).novelty is Learner.novelty
        if found is None or int(found.known.sum()) < (FEW if plain else MANY):
            return float("inf")
        quantile = float(threshold(found, REJECTED))
        if not plain:
            return quantile
        outputs = found.outputs[found.known]
        own = found.y[found.known] > 0.5
        others = -outputs.masked_fill(own, -torch.inf)[:, : len(self.classes)].amax(-1)
        half = (found.novelty[found.known].median() + others.median()) / 2
        return max(quantile, float(half))

    @cached_property
    def accuracy(self) -> dict[str, int] | None:
        """How many of the held-out examples are predicted right."""
        found = self.held_out
        if found is None or not bool(found.known.any()):
            return None
        right = found.outputs.argmax(-1) == found.y.argmax(-1)
        return {
            "correct": int((right & found.known).sum()),
            "of": int(found.known.sum()),
        }

    @cached_property
    def doubtful(self) -> Mapping[str, str]:
        """The class that a held-out example looks like, where it is not its own."""
        found = self.held_out
        if found is None:
            return {}
        order = self.support.y.argmax(-1).argsort(stable=True).tolist()
        guess = found.outputs[:, : len(self.classes)].argmax(-1)
        wrong = (guess != found.y.argmax(-1)) & found.known
        return {
            self.ids[order[i]]: self.classes[int(guess[i])]
            for i in torch.nonzero(wrong).flatten().tolist()
        }


def _inputs(z: Tensor) -> Inputs:
    return Inputs(z, [""] * len(z))
