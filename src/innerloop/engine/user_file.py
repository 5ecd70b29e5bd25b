"""What stands in a file of the user's own: `file.py:Name`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError, InnerloopFileError

PREFIX = "_innerloop_user_"  # of the names of their modules


def is_in_file(name: object) -> bool:
    return isinstance(name, str) and ".py:" in name


def absolute(name: str) -> str:
    """`file.py:Name` with a path that holds from any folder."""
    file, attribute = name.rsplit(":", 1)
    return f"{Path(file).resolve()}:{attribute}"


def from_file(name: str) -> Callable[..., Any]:
    """The class or function that `file.py:Name` names; a file is run once.

    Raises InnerloopFileError where there is no such file, and InnerloopError, with a
    guess, where it does not define the name.
    """
    file, attribute = name.rsplit(":", 1)
    path = Path(file).resolve()
    if not path.is_file():
        raise InnerloopFileError(f"there is no file {file}")
    plain = "".join(c for c in path.stem if c.isalnum()).lower()
    module_name = f"{PREFIX}{plain}_{abs(hash(str(path))) % 10**8}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    factory = vars(module).get(attribute)
    if not callable(factory):
        own = [key for key, v in vars(module).items() if callable(v) and key[0] != "_"]
        raise InnerloopError(
            f"{file} defines no {attribute}{did_you_mean(attribute, own)}"
        )
    return factory


def modules() -> list[ModuleType]:
    """The files that were run, as modules, which other processes cannot import."""
    return [module for name, module in sys.modules.items() if name.startswith(PREFIX)]
