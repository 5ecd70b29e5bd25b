"""Robustness: accuracy after learning from support sets with corrupted examples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import CountOrZero, Fraction, Positive
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.chunks import device_of
from innerloop.evaluation.comparison import paired_difference
from innerloop.evaluation.few_shot import task_scores
from innerloop.measurements import Measurement, Report, Row, Table, TestPlan

AT_ONCE = 5  # tasks that are attacked together

# New support examples for a batch of tasks, the query examples that an attack may use,
# and the examples to change (tasks, n); what it returns for others is not used.
Corruption = Callable[[Task, Examples, Tensor, torch.Generator], Examples]


class CorruptedTasks(TaskDistribution):
    """Tasks of which some support examples are corrupted, a share of every class and at
    least one. The tasks, and the examples that are chosen, depend on the generator
    only, so two corruptions are measured on the same ones.

    The query set is every second query example; the others are those that an attack may
    use.
    """

    def __init__(self, tasks: TaskDistribution, corrupt: Corruption, share: float):
        self.tasks, self.corrupt, self.share = tasks, corrupt, share
        self.spec = tasks.spec

    def sample(self, n: int, generator: torch.Generator) -> Task:
        support, query = self.tasks.sample(n, generator)
        if query.y.shape[1] < 2 * self.spec.y_dim:
            raise InnerloopError(
                "robustness needs at least two query examples of a class, one that an "
                "attack may use and one that it does not: raise the queries"
            )
        seen, unseen = halves(query)
        chosen = chosen_examples(support.y, self.share, generator)
        new = self.corrupt(Task(support, unseen), seen, chosen, generator)
        x = torch.where(_like(chosen, support.x), new.x, support.x)
        y = torch.where(chosen[..., None], new.y, support.y)
        return Task(Examples(x, y), unseen)

    def class_keys(self) -> frozenset[str]:
        return self.tasks.class_keys()


def _like(chosen: Tensor, x: Tensor) -> Tensor:
    """A mask (tasks, n) that broadcasts to x (tasks, n, *x_shape)."""
    return chosen.view(*chosen.shape, *[1] * (x.dim() - 2))


def halves(query: Examples) -> tuple[Examples, Examples]:
    """The query examples of a batch of tasks in two halves, each with about as many of
    every class.
    """
    order = query.y.argmax(-1).argsort(dim=1, stable=True)  # (tasks, m)
    rows = torch.arange(len(order))[:, None]
    first, second = order[:, ::2], order[:, 1::2]
    return (
        Examples(query.x[rows, first], query.y[rows, first]),
        Examples(query.x[rows, second], query.y[rows, second]),
    )


def chosen_examples(y: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A random share of the examples of every class, at least one: a mask (tasks, n),
    from one-hot labels y (tasks, n, ways).
    """
    same = y @ y.mT  # (tasks, n, n)
    luck = torch.rand(y.shape[:2], generator=generator)
    rank = (same * (luck[:, None] < luck[..., None])).sum(-1)
    return rank < (share * same.sum(-1)).round().clamp_min(1)


def wrong_labels(
    task: Task, seen: Examples, chosen: Tensor, generator: torch.Generator
) -> Examples:
    """The label of another class of the task, any with the same probability."""
    x, y = task.support
    ways = y.shape[-1]
    away = torch.randint(1, ways, y.shape[:-1], generator=generator)
    return Examples(x, F.one_hot((y.argmax(-1) + away) % ways, ways).to(y))


def outliers(
    tasks: TaskDistribution,
    task: Task,
    seen: Examples,
    chosen: Tensor,
    generator: torch.Generator,
) -> Examples:
    """The support examples of other tasks."""
    return Examples(tasks.sample(len(chosen), generator).support.x, task.support.y)


def noise(
    task: Task, seen: Examples, chosen: Tensor, generator: torch.Generator
) -> Examples:
    """Gaussian noise with the standard deviation of all numbers of the support set."""
    x, y = task.support
    random = torch.randn(x.shape, generator=generator)
    spread = x.flatten(1).std(1).view(-1, *[1] * (x.dim() - 1))
    return Examples(_within(x + spread * random, x), y)


def occlusion(
    task: Task, seen: Examples, chosen: Tensor, generator: torch.Generator
) -> Examples:
    """A rectangle of half the height and half the width of an image, anywhere, with the
    mean value of the images.
    """
    x, y = task.support  # x (tasks, n, channels, height, width)
    hidden = torch.ones(())
    for size, axis in ((x.shape[-2], -2), (x.shape[-1], -1)):
        width = (size + 1) // 2
        first = torch.randint(size - width + 1, x.shape[:2], generator=generator)
        place = torch.arange(size) - first[..., None]  # (tasks, n, size)
        inside = ((place >= 0) & (place < width)).to(x)
        hidden = hidden * inside[:, :, None].unsqueeze(-1 if axis == -2 else -2)
    mean = x.flatten(1).mean(1).view(-1, 1, 1, 1, 1)
    return Examples(torch.where(hidden > 0.5, mean, x), y)


def _within(new: Tensor, x: Tensor) -> Tensor:
    """New inputs, clipped to the range of the inputs x of the same task."""
    flat, shape = x.flatten(1), (-1, *[1] * (x.dim() - 1))
    return new.clamp(flat.amin(1).view(shape), flat.amax(1).view(shape))


class Attack:
    """A poisoned support set: projected gradient ascent on the loss of query examples,
    through `adapt`, in the chosen inputs; all together, each number by at most `budget`
    and within the range of the task's inputs.

    x <- project(x + 2.5 budget / steps * sign(d/dx loss(adapt(support), seen)))

    Oldewage, Bronskill and Turner 2022, "Adversarial attacks are a surprisingly strong
    baseline for poisoning few-shot meta-learners", arXiv:2211.12990; the steps are
    those of Madry, Makelov, Schmidt, Tsipras and Vladu 2018, "Towards deep learning
    models resistant to adversarial attacks", arXiv:1706.06083, section 2.1, from a
    random start.
    """

    def __init__(self, learner: Learner, budget: float, steps: int):
        self.learner, self.budget, self.steps = learner, budget, steps

    def __call__(
        self, task: Task, seen: Examples, chosen: Tensor, generator: torch.Generator
    ) -> Examples:
        x = task.support.x
        random = torch.rand(x.shape, generator=generator)
        start = self.budget * (2 * random - 1)
        columns = (x, task.support.y, *seen, _like(chosen, x), start)
        parts = zip(*(t.split(AT_ONCE) for t in columns), strict=True)
        found = [self._ascended(*part).cpu() for part in parts]
        return Examples(torch.cat(found), task.support.y)

    def _ascended(self, *columns: Tensor) -> Tensor:
        device = device_of(self.learner)
        x, y, query_x, query_y, chosen, delta = (t.to(device) for t in columns)
        rate = 2.5 * self.budget / self.steps
        for _ in range(self.steps):
            at = _within(x + chosen * delta, x)
            tasks = Task(Examples(at, y), Examples(query_x, query_y))
            slope = self.gradient(tasks, self.learner.likelihood.nll)
            assert slope is not None
            delta = (delta + rate * slope.sign()).clamp(-self.budget, self.budget)
        return _within(x + chosen * delta, x)

    def gradient(
        self, tasks: Task, of: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor | None:
        """The gradient of a function of query outputs and targets, in the support
        inputs (tasks, n, *x_shape); None where the learner gives none.
        """
        x = tasks.support.x.detach().requires_grad_()

        def value(task: Task) -> Tensor:
            state = self.learner.adapt(task.support)
            return of(self.learner.predict(state, task.query.x), task.query.y)

        with torch.enable_grad():
            support = Examples(x, tasks.support.y)
            total = self.learner.mapped(value, Task(support, tasks.query)).sum()
            if not total.requires_grad:
                return None
            return torch.autograd.grad(total, x, allow_unused=True)[0]

    def impossible(self, tasks: TaskDistribution) -> str | None:
        """Why the support sets of these tasks cannot be attacked, or None."""
        if tasks.spec.vocabulary:
            return "inputs are token numbers, which do not change by small steps"
        name = type(self.learner).__name__
        if self.learner.first_order:
            return f"this {name} leaves second derivatives out (first_order)"
        task = tasks.sample(1, torch.Generator().manual_seed(0))
        # of outputs: that of a loss may be 0 where all predictions are certain
        slope = self.gradient(
            task.to(device_of(self.learner)), lambda outputs, y: outputs[:, 0].sum()
        )
        if slope is None or not bool(slope.any()):
            return f"predictions of {name} have no gradient in its support examples"
        return None


class Robustness(Evaluation):
    """Robustness: accuracy with corrupted support examples and wrong labels.

    Every task is learned from its support set as it is, and again with some examples of
    every class corrupted in one way: wrong labels, examples of classes outside of the
    task, noise, occlusion (of images), and an attack that changes inputs a little so
    that predictions for other examples become wrong. It is scored on query examples
    that the attack did not use.

    Reference: Liang, Rangrej, Petrovic and Hassner 2022, "Few-shot learning with noisy
    labels", arXiv:2204.05494, for labels and outliers.

    The attack: Oldewage, Bronskill and Turner 2022, "Adversarial attacks are a
    surprisingly strong baseline for poisoning few-shot meta-learners",
    arXiv:2211.12990.

    Args:
        share: share of the examples of a class that are corrupted; at least one is.
        budget: largest change of a number of an input by the attack; images of most
            readers have values from 0 to 1.
        attack_steps: gradient steps of the attack; 0 leaves it out.
    """

    share: Fraction = 0.2
    budget: Positive = 0.1
    attack_steps: CountOrZero = 20

    @classmethod
    def supports(cls, learner: Learner, tasks: TaskDistribution) -> str | None:
        if tasks.spec.kind != "classes" or tasks.spec.ordered or tasks.played:
            return "it needs tasks of classes"
        return None

    def measure(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:
        corruptions: dict[str, Corruption] = {
            "clean": lambda task, seen, chosen, generator: task.support,
            "wrong labels": wrong_labels,
            "outliers": partial(outliers, tasks),
        }
        if not tasks.spec.vocabulary:
            corruptions["noise"] = noise
        if tasks.spec.is_image:
            corruptions["occlusion"] = occlusion
        notes = [
            f"{self.share:.0%} of the support examples of every class, at least one, "
            "are corrupted; the same tasks and examples in all rows"
        ]
        if self.attack_steps:
            attack = Attack(learner, self.budget, self.attack_steps)
            if (reason := attack.impossible(tasks)) is not None:
                notes.append(f"no attack: {reason}")
            else:
                corruptions["attack"] = attack
                notes.append(
                    f"attack: {self.attack_steps} steps, numbers change by at most "
                    f"{self.budget:g}"
                )
        scores = {
            name: task_scores(learner, CorruptedTasks(tasks, corrupt, self.share), plan)
            for name, corrupt in corruptions.items()
        }
        rows = []
        for name, found in scores.items():
            values = [found.measurement()]
            if name != "clean":
                gap = paired_difference(found, scores["clean"])
                of = (plan.n, found.unit, found.transductive)
                values.append(Measurement.of("difference to clean", gap, *of))
            rows.append(Row({**plan.labels, "support set": name}, tuple(values)))
        table = Table("robustness to corrupted support examples", tuple(rows))
        return Report((table,), tuple(notes), {"tasks": plan.n, "seed": plan.seed})
