"""Trainings that were started from the page."""

from __future__ import annotations

from pathlib import Path


class Trainings:
    """Trainings, each in a process of its own.

    Args:
        folder: of their runs, or None where trainings are not allowed.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
