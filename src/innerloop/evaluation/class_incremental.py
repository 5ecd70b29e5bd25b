"""The protocol of continual learning: classes arrive one after the other, and none is
shown again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from innerloop.core.learner import Learner, State
from innerloop.core.meta_test import Estimate
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopError
from innerloop.learners.class_incremental_learner import ClassIncremental
from innerloop.tasks.episodes import ClassBank, Episodes


class Arrival(NamedTuple):
    """A class that arrives: its group's place in the stream, examples to learn from and
    to ask for, each (n, *x_shape).
    """

    group: int
    support: Tensor
    query: Tensor


@dataclass(frozen=True)
class ContinualResult:
    """What `continual_test` measured, means over streams with 95 % intervals. All
    accuracies are over queries of all classes so far.

    accuracy: after the 1st, 2nd, ... group of classes, among all classes so far.
    classes: how many these are, on average.
    forgetting: of a group, the best accuracy that it had before the last group came
    minus that at the end, averaged over all groups but the last (Chaudhry et al. 2018,
    "Riemannian walk for incremental learning", arXiv:1801.10112, section 4.1). It
    counts that there are more classes to confuse later; told_forgetting does not:
    there, a query is classified among those of its own group.
    told: the accuracy at the end, likewise.
    """

    accuracy: list[Estimate]
    classes: list[float]
    forgetting: Estimate
    told: Estimate
    told_forgetting: Estimate
    streams: int
    shots: int
    queries: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""

        def plain(value: Any) -> Any:
            return (
                value._asdict()
                if isinstance(value, Estimate)
                else [plain(v) for v in value]
                if isinstance(value, list)
                else value
            )

        return {entry.name: plain(getattr(self, entry.name)) for entry in fields(self)}


def continual_test(
    learner: Learner,
    tasks: Episodes,
    *,
    groups: int = 10,
    shots: int = 5,
    queries: int = 10,
    streams: int = 10,
    generator: torch.Generator | None = None,
) -> ContinualResult:
    """Let classes of `groups` random groups (groups) arrive in random order, group
    by group, each once with `shots` examples, and ask `queries` of every class so far
    after each group; over so many random streams.

    Data without groups is cut into as many. A learner goes on as `further` says. Raises
    ValueError for one that must see all classes together, and for data with too few
    groups or examples.
    """
    begin = time.monotonic()
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    learner.eval()
    some, told, sizes = [], [], []
    with torch.no_grad():
        for _ in range(streams):
            rows, told_rows, classes = one_stream(
                learner, list(stream(tasks, groups, shots, queries, generator))
            )
            some.append(rows)
            told.append(told_rows)
            sizes.append(classes)
    # (streams, groups, groups) accuracy after group i on group j
    among_all, within = torch.stack(some), torch.stack(told)
    counts = torch.stack(sizes)  # (streams, groups) classes of a group
    so_far = counts.cumsum(1)
    # (streams, groups): as many queries of each class
    mean = (among_all * counts[:, None]).sum(-1) / so_far
    return ContinualResult(
        accuracy=[Estimate.of(values) for values in mean.T],
        classes=so_far.double().mean(0).tolist(),
        forgetting=Estimate.of(forgotten(among_all)),
        told=Estimate.of((within[:, -1] * counts).sum(-1) / so_far[:, -1]),
        told_forgetting=Estimate.of(forgotten(within)),
        streams=streams,
        shots=shots,
        queries=queries,
        seconds=time.monotonic() - begin,
    )


def forgotten(accuracy: Tensor) -> Tensor:
    """Mean forgetting (streams,) from the accuracy after group i on group j (streams,
    groups, groups), 0 for those still to come.
    """
    if accuracy.shape[1] < 2:
        return accuracy.new_zeros(len(accuracy))
    return (accuracy[:, :-1, :-1].amax(1) - accuracy[:, -1, :-1]).mean(-1)


def stream(
    tasks: Episodes, groups: int, shots: int, queries: int, generator: torch.Generator
) -> Iterator[Arrival]:
    """The classes of one random stream. Raises ValueError where there are too few
    groups or examples.
    """
    bank = tasks.bank
    if int(bank.counts.min()) < shots + queries:
        raise InnerloopError(
            f"a class needs {shots} + {queries} examples, and one has {int(bank.counts.min())}: lower the shots or the queries"
        )
    for place, group in enumerate(_groups(bank, groups, generator)):
        for c in group[torch.randperm(len(group), generator=generator)]:
            drawn = torch.randperm(int(bank.counts[c]), generator=generator)[
                : shots + queries
            ]
            x = tasks._images(
                bank.starts[c] + drawn[None],
                bank.turns[c].expand(1, len(drawn)),
                generator,
            )[0]
            yield Arrival(place, x[:shots], x[shots:])


def _groups(bank: ClassBank, groups: int, generator: torch.Generator) -> list[Tensor]:
    """So many random groups of classes, in random order."""
    names = bank.groups.unique()
    if len(names) == 1:
        if groups > len(bank):
            raise InnerloopError(
                f"{len(bank)} classes cannot be cut into {groups} groups"
            )
        return list(torch.randperm(len(bank), generator=generator).tensor_split(groups))
    if groups > len(names):
        raise InnerloopError(
            f"there are {len(names)} groups of classes, and {groups} were asked for"
        )
    chosen = names[torch.randperm(len(names), generator=generator)[:groups]]
    return [(bank.groups == group).nonzero()[:, 0] for group in chosen]


def one_stream(
    learner: Learner, arrivals: list[Arrival]
) -> tuple[Tensor, Tensor, Tensor]:
    """The accuracy after group i on group j (groups, groups), among all classes so far
    and among those of group j; and how many these are (groups,).
    """
    device = next(learner.parameters(), torch.empty(0)).device
    of = torch.tensor([arrival.group for arrival in arrivals])  # (classes,)
    groups = int(of.max()) + 1
    among_all, within = torch.zeros(groups, groups), torch.zeros(groups, groups)
    state: State = None
    check_growth(learner, arrivals, device)
    for k, arrival in enumerate(arrivals):
        state = further(learner, state, arrival.support.to(device), k)
        if k + 1 == len(arrivals) or of[k + 1] > of[k]:
            for j in range(arrival.group + 1):
                own = (of == j).nonzero()[:, 0]
                x = torch.cat([arrivals[c].query for c in own])
                y = own.repeat_interleave(len(arrivals[0].query))
                # (m, k + 1)
                outputs = learner.predict(state, x.to(device)).float().cpu()
                among_all[arrival.group, j] = (outputs.argmax(-1) == y).float().mean()
                within[arrival.group, j] = (
                    (own[outputs[:, own].argmax(-1)] == y).float().mean()
                )
    return among_all, within, torch.bincount(of)


def further(learner: Learner, state: State, x: Tensor, k: int) -> State:
    """The state after examples x (n, *x_shape) of a new class, of which there were k
    before.

    An incremental learner says itself how it goes on. The state of another has one row
    for every class, and gets one more.
    """
    if isinstance(learner, ClassIncremental):
        return learner.extend(
            state, Examples(x, torch.eye(k + 1, device=x.device)[k].expand(len(x), -1))
        )
    new = learner.adapt(Examples(x, x.new_ones(len(x), 1)))
    return (
        new
        if state is None
        else tree_map(lambda old, new: torch.cat([old, new]), state, new)
    )


def check_growth(
    learner: Learner, arrivals: list[Arrival], device: torch.device
) -> None:
    """Raises ValueError for a learner that cannot go on: what it knows of two classes
    is not what it knows of each.
    """
    if isinstance(learner, ClassIncremental):
        return
    first, second = (arrival.support.to(device) for arrival in arrivals[:2])
    told = f"{type(learner).__name__} learns the classes of a task together and cannot take one more: try ProtoNet, OML or FineTune"
    if not learner.any_ways(learner.given):
        raise InnerloopError(told)
    labels = torch.eye(2, device=device)[[0] * len(first) + [1] * len(second)]
    together = tree_leaves(learner.adapt(Examples(torch.cat([first, second]), labels)))
    grown = tree_leaves(further(learner, further(learner, None, first, 0), second, 1))
    if not all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-4)
        for a, b in zip(together, grown, strict=True)
    ):
        raise InnerloopError(told)
