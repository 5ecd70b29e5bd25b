"""Meta-gradients of tasks that are played, beside those of the expected return, which
is computed by enumeration.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from innerloop import LSTM, MAML, Examples, TaskSpec, load, meta_train
from innerloop.cli import main
from innerloop.rl import Environment, Navigation, Policy
from innerloop.rl.policy_gradient import (
    MetaPolicyGradient,
    PolicyGradient,
    mean_return,
    play_and_learn,
)

ESTIMATORS = ("dice", "lvc", "biased")
RATE = 2.0


class Corridor(Environment):
    """Two rooms in a row and two doors in each: rewards (rooms x doors) are the task.
    The first door of the first room leads on, the second out.
    """

    def __init__(self, rooms: int = 2):
        super().__init__((rooms,), 2, rooms)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(
            n, 2 * self.horizon, generator=generator, dtype=torch.float64
        )

    def start(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        return torch.eye(self.horizon, dtype=parameters.dtype)[:1].expand(
            len(parameters), -1
        )

    def look(self, parameters: Tensor, where: Tensor) -> Tensor:
        return where

    def step(
        self,
        parameters: Tensor,
        where: Tensor,
        action: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        reward = (
            parameters.unflatten(1, (-1, 2)) * where[:, :, None] * action[:, None]
        ).sum((1, 2))
        return where.roll(1, -1), reward, action[:, 1] > 0.5


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
    """Every episode that there is, one after the other; the weight of a step is the
    return from it on, times how probable the episode is.
    """
    rows, episodes = [], 0
    for doors in itertools.product(range(2), repeat=len(rewards)):
        last = doors.index(1) if 1 in doors else len(doors) - 1
        if any(doors[last + 1 :]):
            continue  # the rooms after the way out are not entered
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
def test_the_second_derivative_of_all_episodes_is_that_of_the_expected_return(
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
    if estimator == "lvc":  # what is left out is of two different steps
        blocks = torch.block_diag(*[torch.ones(2, 2)] * rooms).bool()
        torch.testing.assert_close(second[blocks], truth[blocks])


@pytest.mark.parametrize(
    ("rooms", "estimator"),
    [(1, "dice"), (1, "lvc"), (1, "biased"), (2, "dice"), (2, "lvc"), (2, "biased")],
)
def test_the_meta_gradient_of_what_is_played(rooms: int, estimator: str) -> None:
    """Against the exact one, in standard errors, over rounds of many episodes."""
    environment = Corridor(rooms)
    tasks = environment.sample(4, torch.Generator().manual_seed(1))
    student = learner(rooms, estimator, steps=float(rooms))
    meta = MetaPolicyGradient(
        environment, episodes=1000, discount=1.0, standardised=False
    )
    # (20, doors, rooms)
    found = (
        torch.stack(
            [
                g
                for _ in range(20)
                if (g := meta(student, tasks)[0]["net.weight"]) is not None
            ]
        )
        * -rooms
    )
    truth = exact(
        student.net.get_parameter("weight").detach().T,
        tasks.support.x[:, 0].unflatten(1, (-1, 2)),
    ).T
    away = ((found.mean(0) - truth) / (found.std(0) / 20**0.5)).abs()
    if estimator == "dice" or (estimator == "lvc" and rooms == 1):
        assert away.max() < 4
    else:
        assert away.max() > 8


@pytest.mark.parametrize("moved", [0.0, 0.5])
def test_what_was_played_is_used_again_as_promp_has_it(moved: float) -> None:
    """Against min(r A, clip(r) A) after an inner step on the mean of r A, written out
    for one task after the other.
    """
    environment, clip = Corridor(), 0.1
    tasks = environment.sample(3, torch.Generator().manual_seed(1))
    student = learner(2, "lvc")
    meta = MetaPolicyGradient(environment, episodes=50, uses=2, clip=clip)
    meta(student, tasks)
    played = meta._round
    assert played is not None
    old = [part.clone() for part in played.log_p]
    with torch.no_grad():
        student.net.get_parameter("weight").add_(
            moved
            * torch.randn(
                2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64
            )
        )
    found = meta(student, environment.sample(3, torch.Generator().manual_seed(3)))[0][
        "net.weight"
    ]
    assert meta._round is played

    theta = student.net.get_parameter("weight").detach().requires_grad_()
    total, clipped = theta.new_zeros(()), 0
    for i in range(3):
        (x, y), (query_x, query_y) = (
            Examples(*(t[i] for t in part)) for part in played.task
        )
        ratio = (((x @ theta.T).log_softmax(-1) * y[:, :2]).sum(-1) - old[0][i]).exp()
        adapted = (
            theta
            + RATE
            * torch.autograd.grad((ratio * y[:, 2]).mean(), theta, create_graph=True)[0]
        )
        after = (
            ((query_x @ adapted.T).log_softmax(-1) * query_y[:, :2]).sum(-1) - old[1][i]
        ).exp()
        total = (
            total
            + torch.minimum(
                after * query_y[:, 2], after.clamp(1 - clip, 1 + clip) * query_y[:, 2]
            ).mean()
            / 3
        )
        clipped += int(((after - 1).abs() > clip).sum())
    torch.testing.assert_close(found, -torch.autograd.grad(total, theta)[0])
    assert (clipped > 0) == (moved > 0)
    meta(student, tasks)
    assert meta._round is not played


def test_a_learner_without_inner_steps_plays_once() -> None:
    environment = Corridor()
    student = learner(2, "biased")
    student.inner_steps = 0
    tasks = environment.sample(2, torch.Generator().manual_seed(1))
    meta = MetaPolicyGradient(
        environment, episodes=2000, discount=1.0, standardised=False
    )
    found, metrics = meta(student, tasks)
    assert set(metrics) >= {"loss", "reward"}
    assert "reward_before" not in metrics
    logits = student.net.get_parameter("weight").detach().T.contiguous()
    returns = [
        torch.func.grad_and_value(expected_return)(logits, r.unflatten(0, (2, 2)))
        for r in tasks.support.x[:, 0]
    ]
    torch.testing.assert_close(
        -2 * found["net.weight"],
        torch.stack([g for g, _ in returns]).mean(0).T,
        atol=0.03,
        rtol=0,
    )  # pyright: ignore[reportOptionalOperand]
    torch.testing.assert_close(
        metrics["reward"],
        torch.stack([v for _, v in returns]).mean(),
        atol=0.05,
        rtol=0,
    )


def test_what_is_learned_from_is_what_was_played_last() -> None:
    """Two updates of a task whose return rises; the second, none where later steps have
    no length.
    """
    environment = Corridor()
    student = learner(2, "lvc")
    # out at once
    parameters = torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    meta = MetaPolicyGradient(environment, episodes=500)
    found = [
        float(mean_return(p))
        for p in play_and_learn(
            student,
            meta,
            parameters,
            torch.Generator().manual_seed(0),
            updates=2,
            later=1.0,
        )
    ]
    assert found[0] + 0.1 < found[1] < found[2] - 0.05
    stays = list(
        play_and_learn(
            student,
            meta,
            parameters,
            torch.Generator().manual_seed(0),
            updates=2,
            later=0.0,
        )
    )
    assert torch.equal(stays[1].outputs[0, 0, 0], stays[2].outputs[0, 0, 0])
    assert not torch.equal(stays[0].outputs[0, 0, 0], stays[1].outputs[0, 0, 0])


def test_what_cannot_act_is_refused() -> None:
    environment = Corridor()
    tasks = environment.sample(1, torch.Generator().manual_seed(0))
    with pytest.raises(
        TypeError,
        match=r"needs a learner whose state is weights, such as MAML; not LSTM",
    ):
        MetaPolicyGradient(environment)(LSTM.build(environment.spec), tasks)
    with pytest.raises(
        TypeError,
        match=r"build the learner with likelihood=PolicyGradient\(...\), not Policy",
    ):
        MetaPolicyGradient(environment)(
            MAML.build(environment.spec, likelihood=Policy()), tasks
        )
    with pytest.raises(ValueError, match="not 'exact'"):
        PolicyGradient(estimator="exact")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least one episode"):
        MetaPolicyGradient(environment, episodes=0)


def test_meta_training_raises_the_return_after_adapting() -> None:
    environment = Navigation(horizon=15)
    torch.manual_seed(0)
    student = MAML.build(
        environment.spec, inner_lr=0.1, likelihood=PolicyGradient(discrete=False)
    )
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    meta = MetaPolicyGradient(environment)
    steps = list(
        meta_train(
            student,
            environment,
            steps=40,
            batch=5,
            meta_gradient=meta,
            optimizer=optimizer,
        )
    )
    first, last = (
        [float(step.metrics["reward"]) for step in part]
        for part in (steps[:5], steps[-5:])
    )
    assert min(last) > max(first) + 0.5, (first, last)


def test_the_command_line_trains_goes_on_and_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [
        "train",
        "maml",
        "navigation",
        "--horizon",
        "4",
        "--episodes",
        "3",
        "--batch",
        "2",
        "--estimator",
        "dice",
    ]
    whole, parts, figures = (
        str(tmp_path / name) for name in ("whole", "parts", "figures.json")
    )
    assert main([*small, "--steps", "3", "--out", whole]) == 0
    assert main([*small, "--steps", "2", "--out", parts]) == 0
    assert main([*small, "--steps", "3", "--out", parts, "--resume"]) == 0
    for name, w in load(whole).state_dict().items():
        assert torch.equal(w, load(parts).state_dict()[name])
    learner = load(whole)
    assert learner.likelihood == PolicyGradient(discrete=False, estimator="dice")
    assert isinstance(learner, MAML)
    assert learner.inner_lr == 0.1
    assert main([*small[:-1], "lvc", "--out", parts, "--resume"]) == 2
    assert main(["test", whole, "--tasks", "6", "--json", figures]) == 0
    row = json.loads(Path(figures).read_text())["results"][0]
    assert len(row["curve"]) == 4
    assert row["metrics"]["reward"] == row["curve"][1]
    assert "reward after 0, 1, ... steps" in capsys.readouterr().out
    assert (
        main(
            [
                "train",
                "maml",
                "sinusoid",
                "--estimator",
                "dice",
                "--out",
                str(tmp_path / "other"),
            ]
        )
        == 2
    )


def test_a_training_goes_on_in_the_middle_of_what_was_played() -> None:
    environment = Corridor()
    tasks = environment.sample(2, torch.Generator().manual_seed(0))
    found = []
    for stopped in (False, True):
        student, meta = (
            learner(2, "lvc"),
            MetaPolicyGradient(environment, episodes=5, uses=2),
        )
        meta(student, tasks)
        if stopped:
            state, generator = meta.state_dict(), meta.generator
            meta = MetaPolicyGradient(
                environment, episodes=5, uses=2, generator=generator
            )
            meta.load_state_dict(state)
        with torch.no_grad():
            student.net.get_parameter("weight").add_(0.1)
        found.append([meta(student, tasks)[0]["net.weight"] for _ in range(3)])
    torch.testing.assert_close(*found, rtol=0, atol=0)
