"""Class-incremental learning: classes arrive one after the other, and the examples of
none are seen again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from innerloop.core.learner import Learner, State
from innerloop.core.task import Examples, TaskDistribution
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.options import Count, checked
from innerloop.engine.sharing import shared
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.chunks import generators
from innerloop.learners.class_incremental_learner import ClassIncremental
from innerloop.measurements import Estimate, Measurement, Report, Row, Table, TestPlan


class Bank(Protocol):
    """The classes of a data set: the number of examples and the group of each, (C,)."""

    counts: Tensor
    groups: Tensor


@runtime_checkable
class ClassSource(Protocol):
    """Tasks that are drawn from a fixed set of classes."""

    bank: Bank

    def examples_of(
        self, classes: Tensor, which: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The inputs (n, k, *x_shape) of the `which`-th (n, k) examples of classes
        (n,).
        """
        ...


class Arrival(NamedTuple):
    """A class that arrives: the position of its group in the stream, its support and
    its query examples, each (n, *x_shape).
    """

    group: int
    support: Tensor
    query: Tensor


@dataclass(frozen=True)
class ClassIncrementalResult:
    """What `class_incremental_test` measured, means over streams.

    Accuracies are over the query examples of all classes so far. In the
    class-incremental setting a query example is classified among all classes so far, in
    the task-aware setting among those of its own group.

    Args:
        accuracy: class-incremental accuracy after the 1st, 2nd, ... group.
        classes: mean number of classes so far.
        forgetting: the best accuracy on a group before the last group arrived minus the
            accuracy at the end, the mean over all groups but the last (Chaudhry et al.
            2018, arXiv:1801.10112, section 4.1). It includes the effect of having more
            classes to choose from; task_aware_forgetting does not.
        task_aware_accuracy, task_aware_forgetting: the same in the task-aware setting,
            at the end.
        streams, shots, queries: number of streams, support and query examples of a
            class.
        seconds: duration of the test.
    """

    accuracy: list[Estimate]
    classes: list[float]
    forgetting: Estimate
    task_aware_accuracy: Estimate
    task_aware_forgetting: Estimate
    streams: int
    shots: int
    queries: int
    seconds: float


def class_incremental_test(
    learner: Learner,
    tasks: ClassSource,
    *,
    groups: Count = 10,
    shots: Count = 5,
    queries: Count = 10,
    streams: Count = 10,
    generator: torch.Generator | None = None,
) -> ClassIncrementalResult:
    """Test on random streams: the classes of `groups` random groups arrive group by
    group, each class once with `shots` examples; after each group, `queries` examples
    of every class so far are classified.

    Data without groups are cut into as many. Raises InnerloopError for a learner that
    must see all classes together, and for data with too few groups or examples.
    """
    sizes = {"groups": groups, "shots": shots, "queries": queries, "streams": streams}
    checked(class_incremental_test, sizes, "class_incremental_test")
    begin = time.monotonic()
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    learner.eval()

    @torch.no_grad()
    def result(own: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        return one_stream(learner, list(stream(tasks, groups, shots, queries, own)))

    seeded = list(itertools.islice(generators(generator), streams))
    results = shared(seeded, result, lambda stream: 1, streams)
    # (streams, groups, groups): the accuracy after group i on group j
    incremental, aware, counts = map(torch.stack, zip(*results, strict=True))
    so_far = counts.cumsum(1)  # (streams, groups)
    # every class has as many query examples
    mean = (incremental * counts[:, None]).sum(-1) / so_far
    return ClassIncrementalResult(
        accuracy=[Estimate.of(values) for values in mean.T],
        classes=so_far.double().mean(0).tolist(),
        forgetting=Estimate.of(forgetting(incremental)),
        task_aware_accuracy=Estimate.of(
            (aware[:, -1] * counts).sum(-1) / so_far[:, -1]
        ),
        task_aware_forgetting=Estimate.of(forgetting(aware)),
        streams=streams,
        shots=shots,
        queries=queries,
        seconds=time.monotonic() - begin,
    )


def forgetting(accuracy: Tensor) -> Tensor:
    """Mean forgetting (streams,) from the accuracy after group i on group j (streams,
    groups, groups), which is 0 for groups that have not arrived.
    """
    if accuracy.shape[1] < 2:
        return accuracy.new_zeros(len(accuracy))
    return (accuracy[:, :-1, :-1].amax(1) - accuracy[:, -1, :-1]).mean(-1)


def stream(
    tasks: ClassSource,
    groups: int,
    shots: int,
    queries: int,
    generator: torch.Generator,
) -> Iterator[Arrival]:
    """The classes of one random stream.

    Raises InnerloopError where there are too few groups or examples.
    """
    counts = tasks.bank.counts
    if int(counts.min()) < shots + queries:
        raise InnerloopError(
            f"a class needs {shots} + {queries} examples; got one with "
            f"{int(counts.min())}: lower the shots or the queries"
        )
    for place, group in enumerate(_groups(tasks.bank, groups, generator)):
        for c in group[torch.randperm(len(group), generator=generator)]:
            order = torch.randperm(int(counts[c]), generator=generator)
            which = order[: shots + queries]
            x = tasks.examples_of(c[None], which[None], generator)[0]
            yield Arrival(place, x[:shots], x[shots:])


def _groups(bank: Bank, groups: int, generator: torch.Generator) -> list[Tensor]:
    """The classes of `groups` random groups, in random order."""
    names = bank.groups.unique()
    classes = len(bank.groups)
    if len(names) == 1:
        if groups > classes:
            raise InnerloopError(
                f"{classes} classes cannot be divided into {groups} groups"
            )
        return list(torch.randperm(classes, generator=generator).tensor_split(groups))
    if groups > len(names):
        raise InnerloopError(
            f"the data have {len(names)} groups of classes; got groups={groups}"
        )
    chosen = names[torch.randperm(len(names), generator=generator)[:groups]]
    return [(bank.groups == group).nonzero()[:, 0] for group in chosen]


def one_stream(
    learner: Learner, arrivals: list[Arrival]
) -> tuple[Tensor, Tensor, Tensor]:
    """The class-incremental and the task-aware accuracy after group i on group j, each
    (groups, groups); and the number of classes of each group (groups,).
    """
    device = next(learner.parameters(), torch.empty(0)).device
    group_of = torch.tensor([arrival.group for arrival in arrivals])  # (classes,)
    groups = int(group_of.max()) + 1
    incremental, aware = torch.zeros(groups, groups), torch.zeros(groups, groups)
    state: State = None
    check_extensible(learner, arrivals, device)
    for k, arrival in enumerate(arrivals):
        state = extended(learner, state, arrival.support.to(device), k)
        if k + 1 < len(arrivals) and group_of[k + 1] == arrival.group:
            continue
        for j in range(arrival.group + 1):
            own = (group_of == j).nonzero()[:, 0]
            x = torch.cat([arrivals[c].query for c in own])
            y = own.repeat_interleave(len(arrivals[0].query))
            # (m, k + 1)
            outputs = learner.predict(state, x.to(device)).float().cpu()
            among_own = own[outputs[:, own].argmax(-1)]
            incremental[arrival.group, j] = (outputs.argmax(-1) == y).float().mean()
            aware[arrival.group, j] = (among_own == y).float().mean()
    return incremental, aware, torch.bincount(group_of)


def extended(learner: Learner, state: State, x: Tensor, k: int) -> State:
    """The state after examples x (n, *x_shape) of a new class, where there were k
    classes before.

    A class-incremental learner extends its state itself. The state of any other must
    have one row for each class, and gets one more.
    """
    if isinstance(learner, ClassIncremental):
        y = torch.eye(k + 1, device=x.device)[k].expand(len(x), -1)
        return learner.extend(state, Examples(x, y))
    new = learner.adapt(Examples(x, x.new_ones(len(x), 1)))
    if state is None:
        return new
    return tree_map(lambda old, new: torch.cat([old, new]), state, new)


def check_extensible(
    learner: Learner, arrivals: list[Arrival], device: torch.device
) -> None:
    """Raises InnerloopError for a learner whose state for two classes is not that of
    each put together.
    """
    if isinstance(learner, ClassIncremental):
        return
    refused = InnerloopTypeError(
        f"{type(learner).__name__} learns the classes of a task together and cannot "
        "add one: try ProtoNet, OML or FineTune"
    )
    if learner.fixed_ways:
        raise refused
    if len(arrivals) < 2:
        raise InnerloopError("a stream needs at least two classes; got one")
    first, second = (arrival.support.to(device) for arrival in arrivals[:2])
    labels = torch.eye(2, device=device)[[0] * len(first) + [1] * len(second)]
    together = tree_leaves(learner.adapt(Examples(torch.cat([first, second]), labels)))
    state = extended(learner, extended(learner, None, first, 0), second, 1)
    for a, b in zip(together, tree_leaves(state), strict=True):
        if a.shape != b.shape or not torch.allclose(a, b, rtol=1e-3, atol=1e-4):
            raise refused


class ClassIncrementalTest(Evaluation):
    """Class-incremental learning: classes arrive group by group and are not seen again.

    Reference: Chaudhry, Dokania, Ajanthan and Torr 2018, "Riemannian walk for
    incremental learning: understanding forgetting and intransigence",
    arXiv:1801.10112, section 4.1.

    Args:
        groups: number of groups of classes that arrive.
        shots: support examples of a class.
        queries: query examples of a class.
        streams: number of random streams.
    """

    groups: Count = 10
    shots: Count = 5
    queries: Count = 10
    streams: Count = 10

    @classmethod
    def supports(cls, learner: Learner, tasks: TaskDistribution) -> str | None:
        if tasks.spec.kind != "classes" or not isinstance(tasks, ClassSource):
            return "it needs tasks that are drawn from a fixed set of classes"
        return None

    def measure(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:
        assert isinstance(tasks, ClassSource)
        result = class_incremental_test(
            learner,
            tasks,
            groups=self.groups,
            shots=self.shots,
            queries=self.queries,
            streams=self.streams,
            generator=plan.generator(),
        )

        def fraction(name: str, estimate: Estimate) -> Measurement:
            return Measurement.of(
                name, estimate, self.streams, "%", learner.transductive
            )

        progress = tuple(
            Row(
                {"groups so far": i, "classes so far": round(classes, 1)},
                (fraction("accuracy", accuracy),),
            )
            for i, (classes, accuracy) in enumerate(
                zip(result.classes, result.accuracy, strict=True), 1
            )
        )
        settings = (
            ("class-incremental", result.accuracy[-1], result.forgetting),
            ("task-aware", result.task_aware_accuracy, result.task_aware_forgetting),
        )
        end = []
        for name, accuracy, forgot in settings:
            values = [fraction("accuracy", accuracy)]
            if self.groups > 1:
                values.append(fraction("forgetting", forgot))
            end.append(Row({"setting": name}, tuple(values)))
        notes = [
            f"{self.streams} streams, {self.shots} support and {self.queries} query "
            f"examples of a class, {result.seconds:.0f} s",
            "class-incremental: a query example is classified among all classes so "
            "far; task-aware: among those of its own group",
        ]
        if self.streams > 1 and self.groups >= len(tasks.bank.groups.unique()) > 1:
            notes.append(
                "every stream has the same groups: the intervals say nothing about "
                "other classes"
            )
        tables = (
            Table("class-incremental accuracy", progress),
            Table("at the end of a stream", tuple(end)),
        )
        return Report(tables, tuple(notes), {"streams": self.streams})
