"""Mazes on a grid."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Fraction, Range
from innerloop.rl.environment import Environment
from innerloop.tasks.splits import task_source

# up, right, down, left: rows and columns
MOVES = torch.tensor([[-1, 0], [0, 1], [1, 0], [0, -1]])


class Mazes(Environment):
    """Mazes of size x size rooms, see `mazes`.

    A task is the doors (rooms, 4) and the goal (rooms,), one-hot. The observation is
    the current room, one-hot, and which of the four directions have a door.
    """

    def __init__(
        self,
        size: int = 4,
        horizon: int = 20,
        episodes: int = 3,
        loops: float = 0.1,
        split: str = "train",
    ):
        if size < 2 or not 0 <= loops <= 1:
            raise InnerloopError(
                "a maze needs size of at least 2 and loops between 0 and 1; got "
                f"size={size}, loops={loops}"
            )
        super().__init__((size**2 + 4,), 4, horizon, episodes, split)
        self.size, self.loops = size, loops
        self.title = f"mazes of {size} x {size} rooms"
        room = torch.arange(size**2)
        # (rooms, 4, 2)
        target = torch.stack([room // size, room % size], -1)[:, None] + MOVES
        self.inside = ((target >= 0) & (target < size)).all(-1)  # (rooms, 4)
        # (rooms, 4) the room behind every door
        self.neighbor = (target[..., 0] * size + target[..., 1]).where(self.inside, 0)

    def sample_params(self, n: int, generator: torch.Generator) -> Tensor:
        rooms, rows = self.size**2, torch.arange(n)
        doors = torch.zeros(n, rooms, 4, dtype=torch.bool)
        reached = F.one_hot(torch.zeros(n, dtype=torch.long), rooms).bool()
        for _ in range(rooms - 1):
            # (n, rooms, 4)
            new = reached[..., None] & ~reached[:, self.neighbor] & self.inside
            draw = torch.rand(n, rooms * 4, generator=generator)
            chosen = draw.where(new.flatten(1), -1.0).argmax(-1)
            room, direction = chosen // 4, chosen % 4
            doors[rows, room, direction] = True
            reached[rows, self.neighbor[room, direction]] = True
        extra = torch.rand(n, rooms, 4, generator=generator) < self.loops
        doors |= extra & self.inside
        # every door opens both ways
        back = doors[:, self.neighbor, torch.tensor([2, 3, 0, 1])] & self.inside
        goal = F.one_hot(torch.randint(1, rooms, (n,), generator=generator), rooms)
        return torch.cat([(doors | back).flatten(1).float(), goal], 1)  # (n, 5 rooms)

    def tables(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """The doors (n, rooms, 4) and the goal (n, rooms)."""
        doors, goal = params.split([4 * self.size**2, self.size**2], 1)
        return doors.unflatten(1, (-1, 4)), goal

    def start(self, params: Tensor, rng: torch.Generator) -> Tensor:
        return params.new_zeros(len(params), 1)  # the index of the room

    def observe(self, params: Tensor, state: Tensor) -> Tensor:
        rows, room = torch.arange(len(state), device=state.device), state[:, 0].long()
        doors = self.tables(params)[0][rows, room]  # (n, 4)
        return torch.cat([F.one_hot(room, self.size**2).to(params.dtype), doors], 1)

    def step(
        self, params: Tensor, state: Tensor, action: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, room = torch.arange(len(state), device=state.device), state[:, 0].long()
        direction = action.argmax(-1)
        doors, goal = self.tables(params)
        is_open = doors[rows, room, direction] > 0
        target = self.neighbor.to(room.device)[room, direction]
        room = torch.where(is_open, target, room)
        reward = goal[rows, room]  # (n,) 1 at the goal
        return room[:, None].to(state.dtype), reward, reward > 0


@task_source
def mazes(
    split: str = "train",
    *,
    size: Annotated[int, Range(2)] = 4,
    horizon: Count = 20,
    episodes: Count = 3,
    loops: Fraction = 0.1,
) -> Mazes:
    """Mazes: find a hidden goal, and return to it in later episodes.

    Reference: Duan, Schulman, Chen, Bartlett, Sutskever and Abbeel 2016, "RL^2:
    fast reinforcement learning via slow reinforcement learning", arXiv:1611.02779,
    section 3.3, here on a grid.

    The maze and its goal stay the same during a trial; every episode starts in the top
    left room and ends at the goal, with a reward of 1. A maze is a random spanning
    tree, grown door by door from the first room (Prim 1957), plus some extra doors. All
    splits draw from the same mazes, from different seeds; small mazes may repeat.

    Args:
        size: number of rooms along each side.
        horizon: most steps in an episode.
        episodes: a trial has `episodes` * `horizon` steps; episodes that end early
            leave time for more of them.
        loops: share of the remaining walls in which a door is opened.
    """
    return Mazes(size, horizon, episodes, loops, split)
