"""Projects of sessions: bounded in memory, and on disk from the first example on."""

from __future__ import annotations

from pathlib import Path


class Projects:
    """The projects that are open.

    Args:
        folder: where they are on disk.
        runs: run folders whose learners can be taught.
    """

    def __init__(self, folder: Path, runs: tuple[Path, ...] = ()):
        self.folder, self.runs = folder, runs
