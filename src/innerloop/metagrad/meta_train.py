"""The outer loop."""

from __future__ import annotations

import inspect
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.errors import DivergenceError, InnerloopError
from innerloop.engine.functional import frozen_modules
from innerloop.engine.precision import Precision
from innerloop.engine.prefetch import Prefetcher
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.metagrad.backprop import Backprop
from innerloop.metagrad.base import (
    Gradient,
    GradientFunction,
    MetaGradient,
    Update,
    as_meta_gradient,
)

# (step, progress in 0..1) -> factor of the learning rate
Schedule = Callable[[int, float], float]

CALIBRATION_SEED = 2021


class Step(NamedTuple):
    """One meta-step: its number from 0, the loss and metrics on its training tasks, and
    the share of training that is done, 0 to 1.
    """

    number: int
    metrics: Metrics
    progress: float


def warmup_cosine(warmup: float = 0.0, decay: bool = True) -> Schedule:
    """Linear warm-up over the first share `warmup` of training, then half a cosine down
    to zero at its end. Loshchilov and Hutter 2017, "SGDR: stochastic gradient descent
    with warm restarts", arXiv:1608.03983.
    """

    def factor(step: int, progress: float) -> float:
        # the very first step has progress 0 and must still move
        rise = min(1.0, (progress + 1e-3) / (warmup + 1e-3)) if warmup else 1.0
        return rise * (0.5 * (1 + math.cos(math.pi * progress)) if decay else 1.0)

    return factor


DROPS = (1 / 2, 2 / 3, 5 / 6)  # shares of training, each followed by a tenth


def warmup_steps(warmup: float = 0.0) -> Schedule:
    """Linear warm-up over the first share `warmup` of training, then steps down to a
    tenth, a hundredth and a thousandth, as for CIFAR-FS and FC100 in Tian, Wang,
    Krishnan, Tenenbaum and Isola 2020, "Rethinking few-shot image classification: a
    good embedding is all you need?", arXiv:2003.11539, section 4.1.
    """
    rise = warmup_cosine(warmup, decay=False)

    def factor(step: int, progress: float) -> float:
        return rise(step, progress) * 0.1 ** sum(progress >= share for share in DROPS)

    return factor


def scheduled(config: MetaTrainConfig) -> Schedule:
    """The schedule of the learning rate that `config` describes."""
    if config.decay and config.schedule == "steps":
        return warmup_steps(config.warmup)
    return warmup_cosine(config.warmup, config.decay)


def build_optimizer(learner: Learner, config: MetaTrainConfig) -> torch.optim.Optimizer:
    """The optimizer that `config` names, over the learner's trainable parameters; those
    of modules whose attribute `pretrained` is true have a learning rate of their own.

    Raises InnerloopError for an unknown optimizer, momentum for one that has no such
    option, or a learner without parameters.
    """
    trainable = [p for p in learner.parameters() if p.requires_grad]
    if not trainable:
        raise InnerloopError(
            f"{type(learner).__name__} has no parameters to meta-train: test it as is"
        )
    kind = getattr(torch.optim, config.optimizer, None)
    if (
        not isinstance(kind, type)
        or not issubclass(kind, torch.optim.Optimizer)
        or kind in (torch.optim.Optimizer, torch.optim.LBFGS, torch.optim.SparseAdam)
    ):
        raise InnerloopError(
            f"optimizer must name an optimizer of torch.optim that steps without a "
            f"closure, such as Adam, AdamW or SGD; got {config.optimizer!r}"
        )
    pretrained = {
        parameter
        for module in learner.modules()
        if getattr(module, "pretrained", False)
        for parameter in module.parameters()
    }
    pretrained_lr = 5e-5 if config.pretrained_lr is None else config.pretrained_lr
    groups = [
        {"params": chosen, "lr": lr}
        for chosen, lr in (
            ([p for p in trainable if p not in pretrained], config.lr),
            ([p for p in trainable if p in pretrained], pretrained_lr),
        )
        if chosen
    ]
    settings: dict[str, Any] = {"weight_decay": config.weight_decay}
    if config.momentum:
        if "momentum" not in inspect.signature(kind).parameters:
            raise InnerloopError(
                f"{config.optimizer} has no option momentum; got momentum "
                f"{config.momentum}: leave it out, or use another optimizer (SGD)"
            )
        settings["momentum"] = config.momentum
    return kind(groups, **settings)  # pyright: ignore[reportCallIssue]


def calibrate(
    learner: Learner, tasks: TaskDistribution, precision: Precision = "float32"
) -> None:
    """Recompute the normalization statistics on training tasks that are always the same
    for one distribution.
    """
    device = next(learner.parameters()).device
    generator = torch.Generator().manual_seed(CALIBRATION_SEED)
    sample = tasks.sample(64 if learner.encode_jointly else 8, generator).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        learner.calibrate(sample)


def training_mode(learner: Learner) -> None:
    """Training mode, except for frozen modules: those with parameters of which none
    requires a gradient, and all inside them, keep their mode.
    """
    if all(module.training for module in learner.modules()) and all(
        p.requires_grad for p in learner.parameters()
    ):
        return
    modes = {module: module.training for module in frozen_modules(learner)}
    learner.train()
    for module, mode in modes.items():
        module.training = mode


def apply_update(
    update: Update,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    clip: float | None,
) -> float:
    """Move the parameters; returns the norm of the gradient, 0 for a `Move`.

    The norm counts the parameters that the optimizer holds. A norm that is not finite
    moves nothing.
    """
    if not isinstance(update, Gradient):
        with torch.no_grad():
            for name, value in update.theta.items():
                parameters[name].copy_(value)
        return 0.0
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    seen: set[int] = set()
    moving: list[torch.nn.Parameter] = []
    for name, parameter in parameters.items():
        g = update.grads.get(name)
        if id(parameter) not in held or not parameter.requires_grad:
            continue
        # a tensor that stands for two parameters is clipped in place once for each
        parameter.grad = g if g is None or id(g) not in seen else g.clone()
        seen.add(id(g))
        moving.append(parameter)
    if clip is None:
        grads = [p.grad for p in moving if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(grads))
    else:
        norm = float(torch.nn.utils.clip_grad_norm_(moving, clip))
    if math.isfinite(norm):
        optimizer.step()
    return norm


def meta_train(
    learner: Learner,
    tasks: TaskDistribution,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    batch: int = 16,
    meta_gradient: MetaGradient | GradientFunction | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    schedule: Schedule | None = None,
    clip: float | None = None,
    precision: Precision = "float32",
    generator: torch.Generator | None = None,
    start: int = 0,
    elapsed: float = 0.0,
) -> Iterator[Step]:
    """Meta-train `learner` on `tasks`; every `next` is one meta-step, so that the
    caller watches, saves and stops as needed.

    Args:
        steps, seconds: how long to train; exactly one of them. With `seconds`, the
            schedule follows the clock.
        batch: tasks in a meta-step.
        meta_gradient: a MetaGradient, or a function of a learner and a batch of tasks
            that returns gradients by parameter name, and metrics (default: Backprop).
        optimizer: any torch optimizer over the learner's parameters (default: Adam with
            a learning rate of 1e-3). A meta-gradient that returns `Move` needs none.
        schedule: factor of the optimizer's learning rates over time.
        clip: largest norm of the meta-gradient.
        precision: "bf16" computes in bfloat16 where that is safe; weights stay float32.
        generator: draws the tasks (default: seed 0).
        start, elapsed: steps and seconds done before, when training is resumed. The
            caller has then prepared the meta-gradient and loaded its state.

    The learner is trained on its own device and in training mode; frozen modules keep
    their mode. When the loop ends or is left,
    normalization statistics are recomputed on training tasks and the learner is put in
    evaluation mode; call `calibrate` before testing or saving inside the loop.

    Raises:
        InnerloopError: neither or both of `steps` and `seconds` are passed, the
            meta-gradient cannot train this learner on these tasks, or the first batch
            of tasks does not fit their spec.
        DivergenceError: the loss or the meta-gradient is not finite.
    """
    if (steps is None) == (seconds is None):
        raise InnerloopError(
            f"pass exactly one of steps and seconds; got {steps} and {seconds}"
        )
    if clip is not None and not clip > 0:
        raise InnerloopError(f"clip must be greater than 0; got {clip}")
    move = as_meta_gradient(meta_gradient if meta_gradient is not None else Backprop())
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    if not move.prepared:
        move.prepare(
            learner, tasks, torch.Generator().manual_seed(generator.initial_seed() + 1)
        )
    if optimizer is None:
        trainable = [p for p in learner.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trainable, lr=1e-3)
    rates = [g.setdefault("initial_lr", g["lr"]) for g in optimizer.param_groups]
    parameters = dict(learner.named_parameters())
    device = next(iter(parameters.values())).device
    prefetcher = Prefetcher(
        lambda generator: tasks.sample(batch, generator),
        generator,
        allowed=tasks.prefetch,
    )
    clock = time.monotonic() - elapsed
    index, settle, checked = start, False, False

    def progress_now() -> float:
        if steps is not None:
            return index / steps if steps else 1.0
        assert seconds is not None
        return move.agreed((time.monotonic() - clock) / seconds if seconds else 1.0)

    def draw() -> Task:
        nonlocal checked
        with torch.autocast(device.type, enabled=False):  # tasks are exact
            batch_of_tasks = prefetcher.next()
        if not checked and not tasks.played:
            tasks.spec.check(batch_of_tasks, batch, learner.dtype)
        checked = True
        return learner.trim(batch_of_tasks).to(device)

    try:
        while (progress := progress_now()) < 1:
            training_mode(learner)
            learner.on_progress(progress)
            move.on_progress(progress)
            if schedule is not None:
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * schedule(index, progress)
            with torch.autocast(
                device.type, torch.bfloat16, enabled=precision == "bf16"
            ):
                update = move(learner, draw)
            loss = float(update.metrics["loss"])
            norm = (
                apply_update(update, parameters, optimizer, clip)
                if math.isfinite(loss)
                else 0.0
            )
            if not math.isfinite(loss + norm):
                raise DivergenceError(
                    f"training diverged at step {index}: the loss is {loss}, the norm "
                    f"of the meta-gradient {norm}; lower the learning rate or "
                    "the step size of the inner loop"
                )
            index += 1
            shown = index / steps if steps is not None else progress
            yield Step(index - 1, update.metrics, shown)
        settle = True
    except GeneratorExit:  # the caller left the loop
        settle = not sys.is_finalizing()
        raise
    finally:
        prefetcher.close()
        learner.zero_grad()
        learner.on_progress(1.0)
        learner.eval()
        if settle:
            calibrate(learner, tasks, precision)
