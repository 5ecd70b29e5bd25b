"""Tasks from arrays in memory, .npz and .csv, and what is said about bad ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from innerloop.cli import main
from innerloop.estimators import FewShotClassifier
from innerloop.tasks import Episodes, arrays
from innerloop.tasks.arrays import GroupedRows, read_table
from innerloop.readers.table import Columns
from innerloop.tasks.splits import SPLITS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labelled(classes: int = 25, rows: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Rows in mixed order: x is (number of the row, number of its class), y its
    class.
    """
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(classes), rows))
    return np.stack([np.arange(len(y)), y], 1).astype(np.float64), y


def grouped(
    tasks: int = 10, rows: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in mixed order: y is 10 times the task's number plus x."""
    task = np.random.default_rng(0).permutation(np.repeat(np.arange(tasks), rows))
    x = np.random.default_rng(1).uniform(size=(len(task), 3))
    return x, 10 * task + x[:, 0], np.array([f"t{i}" for i in task])


def write_csv(file: Path, header: list[str], rows: list[list[Any]]) -> Path:
    file.write_text(
        "\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n"
    )
    return file


def test_labels_make_episodes_of_their_rows() -> None:
    x, y = labelled()
    tasks = arrays(x=x, y=y, ways=4, shots=2, queries=3)
    assert isinstance(tasks, Episodes)
    assert (tasks.spec.kind, tasks.spec.x_shape, tasks.spec.y_dim) == (
        "classes",
        (2,),
        4,
    )
    for task in tasks.sample(5, seeded()).unbind():
        pairs = {
            (int(row[1]), int(target.argmax()))
            for part in task
            for row, target in zip(*part, strict=True)
        }
        assert len(pairs) == len({c for c, _ in pairs}) == 4
        for row in task.query.x:
            assert row.tolist() == x[int(row[0])].tolist()


def test_parts_share_no_class_and_miss_none() -> None:
    x, y = labelled()
    names = [arrays(part, x=x, y=y, ways=2, queries=5).bank.names for part in SPLITS]
    assert [len(part) for part in names] == [16, 4, 5]
    assert sorted(name for part in names for name in part) == sorted(
        str(i) for i in range(25)
    )


@pytest.mark.parametrize(
    "labels",
    [
        [f"kind {i}" for i in range(8)],
        [i * 0.5 for i in range(8)],
        [-i for i in range(8)],
    ],
)
def test_labels_may_be_anything(labels: list[object]) -> None:
    y = np.repeat(np.array(labels), 3)
    names = [
        name
        for part in SPLITS
        for name in arrays(part, x=np.zeros((24, 2)), y=y, ways=1, queries=1).bank.names
    ]
    assert sorted(names) == sorted(str(label) for label in labels)


def test_bytes_stay_bytes_until_they_are_sampled() -> None:
    x = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    tasks = arrays(x=x, y=np.repeat(np.arange(20), 3), ways=3, queries=1)
    assert tasks.bank.values.dtype == torch.uint8
    assert tasks.spec.is_image
    assert float(tasks.sample(4, seeded()).query.x.max()) <= 1


def test_integer_images_are_bytes_and_other_integers_are_numbers() -> None:
    y = np.repeat(np.arange(25), 4)
    images = np.random.default_rng(0).integers(0, 256, (100, 6, 5))
    bank, bytes_bank = (
        arrays(x=x, y=y, ways=2, queries=1).bank
        for x in (images, images.astype(np.uint8))
    )  # pyright: ignore[reportAttributeAccessIssue]
    assert bank.values.dtype == torch.uint8
    assert torch.equal(bank.values, bytes_bank.values)
    for x in (images - 1, images + 1, images.reshape(100, 30)):
        assert arrays(x=x, y=y, ways=2, queries=1).bank.values.dtype == torch.float32  # pyright: ignore[reportAttributeAccessIssue]


def test_a_task_column_makes_regression_tasks_of_its_rows() -> None:
    x, y, task = grouped()
    tasks = arrays(x=x, y=y, task=task, shots=5, queries=3)
    assert isinstance(tasks, GroupedRows)
    assert (tasks.spec.kind, tasks.spec.x_shape, tasks.spec.y_dim) == ("reals", (3,), 1)
    found = tasks.sample(40, seeded())
    assert (found.support.x.shape, found.query.y.shape) == ((40, 5, 3), (40, 3, 1))
    for one in found.unbind():
        rows, targets = (
            torch.cat([one.support.x, one.query.x]),
            torch.cat([one.support.y, one.query.y]),
        )
        assert len({tuple(row) for row in rows.tolist()}) == 8
        assert (
            len(
                {round(float(t - row[0])) for row, t in zip(rows, targets, strict=True)}
            )
            == 1
        )
        torch.testing.assert_close(
            (targets[:, 0] - rows[:, 0]) % 10 % 9.9999,
            torch.zeros(8),
            atol=1e-3,
            rtol=0,
        )
    again = tasks.sample(40, seeded())
    assert torch.equal(found.query.x, again.query.x)


def test_regression_parts_share_no_task_and_miss_none() -> None:
    x, y, task = grouped()
    seen = []
    for part in SPLITS:
        targets = (
            arrays(part, x=x, y=y, task=task, shots=1, queries=1)
            .sample(200, seeded())
            .query
        )
        seen.append(
            {round(float(t)) for t in (targets.y - targets.x[..., :1]).flatten() / 10}
        )
    assert [len(part) for part in seen] == [6, 2, 2]
    assert set.union(*seen) == set(range(10))


def test_targets_of_several_dimensions() -> None:
    x, y, task = grouped()
    assert (
        arrays(x=x, y=np.stack([y, -y], 1), task=task, shots=2, queries=2).spec.y_dim
        == 2
    )


def test_tasks_with_too_few_rows_are_left_out() -> None:
    x, task = (
        np.arange(30.0)[:, None],
        np.repeat([f"t{i}" for i in range(4)], [3, 12, 3, 12]),
    )
    tasks = GroupedRows(
        torch.as_tensor(x), torch.as_tensor(x), [3, 12, 3, 12], shots=4, queries=4
    )
    drawn = tasks.sample(100, seeded())
    rows = torch.cat([drawn.support.x, drawn.query.x], 1)[..., 0].long()
    assert set(rows.unique().tolist()) == {
        i for i in range(30) if task[i] in ("t1", "t3")
    }
    with pytest.raises(
        ValueError,
        match=r"no task has the 10 \+ 10 rows asked for \(the largest has 12\): lower",
    ):
        GroupedRows(torch.as_tensor(x), torch.as_tensor(x), [3, 12, 3, 12])


def unscaled(tasks: Any, x: torch.Tensor) -> torch.Tensor:
    """The numbers of a table before they were standardised."""
    reader = getattr(tasks, "reader", None) or getattr(
        getattr(tasks, "bank", None), "reader", None
    )
    if reader is None:
        return x
    mean, deviation, gaps = zip(*reader.numbers.values(), strict=True)
    assert not any(gaps)
    return x * torch.tensor(deviation) + torch.tensor(mean)


def test_npz_and_csv_give_what_memory_gives(tmp_path: Path) -> None:
    x, y, task = grouped()
    np.savez(tmp_path / "rows.npz", X=x, y=y, task=task)
    rows = [
        [*features, target, name]
        for features, target, name in zip(x.tolist(), y.tolist(), task, strict=True)
    ]
    write_csv(tmp_path / "rows.csv", ["a", "b", "c", "y", "task"], rows)
    wanted = arrays(x=x, y=y, task=task, shots=2, queries=2).sample(3, seeded())
    for name in ("rows.npz", "rows.csv"):
        tasks = arrays(file=tmp_path / name, shots=2, queries=2)
        found = tasks.sample(3, seeded())
        torch.testing.assert_close(unscaled(tasks, found.support.x), wanted.support.x)
        torch.testing.assert_close(found.query.y, wanted.query.y)


def test_files_without_task_column_hold_classes(tmp_path: Path) -> None:
    x, y = labelled()
    np.savez(tmp_path / "rows.npz", X=x, y=y)
    write_csv(
        tmp_path / "rows.csv",
        ["y", "a", "b"],
        [[label, *features] for label, features in zip(y, x.tolist(), strict=True)],
    )
    wanted = arrays(x=x, y=y, ways=3, queries=2).sample(3, seeded())
    for name in ("rows.npz", "rows.csv"):
        tasks = arrays(file=str(tmp_path / name), ways=3, queries=2)
        found = tasks.sample(3, seeded())
        torch.testing.assert_close(unscaled(tasks, found.support.x), wanted.support.x)
        assert torch.equal(found.query.y, wanted.query.y)


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    x, y, task = read_table(
        write_csv(
            tmp_path / "t.csv",
            ["a", "task", "y", "b"],
            [[1, "u", 2, 3], [4, "v", 5, 6]],
        )
    )
    assert (x, y.tolist()) == ([{"a": "1", "b": "3"}, {"a": "4", "b": "6"}], ["2", "5"])
    assert task is not None
    assert task.tolist() == ["u", "v"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header with a column y"),
        ("a,b\n1,2\n", "header with a column y"),
        ("a,y\n", "header with a column y"),
        ("y\n1\n", "no column of features"),
        ("a,b,y\n1\n", "line 2 .* not as many cells"),
        ("a,y\n1,2,3\n", "line 2 .* not as many cells"),
        ("a,y\ninf,1\n", "infinite"),
    ],
)
def test_bad_csv_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        arrays(file=file)


def test_bad_npz_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "no_y.npz", X=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="needs the arrays X and y, it has X"):
        arrays(file=tmp_path / "no_y.npz")
    (tmp_path / "noise.npz").write_bytes(b"no archive at all")
    with pytest.raises(ValueError, match="pickled"):
        arrays(file=tmp_path / "noise.npz")


def test_a_truncated_npz_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", X=np.zeros((20, 2)), y=np.zeros(20))
    (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"half\.npz"):
        arrays(file=tmp_path / "half.npz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone\.csv"):
        arrays(file=tmp_path / "gone.csv")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_holes_in_x_are_refused(value: float) -> None:
    x, y = labelled()
    x[3, 1] = value
    with pytest.raises(ValueError, match="x holds NaN or infinite values"):
        arrays(x=x, y=y)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_holes_in_real_targets_are_refused(value: float) -> None:
    x, y, task = grouped()
    y[3] = value
    with pytest.raises(ValueError, match="y holds NaN or infinite values"):
        arrays(x=x, y=y, task=task)


def test_holes_in_labels_are_refused() -> None:
    x, y = labelled()
    with pytest.raises(ValueError, match="y holds NaN"):
        arrays(x=x, y=np.where(y == 3, np.nan, y), ways=2, queries=3)


def test_numbers_words_and_gaps_of_a_table() -> None:
    rows = [
        {"a": "1", "b": "red", "c": "5"},
        {"a": "", "b": "blue ", "c": "7"},
        {"a": "3", "b": "?", "c": "6"},
        {"a": "100", "b": "green", "c": "nan"},
    ]
    # the last row is not trained on: its number, its word and its gap count in the
    # layout alone
    columns = Columns.fitted(rows, rows[:3])
    assert columns.numbers == {
        "a": (2.0, 1.0, True),
        "c": (6.0, pytest.approx((2 / 3) ** 0.5), True),
    }
    assert columns.words == {"b": ("blue", "red")}
    x = columns.read_all(rows)
    torch.testing.assert_close(
        x[:, :2], torch.tensor([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [98.0, 0.0]])
    )
    assert x[:, 4:].tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]
    assert x[3, 2:4].tolist() == [0, 1]
    assert torch.equal(
        Columns(**json.loads(json.dumps(columns.settings()))).read_all(rows), x
    )
    constant = [{"a": "0.1"}] * 7
    assert Columns.fitted(constant, constant).read_all([{"a": 0.2}]).tolist() == [
        [pytest.approx(0.1)]
    ]
    with pytest.raises(ValueError, match="rows of a table are needed"):
        columns.read_all([[1.0, 2.0]])  # pyright: ignore
    with pytest.raises(ValueError, match="row 1 has 'many' in the column c"):
        columns.read_all([{"a": 1, "b": "red", "c": "many"}])
    with pytest.raises(ValueError, match="row 1 has no column c, b"):
        columns.read_all([{"a": 1}])


def test_a_table_goes_from_file_to_labels(tmp_path: Path) -> None:
    rows = [
        [i % 10 + 0.1 * k if k else "", "odd" if i % 2 else "even", f"class{i}"]
        for i in range(15)
        for k in range(5)
    ]
    file, run, out = (
        write_csv(tmp_path / "t.csv", ["size", "kind", "y"], rows),
        str(tmp_path / "run"),
        tmp_path / "out.csv",
    )
    assert (
        main(
            [
                "train",
                "protonet",
                "arrays",
                "--file",
                str(file),
                "--steps",
                "3",
                "--ways",
                "3",
                "--queries",
                "2",
                "--out",
                run,
            ]
        )
        == 0
    )
    query = write_csv(
        tmp_path / "query.csv", ["kind", "size"], [["odd", 3], ["even", ""]]
    )
    assert (
        main(
            [
                "adapt",
                run,
                "--support",
                str(file),
                "--query",
                str(query),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert [line.split(",")[0] for line in out.read_text().splitlines()] == [
        "row",
        "1",
        "2",
    ]
    classifier = FewShotClassifier(run).fit(
        [{"size": 1, "kind": "odd"}, {"size": 2.0, "kind": "even"}], ["x", "y"]
    )
    assert classifier.predict([{"size": None, "kind": "odd"}]).shape == (1,)


def test_real_targets_that_are_words_are_refused(tmp_path: Path) -> None:
    file = write_csv(
        tmp_path / "t.csv", ["a", "y", "task"], [[1, "high", "t"], [2, "low", "t"]]
    )
    with pytest.raises(ValueError, match="high"):
        arrays(file=file)


def test_classes_with_a_task_column_are_refused() -> None:
    x, _, task = grouped()
    with pytest.raises(ValueError, match="y must be numbers"):
        arrays(x=x, y=np.array(["cat"] * len(x)), task=task)


def test_wrong_lengths_are_refused() -> None:
    x, y, task = grouped()
    with pytest.raises(ValueError, match="x has 80 rows and y has 79"):
        arrays(x=x, y=y[1:])
    with pytest.raises(ValueError, match="x has 80 rows and y has 80, task has 78"):
        arrays(x=x, y=y, task=task[2:])
    for missing in ({"x": x}, {"y": y}, {}):
        with pytest.raises(ValueError, match="needs x and y, or a file"):
            arrays(**missing)


def test_too_few_classes_or_tasks_are_refused() -> None:
    x, y = labelled()
    with pytest.raises(ValueError, match="lower the ways"):
        arrays("val", x=x, y=y, ways=5)
    x, y, task = grouped(tasks=1, rows=30)
    with pytest.raises(
        ValueError, match="the val part has no tasks: 1 tasks are too few to split"
    ):
        arrays("val", x=x, y=y, task=task)
    with pytest.raises(ValueError, match="one of train, val, test"):
        arrays("dev", x=x, y=y)


def test_arrays_without_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="0"):
        arrays(x=np.zeros((0, 2)), y=np.zeros(0))
