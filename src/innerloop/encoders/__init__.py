"""Pretrained encoders, by name or from a folder.

The name of a network may begin with encoders:

    minilm+words        frozen: items are read as the vectors of both, side by side
    efficientnet+conv6  frozen, with a learned network beside it
    models/bert         frozen, from a folder with a transformers model
    minilm:all          the network is trained further, all weights
    minilm+runs/mine    frozen: the second is one that a run trained further
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from innerloop.encoders.base import PretrainedEncoder
from innerloop.encoders.efficientnet import EfficientNet
from innerloop.encoders.folder import folder_encoder
from innerloop.encoders.onnx import MobileNet, OpenWakeWord
from innerloop.encoders.texts import MiniLM, WordLlama
from innerloop.encoders.tuned import TunedEncoder, networks_of
from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.engine.user_file import is_in_file

ENCODERS: dict[str, type[PretrainedEncoder]] = {
    "efficientnet": EfficientNet,
    "mobilenet": MobileNet,
    "minilm": MiniLM,
    "words": WordLlama,
    "openwakeword": OpenWakeWord,
}
JOIN = "+"
TRAINED = ":all"


def is_folder(name: object) -> bool:
    """Whether a name is the path of a folder, not of an encoder or a network."""
    return (
        isinstance(name, str)
        and not is_in_file(name)
        and ("/" in name or os.sep in name or name in (".", ".."))
        and (JOIN not in name or os.path.isdir(name.removesuffix(TRAINED)))
    )


def parts_of(name: object) -> list[str]:
    """The names that are joined by "+"."""
    if not isinstance(name, str):
        return []
    return [name] if is_folder(name) else name.split(JOIN)


def is_pretrained(name: object) -> bool:
    """Whether a name is that of a pretrained encoder, or of several joined by "+"."""
    parts = parts_of(name)
    return bool(parts) and all(p in ENCODERS or is_folder(p) for p in parts)


def split_name(name: object) -> tuple[str, str]:
    """The pretrained encoders that a network's name begins with, joined by "+", and the
    rest: "efficientnet+conv6" is ("efficientnet", "conv6"); each may be "".
    """
    parts = parts_of(name)
    if trained_part(name) is not None:
        return "", JOIN.join(parts)
    count = next(
        (i for i, p in enumerate(parts) if p not in ENCODERS and not is_folder(p)),
        len(parts),
    )
    return JOIN.join(parts[:count]), JOIN.join(parts[count:])


def trained_part(name: object) -> str | None:
    """The pretrained encoder of a name such as "minilm:all", or None for other names.

    Raises InnerloopError for one that does not exist, or for several.
    """
    if not isinstance(name, str) or not name.endswith(TRAINED) or is_in_file(name):
        return None
    part = name.removesuffix(TRAINED)
    if part not in ENCODERS and not is_folder(part):
        raise InnerloopError(
            f"only one pretrained encoder can be trained, one of "
            f"{', '.join(n + TRAINED for n in ENCODERS)} or FOLDER{TRAINED}; got "
            f"{name!r:.60}"
        )
    return part


def resolved(name: str) -> str:
    """A name whose folders hold from any folder."""
    return JOIN.join(_absolute(part) for part in parts_of(name))


def _absolute(part: str) -> str:
    if not is_folder(part):
        return part
    trained = trained_part(part)
    return os.path.abspath(trained or part) + (TRAINED if trained else "")


def open_encoder(name: str) -> PretrainedEncoder:
    """The encoder of that name, or of a folder with a transformers model, or of a run
    that trained an encoder further. Its weights need not be installed.

    Raises InnerloopError, with a guess, for a name that does not exist, and for a
    folder without an encoder.
    """
    if is_folder(name):
        return _in_folder(resolved(name))
    if name not in ENCODERS:
        raise InnerloopError(
            f"there is no encoder {name!r}{did_you_mean(name, ENCODERS)}"
        )
    return _opened(name, ENCODERS[name])


def _in_folder(path: str) -> PretrainedEncoder:
    networks = networks_of(Path(path))
    for field, value in networks.items():
        if (part := trained_part(value)) is not None:
            return TunedEncoder(Path(path), field, open_encoder(part))
    if networks:
        raise InnerloopError(
            f"the run {path} trained no pretrained encoder: train one with --encoder "
            f"minilm{TRAINED}, or name another encoder"
        )
    return folder_encoder(path)


@lru_cache(maxsize=8)
def _opened(name: str, cls: type[PretrainedEncoder]) -> PretrainedEncoder:
    return cls(name)


def usual_encoder(what: str) -> str:
    """The installed encoders that are used by default for items such as "image" or
    "text", joined by "+".

    Raises MissingPackageError where none is installed, and InnerloopError where there
    is none for such items.
    """
    known = [n for n, cls in ENCODERS.items() if cls.what == what and cls.usual]
    if not known:
        kinds = ", ".join(sorted({cls.what for cls in ENCODERS.values()}))
        raise InnerloopError(f"there are encoders of {kinds}, and none of {what}")
    found, problem = [], None
    for name in known:
        try:
            open_encoder(name).installed()
            found.append(name)
        except MissingPackageError as error:
            problem = problem or error
    if not found and problem is not None:
        raise problem
    return JOIN.join(found)


__all__ = [
    "ENCODERS",
    "JOIN",
    "TRAINED",
    "PretrainedEncoder",
    "is_folder",
    "is_pretrained",
    "open_encoder",
    "parts_of",
    "resolved",
    "split_name",
    "trained_part",
    "usual_encoder",
]
