"""Playing: a learner acts, sees what comes of it, and examples are what is left."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from innerloop.core.learner import Learner, State, Streaming
from innerloop.core.task import Examples
from innerloop.engine.errors import InnerloopTypeError
from innerloop.learners.memory.recurrent import Recurrent
from innerloop.rl.environment import Environment
from innerloop.rl.policy import Policy


class Played(NamedTuple):
    """Episodes of n tasks, each played k times side by side, step by step; what came
    after the end of a short episode belongs to the next one.
    """

    x: Tensor  # (n, k, steps, *x_shape)  what was seen
    y: Tensor  # (n, k, steps, actions + 2)  [action | reward | over]
    outputs: Tensor  # (n, k, steps, out_dim)  what the policy said
    credit: Tensor  # (n, k, steps)  what training may go by instead of the reward

    @property
    def reward(self) -> Tensor:
        return self.y[..., -2]  # (n, k, steps)

    @property
    def over(self) -> Tensor:
        return self.y[..., -1]  # (n, k, steps)

    @property
    def examples(self) -> Examples:
        """All that was played of every task, one episode after the other: x (n, k
        steps, *x_shape), y (n, k steps, actions + 2).
        """
        return Examples(self.x.flatten(1, 2), self.y.flatten(1, 2))


@torch.no_grad()
def play(
    learner: Learner,
    environment: Environment,
    parameters: Tensor,
    generator: torch.Generator,
    *,
    state: State = None,
    times: int = 1,
    episodes: int | None = None,
) -> Played:
    """Play tasks with parameters (n, p), `episodes` of them each (default: a trial's),
    one after the other, `times` side by side.

    A learner that streams begins with its `init` and observes every step of the trial.
    Any other acts as `state` says: what it had made of earlier examples, with a leading
    axis n. Actions are drawn, all at once, from `generator`, on the CPU.
    Raises TypeError where the learner's outputs are no policy.
    """
    policy = learner.likelihood
    if not isinstance(policy, Policy):
        raise InnerloopTypeError(
            f"to play, a learner's outputs must be a policy: build it with likelihood=Policy(...), not {policy}"
        )
    n = len(parameters)
    each = parameters.repeat_interleave(times, 0)  # (n k, p)
    streaming = learner if isinstance(learner, Streaming) else None
    recurrent = learner if isinstance(learner, Recurrent) else None
    if streaming:
        state = tree_map(lambda t: t.expand(n * times, *t.shape), streaming.init())
    where, clock = (
        environment.start(each, generator),
        torch.zeros(n * times, dtype=torch.long, device=parameters.device),
    )
    rows: list[tuple[Tensor, ...]] = []
    for _ in range(
        environment.horizon * (environment.episodes if episodes is None else episodes)
    ):
        x = environment.look(each, where)  # (n k, *x_shape)
        memory: State = None
        # its memory does not wait for what comes of the action: a step is taken once
        if recurrent:
            outputs, memory = recurrent.respond(state, x)
        elif streaming:
            outputs = torch.vmap(lambda state, x: learner.predict(state, x[None])[0])(
                state, x
            )
        else:
            outputs = torch.vmap(learner.predict)(
                state, x.unflatten(0, (n, times))
            ).flatten(0, 1)
        action = policy.draw(outputs, generator)
        credit = environment.credit(each, where, action)
        where, reward, over = environment.step(each, where, action, generator)
        clock = clock + 1
        over = over | (clock == environment.horizon)
        y = torch.cat([action, torch.stack([reward, over.to(reward.dtype)], -1)], -1)
        rows.append((x, y, outputs, reward if credit is None else credit))
        if recurrent:
            state = memory, y
        elif streaming:
            state = torch.vmap(streaming.observe)(state, x, y)
        if bool(over.any()):
            begun = environment.start(each, generator)
            where, clock = (
                torch.where(over[:, None], begun, where),
                torch.where(over, 0, clock),
            )
    return Played(
        *(
            torch.stack(column, 1).unflatten(0, (n, times))
            for column in zip(*rows, strict=True)
        )
    )


def examples_of(played: Played, weight: Tensor) -> Examples:
    """All that was played of every task, with the weight (n, k, steps) of every action
    in the place of its reward.
    """
    y: Any = torch.cat([played.y[..., :-2], weight[..., None], played.y[..., -1:]], -1)
    return Examples(played.x.flatten(1, 2), y.flatten(1, 2))


def followed(learner: Streaming, examples: Examples) -> Tensor:
    """The outputs (m, steps, out_dim) along m trials."""
    if isinstance(learner, Recurrent):
        return learner.along(examples)
    return torch.vmap(lambda examples: learner.scan(examples)[1])(examples)
