"""Parts of a user's data are disjoint, complete and fixed by the names."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.tasks.splits import SPLITS, split_indices

names = st.lists(st.text(max_size=6), max_size=60, unique=True)
small = settings(deadline=None, max_examples=25)


@small
@given(names)
def test_parts_are_disjoint_and_cover_everything(names: list[str]) -> None:
    places = [place for part in SPLITS for place in split_indices(names, part)]
    assert sorted(places) == list(range(len(names)))


@small
@given(names)
def test_parts_have_their_shares(names: list[str]) -> None:
    for part, share in (("train", 0.64), ("val", 0.16), ("test", 0.2)):
        assert abs(len(split_indices(names, part)) - share * len(names)) <= 1


@small
@given(names, st.randoms(use_true_random=False))
def test_parts_follow_the_names_and_not_their_order(
    names: list[str], random: object
) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for part in SPLITS:
        assert {names[i] for i in split_indices(names, part)} == {
            shuffled[i] for i in split_indices(shuffled, part)
        }


def test_a_known_split_stays_as_it_is() -> None:
    letters = list("abcdefghij")
    assert [
        "".join(letters[i] for i in split_indices(letters, part)) for part in SPLITS
    ] == [
        "bcdefj",
        "ah",
        "gi",
    ]


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="one of train, val, test, not 'dev'"):
        split_indices(["a"], "dev")
