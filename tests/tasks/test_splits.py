"""Splits of a user's data are disjoint, complete and fixed by the names."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.tasks.splits import SPLITS, split_indices

names = st.lists(st.text(max_size=6), max_size=60, unique=True)
small = settings(deadline=None, max_examples=25)


@small
@given(names)
def test_splits_are_disjoint_and_cover_everything(names: list[str]) -> None:
    places = [place for split in SPLITS for place in split_indices(names, split)]
    assert sorted(places) == list(range(len(names)))


@small
@given(names)
def test_splits_have_their_shares(names: list[str]) -> None:
    for split, share in (("train", 0.64), ("val", 0.16), ("test", 0.2)):
        assert abs(len(split_indices(names, split)) - share * len(names)) <= 1


@small
@given(names, st.randoms(use_true_random=False))
def test_splits_follow_the_names_and_not_their_order(
    names: list[str], random: object
) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for split in SPLITS:
        assert {names[i] for i in split_indices(names, split)} == {
            shuffled[i] for i in split_indices(shuffled, split)
        }


def test_a_known_split_stays_as_it_is() -> None:
    letters = list("abcdefghij")
    assert [
        "".join(letters[i] for i in split_indices(letters, split)) for split in SPLITS
    ] == [
        "bcdefj",
        "ah",
        "gi",
    ]


def test_a_split_may_have_other_shares() -> None:
    letters = [f"{i}" for i in range(50)]
    shares = {"train": (0.0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}
    parts = [split_indices(letters, split, shares) for split in SPLITS]
    assert [len(part) for part in parts] == [35, 5, 10]
    assert sorted(i for part in parts for i in part) == list(range(50))
    assert parts[2] == split_indices(letters, "test")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="one of train, val, test; got 'dev'"):
        split_indices(["a"], "dev")
