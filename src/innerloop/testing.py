"""Checks of the properties that every learner must have, for the learners of this
package and for your own. A check raises AssertionError.
"""

from __future__ import annotations

import copy
import io
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from innerloop.core.learner import Learner, Streaming
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import options
from innerloop.metagrad import META_GRADIENTS, Backprop
from innerloop.metagrad.meta_train import Step, meta_train


class Blobs(TaskDistribution):
    """Small synthetic tasks of any spec: classes are Gaussian blobs around random
    centers, or texts in which most tokens are those of the class; reals are random
    linear maps, bits their signs; tokens are translated one by one.
    """

    def __init__(self, spec: TaskSpec, shots: int = 2, queries: int = 3):
        self.spec, self.shots, self.queries = spec, shots, queries

    def with_ways(self, ways: int) -> Blobs:
        """The same tasks with another number of classes."""
        return Blobs(replace(self.spec, y_dim=ways), self.shots, self.queries)

    def sample(self, n: int, generator: torch.Generator) -> Task:
        spec = self.spec
        if spec.kind == "tokens":
            return self._languages(n, generator)
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
            centers = torch.randn(n, spec.y_dim, spec.x_size, generator=generator)
            labels = torch.arange(spec.y_dim).repeat(self.shots + self.queries)
            x = centers[:, labels] + 0.3 * torch.randn(
                n, len(labels), spec.x_size, generator=generator
            )
            if spec.vocabulary:
                own = torch.randint(
                    1, spec.vocabulary, centers.shape, generator=generator
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

    def _languages(self, n: int, generator: torch.Generator) -> Task:
        spec, cut = self.spec, self.shots * 4
        shape = (n, cut + self.queries * 4, min(spec.x_size, spec.y_dim - 1))
        words = torch.randint(2, spec.vocabulary, shape, generator=generator)
        lengths = torch.randint(1, shape[2] + 1, shape[:2], generator=generator)
        words[torch.arange(shape[2]) >= lengths[..., None]] = 0
        meaning = torch.arange(spec.vocabulary).repeat(n, 1)
        for row in meaning:
            order = torch.randperm(spec.vocabulary - 2, generator=generator)
            row[2:] = row[2:][order]
        targets = meaning.gather(1, words.flatten(1)).view(shape)
        pad = torch.nn.functional.pad
        x = pad(words, (0, spec.x_size - shape[2])).float()
        y = pad(targets, (0, spec.y_dim - shape[2])).float()
        return Task(Examples(x[:, :cut], y[:, :cut]), Examples(x[:, cut:], y[:, cut:]))


def check_learner(
    learner: Learner, spec: TaskSpec, *, checks: Iterable[str] | None = None
) -> None:
    """Check that a learner, built for `spec`, has all properties that apply to it (or
    those named in `checks`), on synthetic tasks.

    The learner is not changed. Raises AssertionError that names every violated property
    and the reason.
    """
    chosen = CHECKS if checks is None else {name: _check(name) for name in checks}
    broken: dict[str, Exception] = {}
    for name, check in chosen.items():
        try:
            check(copy.deepcopy(learner).eval(), Blobs(spec))
        except Exception as error:  # a learner may raise anything
            broken[name] = error
    if broken:
        reasons = [f"{name!r}: {_reason(error)}" for name, error in broken.items()]
        count = "a check" if len(broken) == 1 else f"{len(broken)} checks"
        message = "\n  ".join([f"{type(learner).__name__} fails {count}", *reasons])
        raise AssertionError(message) from next(iter(broken.values()))


def _check(name: str) -> Callable[[Learner, TaskDistribution], None]:
    every = CHECKS | PACKAGE_CHECKS
    if name not in every:
        raise InnerloopError(f"no check {name!r}; there are {', '.join(every)}")
    return every[name]


def _reason(error: Exception) -> str:
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return f"{kind}{error}"


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
    """A batch of tasks gives the same as a loop over the tasks."""
    batch = _tasks(tasks)
    looped = [learner.loss(task) for task in batch.unbind()]
    mapped = learner.mapped(learner.loss, batch)
    _close(mapped[0], torch.stack([loss for loss, _ in looped]), "losses")
    _close(
        learner(batch)[0], torch.stack([loss for loss, _ in looped]).mean(), "forward"
    )


def adapt_changes_nothing(learner: Learner, tasks: TaskDistribution) -> None:
    """`adapt`, `predict` and `loss` leave meta-parameters, buffers and inputs
    untouched.
    """
    batch = _tasks(tasks)
    before, inputs = copy.deepcopy(learner.state_dict()), tree_map(torch.clone, batch)
    for task in batch.unbind():
        _answers(learner, task)
    learner.train()
    learner.loss(batch.unbind()[0])
    _close(learner.state_dict(), before, "meta-parameters or buffers", 0.0)
    _close(batch, inputs, "inputs", 0.0)
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
    """The gradient of the loss, in float64, agrees with finite differences; in a loop
    and under vmap. Skipped where second derivatives are left out.
    """
    student = copy.deepcopy(learner).double()
    theta = _trainable(student)
    if not theta or learner.two_losses or learner.first_order:
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
        return student.mapped(function, batch)

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
            f"{how.__name__}: autograd gives {exact:.8g}, finite differences {slopes}"
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
    if learner.transductive or tasks.spec.ordered:
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
    if isinstance(learner, Streaming) or learner.contextual:
        return
    task = _tasks(tasks).unbind()[0]
    order = torch.randperm(
        len(task.support.x), generator=torch.Generator().manual_seed(2)
    )
    shuffled = Task(Examples(task.support.x[order], task.support.y[order]), task.query)
    _close(_answers(learner, shuffled), _answers(learner, task), "outputs", 1e-3)


def scanning_is_observing(learner: Learner, tasks: TaskDistribution) -> None:
    """A streaming learner returns the same for a whole support set as for its examples
    one by one.
    """
    if not isinstance(learner, Streaming):
        return
    support = _tasks(tasks).unbind()[0].support
    state, outputs = Streaming.scan(learner, support)
    _close(learner.scan(support), (state, outputs), "state and outputs")
    _close(learner.adapt(support), state, "state")


def labels_are_symbols(learner: Learner, tasks: TaskDistribution) -> None:
    """Permuting the labels permutes the outputs, unless the learner has a fixed number
    of ways, and so a learned output for every label.
    """
    if tasks.spec.kind != "classes" or learner.fixed_ways:
        return
    task = _tasks(tasks).unbind()[0]
    order = torch.randperm(tasks.spec.y_dim, generator=torch.Generator().manual_seed(3))
    renamed = Task(Examples(task.support.x, task.support.y[:, order]), task.query)
    _close(
        _answers(learner, renamed), _answers(learner, task)[:, order], "outputs", 1e-3
    )


def training_lowers_the_loss(learner: Learner, tasks: TaskDistribution) -> None:
    """Fifty meta-steps on a few tasks lower the loss on them by 0.1 %, or fewer steps
    by 5 %; for a learner with two losses, fifty steps lower that of the classifier,
    its loss in evaluation mode.
    """
    if not _trainable(learner):
        return
    student = copy.deepcopy(learner)
    torch.manual_seed(0)
    fixed = _Fixed(_tasks(tasks, 4), tasks.spec)
    losses: list[float] = []
    first = last = 0.0
    for _, metrics, _ in _meta_trained(student, fixed, steps=50, batch=4, lr=3e-3):
        losses.append(float(metrics["loss"]))
        first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
        enough = len(losses) >= 10 and last < first - 0.05 * abs(first)
        if enough and not learner.two_losses:
            return
    if learner.two_losses:
        first, last = (float(each(fixed.tasks)[0]) for each in (learner, student))
    assert last < first - 1e-3 * abs(first), (
        f"the loss went from {first:.4f} to {last:.4f}"
    )


THREADS, CALLS = 8, 4
LONGEST = 300.0  # seconds that threads may take


def threads_agree(learner: Learner, tasks: TaskDistribution) -> None:
    """Threads that adapt and predict at the same time, under `no_grad`, get the same
    bits as one thread, and leave the learner's parameters and buffers as they were.

    With gradients, PyTorch 2.13 itself can deadlock: one thread holds the GIL and waits
    for the lock of a parameter, another the reverse.
    """
    batch = _tasks(tasks, THREADS).unbind()
    before = copy.deepcopy(learner.state_dict())
    tensors = [id(p) for p in (*learner.parameters(), *learner.buffers())]
    answers = torch.no_grad()(_answers)
    expected = [answers(learner, task) for task in batch]
    wrong: list[int] = []
    errors: list[BaseException] = []
    start = threading.Barrier(THREADS)

    def work(i: int) -> None:
        try:
            start.wait()
            for _ in range(CALLS):
                if not torch.equal(answers(learner, batch[i]), expected[i]):
                    wrong.append(i)
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    # threads interleave often, and still get on: far shorter, switching takes the time
    sys.setswitchinterval(1e-4)
    deadline = time.monotonic() + LONGEST
    try:
        threads = [
            threading.Thread(target=work, args=(i,), daemon=True)
            for i in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    finally:
        sys.setswitchinterval(interval)
    late = sum(thread.is_alive() for thread in threads)
    assert not late, f"{late} of {THREADS} threads did not end in {LONGEST:.0f} s"
    if errors:
        raise errors[0]
    assert not wrong, f"{len(wrong)} of {THREADS * CALLS} predictions differ"
    after = [id(p) for p in (*learner.parameters(), *learner.buffers())]
    assert tensors == after, "parameters or buffers were replaced"
    _close(learner.state_dict(), before, "parameters or buffers", 0.0)


def cites_its_paper(learner: Learner, tasks: TaskDistribution) -> None:
    """The docstring has a reference with a year, and describes the state."""
    text = type(learner).__doc__ or ""
    assert re.search(r"\b(19|20)\d\d\b", text), (
        "the docstring names no year of a source"
    )
    assert "State:" in text, "the docstring does not describe the state"


class _Fixed(TaskDistribution):
    def __init__(self, tasks: Task, spec: TaskSpec):
        self.tasks, self.spec = tasks, spec

    def sample(self, n: int, generator: torch.Generator) -> Task:
        return tree_map(lambda leaf: leaf[torch.arange(n) % len(leaf)], self.tasks)


def _meta_trained(
    student: Learner, tasks: TaskDistribution, *, steps: int, batch: int, lr: float
) -> Iterator[Step]:
    """Meta-training with the learner's default meta-gradient, with a small population;
    by backpropagation where the default needs environments.
    """
    kind = META_GRADIENTS.get(student.defaults.meta_gradient, Backprop)
    small = {"population": 16} if "population" in options(kind) else {}
    trainable = list(_trainable(student).values())
    return meta_train(
        student,
        tasks,
        steps=steps,
        batch=batch,
        optimizer=torch.optim.Adam(trainable, lr=lr),
        meta_gradient=kind(**small),
        clip=10.0,
    )


def _trainable(learner: Learner) -> dict[str, Tensor]:
    return {name: p for name, p in learner.named_parameters() if p.requires_grad}


CHECKS: dict[str, Callable[[Learner, TaskDistribution], None]] = {
    check.__name__: check
    for check in (
        mapped_is_looped,
        adapt_changes_nothing,
        same_seed_same_result,
        shape_follows_spec,
        gradient_is_right,
        works_without_gradients,
        survives_copying,
        images_stand_alone,
        support_order_is_free,
        scanning_is_observing,
        labels_are_symbols,
        training_lowers_the_loss,
        threads_agree,
    )
}
# for learners that are published
PACKAGE_CHECKS: dict[str, Callable[[Learner, TaskDistribution], None]] = {
    cites_its_paper.__name__: cites_its_paper
}
