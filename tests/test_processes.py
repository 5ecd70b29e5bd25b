"""The output of a process is read to its end, whether it can be kept or not."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from innerloop.processes import MOST_OUTPUT, keep_output

PRINT = f"import sys; sys.stdout.write('x' * {MOST_OUTPUT + 7})"


@pytest.mark.parametrize("place", ["output.txt", "no folder/output.txt", "/dev/full"])
def test_a_process_ends_though_its_output_cannot_be_kept(
    place: str, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", PRINT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    file = tmp_path / place
    keeper = threading.Thread(target=keep_output, args=(process, file), daemon=True)
    keeper.start()
    try:
        assert process.wait(10) == 0
        keeper.join(10)
    finally:
        process.kill()
    if file.is_file():
        assert file.stat().st_size == MOST_OUTPUT
