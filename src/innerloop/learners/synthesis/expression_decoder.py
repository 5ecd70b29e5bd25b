"""A network that generates expressions symbol by symbol."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from innerloop.engine.precision import widened
from innerloop.nets.norm import LayerNorm
from innerloop.programs.grammar import Expression, Grammar
from innerloop.programs.search import Proposals


class Sampled(NamedTuple):
    """Symbols (n, steps) of expressions by number, 0 after the end, and the log
    probability (n,) of each expression.
    """

    symbols: Tensor
    log_p: Tensor


class ExpressionDecoder(nn.Module):
    """The next symbol of an expression, from the rest of every output and the symbols
    before it.

    log p(symbol) = log softmax(W relu(V [max_j z_j, mean_j z_j])), z_j = relu(B relu(A
    h_j + sum_i e(i, symbol_i))), over examples j and symbols i. Late pooling over
    examples, as in Devlin et al. 2017, arXiv:1703.07469, section 5.2.
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
        head, modifier = (
            1 + max(map(len, roles.values()), default=0)
            for roles in (grammar.heads, grammar.modifiers)
        )
        # symbols of an expression with its END
        self.longest = head + grammar.most * modifier + 1
        self.examples = nn.Linear(features, width)
        self.before = nn.Embedding(self.longest * self.vocabulary, width)
        nn.init.normal_(self.before.weight, std=0.3)
        self.each = nn.Linear(width, width)
        self.out = nn.Sequential(
            LayerNorm(2 * width),
            nn.Linear(2 * width, width),
            nn.ReLU(),
            nn.Linear(width, self.vocabulary),
        )

    def embedded(self, slot: Tensor | int, symbols: Tensor) -> Tensor:
        """What symbols by number (...,) at such places of an expression add to the sum
        (..., width).
        """
        return self.before(slot * self.vocabulary + symbols)

    def forward(self, examples: Tensor, before: Tensor) -> Tensor:
        """Log probabilities (..., vocabulary) from `self.examples` of the rests (...,
        shots, width) and sums (..., width) of the symbols before.
        """
        z = self.each((examples + before[..., None, :]).relu()).relu()
        pooled = torch.cat([z.amax(-2), z.mean(-2)], -1)
        return widened(self.out(pooled)).log_softmax(-1)

    def score(
        self, rest: Tensor, symbols: Tensor, slots: Tensor, same: Tensor
    ) -> Tensor:
        """Log probabilities (steps,) of symbols (steps,) at places `slots` of their
        expressions; `same` (steps, steps) says which belong to one expression.

        rest (shots, steps, features): of the outputs, where the expression of each
        symbol begins.
        """
        embedded = self.embedded(slots, symbols)  # (steps, width)
        before = same.to(embedded.dtype).tril(-1) @ embedded
        # (steps, vocabulary)
        log_p = self(self.examples(rest).transpose(-3, -2), before)
        return log_p.gather(-1, symbols[..., None])[..., 0]

    @torch.no_grad()
    def propose(self, rest: Tensor, beam: int) -> list[Proposals]:
        """For every position, likely expressions with their log probabilities, by beam
        search over symbols; rest (positions, shots, features).
        """
        n = len(rest)
        examples = self.examples(rest)[:, None]  # (n, 1, shots, width)
        before = examples.new_zeros(n, 1, examples.shape[-1])
        log_p = widened(examples).new_zeros(n, 1)
        # the automaton is followed on the CPU
        state = torch.zeros(n, 1, dtype=torch.long)
        symbols = torch.zeros(n, 1, 0, dtype=torch.long)
        found: list[list[tuple[float, list[int]]]] = [[] for _ in range(n)]
        following = self.get_buffer("following").cpu()
        for slot in range(self.longest):
            after = following[state]  # (n, beam, vocabulary)
            total = log_p[..., None] + self(examples, before)
            total = total.masked_fill((after < 0).to(log_p.device), -math.inf)
            total = total.flatten(1)
            log_p, best = total.topk(min(beam, total.shape[1]), -1)  # (n, beam)
            parent, symbol = best // self.vocabulary, best % self.vocabulary
            index = parent[..., None].expand(-1, -1, before.shape[-1])
            before = before.gather(1, index) + self.embedded(slot, symbol)
            likely, best = log_p.cpu(), best.cpu()
            parent, symbol = best // self.vocabulary, best % self.vocabulary
            state = after.flatten(1).gather(1, best)
            prefix = symbols.gather(1, parent[..., None].expand(-1, -1, slot))
            symbols = torch.cat([prefix, symbol[..., None]], -1)
            done = (state == Grammar.DONE) & likely.isfinite()
            for i, j in done.nonzero().tolist():
                found[i].append((float(likely[i, j]), symbols[i, j].tolist()))
            ended = (state == Grammar.DONE) | (state < 0)
            log_p = log_p.masked_fill(ended.to(log_p.device), -math.inf)
            state = state.clamp_min(0)
            if not bool(log_p.isfinite().any()):
                break
        return [
            [(p, self.expression(numbers)) for p, numbers in sorted(some, reverse=True)]
            for some in found
        ]

    def sample(self, rest: Tensor) -> Sampled:
        """One random expression for every position, drawn from torch's global
        generator; rest (positions, shots, features).
        """
        n, examples = len(rest), self.examples(rest)
        before = torch.zeros_like(examples[:, 0])
        log_p = widened(examples).new_zeros(n)
        state = torch.zeros(n, dtype=torch.long, device=rest.device)
        symbols: list[Tensor] = []
        for slot in range(self.longest):
            active = state != Grammar.DONE
            after = self.get_buffer("following")[state]  # (n, vocabulary)
            legal = (after >= 0) | ~active[:, None]
            logits = self(examples, before).masked_fill(~legal, -math.inf)
            logits = logits.log_softmax(-1)
            symbol = torch.distributions.Categorical(logits=logits.detach()).sample()
            chosen = symbol[:, None]
            log_p = log_p + logits.gather(1, chosen)[:, 0].where(active, 0)
            symbols.append(symbol.where(active, 0))
            before = before + self.embedded(slot, symbol)
            state = after.gather(1, chosen)[:, 0].where(active, Grammar.DONE)
            if not bool((state != Grammar.DONE).any()):
                break
        return Sampled(torch.stack(symbols, 1), log_p)

    def expression(self, numbers: list[int]) -> Expression:
        """The expression of such symbols, up to its END."""
        end = numbers.index(0) if 0 in numbers else len(numbers)
        return tuple(self.grammar.symbols[number] for number in numbers[:end])
