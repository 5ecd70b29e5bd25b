"""Stories of a few facts, and questions about them, in the way of bAbI."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count, Range
from innerloop.evaluation.chunks import measured
from innerloop.measurements import (
    Estimate,
    Measurement,
    Report,
    Row,
    Table,
    TaskScores,
    TestPlan,
)
from innerloop.tasks.splits import task_source
from innerloop.tasks.translation import PSEUDOWORDS, Lexicon, Words, row

Kind = Literal[
    "one-fact", "two-facts", "three-facts", "yes-no", "counting", "lists", "mixed"
]
KINDS: tuple[Kind, ...] = get_args(Kind)[:-1]
MOVE = ("went", "moved", "journeyed", "travelled")
TAKE = ("took", "got", "grabbed", "picked")
DROP = ("dropped", "discarded", "put")
GIVE = ("gave", "handed", "passed")
VERBS = (*MOVE, *TAKE, *DROP, *GIVE)
ASKS = ("where", "is", "was", "in", "before", "how", "many", "what", "carrying")
NOTHING = "nothing"
# answers that are no word of the story: to what is counted, by number, and others
COUNTS = ("none", "one", "two", "three", "four")
FIXED = ("yes", "no", NOTHING, *COUNTS)
# words that a text may have, and that say nothing here
FILLERS = frozenset(
    ("the", "a", "an", "to", "up", "down", "back", "there", "objects", "things")
)
LENGTH = 6  # words of the longest fact or question
TRIES = 1000  # stories that are drawn for a task
HELD_OUT = 26  # of 256 stories are for validation, and as many for testing


class Question(NamedTuple):
    """A question with its answer, one word or more, and the numbers of the facts that
    carry it.
    """

    kind: Kind
    words: Words
    answer: Words
    facts: tuple[int, ...] = ()


@dataclass
class World:
    """Who is where and carries what, with the facts that say so."""

    place: dict[str, tuple[str, int]] = field(default_factory=dict)  # of a person
    holder: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    # of an object that was put down, or that moved: where, and which facts say so
    lying: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    before: dict[str, tuple[str, str, tuple[int, ...]]] = field(default_factory=dict)
    facts: list[Words] = field(default_factory=list)

    def carried(self, person: str) -> list[str]:
        return [thing for thing, (by, _) in self.holder.items() if by == person]

    def step(self, random: Random, people: Words, things: Words, places: Words) -> None:
        """One more fact, about what can happen."""
        number, person = len(self.facts), random.choice(people)
        here, carried = self.place.get(person), self.carried(person)
        near = [
            other
            for other in people
            if other != person and here and self.place.get(other, " ")[0] == here[0]
        ]
        free = [
            thing
            for thing in things
            if thing not in self.holder
            and (thing not in self.lying or (here and self.lying[thing][0] == here[0]))
        ]
        acts = ["move", "move"] + ["take", "take"] * bool(free)
        acts += ["drop"] * bool(carried) + ["give", "give"] * bool(carried and near)
        act = random.choice(acts)
        if act == "move":
            to = random.choice([p for p in places if here is None or p != here[0]])
            if here is not None:
                for thing in carried:
                    found = {*self.holder[thing][1], here[1], number}
                    self.before[thing] = here[0], to, tuple(sorted(found))
            self.place[person] = to, number
            self.facts.append((person, random.choice(MOVE), to))
        elif act == "take":
            thing = random.choice(free)
            self.lying.pop(thing, None)
            self.before.pop(thing, None)
            self.holder[thing] = person, (number,)
            self.facts.append((person, random.choice(TAKE), thing))
        elif act == "drop":
            thing = random.choice(carried)
            del self.holder[thing]
            self.before.pop(thing, None)
            # where nobody knows the place, the object is gone for good
            self.lying[thing] = (here[0], (here[1], number)) if here else ("", ())
            self.facts.append((person, random.choice(DROP), thing))
        else:
            thing, other = random.choice(carried), random.choice(near)
            self.before.pop(thing, None)
            self.holder[thing] = other, (number,)
            self.facts.append((person, random.choice(GIVE), thing, other))

    def questions(self, people: Words, places: Words) -> list[Question]:
        """All questions that the facts answer."""
        found = []
        for person, (place, fact) in self.place.items():
            found.append(
                Question("one-fact", ("where", "is", person), (place,), (fact,))
            )
            for other in places:
                answer = "yes" if other == place else "no"
                asked = ("is", person, "in", other)
                found.append(Question("yes-no", asked, (answer,), (fact,)))
        known = {thing: at for thing, at in self.lying.items() if at[0]}
        for thing, (person, facts) in self.holder.items():
            if person in self.place:
                place, fact = self.place[person]
                known[thing] = place, tuple(sorted({*facts, fact}))
        found += [
            Question("two-facts", ("where", "is", thing), (place,), facts)
            for thing, (place, facts) in known.items()
        ]
        for thing, (place, now, facts) in self.before.items():
            asked = ("where", "was", thing, "before", now)
            found.append(Question("three-facts", asked, (place,), facts))
        for person in people:
            carried = tuple(self.carried(person))
            if not any(person in fact for fact in self.facts):
                continue
            facts = tuple(sorted(self.holder[thing][1][0] for thing in carried))
            asked = ("how", "many", "is", person, "carrying")
            count = (COUNTS[len(carried)],)
            found.append(Question("counting", asked, count, facts))
            asked = ("what", "is", person, "carrying")
            found.append(Question("lists", asked, carried or (NOTHING,), facts))
        return found


def random_story(random: Random, size: int) -> tuple[list[Words], list[Question]]:
    """`size` facts, and all questions that they answer."""
    people, things, places = (
        tuple(f"{letter}{i}" for i in range(random.randint(*counts)))
        for letter, counts in (
            ("person", (2, 4)),
            ("object", (2, 4)),
            ("place", (3, 5)),
        )
    )
    world = World()
    for _ in range(size):
        world.step(random, people, things, places)
    return world.facts, world.questions(people, places)


def split_of(facts: Sequence[Words]) -> str:
    """The split of a story, the same whatever its names are: by a hash, 80 % of all
    stories are for training, and 10 % each for validation and testing.
    """
    names: dict[str, str] = {}
    text = [
        word if word in VERBS else names.setdefault(word, str(len(names)))
        for fact in facts
        for word in fact
    ]
    first = hashlib.sha256(" ".join(text).encode()).digest()[0]
    return "test" if first < HELD_OUT else "val" if first < 2 * HELD_OUT else "train"


class Stories(TaskDistribution):
    """A story is a task. Its facts are the support set: x (n, facts, words), which
    words they have and where, and y (n, facts, answers + facts), zeros for the words
    that can be answers and the one-hot number of the fact. Questions are the query set:
    y marks the words of the answer, and the facts that carry it.

    Names, things and places have other numbers in every task, so no word that is not a
    verb or asks has a meaning of its own.

    Args:
        split: whose stories.
        kind: of the questions.
        facts: how many a story has; in training from 2 up to this.
        queries: questions of a story.
        symbols: how many different names, things and places a story may have.
    """

    prefetch = True
    validation_size = 100

    def __init__(self, split: str, kind: Kind, facts: int, queries: int, symbols: int):
        self.split, self.kind = split, kind
        self.facts, self.queries = facts, queries
        self.lexicon = Lexicon((*VERBS, *ASKS, *FIXED), symbols)
        # the number of the word of the first answer, and how many there are
        self.first = self.lexicon.first_free - len(FIXED)
        self.answers = len(FIXED) + symbols
        y_dim = self.answers + facts
        size = (LENGTH + 1) * (self.lexicon.size - 1)
        self.spec = TaskSpec("bits", (size,), y_dim)

    def describe(self) -> str:
        return f"stories of {self.facts} facts, and {self.kind} questions"

    def sample(self, n: int, generator: torch.Generator) -> Task:
        random = Random(int(torch.randint(2**62, (), generator=generator)))
        size = random.randint(2, self.facts) if self.split == "train" else self.facts
        stories = []
        for _ in range(n):
            facts, questions = self.story(random, size)
            order = torch.randperm(self.lexicon.free, generator=generator).tolist()
            numbers = self.numbers(facts, [q.words for q in questions], order)
            asked = self.rows([question.words for question in questions], numbers)
            y = self.targets(questions, numbers)
            stories.append((*self.support(facts, numbers), asked, y))
        x, y, query_x, query_y = map(torch.stack, zip(*stories, strict=True))
        return Task(Examples(x, y), Examples(query_x, query_y))

    def story(self, random: Random, size: int) -> tuple[list[Words], list[Question]]:
        """A story of the split, and questions of the kind; of several kinds, and of
        several answers of a kind, each is as likely.
        """
        for _ in range(TRIES):
            facts, questions = random_story(random, size)
            wanted: dict[str, dict[Any, list[Question]]] = defaultdict(dict)
            for question in questions:
                if self.kind in (question.kind, "mixed"):
                    fixed = tuple(w if w in FIXED else "" for w in question.answer)
                    wanted[question.kind].setdefault(fixed, []).append(question)
            if wanted and split_of(facts) == self.split:
                groups = [[*of_kind.values()] for of_kind in wanted.values()]
                return facts, [
                    random.choice(random.choice(random.choice(groups)))
                    for _ in range(self.queries)
                ]
        raise InnerloopError(
            f"no story of {size} facts answers a question of the kind {self.kind}: "
            "choose more facts"
        )

    def numbers(
        self, facts: Sequence[Words], asked: Sequence[Words], order: Sequence[int]
    ) -> dict[str, int]:
        """The number of each word, as `Lexicon.numbers`."""
        return self.lexicon.numbers([(fact, ()) for fact in facts], asked, order)

    def rows(self, texts: Sequence[Words], numbers: dict[str, int]) -> Tensor:
        """Texts as vectors (n, x): how often each word occurs, and which word is at
        each place.
        """
        lines = [row(words, numbers, LENGTH) for words in texts]
        found = torch.tensor(lines, dtype=torch.long).view(-1, LENGTH)
        places = F.one_hot(found, self.lexicon.size)[..., 1:]  # without padding
        return torch.cat([places.sum(1), places.flatten(1)], 1).float()

    def support(self, facts: Sequence[Words], numbers: dict[str, int]) -> Examples:
        """The facts with their numbers."""
        y = torch.zeros(len(facts), self.spec.y_dim)
        y[:, self.answers :] = torch.eye(self.facts)[: len(facts)]
        return Examples(self.rows(facts, numbers), y)

    def targets(self, questions: Sequence[Question], numbers: dict[str, int]) -> Tensor:
        """The answers, and the facts that carry them (m, y_dim)."""
        lines = []
        for question in questions:
            line = [0.0] * self.spec.y_dim
            for word in question.answer:
                line[numbers[word] - self.first] = 1.0
            for fact in question.facts:
                line[self.answers + fact] = 1.0
            lines.append(line)
        return torch.tensor(lines)

    def words_of(self, x: Tensor) -> list[list[int]]:
        """The numbers of the words of vectors, the inverse of `rows`."""
        places = x.unflatten(1, (LENGTH + 1, -1))[:, 1:]
        numbers = (places.argmax(-1) + 1) * places.amax(-1).long()  # (n, places)
        return [[n for n in line if n] for line in numbers.tolist()]

    def chosen(self, outputs: Tensor, x: Tensor) -> Tensor:
        """The words of the answers to questions x, and the facts (m, y_dim), as zeros
        and ones: the likeliest word, of a list all that are more likely than not, and
        the facts that are.
        """
        answers, facts = outputs.split([self.answers, self.facts], -1)
        what = self.numbers([], [], ())["what"]
        several = x[:, what - 1, None] > 0
        likeliest = F.one_hot(answers.argmax(-1), self.answers) > 0
        return torch.cat([likeliest | (several & (answers > 0)), facts > 0], -1).float()

    def right(self, chosen: Tensor, y: Tensor) -> Tensor:
        """Which answers, and which choices of facts, are exactly right (m, 2)."""
        same = (chosen == y).split([self.answers, self.facts], -1)
        return torch.stack([part.all(-1) for part in same], -1).float()

    def _scores(
        self, methods: dict[str, Method], learner: Learner, plan: TestPlan
    ) -> Any:
        @torch.no_grad()
        def of_batch(batch: Task) -> dict[str, Tensor]:
            return {
                name: torch.stack(
                    [
                        self.right(m(task), task.query.y).mean(0)
                        for task in batch.unbind()
                    ]
                ).cpu()
                for name, m in methods.items()
            }

        learner.eval()
        parts = measured(learner, self, of_batch, n=plan.n, generator=plan.generator())
        return {name: torch.cat([part[name] for part in parts]) for name in methods}

    def answer(self, learner: Learner) -> Method:
        """How a learner answers the questions of a task."""
        return lambda task: self.chosen(
            learner.predict(learner.adapt(task.support), task.query.x), task.query.x
        )

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report:
        """The share of answers that are exactly right, and of choices of facts, beside
        simple rules.
        """
        methods = {
            type(learner).__name__: self.answer(learner),
            "latest fact": self.latest,
            "most frequent": self.most_frequent,
        }
        rows = []
        for name, values in self._scores(methods, learner, plan).items():
            answer, facts = values.unbind(1)
            both = (
                Measurement.of("answer", Estimate.of(answer), plan.n, "%"),
                Measurement.of("facts", Estimate.of(facts), plan.n, "%"),
            )
            rows.append(Row({**plan.labels, "method": name}, both))
        title = "questions that are answered exactly, and whose facts are found exactly"
        return Report((Table(title, tuple(rows)),), context={"tasks": plan.n})

    def task_scores(self, learner: Learner, plan: TestPlan) -> TaskScores:
        values = self._scores({"": self.answer(learner)}, learner, plan)[""]
        return TaskScores("answer", values[:, 0], "%")

    def score(self, learner: Learner, plan: TestPlan) -> Measurement:
        return self.task_scores(learner, plan).measurement()

    def test_settings(self, fixed_ways: int | None) -> list[dict[str, Any]]:
        return [{"kind": kind} for kind in KINDS]

    def plot_task(self, learner: Learner, task: Task, figure: Any) -> None:
        """The story with made-up names, its questions, and the learner's answers, in
        green where they and the facts, as numbers, are right.
        """
        words = {number: word for word, number in self.numbers([], [], ()).items()}
        found = self.answer(learner)(task).cpu()
        right = self.right(found, task.query.y.cpu()).all(-1).tolist()
        lines = []
        for i, fact in enumerate(self.words_of(task.support.x.cpu()), 1):
            for number in fact:
                words.setdefault(number, PSEUDOWORDS[len(words) % len(PSEUDOWORDS)])
            lines.append((f"{i}. {' '.join(words[n] for n in fact)}", "black"))
        questions = self.words_of(task.query.x.cpu())
        for asked, line, good in zip(questions, found, right, strict=True):
            places = line.nonzero()[:, 0].tolist()
            told = [words.get(i + self.first, "?") for i in places if i < self.answers]
            facts = [str(i - self.answers + 1) for i in places if i >= self.answers]
            text = f"{' '.join(words.get(n, '?') for n in asked)}? {', '.join(told)}"
            color = "green" if good else "red"
            lines.append((f"{text} ({', '.join(facts)})", color))
        axes = figure.subplots()
        axes.axis("off")
        for height, (text, color) in enumerate(lines):
            axes.text(0, -height, text, va="center", fontsize=6, color=color)
        axes.set(xlim=(0, 1), ylim=(-len(lines), 1))

    def latest(self, task: Task) -> Tensor:
        """The latest fact that shares a word with the question: its last word, or
        whether that is in the question; and "one" where the question is how many.
        """
        return self._by_rule(task, self._latest)

    def most_frequent(self, task: Task) -> Tensor:
        """The last word of most facts, or whether that is in the question; "one" where
        the question is how many, and "nothing" for a list.
        """
        return self._by_rule(task, self._usual)

    def _latest(self, facts: list[list[int]], asked: list[int]) -> tuple[int, int]:
        free = {n for n in asked if n >= self.lexicon.first_free}
        at = max((i for i, fact in enumerate(facts) if free & {*fact}), default=-1)
        return facts[at][-1], at % len(facts)

    def _usual(self, facts: list[list[int]], asked: list[int]) -> tuple[int, int]:
        word = Counter(fact[-1] for fact in facts).most_common(1)[0][0]
        known = self.numbers([], [], ())
        return known[NOTHING] if asked[0] == known["what"] else word, len(facts) - 1

    def _by_rule(self, task: Task, rule: Callable[..., tuple[int, int]]) -> Tensor:
        known = self.numbers([], [], ())
        facts, questions = map(self.words_of, (task.support.x, task.query.x))
        y = torch.zeros_like(task.query.y)
        for line, asked in zip(y, questions, strict=True):
            word, fact = rule(facts, asked)
            if asked[0] == known["is"]:
                word = known["yes" if word in asked else "no"]
            elif asked[0] == known["how"]:
                word = known["one"]
            line[word - self.first] = 1
            line[self.answers + fact] = 1
        return y


Method = Callable[[Task], Tensor]  # from a task to what is chosen (m, y_dim)


@task_source
def stories(
    split: str = "train",
    *,
    kind: Kind = "mixed",
    facts: Annotated[int, Range(2, 64)] = 10,
    queries: Count = 10,
    symbols: Count = 16,
) -> Stories:
    """Stories: facts about persons and things, and questions about them.

    Reference: Weston, Bordes, Chopra, Rush, van Merriënboer, Joulin and Mikolov 2015,
    "Towards AI-complete question answering: a set of prerequisite toy tasks",
    arXiv:1502.05698, tasks 1, 2, 3, 6, 7 and 8.

    A story is a task.

    Generated like bAbI, not taken from it. Names, things and places mean nothing of
    themselves: they are numbered anew in every task. No story, whatever its names, is
    in two splits.

    Args:
        kind: of the questions: from one, two or three facts, yes or no, counting,
            lists, or mixed.
        facts: facts of a story; in training from 2 up to this.
        queries: questions of a story.
        symbols: how many different names, things and places a story may have.
    """
    return Stories(split, kind, facts, queries, symbols)
