"""What machine, and what version of the code, a result comes from."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

from innerloop.engine.cores import cores
from innerloop.runs import versions


def system() -> dict[str, Any]:
    """The processor, its cores, the operating system, versions, and the commit of the
    source tree, with "+" where files differ from it.
    """
    return {
        "processor": _processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        **versions(),
        "commit": commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return named[0] if named else platform.processor()


def commit() -> str:
    """The commit of the source tree that this package lies in; "" where it is installed
    without one.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return ""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "src")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""
