"""Episodes, banks, warps and labeled examples on small random banks whose examples say
which they are.
"""

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from innerloop import Examples, Task
from innerloop.engine.errors import InnerloopError
from innerloop.tasks import ClassBank, Episodes, Warp

small = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(counts: list[int], groups: list[int] | None = None) -> ClassBank:
    """A bank whose examples are (number of the example, number of its class)."""
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    values = torch.stack([torch.arange(sum(counts)), owner], 1).float()
    return ClassBank.of(
        values, counts, [f"class{i}" for i in range(len(counts))], groups
    )


def pictures(counts: list[int], groups: list[int] | None = None) -> ClassBank:
    values = torch.randint(
        0, 256, (sum(counts), 1, 4, 4), generator=seeded(), dtype=torch.uint8
    )
    return ClassBank.of(
        values, counts, [f"class{i}" for i in range(len(counts))], groups
    )


class Size(NamedTuple):
    ways: int
    shots: int
    queries: int


@st.composite
def banks(draw: st.DrawFn) -> tuple[ClassBank, Size]:
    counts = draw(st.lists(st.integers(1, 7), min_size=2, max_size=9))
    groups = draw(
        st.lists(st.integers(0, 3), min_size=len(counts), max_size=len(counts))
    )
    shots, queries = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    enough = sum(count >= shots + queries for count in counts)
    assume(enough >= 1)
    return numbered(counts, groups), Size(draw(st.integers(1, enough)), shots, queries)


def numbers(x: Tensor) -> list[int]:
    return x[:, 0].long().tolist()


def drawn_groups(tasks: Task, bank: ClassBank) -> list[list[int]]:
    return [
        [int(bank.groups[c]) for c in sorted(set(task.query.x[:, 1].long().tolist()))]
        for task in tasks.unbind()
    ]


@small
@given(banks(), seeds, st.integers(1, 4))
def test_shapes_follow_the_size(
    case: tuple[ClassBank, Size], seed: int, n: int
) -> None:
    bank, (ways, shots, queries) = case
    episodes = Episodes(bank, ways, shots, queries)
    tasks = episodes.sample(n, seeded(seed))
    assert (episodes.spec.kind, episodes.spec.x_shape, episodes.spec.y_dim) == (
        "classes",
        (2,),
        ways,
    )
    for part, per_class in ((tasks.support, shots), (tasks.query, queries)):
        assert part.x.shape == (n, ways * per_class, 2)
        assert part.y.shape == (n, ways * per_class, ways)
        assert part.x.dtype == part.y.dtype == torch.float32


@small
@given(banks(), seeds)
def test_support_and_query_are_disjoint(
    case: tuple[ClassBank, Size], seed: int
) -> None:
    bank, size = case
    for task in Episodes(bank, *size).sample(3, seeded(seed)).unbind():
        seen = numbers(task.support.x) + numbers(task.query.x)
        assert len(set(seen)) == len(seen)


@small
@given(banks(), seeds)
def test_classes_are_balanced(case: tuple[ClassBank, Size], seed: int) -> None:
    bank, (ways, shots, queries) = case
    tasks = Episodes(bank, ways, shots, queries).sample(3, seeded(seed))
    for part, per_class in ((tasks.support, shots), (tasks.query, queries)):
        assert torch.equal(part.y.sum(1), torch.full((3, ways), float(per_class)))
        assert torch.equal(part.y.sum(2), torch.ones(3, ways * per_class))


@small
@given(banks(), seeds)
def test_a_label_is_one_class_and_a_class_one_label(
    case: tuple[ClassBank, Size], seed: int
) -> None:
    bank, size = case
    for task in Episodes(bank, *size).sample(3, seeded(seed)).unbind():
        pairs = {
            (int(x[1]), int(y.argmax()))
            for part in task
            for x, y in zip(*part, strict=True)
        }
        assert (
            len(pairs)
            == len({c for c, _ in pairs})
            == len({label for _, label in pairs})
            == size.ways
        )


@small
@given(banks(), seeds)
def test_examples_belong_to_their_class(
    case: tuple[ClassBank, Size], seed: int
) -> None:
    bank, size = case
    for part in Episodes(bank, *size).sample(2, seeded(seed)):
        for number, owner in part.x.flatten(0, 1).long().tolist():
            assert (
                int(bank.starts[owner])
                <= number
                < int(bank.starts[owner] + bank.counts[owner])
            )


@small
@given(banks(), seeds)
def test_same_seed_same_tasks(case: tuple[ClassBank, Size], seed: int) -> None:
    bank, size = case
    first, second = (Episodes(bank, *size).sample(3, seeded(seed)) for _ in range(2))
    assert all(
        torch.equal(a, b)
        for left, right in zip(first, second, strict=True)
        for a, b in zip(left, right, strict=True)
    )


@small
@given(banks(), seeds)
def test_sampling_leaves_the_bank_alone(
    case: tuple[ClassBank, Size], seed: int
) -> None:
    bank, size = case
    before = bank.values.clone()
    for part in Episodes(bank, *size).sample(2, seeded(seed)):
        part.x.fill_(-1)
    assert torch.equal(bank.values, before)


@small
@given(banks(), seeds)
def test_one_group_keeps_all_classes_in_one_group(
    case: tuple[ClassBank, Size], seed: int
) -> None:
    bank, (ways, shots, queries) = case
    usable = bank.counts >= shots + queries
    sizes = torch.bincount(bank.groups[usable])
    if int(sizes.max()) < ways:
        with pytest.raises(
            ValueError,
            match=f"need a group of {ways} classes; the largest has {int(sizes.max())}",
        ):
            Episodes(bank, ways, shots, queries, groups=1)
        return
    for groups in drawn_groups(
        Episodes(bank, ways, shots, queries, groups=1).sample(4, seeded(seed)), bank
    ):
        assert len(groups) == ways
        assert len(set(groups)) == 1


@small
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), seeds)
def test_groups_share_the_ways(groups: int, share: int, more: int, seed: int) -> None:
    of = [g for g in range(groups + 2) for _ in range(share + more)]
    bank = numbered([2] * len(of), of)
    episodes = Episodes(bank, groups * share, 1, 1, groups=groups)
    for found in drawn_groups(episodes.sample(4, seeded(seed)), bank):
        assert sorted(found.count(g) for g in set(found)) == [share] * groups


@small
@given(seeds)
def test_a_small_group_is_completed_by_another(seed: int) -> None:
    bank = numbered([2] * 10, [0, 1, 1, 1, 1, 1, 2, 2, 2, 2])
    for found in drawn_groups(
        Episodes(bank, 6, 1, 1, groups=2).sample(8, seeded(seed)), bank
    ):
        assert len(found) == 6
        assert max(found.count(g) for g in set(found)) <= 3
        assert found.count(0) == (len(set(found)) == 3)


def test_every_class_is_drawn_equally_often() -> None:
    for groups in (0, 1, 2):
        bank = numbered([3] * 12, [i // 4 for i in range(12)])
        tasks = Episodes(bank, 4, 1, 1, groups=groups).sample(3000, seeded())
        share = (
            torch.bincount(tasks.support.x[..., 1].flatten().long(), minlength=12)
            / 3000
        )
        assert float((share - 1 / 3).abs().max()) < 0.05


def test_labels_and_places_are_assigned_anew() -> None:
    tasks = Episodes(numbered([6] * 4), 4, 2, 2, groups=1).sample(400, seeded())
    for part in tasks:
        for place in range(8):
            share = part.y[:, place].mean(0)
            assert float((share - 0.25).abs().max()) < 0.1
        for owner in range(4):
            share = part.y[part.x[..., 1] == owner].mean(0)
            assert float((share - 0.25).abs().max()) < 0.1


def test_labels_say_nothing_about_the_group() -> None:
    episodes, generator, partners = (
        Episodes(numbered([2] * 8, [0, 0, 1, 1, 2, 2, 3, 3]), 4, 1, 1, groups=2),
        seeded(),
        [],
    )
    for _ in range(300):
        task = episodes.sample(1, generator).unbind()[0]
        groups = episodes.bank.groups[
            task.query.x[task.query.y.argmax(1).argsort(), 1].long()
        ]
        partners.append(int((groups[1:] == groups[0]).nonzero()[0, 0]))
    share = torch.bincount(torch.tensor(partners), minlength=3) / 300
    assert float((share - 1 / 3).abs().max()) < 0.1


def test_every_example_serves_in_support_and_in_query() -> None:
    tasks = Episodes(numbered([3] * 4), 2, 1, 2).sample(300, seeded())
    for part in tasks:
        assert torch.bincount(part.x[..., 0].flatten().long(), minlength=12).min() > 0


def test_classes_with_too_few_examples_are_never_drawn() -> None:
    episodes = Episodes(numbered([5, 2, 5, 1, 5]), 2, 2, 1)
    assert episodes.bank.names == ("class0", "class2", "class4")
    assert set(episodes.sample(60, seeded()).query.x[..., 1].unique().tolist()) == {
        0,
        2,
        4,
    }


def test_bytes_become_floats_up_to_one() -> None:
    bank = pictures([3] * 3)
    tasks = Episodes(bank, 2, 1, 1).sample(5, seeded())
    stock = {tuple(v.flatten().tolist()) for v in bank.values.float() / 255}
    assert all(
        tuple(x.flatten().tolist()) in stock for x in tasks.query.x.flatten(0, 1)
    )


def rotated(image: Tensor, turn: int) -> Tensor:
    for _ in range(turn):
        image = image.transpose(-1, -2).flip(-2)
    return image


def test_turned_classes_are_their_images_rotated() -> None:
    bank = pictures([3, 4], [0, 1])
    turned = bank.turned()
    assert turned.names[2:4] == ("class0/rot090", "class1/rot090")
    assert (len(turned), turned.groups.tolist()) == (8, [0, 1, 2, 3, 4, 5, 6, 7])
    wanted = {
        tuple(rotated(image, k).flatten().tolist()): (i // 3 if i < 3 else 1, k)
        for i, image in enumerate(bank.values)
        for k in range(4)
    }
    found: dict[tuple[int, int], set[int]] = {}
    for task in Episodes(turned, 8, 1, 2).sample(20, seeded()).unbind():
        for part in task:
            for x, y in zip(*part, strict=True):
                key = wanted[
                    tuple((x * 255).round().to(torch.uint8).flatten().tolist())
                ]
                found.setdefault(key, set()).add(int(y.argmax()))
    assert len(found) == 8
    for i in range(8):
        labels = Episodes(turned.pick([i]), 1, 1, 1).sample(2, seeded()).support.x
        for x in labels.flatten(0, 1):
            assert wanted[
                tuple((x * 255).round().to(torch.uint8).flatten().tolist())
            ] == (i % 2, i // 2)


def test_pick_shares_the_examples_and_keeps_what_belongs_to_a_class() -> None:
    bank = numbered([2, 3, 4], [0, 1, 1]).turned()
    picked = bank.pick([4, 2])
    assert picked.values is bank.values
    assert picked.names == ("class1/rot090", "class2/rot000")
    assert (picked.starts.tolist(), picked.counts.tolist()) == ([2, 5], [3, 4])
    assert (picked.groups.tolist(), picked.turns.tolist()) == ([3, 1], [1, 0])


def test_fingerprint_tells_splits_apart() -> None:
    bank = numbered([2, 2, 2])
    assert bank.fingerprint() == numbered([5, 5, 5]).fingerprint()
    assert (
        len(
            {
                bank.fingerprint(),
                bank.pick([0, 1]).fingerprint(),
                bank.pick([1, 0]).fingerprint(),
                bank.turned().fingerprint(),
            }
        )
        == 4
    )


@small
@given(banks(), st.integers(0, 3))
def test_a_bank_that_is_too_small_is_refused_with_a_way_out(
    case: tuple[ClassBank, Size], more: int
) -> None:
    bank, (_, shots, queries) = case
    enough = int((bank.counts >= shots + queries).sum())
    message = (
        rf"{enough + 1 + more}-way tasks with {shots} \+ {queries} examples .* "
        rf"{enough} of {len(bank)} classes .*largest has {int(bank.counts.max())}.*"
        "lower ways, shots or queries"
    )
    with pytest.raises(ValueError, match=message):
        Episodes(bank, enough + 1 + more, shots, queries)


def test_an_empty_bank_and_empty_tasks_are_refused() -> None:
    bank = numbered([5, 5])
    with pytest.raises(ValueError, match="0 of 0 classes"):
        Episodes(bank.pick([]), 2, 1, 1)
    for size in ((0, 1, 1), (2, 0, 1), (2, 1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            Episodes(bank, *size)


def sizes(episodes: Episodes) -> Size:
    return Size(episodes.ways, episodes.shots, episodes.queries)


def feasible(episodes: Episodes, *preferred: int, **more: int) -> Size:
    found = episodes.feasible({**Size(*preferred)._asdict(), **more})
    return Size(found["ways"], found["shots"], found["queries"])


def test_feasible_sizes_are_the_preferred_ones_where_possible() -> None:
    assert feasible(Episodes(numbered([20] * 9), 2, 1, 1), 5, 1, 15) == (5, 1, 15)


def test_feasible_sizes_have_fewer_queries_then_fewer_ways() -> None:
    episodes = Episodes(numbered([6] * 4), 2, 1, 1, groups=1, warp=Warp())
    assert feasible(episodes, 5, 1, 15) == (4, 1, 5)
    assert feasible(episodes, 3, 5, 15) == (3, 5, 1)


def test_feasible_sizes_within_a_group_count_that_group() -> None:
    bank = numbered([4] * 7, [0, 0, 0, 1, 1, 2, 2])
    assert feasible(Episodes(bank, 2, 1, 1), 5, 1, 3, groups=1) == (3, 1, 3)
    assert feasible(Episodes(bank, 2, 1, 1), 5, 1, 3, groups=0) == (5, 1, 3)


def test_feasible_groups_are_those_that_exist_and_only_where_preferred() -> None:
    sizes = {"ways": 6, "shots": 1, "queries": 1}
    grouped = Episodes(numbered([4] * 6, [0, 0, 1, 1, 2, 2]), 2, 1, 1)
    assert grouped.feasible({**sizes, "groups": 9})["groups"] == 3
    assert "groups" not in grouped.feasible(sizes)
    assert "groups" not in Episodes(numbered([4] * 6), 2, 1, 1).feasible(
        {**sizes, "groups": 2}
    )


def test_feasible_refuses_what_is_impossible() -> None:
    with pytest.raises(InnerloopError, match="2-way tasks with 4"):
        feasible(Episodes(numbered([4] * 5), 2, 1, 1), 5, 4, 1)


def test_feasible_ways_exceed_those_of_the_largest_class() -> None:
    episodes = Episodes(numbered([40, 5, 5, 5, 5]), 2, 1, 1)
    assert feasible(episodes, 5, 1, 15) == (5, 1, 4)


@small
@given(banks(), seeds, st.integers(2, 30), st.integers(1, 30))
def test_feasible_sizes_can_be_sampled(
    case: tuple[ClassBank, Size], seed: int, ways: int, queries: int
) -> None:
    bank, size = case
    assume(size.ways >= 2)
    found = Episodes(bank, *size).feasible(
        {"ways": ways, "shots": size.shots, "queries": queries}
    )
    assert found["ways"] <= ways
    assert found["queries"] <= queries
    Episodes(bank, **found).sample(1, seeded(seed))


def test_test_settings_are_those_of_papers_or_of_the_learner() -> None:
    episodes = Episodes(numbered([20] * 30), 7, 3, 5)
    assert [(s["ways"], s["shots"]) for s in episodes.test_settings(None)] == [
        (5, 1),
        (5, 5),
        (20, 1),
        (20, 5),
    ]
    assert episodes.test_settings(7) == [{"ways": 7, "shots": 3}]


def test_class_keys_follow_the_examples_and_not_names_order_or_turns() -> None:
    bank = pictures([3, 4, 5])
    shuffled = ClassBank.of(
        bank.values[[2, 0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11]], [3, 4, 5], ["x", "y", "z"]
    )
    assert len(bank.class_keys()) == 3
    assert bank.class_keys() == shuffled.class_keys()
    assert bank.turned().mirrored().class_keys() == bank.class_keys()
    assert bank.pick([1]).class_keys() < bank.class_keys()
    changed = bank.values.clone()
    changed[0, 0, 0, 0] ^= 1
    other = ClassBank.of(changed, [3, 4, 5], list(bank.names))
    assert len(other.class_keys() & bank.class_keys()) == 2
    assert len(other.item_keys() & bank.item_keys()) == 11
    assert Episodes(bank, 2, 1, 1).class_keys() == bank.class_keys()
    assert Episodes(bank, 2, 1, 1).item_keys() == bank.item_keys()


def test_tasks_describe_and_show_themselves() -> None:
    episodes = Episodes(pictures([8] * 6), 3, 2, 4)
    assert "3-way 2-shot tasks" in repr(episodes)
    assert repr(episodes) == f"<Episodes: {episodes.describe()}>"
    # 3 rows of 2 support and 6 query places, each of 4 pixels with a frame
    assert episodes.show().size == (8 * 6 + 6, 3 * 6)
    assert "<img src=" in episodes._repr_html_()
    numbers_only = Episodes(numbered([8] * 6), 3, 2, 4)
    assert "<img" not in numbers_only._repr_html_()
    with pytest.raises(InnerloopError, match="show"):
        numbers_only.show()


def test_examples_of_a_class_are_found_by_their_number() -> None:
    episodes = Episodes(numbered([4, 5, 6]), 2, 1, 1)
    x = episodes.examples_of(
        torch.tensor([2, 0]), torch.tensor([[0, 5], [3, 1]]), seeded()
    )
    assert x[..., 0].tolist() == [[9, 14], [3, 1]]


def test_reshaped_keeps_the_classes() -> None:
    episodes = Episodes(numbered([6] * 5), 5, 1, 1, groups=4)
    assert sizes(episodes.reshaped(2, 3, 2)) == (2, 3, 2)
    assert episodes.reshaped(2, 3, 2).groups == 2
    assert episodes.reshaped(2, 3, 2).bank is episodes.bank


def test_labeled_examples_keep_their_labels() -> None:
    episodes = Episodes(numbered([4, 1, 6, 3, 5]), 2, 1, 2)
    labeled = episodes.for_supervised(16)
    assert (labeled.spec.y_dim, labeled.spec.x_shape) == (4, (2,))
    task = labeled.sample(50, seeded())
    assert task.query.x.shape == (50, 16, 2)
    assert task.query.y.shape == (50, 16, 4)
    assert task.support is task.query
    names = torch.tensor([0, 2, 3, 4])
    assert torch.equal(names[task.query.y.argmax(-1)], task.query.x[..., 1].long())
    counts = torch.bincount(task.query.x[..., 0].flatten().long(), minlength=19)
    assert counts[:4].min() > 0
    assert counts[4] == 0
    assert counts[5:].min() > 0
    assert torch.equal(task.query.x, labeled.sample(50, seeded()).query.x)


def test_labeled_examples_are_turned_with_their_class() -> None:
    bank = pictures([1, 1])
    task = (
        Episodes(pictures([2, 2]).turned(), 2, 1, 1)
        .for_supervised(40)
        .sample(1, seeded())
    )
    stock = pictures([2, 2]).values
    for x, y in zip(task.query.x[0], task.query.y[0], strict=True):
        owner, turn = int(y.argmax()) % 2, int(y.argmax()) // 2
        image = (x * 255).round().to(torch.uint8)
        assert any(
            torch.equal(image, rotated(original, turn))
            for original in stock[2 * owner : 2 * owner + 2]
        )
    assert len(bank) == 2


def blob(size: int = 28) -> Tensor:
    place = torch.arange(size) - (size - 1) / 2
    return (1.5 - (place[:, None].square() + place.square()).sqrt() / 4).clamp(0, 1)[
        None, None
    ]


def test_warp_keeps_shape_and_roughly_the_ink() -> None:
    images = blob().repeat(50, 3, 1, 1)
    warped = Warp(elastic=0)(images, seeded())
    assert warped.shape == images.shape
    ratio = warped.sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert 0.65 < float(ratio.min()) < 0.98 < 1.02 < float(ratio.max()) < 1.45
    assert 0 <= float(warped.min()) <= float(warped.max()) <= 1


def test_warp_moves_every_image_in_its_own_way_and_its_channels_together() -> None:
    images = blob().repeat(2, 3, 1, 1)
    warped = Warp()(images, seeded())
    assert float((warped[0] - warped[1]).abs().max()) > 0.05
    torch.testing.assert_close(warped[:, 0], warped[:, 2])
    assert torch.equal(warped, Warp()(images, seeded()))


def test_a_warp_of_nothing_changes_nothing() -> None:
    images = torch.rand(4, 1, 9, 9, generator=seeded())
    torch.testing.assert_close(
        Warp(0, 0, 0, 0, 0)(images, seeded()), images, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("degrees", [20.0, 60.0])
def test_warp_turns_by_at_most_its_degrees(degrees: float) -> None:
    bar = torch.zeros(1, 1, 41, 41)
    bar[..., 19:22, 5:36] = 1
    warped = Warp(degrees, 0, 0, 0, 0)(bar.repeat(200, 1, 1, 1), seeded())
    place = torch.arange(41) - 20.0
    mass = warped[:, 0] / warped.sum((1, 2, 3))[:, None, None]
    xx, yy = (
        (mass * place.square()).sum((1, 2)),
        (mass * place.square()[:, None]).sum((1, 2)),
    )
    xy = (mass * place[:, None] * place).sum((1, 2))
    angle = (0.5 * torch.atan2(2 * xy, xx - yy)).abs() * 180 / math.pi
    assert 0.9 * degrees < float(angle.max()) < degrees + 1


def test_warp_shifts_by_at_most_its_fraction_of_the_side() -> None:
    place = torch.arange(40.0)
    images = torch.nn.functional.pad(blob(20), (10, 10, 10, 10)).repeat(300, 1, 1, 1)
    warped = Warp(0, 0, 0, 0.1, 0)(images, seeded())[:, 0]
    center = torch.stack(
        [(warped * place).sum((1, 2)), (warped * place[:, None]).sum((1, 2))]
    ) / warped.sum((1, 2))
    assert 3.7 < float((center - 19.5).abs().max()) < 4.05


def test_an_elastic_warp_moves_places_of_one_image_apart_smoothly_and_not_far() -> None:
    size, elastic = 40, 0.1
    # a pixel's value is where it was, from -1 to 1
    place = (torch.arange(size) + 0.5) / size * 2 - 1
    ramps = torch.stack(
        [place.expand(size, size), place[:, None].expand(size, size)]
    ).repeat(100, 1, 1, 1)
    inside = (..., slice(6, -6), slice(6, -6))
    # (100, 2, 28, 28)
    moved = (Warp(0, 0, 0, 0, elastic)(ramps, seeded()) - ramps)[inside]
    # bicubic curves overshoot their control points a little
    assert 0.7 * elastic < float(moved.abs().max()) < 1.5 * elastic
    assert float(moved.mean().abs()) < 0.1 * elastic
    assert float((moved.amax((2, 3)) - moved.amin((2, 3))).mean()) > 0.5 * elastic
    assert float(moved.diff(dim=3).abs().max()) < 0.3 * elastic


def test_a_mirroring_warp_flips_half_of_the_images_left_to_right() -> None:
    images = torch.rand(1, 3, 9, 7, generator=seeded()).repeat(100, 1, 1, 1)
    warped = Warp(0, 0, 0, 0, 0, mirror=True)(images, seeded())
    flips = [
        torch.allclose(image, images[0].flip(2), atol=1e-5, rtol=0) for image in warped
    ]
    for image, flipped in zip(warped, flips, strict=True):
        expected = images[0].flip(2) if flipped else images[0]
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)
    assert 30 < sum(flips) < 70


def test_a_warp_fills_with_black_or_continues_the_border() -> None:
    white = torch.ones(50, 1, 9, 9)
    assert float(Warp(shift=0.2)(white, seeded()).min()) == 0
    assert float(Warp(shift=0.2, edge="border")(white, seeded()).min()) > 0.999


def test_a_mirrored_class_is_the_class_flipped_and_then_turned() -> None:
    bank = pictures([2] * 3, [0, 0, 1]).turned().mirrored()
    assert len(bank) == len(set(bank.names)) == 24
    assert len(bank.groups.unique()) == 16
    upright, turned = (
        bank.names.index("class0/rot000"),
        bank.names.index("class0/rot090/mirrored"),
    )
    assert (int(bank.turns[turned]), int(bank.starts[turned])) == (
        5,
        int(bank.starts[upright]),
    )
    episodes = Episodes(bank.pick([turned, turned]), 2, 1, 1)
    found = episodes.sample(1, seeded()).support.x[0, 0]
    stock = [
        torch.rot90(image.flip(2), 1, (1, 2)).float() / 255 for image in bank.values[:2]
    ]
    assert any(torch.equal(found, image) for image in stock)


def test_mirroring_and_turning_make_the_same_classes_in_either_order() -> None:
    bank = pictures([2] * 3)
    one, other = bank.turned().mirrored(), bank.mirrored().turned()
    assert sorted(zip(one.starts.tolist(), one.turns.tolist(), strict=True)) == sorted(
        zip(other.starts.tolist(), other.turns.tolist(), strict=True)
    )
    assert sorted(other.turns.tolist()) == sorted(3 * list(range(8)))


def test_only_warped_episodes_differ_from_the_bank() -> None:
    bank = ClassBank.of(
        (blob() * 255).to(torch.uint8).repeat(6, 1, 1, 1), [3, 3], ["a", "b"]
    )
    plain, warped = (
        Episodes(bank, 2, 1, 1, warp=warp).sample(1, seeded()).query.x[0]
        for warp in (None, Warp())
    )
    assert torch.equal(plain[0], plain[1])
    assert not torch.equal(warped[0], warped[1])


def test_examples_are_drawn_with_the_generator_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    episodes = Episodes(
        pictures([4] * 4, [0, 0, 1, 1]).turned(), 4, 1, 2, groups=2, warp=Warp()
    )
    found: list[Examples] = [
        episodes.sample(2, seeded()).query,
        episodes.for_supervised(4).sample(1, seeded()).query,
    ]
    assert len(found) == 2
    assert torch.equal(torch.get_rng_state(), state)
