"""The laws that every learner obeys, as functions that raise AssertionError: for this
library's learners and for yours.
"""

from __future__ import annotations

import copy
import io
import pickle
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from innerloop.core.learner import Learner, Streaming
from innerloop.core.metagrad import META_GRADIENTS, backprop
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.metagrad import STRATEGIES, evolve
from innerloop.metagrad.meta_train import Step, meta_train


class Blobs(TaskDistribution):
    """Small synthetic tasks of any spec: classes are Gaussian blobs around random
    centres, or texts in which most tokens are those of the class; reals are random
    linear maps, bits their signs.
    """

    def __init__(self, spec: TaskSpec, shots: int = 2, queries: int = 3):
        self.spec, self.shots, self.queries = spec, shots, queries

    def sample(self, n: int, generator: torch.Generator) -> Task:
        spec = self.spec
        if spec.kind != "classes":
            x = torch.randn(
                n, self.shots * 4 + self.queries * 4, spec.x_size, generator=generator
            )
            y = (
                x
                @ torch.randn(n, spec.x_size, spec.y_dim, generator=generator)
                / spec.x_size**0.5
            )
            y = y if spec.kind == "reals" else (y > 0).float()
            cut = self.shots * 4
        else:
            centres = torch.randn(n, spec.y_dim, spec.x_size, generator=generator)
            labels = torch.arange(spec.y_dim).repeat(self.shots + self.queries)
            x = centres[:, labels] + 0.3 * torch.randn(
                n, len(labels), spec.x_size, generator=generator
            )
            if spec.vocabulary:
                own = torch.randint(
                    1, spec.vocabulary, centres.shape, generator=generator
                )[:, labels]
                x = torch.where(
                    torch.rand(x.shape, generator=generator) < 0.8,
                    own,
                    torch.randint(spec.vocabulary, x.shape, generator=generator),
                ).float()
            y = (
                torch.nn.functional.one_hot(labels, spec.y_dim)
                .float()
                .expand(n, -1, -1)
            )
            cut = self.shots * spec.y_dim
        x = x.view(n, -1, *spec.x_shape)
        return Task(Examples(x[:, :cut], y[:, :cut]), Examples(x[:, cut:], y[:, cut:]))


def check_learner(
    learner: Learner, spec: TaskSpec, *, laws: list[str] | None = None
) -> None:
    """Hold a learner, built for `spec`, to every law that applies to it (or to those
    named), on synthetic tasks.

    The learner is not changed. Raises AssertionError with the law's name and what was
    found.
    """
    for name, law in LAWS.items():
        if laws is None or name in laws:
            try:
                law(copy.deepcopy(learner).eval(), Blobs(spec))
            except AssertionError as error:
                raise AssertionError(
                    f"{type(learner).__name__} breaks the law {name!r}: {error}"
                ) from error


def _tasks(tasks: TaskDistribution, n: int = 3, seed: int = 0) -> Task:
    return tasks.sample(n, torch.Generator().manual_seed(seed))


def _close(a: object, b: object, what: str, tolerance: float = 1e-4) -> None:
    for left, right in zip(tree_leaves(a), tree_leaves(b), strict=True):
        gap = (
            float((left.detach().double() - right.detach().double()).abs().max())
            if left.numel()
            else 0.0
        )
        size = max(
            1.0, float(right.detach().double().abs().max()) if right.numel() else 0.0
        )
        assert gap <= tolerance * size, f"{what}: differs by {gap:.3g}"


def _answers(learner: Learner, task: Task) -> Tensor:
    return learner.predict(learner.adapt(task.support), task.query.x)


def mapped_is_looped(learner: Learner, tasks: TaskDistribution) -> None:
    """A batch of tasks under vmap gives what a loop over the tasks gives."""
    batch = _tasks(tasks).to("cpu")
    looped = [learner.loss(task) for task in batch.unbind()]
    mapped = torch.vmap(learner.loss, randomness="different")(batch)
    _close(mapped[0], torch.stack([loss for loss, _ in looped]), "losses")
    _close(
        learner(batch)[0], torch.stack([loss for loss, _ in looped]).mean(), "forward"
    )


def adapt_changes_nothing(learner: Learner, tasks: TaskDistribution) -> None:
    """`adapt`, `predict` and `loss` leave meta-parameters, buffers and inputs
    untouched.
    """
    batch = _tasks(tasks)
    before, given = copy.deepcopy(learner.state_dict()), tree_map(torch.clone, batch)
    for task in batch.unbind():
        _answers(learner, task)
    learner.train()
    learner.loss(batch.unbind()[0])
    _close(learner.state_dict(), before, "meta-parameters or buffers", 0.0)
    _close(batch, build_args, "inputs", 0.0)
    assert all(p.grad is None for p in learner.parameters()), (
        "a gradient was left behind"
    )


def same_seed_same_result(learner: Learner, tasks: TaskDistribution) -> None:
    """Two meta-trainings with the same seed give the same weights."""
    if not _trainable(learner):
        return
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        student = copy.deepcopy(learner)
        for _ in _meta_trained(student, tasks, steps=2, batch=2, lr=1e-3):
            pass
        results.append(student.state_dict())
    _close(results[0], results[1], "weights", 0.0)


def shape_follows_spec(learner: Learner, tasks: TaskDistribution) -> None:
    """Outputs are (m, out_dim) with out_dim as the likelihood reads it; the loss is a
    finite scalar and its metrics are tensors.
    """
    task = _tasks(tasks).unbind()[0]
    outputs = _answers(learner, task)
    assert outputs.shape == (
        len(task.query.x),
        learner.likelihood.out_dim(tasks.spec.y_dim),
    ), f"outputs have shape {tuple(outputs.shape)}"
    loss, metrics = learner.loss(task)
    assert loss.shape == (), f"the loss has shape {tuple(loss.shape)}"
    assert bool(torch.isfinite(loss)), f"the loss is {loss}"
    assert all(
        isinstance(value, Tensor) and value.shape == () for value in metrics.values()
    ), "metrics are scalars"


def gradient_is_right(learner: Learner, tasks: TaskDistribution) -> None:
    """The gradient of the loss, in float64, is what finite differences say; looped and
    under vmap.
    """
    student = copy.deepcopy(learner).double()
    theta = _trainable(student)
    if not theta or getattr(learner, "two_losses", False):
        return
    batch = tree_map(torch.Tensor.double, _tasks(tasks, 2))
    generator = torch.Generator().manual_seed(1)
    direction = {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for name, p in theta.items()
    }
    length = torch.stack([d.square().sum() for d in direction.values()]).sum().sqrt()
    direction = {name: d / length for name, d in direction.items()}

    def mean_loss(how: Callable[..., Tensor]) -> Tensor:
        return how(lambda task: student.loss(task)[0], batch).mean()

    def looped(function: Callable[[Task], Tensor], batch: Task) -> Tensor:
        return torch.stack([function(task) for task in batch.unbind()])

    def mapped(function: Callable[[Task], Tensor], batch: Task) -> Tensor:
        return torch.vmap(function, randomness="different")(batch)

    def slope(step: float) -> float:
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for name, p in theta.items():
                    p.add_(sign * step * direction[name])
                values.append(float(mean_loss(looped).detach()))
                for name, p in theta.items():
                    p.sub_(sign * step * direction[name])
        return (values[0] - values[1]) / (2 * step)

    # one of them steps over no kink
    slopes = [slope(step) for step in (1e-5, 1e-6, 1e-7)]
    found = {
        how: torch.autograd.grad(
            mean_loss(how), list(theta.values()), allow_unused=True
        )
        for how in (looped, mapped)
    }
    for name, a, b in zip(theta, found[looped], found[mapped], strict=True):
        if a is not None and b is not None:
            _close(b, a, f"gradient of {name} under vmap", 1e-7)
    for how, grads in found.items():
        exact = sum(
            float((g * direction[name]).sum())
            for g, name in zip(grads, theta, strict=True)
            if g is not None
        )
        near = min(slopes, key=lambda finite: abs(exact - finite))
        assert abs(exact - near) <= 2e-4 * max(1.0, abs(near)), (
            f"{how.__name__}: autograd says {exact:.8g}, finite differences {slopes}"
        )


def works_without_gradients(learner: Learner, tasks: TaskDistribution) -> None:
    """Adapting and predicting give the same under `no_grad`, with nothing to
    differentiate.
    """
    task = _tasks(tasks).unbind()[0]
    expected = _answers(learner, task)
    with torch.no_grad():
        outputs = _answers(learner, task)
    assert not outputs.requires_grad, "outputs still require gradients"
    _close(outputs, expected, "outputs")


def survives_copying(learner: Learner, tasks: TaskDistribution) -> None:
    """Saved and loaded, deep-copied or pickled, it gives the same answers."""
    task = _tasks(tasks).unbind()[0]
    expected = _answers(learner, task)
    loaded = copy.deepcopy(learner)
    for p in loaded.parameters():
        p.data.zero_()
    memory = io.BytesIO()
    torch.save(learner.state_dict(), memory)
    memory.seek(0)
    loaded.load_state_dict(torch.load(memory, weights_only=True))
    for twin in (loaded, copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))):
        _close(_answers(twin, task), expected, "outputs")


def images_stand_alone(learner: Learner, tasks: TaskDistribution) -> None:
    """A prediction for one query does not depend on the others beside it, unless the
    learner is transductive or the queries are a sequence.
    """
    if getattr(learner, "transductive", False) or tasks.spec.ordered:
        return
    task = _tasks(tasks).unbind()[0]
    state = learner.adapt(task.support)
    together = learner.predict(state, task.query.x)
    alone = torch.cat([learner.predict(state, x[None]) for x in task.query.x])
    _close(alone, together, "outputs of one query at a time")


def support_order_is_free(learner: Learner, tasks: TaskDistribution) -> None:
    """The order of the support examples does not matter, unless the learner streams
    them or reads them in context.
    """
    if isinstance(learner, Streaming) or getattr(learner, "contextual", False):
        return
    task = _tasks(tasks).unbind()[0]
    order = torch.randperm(
        len(task.support.x), generator=torch.Generator().manual_seed(2)
    )
    shuffled = Task(Examples(task.support.x[order], task.support.y[order]), task.query)
    _close(_answers(learner, shuffled), _answers(learner, task), "outputs", 1e-3)


def following_is_observing(learner: Learner, tasks: TaskDistribution) -> None:
    """A learner that streams says the same about a whole support set as about its
    examples, one by one.
    """
    if not isinstance(learner, Streaming):
        return
    support = _tasks(tasks).unbind()[0].support
    state, outputs = Streaming.scan(learner, support)
    _close(learner.scan(support), (state, outputs), "state and outputs")
    _close(learner.adapt(support), state, "state")


def labels_are_symbols(learner: Learner, tasks: TaskDistribution) -> None:
    """Permuting the labels permutes the outputs, where the learner has no output of its
    own for every label.
    """
    if tasks.spec.kind != "classes" or not learner.any_ways(vars(learner)):
        return
    task = _tasks(tasks).unbind()[0]
    order = torch.randperm(tasks.spec.y_dim, generator=torch.Generator().manual_seed(3))
    renamed = Task(Examples(task.support.x, task.support.y[:, order]), task.query)
    _close(
        _answers(learner, renamed), _answers(learner, task)[:, order], "outputs", 1e-3
    )


def training_lowers_the_loss(learner: Learner, tasks: TaskDistribution) -> None:
    """Fifty meta-steps on a few tasks lower the loss on them; of a learner with two
    losses, that of the classifier, which it has in evaluation.
    """
    if not _trainable(learner):
        return
    student = copy.deepcopy(learner)
    torch.manual_seed(0)
    fixed = _Fixed(_tasks(tasks, 4), tasks.spec)
    losses = [
        float(metrics["loss"])
        for _, metrics, _ in _meta_trained(student, fixed, steps=50, batch=4, lr=3e-3)
    ]
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    if getattr(learner, "two_losses", False):
        first, last = (float(each(fixed.tasks)[0]) for each in (learner, student))
    assert last < first - 1e-3 * abs(first), (
        f"the loss went from {first:.4f} to {last:.4f}"
    )


def cites_its_paper(learner: Learner, tasks: TaskDistribution) -> None:
    """The docstring names a source: an author and a year."""
    text = type(learner).__doc__ or ""
    assert re.search(r"\b(19|20)\d\d\b", text), (
        "the docstring names no year of a source"
    )
    assert "State:" in text or "to meta-train" in text, (
        "the docstring does not say what the state is"
    )


class _Fixed(TaskDistribution):
    def __init__(self, tasks: Task, spec: TaskSpec):
        self.tasks, self.spec = tasks, spec

    def sample(self, n: int, generator: torch.Generator) -> Task:
        return tree_map(lambda leaf: leaf[torch.arange(n) % len(leaf)], self.tasks)


def _meta_trained(
    student: Learner, tasks: TaskDistribution, *, steps: int, batch: int, lr: float
) -> Iterator[Step]:
    """Meta-training in the way of the learner's recipe, with a small population; by
    `backprop` where it is by playing.
    """
    how = student.defaults.meta_gradient
    if how in STRATEGIES:
        return evolve(
            student,
            tasks,
            STRATEGIES[how](student, population=16),
            steps=steps,
            batch=batch,
        )
    optimizer = torch.optim.Adam(
        [p for p in student.parameters() if p.requires_grad], lr=lr
    )
    return meta_train(
        student,
        tasks,
        steps=steps,
        batch=batch,
        optimizer=optimizer,
        meta_gradient=META_GRADIENTS.get(how, backprop),
        clip=10.0,
    )


def _trainable(learner: Learner) -> dict[str, Tensor]:
    return {name: p for name, p in learner.named_parameters() if p.requires_grad}


LAWS: dict[str, Callable[[Learner, TaskDistribution], None]] = {
    law.__name__: law
    for law in (
        mapped_is_looped,
        adapt_changes_nothing,
        same_seed_same_result,
        shape_follows_spec,
        gradient_is_right,
        works_without_gradients,
        survives_copying,
        images_stand_alone,
        support_order_is_free,
        following_is_observing,
        labels_are_symbols,
        training_lowers_the_loss,
        cites_its_paper,
    )
}
