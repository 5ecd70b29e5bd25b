"""The studies of this package are made of valid command lines."""

import shlex

import pytest

from innerloop.cli.train import command
from innerloop.studies.study import find_study, names


@pytest.mark.parametrize("name", names())
def test_every_row_is_a_valid_command_line(name: str) -> None:
    for row in find_study(name).rows:
        if row.train:
            line = row.train.replace("{", "").replace("}", "")
            command.make_context("train", [*shlex.split(line), "--out", "run"])
