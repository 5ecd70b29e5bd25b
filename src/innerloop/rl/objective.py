"""What evolution looks at where tasks are played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from innerloop.core.learner import Learner, Streaming
from innerloop.core.likelihood import Metrics
from innerloop.core.task import Task
from innerloop.engine.checkpointing import Calling
from innerloop.engine.errors import InnerloopTypeError
from innerloop.engine.functional import functional_call
from innerloop.rl.environment import Environment
from innerloop.rl.policy import Policy
from innerloop.rl.rollout import play


@dataclass
class Fitness:
    """The credit of one trial of every task, as a loss: less is better.

    It is the reward where the environment knows no better, and else ranks members as
    the reward does, with less luck (`Environment.credit`).
    """

    environment: Environment

    def __call__(self, learner: Learner, tasks: Task) -> tuple[Tensor, Metrics]:
        played = play(learner, self.environment, tasks.support.x[:, 0], _luck())
        return -played.credit.sum(-1).mean(), {"reward": played.reward.sum(-1).mean()}

    @torch.no_grad()
    def of_members(
        self, learner: Learner, members: dict[str, Tensor], tasks: Task
    ) -> Tensor:
        """The losses (members,) of a learner with other parameters, by name, each
        (members, *shape); all play at once, the same tasks.
        """
        policy, environment, luck = learner.likelihood, self.environment, _luck()
        if not isinstance(learner, Streaming) or not isinstance(policy, Policy):
            raise InnerloopTypeError(
                f"to evolve by playing, a learner must stream, and its outputs be a policy; not {type(learner).__name__}"
            )
        rows = len(next(iter(members.values()))), len(tasks.support.x)  # members, tasks
        each = tasks.support.x[:, 0].repeat(rows[0], 1)  # (members tasks, p)

        def mapped(function: Callable[..., Any], *trees: Any) -> Any:
            """`function` over members, with their parameters, and over tasks: trees
            with both axes in one.
            """
            calling = Calling(learner, torch.vmap(function, randomness="different"))

            def one(theta: dict[str, Tensor], trees: Any) -> Any:
                return functional_call(
                    calling,
                    {f"module.{name}": tensor for name, tensor in theta.items()},
                    trees,
                )

            found = torch.vmap(one, randomness="different")(
                members, tree_map(lambda t: t.unflatten(0, rows), trees)
            )
            return tree_map(lambda t: t.flatten(0, 1), found)

        where, gained = environment.start(each, luck), each.new_zeros(len(each))
        clock = torch.zeros(len(each), dtype=torch.long, device=each.device)
        state = mapped(lambda row: tree_map(torch.clone, learner.init()), clock)
        for _ in range(environment.steps):
            x = environment.look(each, where)
            outputs = mapped(
                lambda state, x: learner.predict(state, x[None])[0], state, x
            )
            action = policy.draw(outputs, luck)
            credit = environment.credit(each, where, action)
            where, reward, over = environment.step(each, where, action, luck)
            gained, clock = gained + (reward if credit is None else credit), clock + 1
            over = over | (clock == environment.horizon)
            y = torch.cat(
                [action, torch.stack([reward, over.to(reward.dtype)], -1)], -1
            )
            state = mapped(learner.observe, state, x, y)
            if bool(over.any()):
                begun = environment.start(each, luck)
                where, clock = (
                    torch.where(over[:, None], begun, where),
                    torch.where(over, 0, clock),
                )
        return -gained.unflatten(0, rows).mean(1)


def _luck() -> torch.Generator:
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())))
