"""`innerloop list`: every entry on one line of at most 80 columns."""

from __future__ import annotations

import pytest

from innerloop.cli.list_entries import KINDS, WIDTH, catalog

from .conftest import cli


@pytest.mark.parametrize("name", ["", *KINDS])
def test_no_line_is_cut(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(f"list {name}") == 0
    for line in capsys.readouterr().out.splitlines():
        assert len(line) <= WIDTH == 80
        assert not line.endswith("..."), line


def test_every_summary_is_one_sentence() -> None:
    for entry in catalog():
        summary = entry["summary"]
        assert summary.endswith((".", "?")), (entry["name"], summary)
        assert ". " not in summary, (entry["name"], summary)
