"""A page about runs: how they were trained, what they can do, where they fail."""

from innerloop.report.build import report

__all__ = ["report"]
