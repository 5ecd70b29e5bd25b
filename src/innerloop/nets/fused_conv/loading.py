"""Builds, checks and loads the compiled code of `block.c`. See README.md here."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import signal
import stat
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("block.c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-pthread")
ABI = 4  # as in block.c
COMPILER_SECONDS = 120.0


class _Unsafe(OSError):
    """A folder or file that others may have written."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled code, or None where INNERLOOP_NATIVE is 0, and, with a warning,
    where it cannot be built. It is built at the first call.
    """
    if os.environ.get("INNERLOOP_NATIVE") == "0":
        return None
    try:
        compiler = shlex.split(os.environ.get("CC") or "cc")
        code = _load(f"block-{_fingerprint(compiler)}.so", compiler)
        _check_abi(code)
        return code
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = " ".join((getattr(error, "stderr", None) or str(error)).split())
        warnings.warn(
            "convolutions run at less than half their speed, because their C code "
            f"could not be built: {why[-160:]}; INNERLOOP_NATIVE=0 skips it",
            stacklevel=2,
        )
        return None


def cache_folder() -> Path:
    """innerloop-native/ in the user's cache folder."""
    user = Path(os.environ.get("XDG_CACHE_HOME", ""))  # empty or relative: ignored
    return (user if user.is_absolute() else Path.home() / ".cache") / "innerloop-native"


def _fingerprint(compiler: list[str]) -> str:
    """A hash of all that the compiled code depends on."""
    processor = Path("/proc/cpuinfo")
    lines = processor.read_text().splitlines() if processor.is_file() else []
    flags = next((x for x in lines if x.startswith(("flags", "Features"))), "")
    parts = (
        platform.machine(),
        platform.processor(),
        flags,
        *platform.libc_ver(),
        torch.__version__,
        *compiler,
        *FLAGS,
        _run([*compiler, "--version"]),
        SOURCE.read_text(encoding="utf-8"),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _run(command: list[str]) -> str:
    """The output of a command; it and the processes it started end with the time."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=COMPILER_SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, errors)
    return output


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(folder.lstat(), folder, stat.S_ISDIR)
    return folder


def _check_owner(status: os.stat_result, path: Path, kind) -> None:
    """Refuse what another user owns or may write to, and links."""
    if not kind(status.st_mode):
        raise _Unsafe(f"{path} is a link or of another kind")
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise _Unsafe(f"others may write to {path}")


def _read(path: Path) -> bytes:
    """The content of a regular file that only this user may write to."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(number, "rb") as file:
        _check_owner(os.fstat(number), path, stat.S_ISREG)
        return file.read()


def _load(name: str, compiler: list[str]) -> ctypes.CDLL:
    """The compiled code from the cache; it is built where it is missing or damaged,
    and stays in the temporary folder of this call where the cache cannot be used.
    """
    cached = None
    try:
        cached = _private(cache_folder()) / name
        if _is_whole(cached):
            return ctypes.CDLL(str(cached))
    except _Unsafe as error:
        cached = None
        warnings.warn(
            "the C code of convolutions is built again in every process, because "
            f"{error}; remove it",
            stacklevel=3,
        )
    except (OSError, RuntimeError):  # no home folder, or it cannot be read or written
        cached = None
    with tempfile.TemporaryDirectory(prefix="innerloop-native-") as folder:
        built = Path(folder) / name
        _run([*compiler, *FLAGS, str(SOURCE), "-o", str(built), "-lm"])
        if cached is not None:
            try:
                _store(built, cached)
                return ctypes.CDLL(str(cached))
            except OSError:  # a full disk, or one that runs no code
                pass
        return ctypes.CDLL(str(built))


def _checksum(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _is_whole(path: Path) -> bool:
    """Whether the file is there and is the one whose checksum stands beside it."""
    try:
        found = hashlib.sha256(_read(path)).hexdigest()
        return found == _read(_checksum(path)).decode()
    except (FileNotFoundError, ValueError):
        return False


def _store(built: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        fresh, digest = Path(folder) / path.name, Path(folder) / _checksum(path).name
        fresh.write_bytes(code := built.read_bytes())
        digest.write_text(hashlib.sha256(code).hexdigest())
        fresh.chmod(0o600)
        digest.chmod(0o600)
        # in one move each: other processes may be building it too
        fresh.replace(path)
        digest.replace(_checksum(path))


def _check_abi(code: ctypes.CDLL) -> None:
    try:
        found = code.innerloop_abi()
    except AttributeError:
        found = None
    if found != ABI:
        raise OSError(f"the built code has interface {found}; expected {ABI}")
