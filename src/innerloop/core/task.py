"""Tasks and task distributions."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from innerloop.engine.errors import InnerloopError, InnerloopTypeError

if TYPE_CHECKING:
    from innerloop.core.learner import Learner
    from innerloop.core.likelihood import Likelihood
    from innerloop.measurements import Measurement, Report, TaskScores, TestPlan


class Examples(NamedTuple):
    """Labeled examples. A pytree, so it crosses `vmap`; any number of leading task
    axes may precede the shapes below.
    """

    x: Tensor  # (n, *x_shape)
    # (n, y_dim)  one-hot rows for classes, reals, or zeros and ones
    y: Tensor


class Task(NamedTuple):
    """One task: learn from `support`, predict for `query`. A batch of tasks is the same
    type with one more leading axis.
    """

    support: Examples
    query: Examples

    def to(self, device: torch.device | str) -> Task:
        """The same task with every tensor on `device`."""
        # a copy to the CPU that does not block could be read before it has arrived
        ahead = torch.device(device).type != "cpu"
        return Task(
            *(
                Examples(*(t.to(device, non_blocking=ahead) for t in examples))
                for examples in self
            )
        )

    def split(self, numbers: int) -> list[Task]:
        """A batch of tasks as smaller batches, each of as many tasks as have at most so
        many numbers in their inputs, and at least one.
        """
        size = max(1, numbers // sum(examples.x[0].numel() for examples in self))
        if size >= len(self.query.x):
            return [self]
        columns = (t.split(size) for examples in self for t in examples)
        return [
            Task(Examples(x, y), Examples(query_x, query_y))
            for x, y, query_x, query_y in zip(*columns, strict=True)
        ]

    def unbind(self) -> list[Task]:
        """The single tasks of a batch of tasks."""
        return [
            Task(*(Examples(examples.x[i], examples.y[i]) for examples in self))
            for i in range(len(self.query.x))
        ]


Kind = Literal["classes", "reals", "bits", "programs", "maps", "tokens"]


@dataclass(frozen=True)
class TaskSpec:
    """The shape of a task: all that is needed to build a learner for it.

    Args:
        kind: "classes" (targets are one-hot rows), "reals" (real vectors), "bits"
            (independent zeros and ones), "programs" (the outputs of a program, and
            the program), "maps" (values for every pixel of an image) or "tokens" (rows
            of token numbers, 0 after their end).
        x_shape: shape of one input, `(channels, height, width)` for images,
            `(features,)` for vectors.
        y_dim: number of ways for classes, of values for the other kinds.
        ordered: support and query are one sequence, and every query is answered after
            those before it.
        vocabulary: number of tokens where an input is a row of token numbers, in which
            0 is padding; 0 where inputs are no tokens.
        items: number of known items where an input begins with a one-hot row that says
            which item it is; 0 for other inputs.
    """

    kind: Kind
    x_shape: tuple[int, ...]
    y_dim: int
    ordered: bool = False
    vocabulary: int = 0
    items: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InnerloopError(
                f"TaskSpec.kind must be one of {', '.join(get_args(Kind))}; got "
                f"{self.kind!r}"
            )
        try:
            sizes = tuple(operator.index(size) for size in self.x_shape)
            numbers = (operator.index(self.y_dim), operator.index(self.vocabulary))
        except TypeError as error:
            raise InnerloopTypeError(
                "TaskSpec needs integers; got "
                f"x_shape={self.x_shape!r:.60}, y_dim={self.y_dim!r:.60}, "
                f"vocabulary={self.vocabulary!r:.60}"
            ) from error
        object.__setattr__(self, "x_shape", sizes)
        if not sizes or min(*sizes, numbers[0]) < 1 or numbers[1] < 0:
            raise InnerloopError(
                "TaskSpec needs positive sizes; got "
                f"x_shape={self.x_shape}, y_dim={self.y_dim}, "
                f"vocabulary={self.vocabulary}"
            )

    @property
    def is_image(self) -> bool:
        return len(self.x_shape) == 3

    @property
    def x_size(self) -> int:
        """The number of values in one input."""
        return math.prod(self.x_shape)

    def same_inputs(self, other: TaskSpec) -> bool:
        """Whether a learner built for one of them can read tasks of the other; the
        number of ways may differ.
        """
        fixed = ("kind", "x_shape", "ordered", "vocabulary")
        same = all(getattr(self, name) == getattr(other, name) for name in fixed)
        return same and (self.kind == "classes" or self.y_dim == other.y_dim)

    def check(self, tasks: Task, n: int, dtype: torch.dtype = torch.float32) -> None:
        """Raises InnerloopError where a batch of `n` tasks does not fit this spec, or
        has numbers of another type than a learner's parameters.
        """
        for part, examples in zip(Task._fields, tasks, strict=True):
            x, y = examples
            count = x.shape[1] if x.dim() > 1 else 0
            for name, tensor, shape in (
                (f"{part}.x", x, (n, count, *self.x_shape)),
                (f"{part}.y", y, (n, count, self.y_dim)),
            ):
                if tensor.shape != shape:
                    wanted = ", ".join(["tasks", "examples", *map(str, shape[2:])])
                    raise InnerloopError(
                        f"sample({n}, generator) returned {name} of shape "
                        f"{tuple(tensor.shape)}; expected ({wanted}) with {n} tasks"
                    )
                if tensor.dtype != dtype:
                    way = " (one-hot rows for classes)" if name.endswith("y") else ""
                    raise InnerloopError(
                        f"sample({n}, generator) returned {name} of {tensor.dtype}, "
                        f"but the learner computes in {dtype}: convert it by "
                        f".to({dtype}){way}"
                    )

    def __str__(self) -> str:
        return f"{self.y_dim} {self.kind} from inputs of shape {self.x_shape}"


class TaskDistribution(ABC):
    """A distribution of tasks. `spec` describes the shape of one task, `sample` samples
    a batch of tasks.

    All randomness comes from the generator that is passed in, so a seed determines the
    tasks. All other members have defaults for tasks with labeled examples.

    Class variables:
        prefetch: whether `sample` may run in a background thread during the previous
            meta-step; for distributions that never change.
        played: whether the tasks are environments (see `innerloop.rl`).
        validation_size: number of tasks in a validation.
    """

    spec: TaskSpec
    prefetch: ClassVar[bool] = False
    played: ClassVar[bool] = False
    validation_size: ClassVar[int] = 50
    reader: Any = None  # the reader of the raw inputs, or None
    note: str = ""  # how the data were read, where that is not obvious

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.describe()}>"

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Task:
        """`n` tasks with one leading axis: support x (n, s, *x_shape), y (n, s, y_dim);
        query likewise.
        """

    def describe(self) -> str:
        """What the tasks are, in a few words without a verb."""
        return f"tasks with {self.spec}"

    def likelihood(self) -> Likelihood | None:
        """How outputs must be read on these tasks, or None for the usual reading."""
        return None

    def objective(self) -> Any:
        """What evolution strategies minimize (see `innerloop.metagrad.population`), or
        None for the learner's loss.
        """
        return None

    def test_settings(self, fixed_ways: int | None) -> list[dict[str, Any]]:
        """The options under which papers report results on these tasks, one dictionary
        for each row of a result table; `fixed_ways` is the number of ways of a learner
        that cannot change it, or None.
        """
        return [{}]

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report | None:
        """Measure the learner as these tasks need it, or None for the few-shot
        protocol, see `meta_test`.
        """
        return None

    def score(self, learner: Learner, plan: TestPlan) -> Measurement | None:
        """The measurement that matters most, for validation, or None for the score of
        the few-shot protocol.
        """
        return None

    def task_scores(self, learner: Learner, plan: TestPlan) -> TaskScores | None:
        """The score of every task of a test, to compare learners, or None for that of
        the few-shot protocol.

        Raises InnerloopError where a test has no score for each task.
        """
        return None

    def sample_names(
        self, n: int, generator: torch.Generator
    ) -> list[list[str]] | None:
        """The names of the classes of what `sample` draws, or None without names."""
        return None

    def for_supervised(self, batch: int) -> TaskDistribution:
        """The same data as one problem with all classes at once and fixed labels,
        `batch` examples at a time.

        Raises InnerloopError where there are no classes.
        """
        raise InnerloopError(
            "this learner trains on all classes at once, and these tasks have none"
        )

    def feasible(self, preferred: dict[str, int]) -> dict[str, int]:
        """The values of ways, shots, queries and groups nearest to `preferred` that the
        data allow, without those that do not apply to these tasks.
        """
        return preferred

    def class_keys(self) -> frozenset[str]:
        """Keys of the classes by content, to find classes that two sources share; empty
        where tasks are drawn from no fixed classes.
        """
        return frozenset()

    def class_names(self) -> tuple[str, ...]:
        """What the classes are called; empty where they have no names."""
        return ()

    def item_keys(self) -> frozenset[str]:
        """Keys of the single examples by content, to find examples that two splits
        share; empty where examples are generated.
        """
        return frozenset()

    def plot_task(self, learner: Learner, task: Task, figure: Any) -> None:
        """Draw what the learner predicts on one task into a matplotlib (sub)figure.

        Raises InnerloopError where these tasks have no picture.
        """
        raise InnerloopError("these tasks have no picture")
