"""Tasks in which a learner acts, and learns from the rewards of its actions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution, TaskSpec
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.measurements import Measurement, Report, TaskScores, TestPlan
from innerloop.rl.policy import Policy
from innerloop.tasks.splits import check_split

if TYPE_CHECKING:
    from innerloop.rl.baselines import Baseline
    from innerloop.rl.objective import TrialReward

# The splits draw from one continuum; disjoint ranges of seeds keep them apart. torch's
# generators on the CPU use 32 bits of a seed.
SEEDS_OF_A_SPLIT = 2**30
SEED_OFFSETS = {
    split: i * SEEDS_OF_A_SPLIT for i, split in enumerate(("train", "val", "test"))
}


class Environment(TaskDistribution):
    """A family of Markov decision processes; many episodes run side by side on tensors.

    A task is a row of parameters (p,), such as the means of a bandit's arms or a goal.
    `sample` returns these rows as the inputs of support and query set. A rollout turns
    them into examples: x is what the agent observes, and y is [action | reward | done],
    with one-hot rows for discrete actions and done = 1 at the end of an episode. `spec`
    describes these examples: reals, x_shape, actions + 2.

    An episode has at most `horizon` steps, and a trial has `episodes` episodes. A
    learner that streams keeps its state during a trial.

    A subclass implements `sample_params`, `start`, `observe` and `step`.
    """

    played: ClassVar[bool] = True
    validation_size: ClassVar[int] = 200
    discrete: bool = True  # whether actions are discrete

    def __init__(
        self,
        x_shape: tuple[int, ...],
        actions: int,
        horizon: int,
        episodes: int = 1,
        split: str = "train",
    ):
        check_split(split)
        if min(actions, horizon, episodes) < 1:
            raise InnerloopError(
                "an environment needs at least 1 action, step and episode; got "
                f"actions={actions}, horizon={horizon}, episodes={episodes}"
            )
        self.actions, self.horizon, self.episodes = actions, horizon, episodes
        self.split, self.title = split, type(self).__name__.lower()
        self.spec = TaskSpec("reals", x_shape, actions + 2)

    @property
    def steps(self) -> int:
        """The number of steps of a trial."""
        return self.horizon * self.episodes

    def sample(self, n: int, generator: torch.Generator) -> Task:
        seed = int(torch.randint(SEEDS_OF_A_SPLIT, (), generator=generator))
        own = torch.Generator().manual_seed(SEED_OFFSETS[self.split] + seed)
        params = self.sample_params(n, own)[:, None]  # (n, 1, p)
        examples = Examples(params, params[..., :0])
        return Task(examples, examples)

    @staticmethod
    def params_of(tasks: Task) -> Tensor:
        """The parameters (n, p) of tasks from `sample`."""
        return tasks.support.x[:, 0]

    @abstractmethod
    def sample_params(self, n: int, generator: torch.Generator) -> Tensor:
        """The parameters (n, p) of n tasks."""

    @abstractmethod
    def start(self, params: Tensor, rng: torch.Generator) -> Tensor:
        """The first states (n, s) of episodes of tasks with parameters (n, p)."""

    @abstractmethod
    def observe(self, params: Tensor, state: Tensor) -> Tensor:
        """The observations (n, *x_shape) in states (n, s)."""

    @abstractmethod
    def step(
        self, params: Tensor, state: Tensor, action: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take actions (n, actions): the next states (n, s), the rewards (n,), and
        whether the episode is done (n,) for another reason than the horizon.
        """

    def expected_reward(
        self, params: Tensor, state: Tensor, action: Tensor
    ) -> Tensor | None:
        """The means (n,) of the rewards that `step` draws, or None where they are not
        known.
        """
        return None

    def training_reward(
        self, params: Tensor, state: Tensor, action: Tensor
    ) -> Tensor | None:
        """What training maximizes in place of the sampled rewards (n,), or None for
        these.

        It must have the same optimal policies and less variance: by default the
        expected reward, where that is known.
        """
        return self.expected_reward(params, state, action)

    def baselines(self) -> dict[str, Callable[..., Baseline]]:
        """Agents to compare with, by name; each is called with the environment and a
        generator.
        """
        from innerloop.rl.baselines import RandomActions

        return {"random": RandomActions}

    def describe(self) -> str:
        trial = f"{self.episodes} episodes of " if self.episodes > 1 else ""
        return f"{self.title} in trials of {trial}at most {self.horizon} steps"

    def words(self, params: Tensor) -> str:
        """The parameters (p,) of a task for the reader, or an empty text."""
        return ""

    def likelihood(self) -> Policy:
        return Policy(discrete=self.discrete)

    def objective(self) -> TrialReward:
        from innerloop.rl.objective import TrialReward

        return TrialReward(self)

    def evaluate(self, learner: Learner, plan: TestPlan) -> Report:
        """The reward on unseen tasks, see `innerloop.rl.evaluation`."""
        from innerloop.rl.evaluation import evaluate

        return evaluate(learner, self, plan)

    def task_scores(self, learner: Learner, plan: TestPlan) -> TaskScores:
        from innerloop.rl.evaluation import rewards

        return TaskScores("reward", rewards(learner, self, plan))

    def score(self, learner: Learner, plan: TestPlan) -> Measurement:
        return self.evaluate(learner, plan).tables[0].rows[0].values[0]

    def plot_task(self, learner: Learner, task: Task, figure: Any) -> None:
        """Draw the reward up to every step of the episodes of a trial, or of an episode
        after 0, 1, ... updates.
        """
        from innerloop.rl.evaluation import rewards_by_step

        label, curves = rewards_by_step(learner, self, task.support.x[:1])
        ax = figure.subplots()
        for i, (number, curve) in enumerate(curves.items()):
            x, width = range(1, len(curve) + 1), 1.2 * (len(curves) - i)
            ax.plot(x, curve, linewidth=width, label=f"{label} {number}")
        ax.set(xlabel="step", ylabel="reward so far")
        ax.set_title(self.words(task.support.x[0]), fontsize=7)
        ax.legend(fontsize=7, frameon=False)


def as_environment(tasks: TaskDistribution) -> Environment:
    """The tasks as an environment. Raises InnerloopTypeError where they are none."""
    if not isinstance(tasks, Environment):
        raise InnerloopTypeError(
            "learning by acting needs an environment, such as bandits or mdps; got "
            f"{tasks.describe()}"
        )
    return tasks
