"""A language of programs from strings to strings, as in spreadsheets.

A program is a sum of expressions: it concatenates their outputs. An expression is a
constant character, or a part of the input x:

    x                                   the whole input
    sub(a, b)                           characters a to b, from 1; -1 is the last
    token(Word, i)                      the i-th match of a token class; -1 is the last
    span(Word, i, start, ",", j, stop)  from the start of the i-th match of a token
                                        class or delimiter to the end of the j-th match
                                        of another
    before(",", i), after(",", i)       everything before, or after, the i-th match
    all(Number)                         all matches of a token class, concatenated

and up to three modifiers: .token(Word, i) .before(",", i) .after(",", i) .upper()
.lower() .proper() .trim() .first(n) .last(n) .remove("-") .replace("-", " "). For
example, the host name of an e-mail address is after("@", 1).before(".", 1).

Reference: Gulwani 2011, "Automating string processing in spreadsheets using
input-output examples", POPL, section 3, and Devlin et al. 2017, arXiv:1703.07469,
figure 2.

An expression without a match has no output, and neither does its program: `run` never
raises, and terminates on every input.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby

import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError
from innerloop.programs.grammar import Expression, Grammar, Program, Symbol

KINDS = {
    "Number": r"[0-9]+",
    "Word": r"[^\W\d_]+",
    "Alnum": r"[^\W_]+",
    "Caps": r"[A-ZÀ-ÖØ-Þ]+",
    "Lower": r"[a-zß-öø-ÿ]+",
    "Proper": r"[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ]+",
    "Digit": r"[0-9]",
    "Letter": r"[^\W\d_]",
}
DELIMITERS = " .,-_/:;@#&+|()'\"=%$"
CHARACTERS = "".join(map(chr, range(32, 127)))
VOCABULARY = len(CHARACTERS) + 2  # of texts as numbers: none, these, any other
PLACE, INDEX, COUNT = 16, 4, 6  # sub, token and first go so far
LONGEST = 1000  # characters of a text; of what is longer there is no output

_WHERE = ("match", "index", "edge") * 2
_HEAD_ROLES: dict[str, tuple[str, ...]] = {
    "whole": (),
    "sub": ("place", "place"),
    "token": ("kind", "index"),
    "span": _WHERE,
    "before": ("match", "index"),
    "after": ("match", "index"),
    "all": ("kind",),
}
_MODIFIER_ROLES: dict[str, tuple[str, ...]] = {
    "token": ("kind", "index"),
    "before": ("match", "index"),
    "after": ("match", "index"),
    "upper": (),
    "lower": (),
    "proper": (),
    "trim": (),
    "first": ("count",),
    "last": ("count",),
    "remove": ("delimiter",),
    "replace": ("delimiter", "delimiter"),
}


def _grammar(kinds: Sequence[str], delimiters: Sequence[str]) -> Grammar:
    roles: dict[str, tuple[Symbol, ...]] = {
        "kind": tuple(kinds),
        "edge": ("start", "stop"),
        "index": tuple(i for i in range(-INDEX, INDEX + 1) if i),
        "place": tuple(i for i in range(-PLACE, PLACE + 1) if i),
        "count": tuple(range(1, COUNT + 1)),
        "delimiter": tuple(delimiters),
        "match": (*kinds, *delimiters),
    }
    heads, modifiers = (
        {name: some for name, some in named.items() if all(roles[r] for r in some)}
        for named in (_HEAD_ROLES, _MODIFIER_ROLES)
    )
    return Grammar(heads, modifiers, roles, constants=tuple(CHARACTERS), most=3)


GRAMMAR = _grammar(tuple(KINDS), DELIMITERS)
_PATTERNS = {
    **{name: re.compile(pattern) for name, pattern in KINDS.items()},
    **{d: re.compile(re.escape(d)) for d in DELIMITERS},
}


def grammar_for(texts: Sequence[str]) -> Grammar:
    """The language with those kinds and delimiters only that occur in one of the texts:
    others find and change nothing in them.
    """
    found = [w for w in (*KINDS, *DELIMITERS) if any(map(_PATTERNS[w].search, texts))]
    return _grammar(
        [what for what in found if what in KINDS],
        [what for what in found if what not in KINDS],
    )


@lru_cache(1 << 16)
def matches(what: str, text: str) -> tuple[tuple[int, int], ...]:
    """Where the matches of a kind or delimiter begin and end."""
    return tuple(match.span() for match in _PATTERNS[what].finditer(text))


def _match(what: str, index: int, text: str) -> tuple[int, int] | None:
    found = matches(what, text)
    place = index - 1 if index > 0 else len(found) + index
    return found[place] if 0 <= place < len(found) else None


def _sub(text: str, first: int, last: int) -> str:
    begin, end = (
        place - 1 if place > 0 else len(text) + place for place in (first, last)
    )
    return text[begin : end + 1] if 0 <= begin <= end < len(text) else ""


def _token(text: str, kind: str, index: int) -> str:
    found = _match(kind, index, text)
    return text[found[0] : found[1]] if found else ""


def _span(
    text: str,
    what: str,
    index: int,
    edge: str,
    until: str,
    index_until: int,
    edge_until: str,
) -> str:
    begin, end = _match(what, index, text), _match(until, index_until, text)
    return (
        text[begin[edge == "stop"] : end[edge_until == "stop"]] if begin and end else ""
    )


def _before(text: str, what: str, index: int) -> str:
    found = _match(what, index, text)
    return text[: found[0]] if found else ""


def _after(text: str, what: str, index: int) -> str:
    found = _match(what, index, text)
    return text[found[1] :] if found else ""


_HEADS: dict[Symbol, Callable[..., str]] = {
    "whole": lambda text: text,
    "token": _token,
    "sub": _sub,
    "span": _span,
    "before": _before,
    "after": _after,
    "all": lambda text, kind: "".join(
        text[begin:end] for begin, end in matches(kind, text)
    ),
}
_MODIFIERS: dict[Symbol, Callable[..., str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "trim": str.strip,
    "proper": lambda text: _PATTERNS["Word"].sub(
        lambda word: word[0].capitalize(), text
    ),
    "first": lambda text, n: text[:n] if len(text) >= n else "",
    "last": lambda text, n: text[-n:] if len(text) >= n else "",
    "token": _token,
    "before": _before,
    "after": _after,
    "remove": lambda text, d: text.replace(d, ""),
    "replace": lambda text, d, new: text.replace(d, new),
}
_ARGUMENTS: dict[Symbol, int] = {
    name: len(roles) for name, roles in (_HEAD_ROLES | _MODIFIER_ROLES).items()
}


def evaluate(expression: Expression, text: str) -> str | None:
    """What an expression of the language gives for a text of at most LONGEST
    characters, None where it finds nothing.
    """
    head = expression[0]
    if _is_constant(expression):
        return str(head)
    at = 1 + _ARGUMENTS[head]
    found = _HEADS[head](text, *expression[1:at])
    while found and at < len(expression):
        end = at + 1 + _ARGUMENTS[expression[at]]
        found = _MODIFIERS[expression[at]](found, *expression[at + 1 : end])
        at = end
    return found or None


def run(program: Program, text: str) -> str | None:
    """What a program makes of a text; None where an expression finds nothing, or the
    text or the output is longer than LONGEST.
    """
    if not program or len(text) > LONGEST:
        return None
    parts: list[str] = []
    for expression in program:
        found = evaluate(expression, text)
        if found is None:
            return None
        parts.append(found)
        if len(parts) > LONGEST:
            return None
    output = "".join(parts)
    return output if len(output) <= LONGEST else None


def show(program: Program) -> str:
    """A program as a person reads it, and `parse` reads it again."""
    shown: list[str] = []
    for constant, group in groupby(program, _is_constant):
        some = list(group)
        shown += (
            [_quoted("".join(str(expression[0]) for expression in some))]
            if constant
            else map(_shown, some)
        )
    return " + ".join(shown)


def numbered(text: str, length: int) -> list[int]:
    """A text as `length` numbers: 1 to 95 for CHARACTERS, 96 for any other, without its
    accent where that helps, and 0 after the end.

    Raises ValueError for a longer text.
    """
    if len(text) > length:
        raise InnerloopError(
            f"a text may have {length} characters; got {len(text)}: {text[:20]!r}..."
        )
    if not text.isascii():
        bare = [unicodedata.normalize("NFKD", character)[0] for character in text]
        text = "".join(b if b in CHARACTERS else "\x7f" for b in bare)
    return [code - 31 if 32 <= code < 128 else 96 for code in text.encode()] + [0] * (
        length - len(text)
    )


def text_of(numbers: Sequence[int]) -> str:
    """The text that was numbered so."""
    return "".join(
        "\ufffd" if number == 96 else chr(number + 31)
        for number in numbers
        if 0 < number < VOCABULARY
    )


def classes() -> tuple[Tensor, Tensor, Tensor]:
    """What an encoder may know of numbered characters: which belong to a kind
    (vocabulary, kinds), for the kinds of KINDS; whether a match of a kind is as many as
    there are (kinds,); and the number of each in lower case (vocabulary,). Proper
    counts as its capitals.
    """
    short = {"Proper": KINDS["Caps"]}
    kinds = [re.compile(short.get(name, pattern)) for name, pattern in KINDS.items()]
    members = [
        [0.0] * len(kinds),
        *([float(bool(kind.match(c))) for kind in kinds] for c in CHARACTERS),
        [0.0] * len(kinds),
    ]
    folded = [0, *(numbered(c.lower(), 1)[0] for c in CHARACTERS), VOCABULARY - 1]
    return (
        torch.tensor(members),
        torch.tensor(
            [float(p.endswith("+") and n != "Proper") for n, p in KINDS.items()]
        ),
        torch.tensor(folded),
    )


def _is_constant(expression: Expression) -> bool:
    return len(expression) == 1 and expression[0] in GRAMMAR.constants


def ignores_input(program: Program) -> bool:
    """Whether a program makes the same of every text."""
    return all(map(_is_constant, program))


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _shown(expression: Expression) -> str:
    at, calls = 0, []
    while at < len(expression):
        name = expression[at]
        end = at + 1 + _ARGUMENTS[name]
        arguments = ", ".join(
            _quoted(str(a)) if a in GRAMMAR.constants else str(a)
            for a in expression[at + 1 : end]
        )
        calls.append("x" if name == "whole" else f"{name}({arguments})")
        at = end
    return ".".join(calls)


_WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"|-?\d+|\w+|[(),.+]|\S)')


def parse(text: str) -> Program:
    """The program that `show` shows so. Raises ValueError where it is none."""
    words = [*_WORD.findall(text), "the end"]
    program: list[Expression] = []
    at = 0

    def expect(*wanted: str) -> str:
        nonlocal at
        if words[at] not in wanted:
            raise InnerloopError(
                f"{text!r} is no program: expected {' or '.join(wanted)}, got "
                f"{words[at]}"
            )
        at += 1
        return words[at - 1]

    while True:
        if words[at].startswith('"'):
            program += [(character,) for character in _unquoted(words[at])]
            at += 1
        else:
            expression: list[Symbol] = []
            while True:
                name = "whole" if not expression and words[at] == "x" else words[at]
                at += 1
                if name not in _ARGUMENTS or (name == "whole") != (
                    words[at - 1] == "x"
                ):
                    raise InnerloopError(
                        f"{text!r} is no program: {words[at - 1]!r} does not exist, "
                        f"only x, {', '.join(map(str, [*_ARGUMENTS][1:]))}"
                    )
                expression.append(name)
                if name != "whole":
                    expect("(")
                    for i in range(_ARGUMENTS[name]):
                        if i:
                            expect(",")
                        word = words[at]
                        if at == len(words) - 1:
                            raise InnerloopError(
                                f"{text!r} is no program: it ends in the middle"
                            )
                        expression.append(
                            _unquoted(word)
                            if word.startswith('"')
                            else int(word)
                            if re.fullmatch(r"-?\d+", word)
                            else word
                        )
                        at += 1
                    expect(")")
                if words[at] != ".":
                    break
                at += 1
            program.append(tuple(expression))
        if expect("+", "the end") == "the end":
            break
    GRAMMAR.encode(tuple(program))
    return tuple(program)


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1])
