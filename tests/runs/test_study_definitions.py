"""The studies of this package are made of valid command lines."""

import shlex

import pytest

from innerloop.cli.test import command as test
from innerloop.cli.train import command as train
from innerloop.studies.study import find_study, names


@pytest.mark.parametrize("name", names())
def test_every_row_is_a_valid_command_line(name: str) -> None:
    study = find_study(name)
    for row in study.rows:
        if row.train:
            line = row.train.replace("{", "").replace("}", "")
            train.make_context("train", [*shlex.split(line), "--out", "run"])
        for each in study.tests_of(row):
            test.make_context("test", ["run", *shlex.split(each.flags)])
