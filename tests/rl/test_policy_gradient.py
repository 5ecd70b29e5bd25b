"""Meta-gradients in environments, against those of the expected return, which is
computed by enumeration.
"""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from innerloop import LSTM, MAML, Examples, Task, TaskSpec, meta_train
from innerloop.measurements import TestPlan
from innerloop.rl import (
    Environment,
    MetaPolicyGradient,
    Navigation,
    Policy,
    PolicyGradient,
    Rollout,
    adapt_by_acting,
)
from innerloop.rl.advantages import mean_return

ESTIMATORS = ("dice", "lvc", "biased")
RATE = 2.0


class Corridor(Environment):
    """Rooms in a row with two doors each: the task is the rewards (rooms x doors). The
    first door leads to the next room, the second one ends the episode.
    """

    def __init__(self, rooms: int = 2):
        super().__init__((rooms,), 2, rooms)

    def sample_params(self, n: int, generator: torch.Generator) -> Tensor:
        shape = n, 2 * self.horizon
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def start(self, params: Tensor, rng: torch.Generator) -> Tensor:
        first = torch.eye(self.horizon, dtype=params.dtype)[:1]
        return first.expand(len(params), -1)

    def observe(self, params: Tensor, state: Tensor) -> Tensor:
        return state

    def step(
        self, params: Tensor, state: Tensor, action: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        pairs = state[:, :, None] * action[:, None]  # (n, rooms, doors)
        reward = (params.unflatten(1, (-1, 2)) * pairs).sum((1, 2))
        return state.roll(1, -1), reward, action[:, 1] > 0.5


def prepared(
    meta: MetaPolicyGradient, student: MAML, environment: Environment
) -> MetaPolicyGradient:
    meta.prepare(student, environment, torch.Generator().manual_seed(0))
    return meta


def drawn(environment: Environment, n: int, seed: int = 1) -> Task:
    return environment.sample(n, torch.Generator().manual_seed(seed))


def expected_return(logits: Tensor, rewards: Tensor) -> Tensor:
    """Of a policy with logits (rooms, doors): from the last room to the first."""
    value = logits.new_zeros(())
    for p, r in zip(logits.softmax(-1).flip(0), rewards.flip(0), strict=True):
        value = p[0] * (r[0] + value) + p[1] * r[1]
    return value


def exact(logits: Tensor, tasks: Tensor) -> Tensor:
    """The gradient for the logits (rooms, doors) of the mean return after one step up
    the gradient of the return of each task.
    """
    total = logits.new_zeros(())
    for rewards in tasks:
        start = logits.detach().requires_grad_()
        adapted = (
            start
            + RATE
            * torch.autograd.grad(
                expected_return(start, rewards), start, create_graph=True
            )[0]
        )
        total = total + torch.autograd.grad(expected_return(adapted, rewards), start)[
            0
        ] / len(tasks)
    return total


def learner(rooms: int, estimator: Any, steps: float = 1.0) -> MAML:
    """One that acts by a table of logits; `steps`: in a mean over all steps, how many
    an episode counts.
    """
    spec = TaskSpec("reals", (rooms,), 4)
    table = nn.Linear(rooms, 2, bias=False).double()
    table.weight.data = torch.tensor([[0.3, -0.2], [-0.4, 0.5]], dtype=torch.float64)[
        :, :rooms
    ].contiguous()
    return MAML.build(
        spec,
        net=table,
        inner_lr=RATE * steps,
        likelihood=PolicyGradient(estimator=estimator),
    )


def enumerated(student: MAML, logits: Tensor, rewards: Tensor) -> Examples:
    """All possible episodes, one after the other; the weight of a step is the return
    from there on, times the probability of the episode.
    """
    rows, episodes = [], 0
    for doors in itertools.product(range(2), repeat=len(rewards)):
        last = doors.index(1) if 1 in doors else len(doors) - 1
        if any(doors[last + 1 :]):
            continue  # the rooms after the exit are not entered
        p = math.prod(
            float(logits.softmax(-1)[room, doors[room]]) for room in range(last + 1)
        )
        for room in range(last + 1):
            after = sum(float(rewards[r, doors[r]]) for r in range(room, last + 1))
            x, action = torch.eye(len(rewards))[room], torch.eye(2)[doors[room]]
            rows.append(
                torch.cat(
                    [
                        x,
                        action,
                        torch.tensor(
                            [p * after, float(room == last)], dtype=torch.float64
                        ),
                    ]
                )
            )
        episodes += 1
    table = torch.stack(rows)
    table[:, -2] *= len(table)  # a mean over steps is a sum then
    return Examples(table[:, : len(rewards)], table[:, len(rewards) :])


@pytest.mark.parametrize("rooms", [1, 2])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_second_derivative_is_that_of_the_expected_return(
    rooms: int, estimator: str
) -> None:
    rewards = torch.tensor([[1.0, -0.5], [2.0, 0.3]], dtype=torch.float64)[:rooms]
    student = learner(rooms, estimator)
    weights = dict(student.net.named_parameters())
    logits = weights["weight"].detach().T.contiguous()
    examples = enumerated(student, logits, rewards)

    def loss(weight: Tensor) -> Tensor:
        return student.support_loss({"weight": weight.T}, examples)

    first, second = (
        torch.func.grad(loss)(logits),
        torch.func.hessian(loss)(logits).reshape(2 * rooms, -1),
    )
    torch.testing.assert_close(
        first, -torch.func.grad(expected_return)(logits, rewards)
    )
    truth = -torch.func.hessian(expected_return)(logits, rewards).reshape(2 * rooms, -1)
    right = estimator == "dice" or (estimator == "lvc" and rooms == 1)
    assert bool((second - truth).abs().max() < 1e-10) == right
    if estimator == "lvc":  # only products of two different steps are left out
        blocks = torch.block_diag(*[torch.ones(2, 2)] * rooms).bool()
        torch.testing.assert_close(second[blocks], truth[blocks])


@pytest.mark.parametrize("rooms", [1, 2])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_meta_gradient_of_sampled_episodes(rooms: int, estimator: Any) -> None:
    """Against the exact one, in standard errors, over rounds of many episodes."""
    environment = Corridor(rooms)
    tasks = drawn(environment, 4)
    student = learner(rooms, estimator, steps=float(rooms))
    meta = MetaPolicyGradient(
        episodes=1000, discount=1.0, standardized=False, estimator=estimator
    )
    prepared(meta, student, environment)
    rounds = [meta(student, lambda: tasks).grads["net.weight"] for _ in range(20)]
    # (20, doors, rooms)
    found = -rooms * torch.stack([g for g in rounds if g is not None])
    truth = exact(
        student.net.get_parameter("weight").detach().T,
        environment.params_of(tasks).unflatten(1, (-1, 2)),
    ).T
    errors = ((found.mean(0) - truth) / (found.std(0) / 20**0.5)).abs()
    if estimator == "dice" or (estimator == "lvc" and rooms == 1):
        assert errors.max() < 4
    else:
        assert errors.max() > 8


@pytest.mark.parametrize("moved", [0.0, 0.5])
def test_a_round_is_reused_as_in_promp(moved: float) -> None:
    """Against min(r A, clip(r) A) after an inner step on the mean of r A, one task
    after the other.
    """
    environment, clip = Corridor(), 0.1
    student, draws = learner(2, "lvc"), []
    meta = MetaPolicyGradient(episodes=50, uses=2, clip=clip)
    prepared(meta, student, environment)

    def draw() -> Task:
        draws.append(len(draws))
        return drawn(environment, 3, len(draws))

    meta(student, draw)
    played = meta.round
    assert played is not None
    old = [part.clone() for part in played.log_p]
    noise = torch.randn(
        2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    with torch.no_grad():
        student.net.get_parameter("weight").add_(moved * noise)
    found = meta(student, draw).grads["net.weight"]
    assert meta.round is played
    assert len(draws) == 1

    theta = student.net.get_parameter("weight").detach().requires_grad_()
    total, clipped = theta.new_zeros(()), 0
    for i in range(3):
        (x, y), (query_x, query_y) = (
            Examples(*(t[i] for t in part)) for part in played.task
        )
        ratio = (((x @ theta.T).log_softmax(-1) * y[:, :2]).sum(-1) - old[0][i]).exp()
        inner = (ratio * y[:, 2]).mean()
        step = torch.autograd.grad(inner, theta, create_graph=True)[0]
        adapted = theta + RATE * step
        log_p = ((query_x @ adapted.T).log_softmax(-1) * query_y[:, :2]).sum(-1)
        ratio = (log_p - old[1][i]).exp()
        bounded = ratio.clamp(1 - clip, 1 + clip)
        worse = torch.minimum(ratio * query_y[:, 2], bounded * query_y[:, 2])
        total = total + worse.mean() / 3
        clipped += int(((ratio - 1).abs() > clip).sum())
    torch.testing.assert_close(found, -torch.autograd.grad(total, theta)[0])
    assert (clipped > 0) == (moved > 0)
    meta(student, draw)
    assert meta.round is not played
    assert len(draws) == 2


def test_a_learner_without_inner_steps_acts_once() -> None:
    environment = Corridor()
    student = learner(2, "biased")
    student.inner_steps = 0
    tasks = drawn(environment, 2)
    meta = MetaPolicyGradient(
        episodes=2000, discount=1.0, standardized=False, estimator="biased"
    )
    update = prepared(meta, student, environment)(student, lambda: tasks)
    assert set(update.metrics) >= {"loss", "reward"}
    assert "reward_before" not in update.metrics
    logits = student.net.get_parameter("weight").detach().T.contiguous()
    exact_returns = [
        torch.func.grad_and_value(expected_return)(logits, r.unflatten(0, (2, 2)))
        for r in environment.params_of(tasks)
    ]
    grad = update.grads["net.weight"]
    assert grad is not None
    expected = torch.stack([g for g, _ in exact_returns]).mean(0).T
    torch.testing.assert_close(-2 * grad, expected, atol=0.03, rtol=0)
    expected = torch.stack([v for _, v in exact_returns]).mean()
    torch.testing.assert_close(update.metrics["reward"], expected, atol=0.05, rtol=0)


def test_every_update_learns_from_the_rollout_before_it() -> None:
    """The return rises with both updates; later updates of size zero change nothing."""
    environment = Corridor()
    student = learner(2, "lvc")
    # best to leave at once
    params = torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)

    def rollouts(later_scale: float) -> list[Rollout]:
        return list(
            adapt_by_acting(
                student,
                environment,
                params,
                torch.Generator().manual_seed(0),
                updates=2,
                episodes=500,
                later_scale=later_scale,
            )
        )

    found = [float(mean_return(played)) for played in rollouts(1.0)]
    assert found[0] + 0.1 < found[1] < found[2] - 0.05
    stays = rollouts(0.0)
    assert torch.equal(stays[1].outputs[0, 0, 0], stays[2].outputs[0, 0, 0])
    assert not torch.equal(stays[0].outputs[0, 0, 0], stays[1].outputs[0, 0, 0])


def test_learners_that_cannot_act_are_refused() -> None:
    environment, meta = Corridor(), MetaPolicyGradient()
    spec = environment.spec
    with pytest.raises(TypeError, match="it needs a Descent; got LSTM"):
        meta.check(LSTM.build(spec), environment)
    with pytest.raises(TypeError, match=r"MAML with likelihood=PolicyGradient\(...\)"):
        meta.check(MAML.build(spec, likelihood=Policy()), environment)
    with pytest.raises(ValueError, match="learner's likelihood, 'dice'; got 'lvc'"):
        meta.check(learner(2, "dice"), environment)
    with pytest.raises(ValueError, match="one of lvc, dice, biased; got 'exact'"):
        PolicyGradient(estimator="exact")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"episodes of .* must be at least 1; got 0"):
        MetaPolicyGradient(episodes=0)


def test_meta_training_raises_the_return_after_an_update_on_unseen_tasks() -> None:
    train, test = (Navigation(horizon=15, split=split) for split in ("train", "test"))
    meta = MetaPolicyGradient()
    torch.manual_seed(0)
    student = MAML.build(train.spec, inner_lr=0.1, likelihood=meta.likelihood(train))
    before = return_after_an_update(student, test)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for _ in meta_train(
        student, train, steps=15, batch=5, meta_gradient=meta, optimizer=optimizer
    ):
        pass
    # from -3 to -1 or -1.7, by the seed
    assert return_after_an_update(student, test) > before + 0.8


def return_after_an_update(learner: MAML, environment: Navigation) -> float:
    report = environment.evaluate(learner, TestPlan(n=30, steps=1))
    return report.tables[0].rows[0].values[0].mean
