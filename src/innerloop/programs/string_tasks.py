"""Random tasks of texts and a program, like those of spreadsheets: rows of one form,
and a program that has an output for all of them.
"""

from __future__ import annotations

from itertools import accumulate
from random import Random
from typing import NamedTuple

from innerloop.programs.grammar import Expression, Program, Symbol
from innerloop.programs.strings import (
    COUNT,
    DELIMITERS,
    GRAMMAR,
    INDEX,
    KINDS,
    PLACE,
    evaluate,
    ignores_input,
)


class StringTask(NamedTuple):
    """A program, texts, its outputs, and where in each output the part of every
    expression begins (rows, expressions).
    """

    program: Program
    inputs: list[str]
    outputs: list[str]
    begins: list[list[int]]


# delimiters between fields; a space is likelier
BETWEEN = " " * 10 + ",,--..//:_;@#|+&('="
CONSTANTS = [" ", ", ", "-", ".", ". ", "/", ":", ": ", "_", "@", "(", ")", ") ", " ("]
CONSTANTS += ["#", "; ", "|", " - ", "+", "0", "1", "20", "$", "&", "%"]
ONSETS = [*"bcdfghjklmnprstvwz", "th", "ch", "st", "br"]
NUCLEI = [*"aeiou", "ai", "ea", "oo"]
CODAS = ["", "", *"nrslmtkd"]
WHOLE_WORDS = "Mr Dr com org www USD kg Inc Street No ID Ltd EUR Jan Mar Sep Dec pm am"


def word(random: Random) -> str:
    """A lower-case word of one to three syllables."""
    return "".join(
        random.choice(ONSETS) * (random.random() < 0.85)
        + random.choice(NUCLEI)
        + random.choice(CODAS)
        for _ in range(random.choice((1, 1, 2, 2, 3)))
    )


def field(kind: str, random: Random) -> str:
    """A random text of that kind."""
    match kind:
        case "proper":
            return word(random).capitalize()
        case "lower":
            return word(random)
        case "caps":
            return word(random).upper()[:5]
        case "number":
            length = random.choice((1, 2, 2, 3, 3, 4, 4, 5, 6))
            return "".join(random.choices("0123456789", k=length))
        case "code":
            letters = word(random).upper()[: random.choice((1, 2, 3))]
            return letters + str(random.randrange(10 ** random.choice((1, 2, 3, 4))))
        case "letter":
            return random.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        case _:
            return random.choice(WHOLE_WORDS.split())


FIELDS = (
    ("proper",) * 6
    + ("lower",) * 4
    + ("number",) * 5
    + ("caps", "caps", "code", "code", "letter", "common")
)


def rows(n: int, longest: int, random: Random) -> list[str]:
    """n different texts of one form: fields of fixed kinds and the delimiters between
    them, some fields absent in some rows.
    """
    while True:
        count = random.choice((1, 2, 2, 2, 3, 3, 3, 4, 4, 5))
        kinds = [random.choice(FIELDS) for _ in range(count)]
        delimiters = [random.choice(BETWEEN) for _ in range(count - 1)]
        if count > 2 and random.random() < 0.4:  # one delimiter throughout, as in dates
            delimiters = [delimiters[0]] * (count - 1)
        if random.random() < 0.25:
            kinds = [kinds[0]] * count
        spaced = random.random() < 0.2
        optional = (
            random.randrange(1, count) if count > 1 and random.random() < 0.3 else None
        )
        fixed = {
            i: field(kind, random)
            for i, kind in enumerate(kinds)
            if random.random() < 0.05
        }
        around = ""
        if count < 4:
            around = random.choice(
                ("", "", "", "", "", "", "", "", "()", " ", "#", "$")
            )
        found: dict[str, None] = {}
        for _ in range(3 * n):
            parts = [around[:1]]
            for i, kind in enumerate(kinds):
                if i == optional and random.random() < 0.5:
                    continue
                if i:
                    delimiter = delimiters[i - 1]
                    parts.append(
                        delimiter + " " if spaced and delimiter in ",;:" else delimiter
                    )
                parts.append(fixed.get(i) or field(kind, random))
            text = "".join(parts) + around[1:]
            if len(text) <= longest:
                found[text] = None
            if len(found) == n:
                return list(found)


HEADS = (
    ("token",) * 8
    + ("sub",) * 2
    + ("span",) * 6
    + ("before",) * 4
    + ("after",) * 4
    + ("all", "all", "whole")
)
MODIFIERS = (
    ("first",) * 4
    + ("upper", "lower", "token") * 3
    + ("before", "after", "last", "proper", "replace") * 2
    + ("remove", "trim")
)


def expression(texts: list[str], random: Random) -> Expression:
    """A random expression that is likely to have an output for these texts."""
    text = random.choice(texts)
    there = [d for d in DELIMITERS if d in text]

    def argument(role: str) -> Symbol:
        match role:
            case "kind":
                return random.choice(
                    ("Word", "Word", "Number", "Number", "Alnum", *KINDS)
                )
            case "match":
                return (
                    random.choice(there)
                    if there and random.random() < 0.5
                    else random.choice(("Word", "Number", "Alnum", *KINDS))
                )
            case "index":
                likely = (1, 1, 1, 1, 2, 2, 2, 3, -1, -1, -1, -2, -2, -3)
                every = (*range(1, INDEX + 1), *range(-INDEX, 0))
                return random.choice((*likely, *every))
            case "place":
                place = random.randint(1, min(PLACE, len(text)))
                return random.choice((place, place, -place))
            case "count":
                return random.choice((1, 1, 1, 1, 2, 2, 3, 3, *range(1, COUNT + 1)))
            case "delimiter":
                return (
                    random.choice(there)
                    if there and random.random() < 0.7
                    else random.choice(DELIMITERS)
                )
            case _:
                return random.choice(GRAMMAR.roles[role])

    name = random.choice(HEADS)
    symbols: list[Symbol] = [name, *map(argument, GRAMMAR.heads[name])]
    for _ in range(random.choice((0, 0, 1, 1, 1, 2, 2, 2, 3, 3))):
        name = random.choice(MODIFIERS)
        symbols += [name, *map(argument, GRAMMAR.modifiers[name])]
    return tuple(symbols)


def part(
    texts: list[str], longest: int, random: Random
) -> tuple[Expression, list[str]] | None:
    """A random expression and its outputs for the texts, which are not all the same;
    every modifier of it has an effect, and no simpler expression does the same. None
    where none was found.
    """
    for _ in range(30):
        drawn = expression(texts, random)
        outputs: list[str] = []
        for text in texts:
            found = evaluate(drawn, text)
            if found is None or len(found) > longest:
                break
            outputs.append(found)
        if (
            len(outputs) == len(texts)
            and len(set(outputs)) > 1
            and not idle(drawn, texts, outputs)
            and not too_complex(drawn, texts, outputs)
        ):
            return drawn, outputs
    return None


def idle(drawn: Expression, texts: list[str], outputs: list[str]) -> bool:
    """Whether a modifier of an expression has no effect on any of the texts."""
    starts = [
        i
        for i, symbol in enumerate(drawn)
        if i and symbol in GRAMMAR.modifiers and len(str(symbol)) > 1
    ]
    ends = [*starts, len(drawn)][1:]
    return any(
        [evaluate((*drawn[:i], *drawn[end:]), text) for text in texts] == outputs
        for i, end in zip(starts, ends, strict=True)
    )


SIMPLE: list[Expression] = [
    ("token", kind, i) for kind in KINDS for i in GRAMMAR.roles["index"]
]
SIMPLE += [
    (side, what, i)
    for side in ("before", "after")
    for what in GRAMMAR.roles["match"]
    for i in (1, 2, -1, -2)
]


def too_complex(drawn: Expression, texts: list[str], outputs: list[str]) -> bool:
    """Whether one of the simple expressions has the outputs of a longer one."""
    if len(drawn) <= 3:
        return False
    pairs = list(zip(texts, outputs, strict=True))
    return any(
        all(evaluate(simple, text) == output for text, output in pairs)
        for simple in SIMPLE
    )


def constant(random: Random, likely: float) -> str:
    """A random constant, with this probability one of CONSTANTS, else a word."""
    if random.random() < likely:
        return random.choice(CONSTANTS)
    return field("common", random)


def string_task(
    random: Random, n: int, longest: int, most: int, symbols: int
) -> StringTask:
    """A task of n texts of at most `longest` characters, with a program of at most
    `most` expressions that are no constants and at most so many `symbols`.

    Its outputs are no longer and mostly differ, and neither the input nor a constant
    alone solves it.
    """
    while True:
        texts = rows(n, longest, random)
        # expressions, and what they write for each text
        parts: list[tuple[Expression, list[str]]] = []
        for i in range(min(most, random.choice((1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4)))):
            if random.random() < (0.25 if i == 0 else 0.65):
                parts += [((c,), [c] * n) for c in constant(random, 0.9)]
            found = part(texts, longest, random)
            if found:
                parts.append(found)
        if parts and random.random() < 0.12:
            parts += [((c,), [c] * n) for c in constant(random, 0.7)]
        program = tuple(expression for expression, _ in parts)
        written = [[outputs[row] for _, outputs in parts] for row in range(n)]
        outputs = ["".join(row) for row in written]
        begins = [[0, *accumulate(map(len, row))][:-1] for row in written]
        if (
            program
            and not ignores_input(program)
            and max(map(len, outputs)) <= longest
            and outputs != texts
            and len(set(outputs)) > n // 2
            and len(GRAMMAR.encode(program)) <= symbols
        ):
            return StringTask(program, texts, outputs, begins)
