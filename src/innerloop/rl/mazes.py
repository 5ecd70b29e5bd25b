"""Mazes: find the goal, then run to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.engine.errors import InnerloopError
from innerloop.rl.environment import Environment
from innerloop.tasks.splits import check_split

# up, right, down, left: rows and columns
MOVES = torch.tensor([[-1, 0], [0, 1], [1, 0], [0, -1]])


class Mazes(Environment):
    """A random maze of size x size rooms with a goal that is not seen: 1 for reaching
    it, then the next episode begins at the top left.

    In the manner of Duan et al. 2016, arXiv:1611.02779, section 3.3, on a grid: the
    maze stays for a trial, so that whoever remembers the way is there sooner and more
    often. Seen are the room that one is in, one-hot, and in which of four directions
    there is a door. Mazes are trees: random doors are opened from where one is to where
    one is not yet, until every room is reached (Prim 1957), and `loops` of the walls
    that are left are taken away.
    """

    def __init__(
        self, size: int = 4, horizon: int = 20, episodes: int = 3, loops: float = 0.1
    ):
        if size < 2 or not 0 <= loops <= 1:
            raise InnerloopError(
                f"a maze has at least 2 x 2 rooms, and loses 0 to 1 of its walls, not {size} and {loops}"
            )
        super().__init__((size**2 + 4,), 4, horizon, episodes)
        self.size, self.loops = size, loops
        room = torch.arange(size**2)
        # (rooms, 4, 2)
        there = torch.stack([room // size, room % size], -1)[:, None] + MOVES
        self.inside = ((there >= 0) & (there < size)).all(-1)  # (rooms, 4)
        # (rooms, 4) the room behind every door
        self.beside = (there[..., 0] * size + there[..., 1]).where(self.inside, 0)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        rooms, rows = self.size**2, torch.arange(n)
        doors = torch.zeros(n, rooms, 4, dtype=torch.bool)
        reached = F.one_hot(torch.zeros(n, dtype=torch.long), rooms).bool()
        for _ in range(rooms - 1):
            # (n, rooms, 4)
            new = reached[..., None] & ~reached[:, self.beside] & self.inside
            chosen = (
                torch.rand(n, rooms * 4, generator=generator)
                .where(new.flatten(1), -1.0)
                .argmax(-1)
            )
            room, way = chosen // 4, chosen % 4
            doors[rows, room, way] = True
            reached[rows, self.beside[room, way]] = True
        doors |= (
            torch.rand(n, rooms, 4, generator=generator) < self.loops
        ) & self.inside
        # a door leads both ways
        back = doors[:, self.beside, torch.tensor([2, 3, 0, 1])] & self.inside
        goal = F.one_hot(torch.randint(1, rooms, (n,), generator=generator), rooms)
        return torch.cat([(doors | back).flatten(1).float(), goal], 1)  # (n, 5 rooms)

    def start(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        return parameters.new_zeros(len(parameters), 1)  # the number of the room

    def look(self, parameters: Tensor, where: Tensor) -> Tensor:
        rows, room = torch.arange(len(where), device=where.device), where[:, 0].long()
        # (n, 4)
        doors = parameters[:, : 4 * self.size**2].unflatten(1, (-1, 4))[rows, room]
        return torch.cat([F.one_hot(room, self.size**2).to(parameters.dtype), doors], 1)

    def step(
        self,
        parameters: Tensor,
        where: Tensor,
        action: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, room, way = (
            torch.arange(len(where), device=where.device),
            where[:, 0].long(),
            action.argmax(-1),
        )
        through = (
            parameters[:, : 4 * self.size**2].unflatten(1, (-1, 4))[rows, room, way] > 0
        )
        room = torch.where(through, self.beside.to(room.device)[room, way], room)
        found = parameters[:, 4 * self.size**2 :][rows, room]  # (n,) 1 at the goal
        return room[:, None].to(where.dtype), found, found > 0


def mazes(
    split: str = "train", *, size: int = 4, horizon: int = 20, episodes: int = 3
) -> Mazes:
    """Random mazes; every split draws from the same continuum, in which hardly any comes
    twice.
    """
    check_split(split)
    return Mazes(size, horizon, episodes)
