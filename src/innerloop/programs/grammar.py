"""Which symbols may follow each other in an expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from innerloop.engine.errors import InnerloopError

Symbol = str | int
Expression = tuple[Symbol, ...]
Program = tuple[Expression, ...]

END = ""  # ends an expression that could continue


class Grammar:
    """Expressions as a deterministic automaton: a head and its arguments, then up to
    `most` modifiers with theirs, then END.

    heads, modifiers: the roles of their arguments, by name. roles: the symbols that an
    argument of a role may be. constants: heads that are expressions by themselves,
    without END. After a symbol, `following[state][symbol number]` is the next state;
    state 0 is the beginning, 1 the end. symbols: all of them, END first: a symbol's
    number is its place.
    """

    START, DONE = 0, 1

    def __init__(
        self,
        heads: Mapping[str, Sequence[str]],
        modifiers: Mapping[str, Sequence[str]],
        roles: Mapping[str, Sequence[Symbol]],
        constants: Sequence[str] = (),
        most: int = 0,
    ):
        self.heads, self.modifiers, self.roles, self.constants, self.most = (
            heads,
            modifiers,
            roles,
            frozenset(constants),
            most,
        )
        names = [
            END,
            *heads,
            *modifiers,
            *dict.fromkeys(symbol for role in roles.values() for symbol in role),
        ]
        self.symbols: tuple[Symbol, ...] = tuple(dict.fromkeys([*names, *constants]))
        self.number = {symbol: i for i, symbol in enumerate(self.symbols)}
        self.following: list[dict[int, int]] = [{}, {}]
        # whole but for modifiers, of which there were 0, 1, ...
        after: list[int] = [self._state() for _ in range(most + 1)]
        for count, state in enumerate(after):
            self.following[state][0] = self.DONE
            if count < most:
                self._chains(state, modifiers, after[count + 1])
        self._chains(self.START, heads, after[0])
        for symbol in constants:
            self.following[self.START][self.number[symbol]] = self.DONE

    def _state(self) -> int:
        self.following.append({})
        return len(self.following) - 1

    def _chains(self, start: int, named: Mapping[str, Sequence[str]], end: int) -> None:
        """Paths from `start` over a name and its arguments to `end`."""
        for name, roles in named.items():
            state, symbols = start, [self.number[name]]
            for role in roles:
                next_state = self._state()
                self.following[state] |= dict.fromkeys(symbols, next_state)
                state, symbols = (
                    next_state,
                    [self.number[symbol] for symbol in self.roles[role]],
                )
            self.following[state] |= dict.fromkeys(symbols, end)

    def encode(self, program: Program) -> list[int]:
        """A program as the numbers of its symbols, every expression but the constants
        with its END. Raises ValueError where it is none.
        """
        numbers: list[int] = []
        for expression in program:
            state = self.START
            for symbol in (
                *expression,
                *([] if expression[:1] and expression[0] in self.constants else [END]),
            ):
                number = self.number.get(symbol, -1)
                if number not in self.following[state]:
                    raise InnerloopError(
                        f"{symbol!r} may not stand where it stands in {expression}"
                    )
                state = self.following[state][number]
                numbers.append(number)
        return numbers

    def decode(self, numbers: Sequence[int]) -> Program:
        """The program of such numbers. Raises ValueError where they are none."""
        program: list[Expression] = []
        state, expression = self.START, []
        for number in numbers:
            if number not in self.following[state]:
                raise InnerloopError(
                    f"symbol number {number} may not follow {expression}"
                )
            state = self.following[state][number]
            if number:
                expression.append(self.symbols[number])
            if state == self.DONE:
                program.append(tuple(expression))
                state, expression = self.START, []
        if expression:
            raise InnerloopError(f"the expression {expression} is not whole")
        return tuple(program)
