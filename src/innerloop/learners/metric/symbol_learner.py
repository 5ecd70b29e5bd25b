"""The base class of learners that find a symbol in images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from innerloop.core.learner import Learner, State
from innerloop.core.task import TaskSpec
from innerloop.engine.boxes import Boxes
from innerloop.engine.errors import InnerloopError
from innerloop.learners.metric.symbol_maps import MAPS, WINDOW, SymbolMaps, boxes_of
from innerloop.nets.u_net import STRIDE


class SymbolLearner(Learner):
    """A learner that finds a symbol in images of any size, from examples that show it
    in the middle of an image; see `SymbolMaps`.
    """

    kinds = ("maps",)
    home = "pages"
    named_networks = ()
    low_precision = False

    @abstractmethod
    def maps(self, state: State, x: Tensor) -> Tensor:
        """The outputs for images x (m, channels, height, width), with sides that 8
        divides, as maps (m, 5, height, width).
        """

    def predict(self, state: State, x: Tensor) -> Tensor:
        return self.maps(state, x).flatten(1)

    def boxes(self, state: State, x: Tensor) -> list[Boxes]:
        """The boxes of the symbol in each of images x (m, channels, height, width)."""
        return [boxes_of(maps) for maps in self.maps(state, x)]

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        return (TaskSpec("maps", (1, 32, 32), MAPS * 32 * 32),)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        """How outputs are read. Raises InnerloopError for tasks that are no images with
        maps of them.
        """
        sides = spec.x_shape[1:]
        fits = spec.is_image and spec.y_dim == MAPS * sides[0] * sides[1]
        if not fits or any(side % STRIDE for side in sides):
            raise InnerloopError(
                f"{cls.__name__} finds symbols in images with sides that {STRIDE} "
                f"divides, and targets of {MAPS} maps, as pages and cluttered-omniglot "
                f"have; got {spec}"
            )
        return {"likelihood": SymbolMaps((sides[0], sides[1]))}


def window(x: Tensor, side: int = WINDOW) -> Tensor:
    """The middle of images (..., height, width), of `side` pixels or the whole."""
    for axis in (-2, -1):
        size = x.shape[axis]
        kept = min(side, size)
        x = x.narrow(axis, (size - kept) // 2, kept)
    return x
