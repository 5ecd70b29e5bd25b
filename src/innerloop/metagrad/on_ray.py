"""Populations whose members are evaluated by tasks on Ray."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from innerloop.core.learner import Learner
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine import user_file
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.ray_cluster import imported
from innerloop.engine.workers import Share, Workers
from innerloop.metagrad.base import Draw, MetaGradient, Update, Wrapper
from innerloop.metagrad.population import Population

RETRIES = 10  # of a task whose worker has died


def on_ray(meta_gradient: MetaGradient) -> MetaGradient:
    """The same meta-gradient, with the members of its population evaluated by tasks on
    Ray; the update is that of one process, up to rounding.

    In every meta-step, the learner, the tasks and the state of the random generators go
    to the cluster once. Each core gets a Ray task, which draws its members itself and
    returns their losses. Members whose worker dies are evaluated again elsewhere. Call
    `ray.init` before, or Ray starts on this machine.

    Raises InnerloopTypeError for a meta-gradient without a population.
    """
    if not isinstance(meta_gradient, Population):
        raise InnerloopTypeError(
            f"{type(meta_gradient).__name__} has no population for Ray to evaluate: "
            "share its tasks among processes (--processes N, or `distributed`)"
        )
    return OnRay(meta_gradient)  # pyright: ignore[reportCallIssue]


class OnRay(Wrapper):
    """A population whose members are evaluated by tasks on Ray, see `on_ray`."""

    rule: Population  # pyright: ignore[reportIncompatibleVariableOverride]

    def prepare(
        self, learner: Learner, tasks: TaskDistribution, generator: torch.Generator
    ) -> None:
        if (where := next(learner.parameters()).device).index:
            raise InnerloopError(
                f"Ray gives every task a GPU, which is its first one: compute on cuda; "
                f"got {where}"
            )
        super().prepare(learner, tasks, generator)

    def __call__(self, learner: Learner, draw: Draw) -> Update:
        return self.rule.step(learner, draw(), self.losses)

    def losses(self, learner: Learner, tasks: Task) -> Tensor:
        """The losses (members,) of the next generation."""
        ray = imported()
        device = next(learner.parameters()).device
        context = _Context(
            device.type,
            torch.get_rng_state(),
            get_device_states(*learner.parameters()),
            torch.is_autocast_enabled(device.type),
            torch.get_autocast_dtype(device.type),
        )
        evaluate = self._remote
        try:
            sent = ray.put((self.rule, learner, tasks, context))
        except TypeError as error:
            raise InnerloopTypeError(
                f"{type(learner).__name__} cannot be sent to other processes: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        members = len(next(iter(self.rule.generation(learner).values())))
        kind = "GPU" if device.type == "cuda" else "CPU"
        size = max(1, min(members, int(ray.cluster_resources().get(kind, 1))))
        parts = [
            evaluate.options(num_gpus=kind == "GPU").remote(sent, rank, size)
            for rank in range(size)
        ]
        try:
            losses, states = zip(*ray.get(parts), strict=True)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise InnerloopError(
                "members of the population could not be evaluated on Ray: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        self.rule.generator.set_state(states[0])
        return torch.cat(losses).to(device)

    @cached_property
    def _remote(self) -> Any:
        ray = imported()
        for module in user_file.modules():
            ray.cloudpickle.register_pickle_by_value(module)
        return ray.remote(num_cpus=1, max_retries=RETRIES)(_losses)


class _Context(NamedTuple):
    """What losses depend on beside the learner, the tasks and the meta-gradient."""

    device: str
    noise: Tensor
    device_noise: tuple[list[int], list[Tensor]]
    autocast: bool
    dtype: torch.dtype

    def enter(self) -> torch.autocast:
        torch.set_rng_state(self.noise)
        set_device_states(*self.device_noise, device_type=self.device)
        return torch.autocast(self.device, self.dtype, enabled=self.autocast)


class _Part(Workers):
    """One of several processes, which does not wait for the others."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size

    def gather(self, rows: Tensor, share: Share) -> Tensor:
        return rows


def _losses(
    sent: tuple[Population, Learner, Task, _Context], rank: int, size: int
) -> tuple[Tensor, Tensor]:
    """The losses of a share of the members, and the state of the generator after."""
    rule, learner, tasks, context = sent
    rule.workers = _Part(rank, size)
    with context.enter():
        losses = rule.losses(learner, tasks)
    return losses.cpu(), rule.generator.get_state()
