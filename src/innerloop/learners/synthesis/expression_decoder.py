"""A network that writes expressions symbol by symbol, and what it proposes and
draws.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from innerloop.engine.precision import widened
from innerloop.nets.norm import LayerNorm
from innerloop.programs.grammar import Expression, Grammar
from innerloop.programs.search import Proposals


class Drawn(NamedTuple):
    """Symbols (n, steps) of expressions by number, 0 after the end, and the log
    probability (n,) of each expression.
    """

    symbols: Tensor
    log_p: Tensor


class ExpressionDecoder(nn.Module):
    """The next symbol of an expression, from what is left of every example and the
    symbols before it.

    log p(symbol) = log softmax(W relu(V [max_j z_j, mean_j z_j])), z_j = relu(B relu(A
    h_j + sum_i e(i, symbol_i))), over examples j and symbols i Pooled late, over what
    is made of every example, as in Devlin et al. 2017, arXiv:1703.07469, section 5.2.
    """

    def __init__(self, grammar: Grammar, features: int, width: int):
        super().__init__()
        self.grammar = grammar
        self.vocabulary = len(grammar.symbols)
        following = torch.full((len(grammar.following), self.vocabulary), -1)
        for state, after in enumerate(grammar.following):
            for number, next_state in after.items():
                following[state, number] = next_state
        self.register_buffer("following", following, persistent=False)
        arguments = [
            1 + max(map(len, part.values()), default=0)
            for part in (grammar.heads, grammar.modifiers)
        ]
        # symbols of an expression with its END
        self.longest = arguments[0] + grammar.most * arguments[1] + 1
        self.examples, self.before = (
            nn.Linear(features, width),
            nn.Embedding(self.longest * self.vocabulary, width),
        )
        nn.init.normal_(self.before.weight, std=0.3)
        self.each = nn.Linear(width, width)
        self.out = nn.Sequential(
            LayerNorm(2 * width),
            nn.Linear(2 * width, width),
            nn.ReLU(),
            nn.Linear(width, self.vocabulary),
        )

    def told(self, slot: Tensor | int, symbols: Tensor) -> Tensor:
        """What symbols by number (...,) in such places of an expression add to the sum
        (..., width).
        """
        return self.before(slot * self.vocabulary + symbols)

    def forward(self, examples: Tensor, before: Tensor) -> Tensor:
        """Log probabilities (..., vocabulary), of `self.examples` of what is left (...,
        shots, width) and sums (..., width) of symbols.
        """
        z = self.each((examples + before[..., None, :]).relu()).relu()
        return widened(self.out(torch.cat([z.amax(-2), z.mean(-2)], -1))).log_softmax(
            -1
        )

    def score(
        self, left: Tensor, symbols: Tensor, slots: Tensor, same: Tensor
    ) -> Tensor:
        """Log probabilities (steps,) of symbols (steps,) in places `slots` of their
        expressions, of which `same` (steps, steps) says who are of one.

        left (shots, steps, features): what is left where each symbol's expression
        begins.
        """
        told = self.told(slots, symbols)  # (steps, width)
        before = same.to(told.dtype).tril(-1) @ told
        # (steps, vocabulary)
        log_p = self(self.examples(left).transpose(-3, -2), before)
        return log_p.gather(-1, symbols[..., None])[..., 0]

    @torch.no_grad()
    def propose(self, left: Tensor, beam: int) -> list[Proposals]:
        """For every place, likely expressions with their log probabilities, by beam
        search over symbols; left (places, shots, features).
        """
        n = len(left)
        examples = self.examples(left)[:, None]  # (n, 1, shots, width)
        before, log_p = (
            examples.new_zeros(n, 1, examples.shape[-1]),
            widened(examples).new_zeros(n, 1),
        )
        state, symbols = (
            torch.zeros(n, 1, dtype=torch.long),
            torch.zeros(n, 1, 0, dtype=torch.long),
        )
        found: list[list[tuple[float, list[int]]]] = [[] for _ in range(n)]
        following = self.get_buffer("following").cpu()
        for slot in range(self.longest):
            after = following[state]  # (n, live, vocabulary)
            total = (
                (log_p[..., None] + self(examples, before))
                .masked_fill((after < 0).to(log_p.device), -math.inf)
                .flatten(1)
            )
            log_p, best = total.topk(min(beam, total.shape[1]), -1)
            of, symbol = best // self.vocabulary, best % self.vocabulary
            state = after.flatten(1).gather(1, best.cpu())
            symbols = torch.cat(
                [
                    symbols.gather(1, of.cpu()[..., None].expand(-1, -1, slot)),
                    symbol.cpu()[..., None],
                ],
                -1,
            )
            before = before.gather(
                1, of[..., None].expand(-1, -1, before.shape[-1])
            ) + self.told(slot, symbol)
            done = (state == Grammar.DONE) & log_p.isfinite().cpu()
            for i, j in done.nonzero().tolist():
                found[i].append((float(log_p[i, j]), symbols[i, j].tolist()))
            log_p = log_p.masked_fill(
                ((state == Grammar.DONE) | (state < 0)).to(log_p.device), -math.inf
            )
            state = state.clamp_min(0)
            if not bool(log_p.isfinite().any()):
                break
        return [
            [(p, self.expression(numbers)) for p, numbers in sorted(some, reverse=True)]
            for some in found
        ]

    def draw(self, left: Tensor) -> Drawn:
        """One random expression for every place; left (places, shots, features)."""
        n, examples = len(left), self.examples(left)
        before, log_p = torch.zeros_like(examples[:, 0]), widened(examples).new_zeros(n)
        state, symbols = torch.zeros(n, dtype=torch.long, device=left.device), []
        for slot in range(self.longest):
            going = state != Grammar.DONE
            after = self.get_buffer("following")[state]  # (n, vocabulary)
            legal = (after >= 0) | ~going[:, None]
            logits = (
                self(examples, before).masked_fill(~legal, -math.inf).log_softmax(-1)
            )
            symbol = torch.distributions.Categorical(logits=logits.detach()).sample()
            log_p = log_p + logits.gather(1, symbol[:, None])[:, 0].where(going, 0)
            symbols.append(symbol.where(going, 0))
            before = before + self.told(slot, symbol)
            state = after.gather(1, symbol[:, None])[:, 0].where(going, Grammar.DONE)
            if not bool((state != Grammar.DONE).any()):
                break
        return Drawn(torch.stack(symbols, 1), log_p)

    def expression(self, numbers: list[int]) -> Expression:
        """The expression of such symbols, up to its END."""
        end = numbers.index(0) if 0 in numbers else len(numbers)
        return tuple(self.grammar.symbols[number] for number in numbers[:end])
