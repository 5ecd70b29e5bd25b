"""Values that break programs: words of a command line, values of JSON, bytes."""

from __future__ import annotations

import os
from copy import deepcopy
from random import Random
from typing import Any

NUMBERS = (
    *("0", "-1", "1", "2", "3", "7", "1.5", "0.5", "-0.0", "nan", "inf", "-inf"),
    *("1e308", "1e-320", "1e999", "0x10", "1_0", "１２", "٣", " 3", "3 ", "1,5", ""),
    *("true", "None", "--", "-", "é", "2147483648", "9223372036854775808"),
    *("99999999999999999999", "9" * 5000, "+2", "1e3", "-9223372036854775809"),
)
TEXTS = (
    *("", " ", "x" * 10_000, "\x1b[31mred", "..", ".", "/", "a/b", "~", "-", "[bold]"),
    *("[/x]", "%s", "{x}", "a\nb", "é", os.fsdecode(b"caf\xe9"), "😀", "a\tb", ".py:"),
    *("x.py:Y", "/dev/null", "/dev/zero", "/nonexistent/x", "\u2028", "\r", "'", '"'),
    *("Train", "PROTONET", "mamml", "conv", "--help", "\x7f", "=", "*", "\\", "0"),
)
# names of files and folders to write to, below the folder of a case
NAMES = (
    *("out", "[/b]", "[red]x", "a b", "\x1b[1m", "é", os.fsdecode(b"\xff\xfe"), "😀"),
    *("no/such", ".", "", "x" * 300, "a\nb", "%d", "-", "data", "new\t"),
)
DEEP: list[Any] = []
for _ in range(50):
    DEEP = [DEEP]
JSON = (
    *(None, True, False, 0, -1, 1, 2, 1.5, 1e308, float("nan"), float("inf"), 10**30),
    *(2**63, -(2**63), 1e-320, "", "x", "\x00", "\ud800", "1", "nan", "x" * 5000),
    *([], {}, [1, 2], [None], {"a": 1}, {"name": "x"}, {"name": 3}, DEEP, [1e308]),
    *("[/x]", "../..", "/dev/zero", [10**30], [-1, 8, 8], [1, 8, "8"], {"": None}),
)


def junk(rng: Random, size: int | None = None) -> bytes:
    """Random bytes."""
    return rng.randbytes(rng.choice((1, 7, 64, 1000)) if size is None else size)


def flipped(rng: Random, content: bytes) -> bytes:
    """Bytes with up to three bits flipped, more often near the beginning."""
    if not content:
        return content
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        most = len(changed) if rng.random() < 0.5 else min(len(changed), 200)
        changed[rng.randrange(most)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def mangled(rng: Random, content: bytes) -> tuple[bytes, str]:
    """Damaged bytes, and what was done to them."""
    how = rng.choice(("flip", "flip", "cut", "cut", "empty", "grow", "junk", "zeros"))
    cut = rng.randrange(len(content) + 1)
    changed = {
        "flip": lambda: flipped(rng, content),
        "cut": lambda: content[:cut],
        "empty": lambda: b"",
        "grow": lambda: content + junk(rng),
        "junk": lambda: junk(rng),
        "zeros": lambda: content[:cut] + bytes(rng.randint(1, 64)) + content[cut:],
    }[how]()
    return changed, how


def mutated(rng: Random, data: Any) -> tuple[Any, str]:
    """JSON data with one place changed, and which."""
    places = list(_places(data))
    path = rng.choice(places[1:]) if len(places) > 1 and rng.random() < 0.97 else ()
    value = deepcopy(rng.choice(JSON))
    if not path:
        return value, f"all = {value!r:.60}"
    *way, last = path
    parent = data
    for key in way:
        parent = parent[key]
    where = ".".join(map(str, path))
    how = rng.choice(("set", "set", "set", "set", "delete", "rename", "extend"))
    if how == "delete":
        del parent[last]
        return data, f"{where} deleted"
    if how == "rename" and isinstance(parent, dict):
        parent[f"{last}x"] = parent.pop(last)
        return data, f"{where} renamed"
    if how == "extend":
        if isinstance(parent, dict):
            parent["unknown"] = value
        else:
            parent.append(value)
        return data, f"beside {where}: {value!r:.60}"
    parent[last] = value
    return data, f"{where} = {value!r:.60}"


def _places(data: Any, path: tuple[Any, ...] = ()) -> Any:
    """The paths of all values inside JSON data, the whole first."""
    yield path
    if isinstance(data, dict | list):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        for key, value in items:
            yield from _places(value, (*path, key))
