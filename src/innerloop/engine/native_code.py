"""Builds, checks and loads C code with the compiler of the machine; how, and how it is
kept, is described in nets/fused_conv/README.md.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import signal
import stat
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

COMPILER_SECONDS = 120.0


@dataclass(frozen=True)
class Source:
    """C code: its file, the compiler's flags, the interface that it must have
    (`innerloop_abi()` in it), and what the lack of it means, for a warning, if any.
    """

    path: Path
    flags: tuple[str, ...]
    abi: int
    lack: str | None = None


class _Unsafe(OSError):
    """A folder or file that others may have written."""


def load(source: Source) -> ctypes.CDLL | None:
    """The compiled code, or None where INNERLOOP_NATIVE is 0, and, with its warning,
    where it cannot be built. It is built where the cache does not hold it.
    """
    if os.environ.get("INNERLOOP_NATIVE") == "0":
        return None
    try:
        compiler = shlex.split(os.environ.get("CC") or "cc")
        code = _load(source, compiler)
        _check_abi(code, source)
        return code
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        if source.lack is None:
            return None
        why = " ".join((getattr(error, "stderr", None) or str(error)).split())
        warnings.warn(
            f"{source.lack}, because their C code could not be built: {why[-160:]}; "
            "INNERLOOP_NATIVE=0 skips it",
            stacklevel=2,
        )
        return None


def cache_folder() -> Path:
    """innerloop-native/ in the user's cache folder."""
    user = Path(os.environ.get("XDG_CACHE_HOME", ""))  # empty or relative: ignored
    return (user if user.is_absolute() else Path.home() / ".cache") / "innerloop-native"


def fingerprint(source: Source, compiler: list[str]) -> str:
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
        *source.flags,
        _run([*compiler, "--version"]),
        source.path.read_text(encoding="utf-8"),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def compiled(source: Source, compiler: list[str], to: Path) -> None:
    """Builds the code, in a file of the given name."""
    _run([*compiler, *source.flags, str(source.path), "-o", str(to), "-lm"])


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


def _load(source: Source, compiler: list[str]) -> ctypes.CDLL:
    """The compiled code from the cache; it is built where it is missing or damaged,
    and stays in the temporary folder of this call where the cache cannot be used.
    """
    name = f"{source.path.stem}-{fingerprint(source, compiler)}.so"
    cached = None
    try:
        cached = _private(cache_folder()) / name
        if _is_whole(cached):
            return ctypes.CDLL(str(cached))
    except _Unsafe as error:
        cached = None
        warnings.warn(
            f"the C code of {source.path.name} is built again in every process, "
            f"because {error}; remove it",
            stacklevel=3,
        )
    except (OSError, RuntimeError):  # no home folder, or it cannot be read or written
        cached = None
    with tempfile.TemporaryDirectory(prefix="innerloop-native-") as folder:
        built = Path(folder) / name
        compiled(source, compiler, built)
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


def _check_abi(code: ctypes.CDLL, source: Source) -> None:
    try:
        found = code.innerloop_abi()
    except AttributeError:
        found = None
    if found != source.abi:
        raise OSError(f"the built code has interface {found}; expected {source.abi}")
