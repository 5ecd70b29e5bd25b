"""A transformer that reads pairs of texts: the rest of the second text from every
position on, with the first text.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.nets.norm import LayerNorm

RUN = 12  # the longest run of equal characters that is counted
INDEX, PLACE = 4, 16  # the largest index of a match, and place, with its own embedding
ALIGNMENTS = 6  # features of a pair of characters


def shifted(values: Tensor, by: int) -> Tensor:
    """Values (..., n) moved `by` places to the right, or to the left where it is
    negative; padded with zeros.
    """
    if by > 0:
        return F.pad(values, (by, 0))[..., :-by]
    return F.pad(values, (0, -by))[..., -by:]


def runs(same: Tensor) -> tuple[Tensor, Tensor]:
    """How many equal characters follow each other from places p and q on, and the same
    at the place where such a run ends instead of where it starts.

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


def from_end(values: Tensor) -> Tensor:
    """Cumulative sums over the last axis from its end."""
    return values.flip(-1).cumsum(-1).flip(-1)


class StringPairEncoder(nn.Module):
    """Reads inputs x and outputs y, texts as rows of character numbers, 0 for none, and
    encodes the rest of y from every position on, with x.

    A character of x is embedded with its place from both ends and, where it starts or
    ends a match of a kind, with the index of this match from both ends. A character of
    y attends to those after it, and to x, with a bias that depends on how many
    characters are equal from there on (with and without case), and on where such a run
    ends. So the features at a position depend on nothing before it.

    The transformer: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and
    Polosukhin 2017, "Attention is all you need", arXiv:1706.03762, section 3, with
    normalization before each part.

    Args:
        members: the characters of each kind (vocabulary, kinds).
        long: 1 where a match of a kind is as long as possible, 0 where it is a single
            character (kinds,).
        folded: the number of each character in lower case (vocabulary,).
        width: size of a token of the transformer.
        heads: attention heads of the transformer.
        layers: layers of the transformer.
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
        self.lookahead = nn.Linear(3 * width, width)
        self.from_start = nn.Embedding(PLACE + 2, width)
        self.from_end = nn.Embedding(PLACE + 2, width)
        self.remaining = nn.Embedding(PLACE + 2, width)
        self.longest_exact = nn.Embedding(RUN + 1, width)
        self.longest_folded = nn.Embedding(RUN + 1, width)
        for module in self.children():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.3)
        self.inputs = AlignmentBlock(width, heads)
        self.outputs = nn.ModuleList(
            AlignmentBlock(width, heads, ALIGNMENTS) for _ in range(layers)
        )
        self.norm = LayerNorm(width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x (n, length) and y (n, length') to features (n, length', width) of the rest
        of y from each position on.
        """
        in_x, in_y = x > 0, y > 0
        encoded = self.characters(x) + self.matches(self._matches(x))
        encoded = encoded + self._places(in_x)
        encoded = self.inputs(encoded, in_x[:, None])  # (n, length, width)
        next_characters = self.characters(F.pad(y, (0, 2)))
        windows = [next_characters[:, i : i + y.shape[1]] for i in range(3)]
        remaining = from_end(in_y.long()).clamp_max(PLACE + 1)
        both = in_y[:, :, None] & in_x[:, None]
        exact, _ = runs((y[:, :, None] == x[:, None]) & both)
        lower = self.get_buffer("folded")
        folded, ends = runs((lower[y][:, :, None] == lower[x][:, None]) & both)
        z = self.lookahead(torch.cat(windows, -1)) + self.remaining(remaining)
        z = z + self.longest_exact(exact.amax(-1).long())
        z = z + self.longest_folded(folded.amax(-1).long())
        counts = torch.stack([exact, folded, ends], -1)
        # (n, length', length, ALIGNMENTS)
        alignments = torch.cat([counts / 4, (counts > 0).float()], -1).to(z.dtype)
        size = y.shape[1]
        later = torch.ones(size, size, dtype=torch.bool, device=y.device).triu()
        visible = later & in_y[:, None]
        for block in self.outputs:
            z = block(z, visible, encoded, in_x[:, None], alignments)
        return self.norm(z)

    def _matches(self, x: Tensor) -> Tensor:
        """For each character, one-hot (n, length, (4 kinds + 2) INDEX): the index of
        the match of every kind that starts, or ends, there, and of the character among
        its equals, each from both ends.
        """
        member = self.get_buffer("members")[x].mT  # (n, kinds, length)
        single = 1 - self.get_buffer("long")[:, None]  # (kinds, 1)
        starts = member * torch.maximum(1 - shifted(member, 1), single)
        stops = member * torch.maximum(1 - shifted(member, -1), single)
        equal = (x[:, :, None] == x[:, None]).to(member.dtype)
        counts = [
            starts * starts.cumsum(-1),
            starts * from_end(starts),
            stops * stops.cumsum(-1),
            stops * from_end(stops),
            (equal.tril().sum(-1) * (x > 0))[:, None],
            (equal.triu().sum(-1) * (x > 0))[:, None],
        ]
        index = torch.cat(counts, 1).mT  # (n, length, 4 kinds + 2), 0 for none
        numbers = torch.arange(1, INDEX + 1, device=x.device)
        one_hot = index[..., None] == numbers
        return one_hot.to(self.characters.weight.dtype).flatten(-2)

    def _places(self, present: Tensor) -> Tensor:
        first = present.long().cumsum(-1).clamp_max(PLACE + 1)
        last = from_end(present.long()).clamp_max(PLACE + 1)
        return self.from_start(first) + self.from_end(last)


class AlignmentBlock(nn.Module):
    """Self-attention, attention to other tokens and a two-layer network, each added to
    its input, with normalization before.

    Args:
        width, heads: of the attention.
        alignments: number of features that bias the attention to other tokens; 0 for a
            block without this attention.
    """

    def __init__(self, width: int, heads: int, alignments: int = 0):
        super().__init__()
        self.heads = heads
        self.before = LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.near = nn.Parameter(torch.zeros(heads, 2 * PLACE + 1))
        if alignments:
            self.before_others = LayerNorm(width)
            self.queries = nn.Linear(width, width)
            self.others = nn.Linear(width, 2 * width)
            self.out_others = nn.Linear(width, width)
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
        present: Tensor | None = None,
        alignments: Tensor | None = None,
    ) -> Tensor:
        """Tokens z (n, m, width); which of them each can see, visible (n, m, m) or (n,
        1, m); others (n, k, width), which of these are present (n, 1, k), and features
        of pairs (n, m, k, alignments).
        """
        projected = self.projections(self.before(z)).chunk(3, -1)
        q, k, v = (self._split(part) for part in projected)
        places = torch.arange(z.shape[1], device=z.device)
        offsets = (places[None] - places[:, None]).clamp(-PLACE, PLACE)
        near = self.near[:, offsets + PLACE]  # (heads, m, m)
        z = z + self.out(self._attended(q, k, v, near, visible))
        if others is not None and present is not None and alignments is not None:
            k, v = (self._split(part) for part in self.others(others).chunk(2, -1))
            q = self._split(self.queries(self.before_others(z)))
            bias = self.bias(alignments).movedim(-1, 1)  # (n, heads, m, k)
            z = z + self.out_others(self._attended(q, k, v, bias, present))
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
