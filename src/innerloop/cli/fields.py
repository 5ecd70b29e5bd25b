"""A learner's fields as flags."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, Field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from innerloop.core.learner import Learner
from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError
from innerloop.learners import LEARNERS
from innerloop.nets import ENCODERS

FORMS = {
    "fomaml": "--first-order",
    "anil": "--adapted head",
    "reptile": "--meta-gradient reptile",
    "protomaml": "--head prototype",
    "maml++": "--multi-step 0.15 --second-order-after 0.5",
}


def plain_name(name: str) -> str:
    """A learner's name without case, hyphens and underscores."""
    return name.lower().replace("-", "").replace("_", "")


def find_learner(name: str) -> type[Learner]:
    """The learner of that name, in any case. Raises ValueError, with a guess, where
    there is none.
    """
    known = LEARNERS.get(plain_name(name))
    if known is None:
        if (form := FORMS.get(plain_name(name))) is not None:
            raise InnerloopError(f"{name} is a form of MAML: maml {form}")
        raise InnerloopError(
            f"there is no learner {name!r}{did_you_mean(name.lower(), LEARNERS)}"
        )
    return known


def learner_fields(learner: type[Learner]) -> dict[str, tuple[Any, Field[Any]]]:
    """Fields a person may set: name to type and field. Networks are set by name, and
    are of type str here.
    """
    hints = get_type_hints(learner)
    found = {}
    for entry in learner.fields():
        kind = hints[entry.name]
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            if entry.name in learner.named_networks:
                found[entry.name] = (str, entry)
        elif (
            kind in (int, float, bool, str) or get_origin(kind) is Literal
        ) and entry.default is not MISSING:
            found[entry.name] = (kind, entry)
    return found


def check_device(name: str) -> torch.device:
    """The device of that name. Raises ValueError where this machine, or this PyTorch,
    has none.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InnerloopError(
            f"there is no device {name!r} here: {str(error).splitlines()[0]}"
        ) from error
    return device


def add_fields(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """One flag for every field of the learner that is named among the words, its recipe
    told as defaults; nothing where none is.
    """
    takes_value = {
        flag
        for action in parser._actions
        if action.nargs is None
        for flag in action.option_strings
    }
    bare = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and before not in takes_value
    ]
    learner = next(
        (LEARNERS[plain] for plain in map(plain_name, bare) if plain in LEARNERS), None
    )
    if learner is None:
        return
    for action in parser._actions:
        if action.dest in vars(learner.defaults) and action.help:
            action.help += f" (default: {getattr(learner.defaults, action.dest)})"
    group = parser.add_argument_group(
        f"fields of {learner.__name__}", (learner.__doc__ or "").split("\n\n", 1)[0]
    )
    for field_name, (kind, entry) in learner_fields(learner).items():
        flag = "--" + field_name.replace("_", "-")
        told: dict[str, Any] = {
            "dest": f"field_{field_name}",
            "default": argparse.SUPPRESS,
        }
        shown = (
            f"default: {entry.default}"
            if entry.default is not MISSING
            else f"a network by name: {', '.join(ENCODERS)}"
        )
        if field_name in learner.regression_defaults:
            shown += (
                f"; {learner.regression_defaults[field_name]} where targets are reals"
            )
        if kind is bool:
            group.add_argument(
                flag, action=argparse.BooleanOptionalAction, help=shown, **told
            )
        elif get_origin(kind) is Literal:
            group.add_argument(
                flag,
                type=type(get_args(kind)[0]),
                choices=get_args(kind),
                help=shown,
                **told,
            )
        else:
            group.add_argument(
                flag,
                type=kind,
                metavar="NETWORK"
                if entry.default is MISSING
                else kind.__name__.upper(),
                help=shown,
                **told,
            )


def given_fields(options: argparse.Namespace) -> dict[str, Any]:
    """The fields that were set on the command line."""
    return {
        name.removeprefix("field_"): value
        for name, value in vars(options).items()
        if name.startswith("field_")
    }
