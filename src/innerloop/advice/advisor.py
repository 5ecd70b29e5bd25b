"""Measuring candidates on a user's own classes, within a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from innerloop.advice.answer import Advice, Record
from innerloop.advice.candidates import (
    OWN,
    Candidate,
    candidates,
    trained_candidates,
)
from innerloop.advice.data import (
    LabeledData,
    episodes,
    read_labeled,
    spec_of,
    usable,
)
from innerloop.advice.diagnosis import Diagnosis, diagnose
from innerloop.advice.scoring import Draws, fewer_shots, joined, measure, split
from innerloop.advice.sources import Source, distance, known_sources, sample
from innerloop.assembly import choose_meta_gradient, training_config
from innerloop.core.learner import Learner
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Positive, Seed, check_options
from innerloop.metagrad import meta_train
from innerloop.metagrad.meta_train import build_optimizer, scheduled
from innerloop.tasks.episodes import ClassBank, Episodes

ALL = -1  # in keys: tasks from all classes
POINTS = (1, 2, 3, 5, 10, 20, 50)  # examples per class, of a learning curve
FEWEST = 10  # classes, to train on some of them
FOLDS = 4  # at most
STEPS = 300  # of a training
SHORTEST = 30  # steps of a training that is worth it
TIMED = 4  # steps before a training, to know how long it takes
FEW = 5  # tasks at once, of candidates that are slow
BLOCKS = 8  # of tasks, for a candidate
MORE = 40  # blocks where there is time
# when each part must have ended, as a share of the time
PARTS = {"untrained": 0.25, "slow": 0.3, "curve": 0.42, "source": 0.6, "trained": 0.95}


@dataclass(frozen=True)
class Plan:
    """How long and how to compare.

    Args:
        minutes: how long to measure, after the items are embedded.
        ways: classes in a task.
        shots: support examples of each class, one or several numbers.
        seed: seed of the tasks and of training.
    """

    minutes: Positive = 5.0
    ways: Count = 5
    shots: tuple[int, ...] = (1, 5)
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_options(self)
        shots = tuple(sorted(set(self.shots)))
        if not shots or shots[0] < 1:
            raise InnerloopError(f"shots must be at least 1; got {self.shots}")
        if self.ways < 2:
            raise InnerloopError(f"ways must be at least 2; got {self.ways}")
        object.__setattr__(self, "shots", shots)


@dataclass(frozen=True)
class Step:
    """Something was measured or trained: what, and which share of the time is over."""

    text: str
    share: float


class Advisor:
    """Compares candidates on labeled data. Iterate over `run` to measure; `advice`
    answers at any time with what is known.

    Untrained candidates are tested on tasks of all classes. Meta-trained ones are
    trained on a part of the classes and tested on the others, and compared with the
    untrained on the same tasks.

    Args:
        data: the labeled items.
        plan: how long and how to compare.
    """

    def __init__(self, data: LabeledData, plan: Plan | None = None):
        self.data, self.plan = data, plan or Plan()
        self.records = {c.name: Record(c) for c in candidates(data)}
        self.held_out: dict[str, Record] = {}  # on classes that were not trained on
        self.curve = Record(Candidate("", ""))
        self.diagnosis: Diagnosis | None = None
        self.distances: list[tuple[str, float]] = []
        self.notes: list[str] = list(data.notes)
        self.folds, self.steps = 0, 0
        self.index = data.index()
        self._draws: dict[tuple[int, int], Draws] = {}
        self._learners: dict[tuple[str, int], Learner] = {}
        self._start = time.monotonic()

    # ------------------------------------------------------------------ time

    @property
    def share(self) -> float:
        """The share of the time that is over."""
        return (time.monotonic() - self._start) / (60 * self.plan.minutes)

    def left(self, part: str) -> float:
        """The seconds that are left of a part."""
        return (PARTS[part] - self.share) * 60 * self.plan.minutes

    def _step(self, text: str) -> Step:
        return Step(text, min(self.share, 1.0))

    # ------------------------------------------------------------------ measuring

    def run(self) -> Iterator[Step]:
        """Measure until the time is over; it can be closed at any time."""
        self._start = time.monotonic()
        self._check()
        if not self.shots:
            yield from self._look_at_data()
            return
        quick = [r for r in self.records.values() if not r.candidate.slow]
        slow = [r for r in self.records.values() if r.candidate.slow]
        yield from self._measure(quick, BLOCKS, "untrained")
        yield from self._look_at_data()
        yield from self._measure(slow, BLOCKS, "slow")
        self.notes += [
            f"no time for {r.candidate.name}: use more --minutes"
            for r in slow
            if not r.blocks
        ]
        yield from self._learning_curve()
        if self.curve.candidate.name and len(self.curve.blocks) < 2:
            self.notes.append("no time for a learning curve: use more --minutes")
        yield from self._sources()
        yield from self._train()
        yield from self._measure(quick, MORE, "trained")

    def advice(self) -> Advice:
        """The answer, from what was measured so far."""
        return Advice(
            self.data,
            self.plan.ways,
            dict(self.records),
            dict(self.held_out),
            self.curve,
            self.diagnosis,
            tuple(self.distances),
            tuple(dict.fromkeys(self.notes)),
        )

    @property
    def shots(self) -> list[int]:
        """The numbers of shots for which the classes are large enough."""
        counts = self.data.bank.counts
        return [k for k in self.plan.shots if usable(counts, self.plan.ways, k)[0]]

    def _check(self) -> None:
        counts, plan = self.data.bank.counts, self.plan
        classes = len(counts)
        if classes < plan.ways:
            self.notes.append(
                f"there are {classes} classes, so tasks have {classes} ways instead of "
                f"{plan.ways}"
            )
        for k in plan.shots:
            ways, _ = usable(counts, plan.ways, k)
            if not ways:
                self.notes.append(
                    f"{k} shots cannot be measured: two classes with more than {k} "
                    f"examples are needed, and {int((counts > k).sum())} have as many"
                )
            elif (fewer := int((counts <= k).sum())) > 0:
                self.notes.append(
                    f"{fewer} of {classes} classes have {k} examples or fewer and are "
                    f"not in the tasks of {k} shots"
                )
        least, most = int(counts.min()), int(counts.max())
        if most >= 10 * least:
            self.notes.append(
                f"classes have {least} to {most} examples: tasks draw equally many of "
                "each, so the accuracies do not show that the large ones are known "
                "better"
            )

    def _drawn(self, population: int, shots: int, classes: list[int] | None) -> Draws:
        key = (population, shots)
        if key not in self._draws:
            bank = self.index if classes is None else self.index.pick(classes)
            tasks = episodes(bank, self.plan.ways, shots)
            assert tasks is not None
            self._draws[key] = Draws(tasks, self.plan.seed)
        return self._draws[key]

    def _learner(self, candidate: Candidate, ways: int) -> Learner:
        key = (candidate.name, ways)
        if key not in self._learners:
            torch.manual_seed(self.plan.seed)
            values = self._values(candidate)
            self._learners[key] = candidate.build(spec_of(values, ways))
        return self._learners[key]

    def _values(self, candidate: Candidate) -> Tensor:
        raw = self.data.raw if candidate.raw else None
        return (raw or self.data.bank).values

    def _measure(
        self, records: Sequence[Record], blocks: int, part: str
    ) -> Iterator[Step]:
        """Tasks of all classes, block by block for all candidates."""
        for number in range(blocks):
            for shots in self.shots:
                drawn = self._drawn(ALL, shots, None)
                for record in records:
                    key = (ALL, number)
                    if record.has(shots, key):
                        continue
                    if self.left(part) < 0 and (number or part != "untrained"):
                        return
                    learner = self._learner(record.candidate, drawn.episodes.ways)
                    values, parts = self._values(record.candidate), []
                    size = FEW if record.candidate.slow else drawn.size
                    for task in split(drawn.block(number), size):
                        if parts and self.left(part) < 0:
                            break
                        parts.append(measure(learner, values, task))
                        yield self._step(f"{record.candidate.name}, {shots} shots")
                    else:
                        record.add(shots, key, joined(parts))

    def _look_at_data(self) -> Iterator[Step]:
        self.diagnosis = diagnose(self.data, self.plan.seed)
        yield self._step("leave-one-out predictions")

    def _learning_curve(self) -> Iterator[Step]:
        counts = self.data.bank.counts
        room = int(counts.double().quantile(0.2)) - 1
        points = [k for k in POINTS if k <= room]
        if len(points) < 2:
            self.notes.append(
                "no learning curve: most classes need at least three examples"
            )
            return
        # the same classes, with as many queries, at every point
        classes = (counts > points[-1]).nonzero()[:, 0].tolist()
        chosen = self.advice().untrained(self.shots[-1])
        self.curve.candidate = chosen
        bank = self.index.pick(classes)
        ways, queries = usable(bank.counts, self.plan.ways, points[-1])
        drawn = Draws(Episodes(bank, ways, points[-1], queries), self.plan.seed)
        learner = self._learner(chosen, ways)
        for number in range(BLOCKS):
            for k in points:
                if self.left("curve") < 0:
                    return
                # the same queries, and nested support sets
                tasks = fewer_shots(drawn.block(number), k)
                block = measure(learner, self._values(chosen), tasks)
                self.curve.add(k, (ALL, number), block)
                yield self._step(f"learning curve, {k} examples per class")

    # ------------------------------------------------------------------ training

    def _trained(
        self, candidate: Candidate, bank: ClassBank, seconds: float, seed: int
    ) -> Iterator[Step | Learner | None]:
        """Train a candidate on classes for STEPS steps, or as many as there is time
        for; yields steps, and at last the learner, or None where there is no time.
        """
        torch.manual_seed(seed)
        probe = Episodes(bank, 2, 1, 1)
        learner = candidate.build(probe.spec)
        defaults = learner.defaults
        sizes = {n: vars(defaults)[n] for n in ("ways", "shots", "queries", "groups")}
        sizes = probe.feasible(sizes)
        tasks = Episodes(
            bank,
            sizes["ways"],
            sizes["shots"],
            sizes["queries"],
            sizes.get("groups", 0),
        )
        name, rule = choose_meta_gradient(type(learner), tasks, None)
        config = training_config(type(learner), name, rule, {})

        def loop(steps: int) -> Any:
            return meta_train(
                learner,
                tasks,
                steps=steps,
                batch=config.batch,
                meta_gradient=rule,
                optimizer=build_optimizer(learner, config),
                schedule=scheduled(config),
                clip=config.clip,
                generator=torch.Generator().manual_seed(seed),
            )

        first = {n: t.clone() for n, t in learner.state_dict().items()}
        # the first step is slower than the others, and so is what follows the last
        times = [time.monotonic() for _ in loop(1 + TIMED)]
        each = (times[-1] - times[0]) / TIMED
        learner.load_state_dict(first)
        torch.manual_seed(seed)
        steps = min(STEPS, int(seconds / max(each, 1e-9)))
        if steps < SHORTEST:
            yield None
            return
        self.steps = steps
        for number, _, _ in loop(steps):
            yield self._step(f"{candidate.name}: step {number + 1} of {steps}")
        yield learner

    def _train(self) -> Iterator[Step]:
        """Train on a part of the classes, and test on the others, fold by fold."""
        plan, data = self.plan, self.data
        counts = data.bank.counts
        if data.what not in OWN and data.path is not None:
            self.notes.append(f"no command trains on {data.what}s with labels")
            return
        enough = (counts > 1).nonzero()[:, 0]
        if len(enough) < FEWEST:
            self.notes.append(
                f"nothing was trained on your classes: {FEWEST} classes of two "
                f"examples are needed, to hold some out, and there are {len(enough)}"
            )
            return
        folds = max(2, min(FOLDS, len(enough) // plan.ways))
        generator = torch.Generator().manual_seed(plan.seed)
        order = enough[torch.randperm(len(enough), generator=generator)]
        parts = [order[i::folds].sort().values.tolist() for i in range(folds)]
        chosen = trained_candidates(data)
        self.folds = 0
        for fold, held_out in enumerate(parts):
            rest = sorted(c for i, p in enumerate(parts) if i != fold for c in p)
            for place, candidate in enumerate(chosen):
                runs = (folds - fold) * len(chosen) - place
                seconds = 0.7 * self.left("trained") / runs
                bank = data.bank.pick(rest)
                found: Learner | None = None
                for event in self._trained(candidate, bank, seconds, plan.seed + fold):
                    if isinstance(event, Step):
                        yield event
                    else:
                        found = event
                if found is None:
                    self.notes.append(
                        f"time to hold out only {fold} of {folds} parts of your "
                        "classes: use more --minutes"
                        if fold
                        else "no time to train on a part of your classes: use more "
                        "--minutes"
                    )
                    return
                yield from self._on_held_out(candidate, found, fold, held_out)
            self.folds = fold + 1

    def _on_held_out(
        self, candidate: Candidate, learner: Learner, fold: int, classes: list[int]
    ) -> Iterator[Step]:
        """The tasks of held-out classes, for a trained learner and the untrained."""
        counts = self.data.bank.counts[classes]
        known = [r.candidate for r in self.records.values()]
        rivals = [c for c in known if not c.slow and not c.trained]
        for shots in self.shots:
            if not usable(counts, self.plan.ways, shots)[0]:
                continue
            drawn = self._drawn(fold, shots, classes)
            ways = drawn.episodes.ways
            tested = [(candidate, learner)]
            tested += [(rival, self._learner(rival, ways)) for rival in rivals]
            for number in range(BLOCKS // 2):
                for one, trained in tested:
                    record = self.held_out.setdefault(one.name, Record(one))
                    key = (fold, number)
                    if not record.has(shots, key):
                        values = self._values(one)
                        block = measure(trained, values, drawn.block(number))
                        record.add(shots, key, block)
                        yield self._step(f"{one.name} on held-out classes")

    # ------------------------------------------------------------------ sources

    def _sources(self) -> Iterator[Step]:
        """Compare known task sources with the data, and train on the nearest."""
        if self.left("source") < 0:
            return
        seed, bank = self.plan.seed, self.data.bank
        found: list[tuple[float, Source]] = []
        for source in known_sources(bank.reader, seed):
            if isinstance(source, str):
                self.notes.append(source)
                continue
            theirs = source.bank
            theirs = sample(theirs, seed)
            far = distance(sample(bank, seed), theirs)
            found.append((far, source))
            yield self._step(f"distance to {source.name}")
            if self.left("source") < 0:
                break
        found.sort(key=lambda pair: pair[0])
        self.distances = [(source.name, far) for far, source in found]
        if len(bank) >= 4:
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(bank), generator=generator)
            halves = [bank.pick(p.sort().values.tolist()) for p in order.chunk(2)]
            within = distance(*(sample(half, seed) for half in halves))
            self.distances.append(("(one half of your classes to the other)", within))
        if found:
            yield from self._on_source(found[0][1])

    def _on_source(self, source: Source) -> Iterator[Step]:
        """Train on a source, and test on the user's tasks."""
        own = self.data.bank.item_keys()
        shared = [
            i
            for i in range(len(source.bank))
            if own & source.bank.pick([i]).item_keys()
        ]
        if shared:
            self.notes.append(
                f"{len(shared)} classes of {source.name} hold items of yours and were "
                "not trained on"
            )
        kept = [i for i in range(len(source.bank)) if i not in set(shared)]
        usable_classes = [i for i in kept if int(source.bank.counts[i]) > 1]
        if len(usable_classes) < 2:
            return
        bank = source.bank.pick(usable_classes)
        name = source.name if source.complete else f"a sample of {source.name}"
        candidate = trained_candidates(self.data, source.name)[0]
        candidate = replace(candidate, name=candidate.name.replace(source.name, name))
        learner: Learner | None = None
        seconds = 0.6 * self.left("source")
        for event in self._trained(candidate, bank, seconds, self.plan.seed):
            if isinstance(event, Step):
                yield event
            else:
                learner = event
        if learner is None:
            self.notes.append(f"no time to train on {source.name}: use more --minutes")
            return
        record = self.records.setdefault(candidate.name, Record(candidate))
        for number in range(BLOCKS):
            for shots in self.shots:
                drawn = self._drawn(ALL, shots, None)
                block = measure(learner, self.data.bank.values, drawn.block(number))
                record.add(shots, (ALL, number), block)
                yield self._step(f"{candidate.name}, {shots} shots")


def advise(
    data: Path | str | ClassBank | LabeledData,
    *,
    minutes: float = 5.0,
    ways: int = 5,
    shots: Sequence[int] = (1, 5),
    encoder: str | None = None,
    seed: int = 0,
    columns: dict[str, str] | None = None,
) -> Advice:
    """What to use for labeled data: candidates are compared on tasks from the user's
    own classes, by cross-validation.

    Args:
        data: a folder, a table or an archive; or a bank of vectors in memory.
        minutes: how long to measure, after the items are embedded.
        ways: classes in a task.
        shots: support examples of each class, one or several numbers.
        encoder: a pretrained encoder; by default those that are installed.
        seed: seed of the tasks and of training.
        columns: the columns of a table, such as {"text_column": "question"}.

    Raises InnerloopError for data that cannot be read, or have fewer than two classes.
    """
    if isinstance(data, ClassBank):
        data = LabeledData.of(data)
    elif not isinstance(data, LabeledData):
        data = read_labeled(data, encoder, columns)
    advisor = Advisor(data, Plan(minutes, ways, tuple(shots), seed))
    for _ in advisor.run():
        pass
    return advisor.advice()
