"""The errors that a user can fix.

Every error that the package raises on purpose is an `InnerloopError`; the command line
prints it in one line. Any other exception is a fault of the program, or of a user's own
code, and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar


class InnerloopError(ValueError):
    """Bad input. The message says what is wrong, what is expected and what to do.

    Class variables:
        exit_code: of a command that ends by it.
    """

    exit_code: ClassVar[int] = 2


class InnerloopTypeError(InnerloopError, TypeError):
    """An argument of a type, or with a capability, that cannot be used here."""


class InnerloopFileError(InnerloopError, FileNotFoundError):
    """A file or folder that is missing, or of the wrong kind."""


class MissingPackageError(InnerloopError, ImportError):
    """An optional package is not installed; the message names the extra to install."""


class DivergenceError(InnerloopError, FloatingPointError):
    """Training or prediction produced values that are not finite."""


class LostWorkerError(InnerloopError):
    """Another process of the same training has ended, or cannot be reached."""

    exit_code = 75
