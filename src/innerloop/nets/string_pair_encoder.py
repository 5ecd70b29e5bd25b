"""A transformer that reads pairs of texts, and what is left of the second from any
place on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.nets.norm import LayerNorm

RUN = 12  # equal characters in a row are counted so far
INDEX, PLACE = 4, 16  # and so far matches of a kind, and places
ALIGNMENTS = 6  # what is told of runs


def shifted(values: Tensor, by: int) -> Tensor:
    """Values (..., n) moved `by` places to the right, or to the left where it is
    negative; zeros come in.
    """
    if not by:
        return values
    return (
        F.pad(values, (by, 0))[..., :-by]
        if by > 0
        else F.pad(values, (0, -by))[..., -by:]
    )


def runs(same: Tensor) -> tuple[Tensor, Tensor]:
    """How many equal characters follow each other from places p and q on, and the same
    where such a run ends instead of where it begins.

    same (..., m, n): whether characters p and q are equal. Both (..., m, n), at most
    RUN; where several runs from p end at q, the longest counts.
    """
    run = same = same.float()
    for _ in range(RUN - 1):
        run = same * (1 + F.pad(run, (0, 1, 0, 1))[..., 1:, 1:])
    end = torch.zeros_like(run)
    for length in range(1, RUN + 1):
        end = torch.maximum(end, shifted(length * (run == length), length - 1))
    return run, end


class StringPairEncoder(nn.Module):
    """Reads inputs x and outputs y, texts as rows of characters by number, 0 for none:
    what is left of y from every place on, beside x.

    A character of x knows its place from both ends and, where it begins or ends a match
    of a kind, which match it is from both ends. A character of y attends to those after
    it, and to x, where the attention is told how many characters are equal from here on
    (in each case, and in any), and where such a run ends. So the features at a place
    depend on nothing before it. The transformer is that of Vaswani et al. 2017,
    arXiv:1706.03762, section 3, normalised before each part.
    members (vocabulary, kinds): the characters of a kind. long (kinds): 1 where a match
    is as many as there are, 0 where it is one. folded (vocabulary,): the number of a
    character in lower case.
    """

    def __init__(
        self,
        members: Tensor,
        long: Tensor,
        folded: Tensor,
        width: int,
        heads: int,
        layers: int,
    ):
        super().__init__()
        self.register_buffer("members", members, persistent=False)
        self.register_buffer("long", long, persistent=False)
        self.register_buffer("folded", folded, persistent=False)
        vocabulary, kinds = members.shape
        self.characters = nn.Embedding(vocabulary, width)
        self.matches = nn.Linear((4 * kinds + 2) * INDEX, width, bias=False)
        self.prefetch = nn.Linear(3 * width, width)
        self.forth, self.back, self.left = (
            nn.Embedding(PLACE + 2, width) for _ in range(3)
        )
        self.longest = nn.ModuleList(nn.Embedding(RUN + 1, width) for _ in range(2))
        for table in (self.characters, self.forth, self.back, self.left, *self.longest):
            nn.init.normal_(table.weight, std=0.3)  # pyright: ignore[reportArgumentType]
        self.inputs, self.outputs = (
            AlignmentBlock(width, heads),
            nn.ModuleList(
                AlignmentBlock(width, heads, ALIGNMENTS) for _ in range(layers)
            ),
        )
        self.norm = LayerNorm(width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x (n, length) and y (n, length') to features (n, length', width) of what is
        left of y from each place on.
        """
        there_x, there_y = x > 0, y > 0
        read = (
            self.characters(x) + self.matches(self._matches(x)) + self._places(there_x)
        )
        read = self.inputs(read, there_x[:, None])  # (n, length, width)
        one = self.characters(F.pad(y, (0, 2)))
        ahead = torch.cat([one[:, :-2], one[:, 1:-1], one[:, 2:]], -1)
        left = there_y.flip(-1).cumsum(-1).flip(-1).clamp_max(PLACE + 1)
        both = there_y[:, :, None] & there_x[:, None]
        exact, _ = runs((y[:, :, None] == x[:, None]) & both)
        folded = self.get_buffer("folded")
        any_case, ends = runs((folded[y][:, :, None] == folded[x][:, None]) & both)
        longest = [
            table(run.amax(-1).long())
            for table, run in zip(self.longest, (exact, any_case), strict=True)
        ]
        z = self.prefetch(ahead) + self.left(left) + longest[0] + longest[1]
        later = torch.ones(
            y.shape[1], y.shape[1], dtype=torch.bool, device=y.device
        ).triu()
        alignments = torch.stack(
            [
                *(run / 4 for run in (exact, any_case, ends)),
                *((run > 0).float() for run in (exact, any_case, ends)),
            ],
            -1,
        )
        alignments = alignments.to(z.dtype)  # (n, length', length, ALIGNMENTS)
        for block in self.outputs:
            z = block(z, later & there_y[:, None], read, there_x[:, None], alignments)
        return self.norm(z)

    def _matches(self, x: Tensor) -> Tensor:
        """Which match of every kind begins, and ends, at a character, and the
        how-maniest of its like it is, from both ends; one-hot.
        """
        member = self.get_buffer("members")[x].mT  # (n, kinds, length)
        alone = 1 - self.get_buffer("long")[:, None]  # (kinds, 1)
        starts = member * torch.maximum(1 - shifted(member, 1), alone)
        stops = member * torch.maximum(1 - shifted(member, -1), alone)
        like = (x[:, :, None] == x[:, None]).to(member.dtype)
        own = (
            (like.tril().sum(-1) * (x > 0))[:, None],
            (like.triu().sum(-1) * (x > 0))[:, None],
        )
        counted = [
            starts * starts.cumsum(-1),
            starts * starts.flip(-1).cumsum(-1).flip(-1),
        ]
        counted += [
            stops * stops.cumsum(-1),
            stops * stops.flip(-1).cumsum(-1).flip(-1),
            *own,
        ]
        which = torch.cat(counted, 1).mT  # (n, length, 4 kinds + 2), 0 for none
        return (
            (which[..., None] == torch.arange(1, INDEX + 1, device=x.device))
            .to(self.characters.weight.dtype)
            .flatten(-2)
        )

    def _places(self, there: Tensor) -> Tensor:
        return self.forth(there.cumsum(-1).clamp_max(PLACE + 1)) + self.back(
            there.flip(-1).cumsum(-1).flip(-1).clamp_max(PLACE + 1)
        )


class AlignmentBlock(nn.Module):
    """Attention among tokens, attention to others and a two-layer network, each added
    to its input, normalised before.

    alignments: how many numbers bias the attention to others, 0 for no such attention.
    """

    def __init__(self, width: int, heads: int, alignments: int = 0):
        super().__init__()
        self.heads = heads
        self.before, self.projections, self.out = (
            LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.near = nn.Parameter(torch.zeros(heads, 2 * PLACE + 1))
        if alignments:
            self.before_others, self.asking = LayerNorm(width), nn.Linear(width, width)
            self.others, self.out_others = (
                nn.Linear(width, 2 * width),
                nn.Linear(width, width),
            )
            self.bias = nn.Linear(alignments, heads, bias=False)
            nn.init.uniform_(self.bias.weight, 0, 2)
        self.before_mlp = LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(
        self,
        z: Tensor,
        visible: Tensor,
        others: Tensor | None = None,
        there: Tensor | None = None,
        alignments: Tensor | None = None,
    ) -> Tensor:
        """Tokens z (n, m, width), who of them sees whom (n, m, m) or who is seen (n, 1,
        m); others (n, k, width), who of them is there (n, 1, k), and what is told of
        pairs (n, m, k, alignments).
        """
        q, k, v = (
            self._split(part) for part in self.projections(self.before(z)).chunk(3, -1)
        )
        places = torch.arange(z.shape[1], device=z.device)
        # (heads, m, m)
        near = self.near[
            :, (places[None] - places[:, None]).clamp(-PLACE, PLACE) + PLACE
        ]
        z = z + self.out(self._attended(q, k, v, near, visible))
        if others is not None and there is not None and alignments is not None:
            k, v = (self._split(part) for part in self.others(others).chunk(2, -1))
            # (n, heads, m, k)
            q, bias = (
                self._split(self.asking(self.before_others(z))),
                self.bias(alignments).movedim(-1, 1),
            )
            z = z + self.out_others(self._attended(q, k, v, bias, there))
        return z + self.mlp(self.before_mlp(z))

    def _split(self, z: Tensor) -> Tensor:
        # (n, heads, m, width / heads)
        return z.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def _attended(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, visible: Tensor
    ) -> Tensor:
        scores = q @ k.mT / q.shape[-1] ** 0.5 + bias
        scores = scores.masked_fill(~visible[:, None], -1e4)
        return (scores.softmax(-1) @ v).transpose(-3, -2).flatten(-2)
