"""Output of commands. Output that cannot be encoded never stops a command."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from innerloop.measurements import Report, Table


class SafeStream:
    """A text stream that replaces characters that its encoding lacks, and that goes on
    in silence when it is closed, its reader is gone or the disk is full.

    Attributes:
        problem: why what was written is lost, where that is not its reader's choice.
    """

    def __init__(self, stream: TextIO | None):
        # Python has no stream where the shell closed it
        closed = stream is None
        self._stream: TextIO = io.StringIO() if stream is None else stream
        self._broken, self.problem = closed, ""

    def write(self, text: str) -> int:
        if self._broken:
            return len(text)
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            return self._stream.write(
                text.replace("±", "+-").encode(encoding, "replace").decode(encoding)
            )
        except OSError as error:
            self._break(error)
            return len(text)

    def flush(self) -> None:
        try:
            if not self._broken:
                self._stream.flush()
        except OSError as error:
            self._break(error)

    def _break(self, error: OSError) -> None:
        self._broken = True
        if not isinstance(error, BrokenPipeError):
            self.problem = error.strerror or str(error)
        with contextlib.suppress(OSError, ValueError):  # the interpreter flushes later
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    @property
    def encoding(self) -> str:
        return self._stream.encoding or "utf-8"

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def console(stderr: bool = False) -> Console:
    """Where commands print."""
    from rich.console import Console

    stream: Any = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream, highlight=False, soft_wrap=True, emoji=False, markup=False
    )


def print_report(report: Report, to: Console) -> None:
    """All tables and notes of a report."""
    for table in report.tables:
        to.print(_table(table), soft_wrap=False)
    for note in report.notes:
        to.print(note)


def _table(table: Table) -> Any:
    from rich.table import Table as RichTable

    shown = RichTable(title=table.title, title_justify="left", box=None, pad_edge=False)
    rows = table.rows
    labels = list(dict.fromkeys(key for row in rows for key in row.labels))
    names = list(dict.fromkeys(m.name for row in rows for m in row.values))
    for label in labels:
        words = [str(row.labels.get(label, "")) for row in rows]
        numbers = all(word.lstrip("-").isdigit() for word in words)
        shown.add_column(label, justify="right" if numbers else "left")
    for name in names:
        shown.add_column(name, justify="right")
    for row in rows:
        values = {m.name: str(m) for m in row.values}
        cells = [
            str(v) if (v := row.labels.get(k)) is not None else "-" for k in labels
        ]
        shown.add_row(*cells, *(values.get(name, "-") for name in names))
    return shown
