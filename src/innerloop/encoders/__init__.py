"""Pretrained encoders, by name or from a folder."""

from __future__ import annotations

from functools import lru_cache

from innerloop.encoders.base import PretrainedEncoder
from innerloop.encoders.efficientnet import EfficientNet
from innerloop.encoders.texts import MiniLM, WordLlama
from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError, MissingPackageError

ENCODERS: dict[str, type[PretrainedEncoder]] = {
    "efficientnet": EfficientNet,
    "minilm": MiniLM,
    "words": WordLlama,
}
JOIN = "+"


def is_pretrained(name: object) -> bool:
    """Whether a name is that of a pretrained encoder, or of several joined by "+"."""
    return isinstance(name, str) and all(part in ENCODERS for part in name.split(JOIN))


def split_name(name: object) -> tuple[str, str]:
    """The pretrained encoders that a network's name begins with, joined by "+", and the
    rest: "efficientnet+conv6" is ("efficientnet", "conv6"); each may be "".
    """
    parts = name.split(JOIN) if isinstance(name, str) else []
    count = next((i for i, p in enumerate(parts) if p not in ENCODERS), len(parts))
    return JOIN.join(parts[:count]), JOIN.join(parts[count:])


@lru_cache(maxsize=8)
def open_encoder(name: str) -> PretrainedEncoder:
    """The encoder of that name, with its weights.

    Raises MissingPackageError where its package is not installed, and InnerloopError,
    with a guess, for a name that does not exist.
    """
    if name not in ENCODERS:
        raise InnerloopError(
            f"there is no encoder {name!r}{did_you_mean(name, ENCODERS)}"
        )
    cls = ENCODERS[name]
    return cls(cls.find(name))


def usual_encoder(what: str) -> str:
    """The installed encoders for items such as "image" or "text", joined by "+".

    Raises MissingPackageError where none is installed, and InnerloopError where there
    is none for such items.
    """
    known = {name: cls for name, cls in ENCODERS.items() if cls.what == what}
    if not known:
        kinds = ", ".join(sorted({cls.what for cls in ENCODERS.values()}))
        raise InnerloopError(f"there are encoders of {kinds}, and none of {what}")
    found, problem = [], None
    for name, cls in known.items():
        try:
            cls.find(name)
            found.append(name)
        except MissingPackageError as error:
            problem = problem or error
    if not found and problem is not None:
        raise problem
    return JOIN.join(found)


__all__ = [
    "ENCODERS",
    "JOIN",
    "PretrainedEncoder",
    "is_pretrained",
    "open_encoder",
    "split_name",
    "usual_encoder",
]
