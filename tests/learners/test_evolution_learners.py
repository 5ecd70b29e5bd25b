"""Learners without gradients, against their equations."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from innerloop import ESMAML, NEAT, Bernoulli, Examples, Task, TaskSpec
from innerloop.tasks import xor
from innerloop.tasks.xor import ExclusiveOr

Array = npt.NDArray[np.float64]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lines(n: int = 12) -> Task:
    x = torch.randn(2 * n, 2, generator=seeded(), dtype=torch.float64)
    y = x @ torch.tensor([[2.0], [-1.0]], dtype=torch.float64) + 0.5
    return Task(Examples(x[:n], y[:n]), Examples(x[n:], y[n:]))


def adapting(**build_args: object) -> ESMAML:
    torch.manual_seed(0)
    return ESMAML.build(
        TaskSpec("reals", (2,), 1),
        net=nn.Linear(2, 1),
        **{"inner_lr": 0.1, "inner_steps": 3, "inner_pairs": 4, **build_args},
    ).double()


def by_hand(learner: ESMAML, task: Task) -> list[Array]:
    """The weights [w, b] after every step, in numpy."""
    x, y = (t.numpy() for t in task.support)

    def f(theta: Array) -> float:
        return float(np.mean((x @ theta[:2] + theta[2] - y[:, 0]) ** 2))

    theta = np.concatenate(
        [w.detach().numpy().ravel() for w in learner.net.parameters()]
    )
    found, sigma = [theta], learner.inner_sigma
    for e in learner.get_buffer("noise").numpy():
        if learner.inner_rule == "gradient":
            slopes = [
                (f(theta + sigma * one) - f(theta - sigma * one)) / (2 * sigma)
                for one in e
            ]
            theta = theta - learner.inner_lr * sum(
                slope * one for slope, one in zip(slopes, e, strict=True)
            ) / len(e)
        else:
            theta = min(
                [theta, *(theta + sign * sigma * one for sign in (1, -1) for one in e)],
                key=f,
            )
        found.append(theta)
    return found


@pytest.mark.parametrize("rule", ["gradient", "hill-climbing"])
def test_es_maml_is_its_equation_step_by_step(rule: str) -> None:
    learner, task = adapting(inner_rule=rule), lines()
    for state, theta in zip(
        learner.trajectory(task.support, 3), by_hand(learner, task), strict=True
    ):
        np.testing.assert_allclose(
            torch.cat([w.flatten() for w in state.values()]).detach().numpy(), theta
        )


def test_many_perturbations_give_the_step_of_gradient_descent() -> None:
    learner, task = (
        adapting(inner_pairs=20000, inner_steps=1, inner_sigma=0.01),
        lines(),
    )
    before = dict(learner.net.named_parameters())
    exact = learner.gradient(before, task.support)
    for name, w in learner.adapt(task.support).items():
        torch.testing.assert_close(
            (before[name] - w) / 0.1, exact[name], rtol=0.05, atol=0.1
        )


def test_climbing_never_raises_the_support_loss() -> None:
    learner, task = adapting(inner_rule="hill-climbing", inner_steps=10), lines()
    losses = [
        float(learner.support_loss(state, task.support).detach())
        for state in learner.trajectory(task.support, 10)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_perturbations_are_random_in_training_only() -> None:
    learner, support = adapting(), lines().support

    def adapted() -> Tensor:
        return learner.adapt(support)["weight"]

    assert torch.equal(adapted(), adapted())
    learner.train()
    assert not torch.equal(adapted(), adapted())
    torch.manual_seed(1)
    first = adapted()
    torch.manual_seed(1)
    assert torch.equal(first, adapted())


def test_es_maml_refuses_a_sigma_of_zero() -> None:
    with pytest.raises(ValueError, match=r"inner_sigma .*greater than 0; got 0\.0"):
        adapting(inner_sigma=0.0)


def test_neat_is_its_equation() -> None:
    torch.manual_seed(0)
    learner = NEAT.build(TaskSpec("bits", (2,), 1), hidden=2, passes=2).double()
    nn.init.normal_(learner.network.weight)
    # rows: x (2), y, whether there is a label, bias, nodes (3)
    w = learner.network.weight.detach().numpy()

    def updated(inputs: list[float], a: Array) -> tuple[float, Array]:
        for _ in range(2):
            sums = np.array([*inputs, 1.0, *a]) @ w
            a = np.tanh(sums)
        return sums[0], a

    task = ExclusiveOr(shots=3, queries=4).sample(1, seeded()).unbind()[0]
    a = np.zeros(3)
    for x, y in zip(*(t.double().tolist() for t in task.support), strict=True):
        a = updated([*x, *y, 1.0], a)[1]
    state = learner.adapt(Examples(*(t.double() for t in task.support)))
    np.testing.assert_allclose(state.detach().numpy(), a)
    answers = learner.predict(state, task.query.x.double())
    np.testing.assert_allclose(
        answers[:, 0].detach().numpy(),
        [updated([*x, 0.0, 0.0], a)[0] for x in task.query.x.double().tolist()],
    )
    assert learner.likelihood == Bernoulli()


def test_exclusive_or_is_determined_by_one_example() -> None:
    tasks = xor("train", shots=2, queries=8).sample(4000, seeded())
    answers = []
    for part in tasks:
        differs = (part.x[..., 0] * part.x[..., 1] < 0).float()
        answers.append((differs == part.y[..., 0]).float())
    assert all(bool((row == row[0]).all()) for row in torch.cat(answers, 1))
    assert abs(float(answers[0][:, 0].mean()) - 0.75) < 0.03
    corners = tasks.query.x.sign().flatten(0, 1).unique(dim=0, return_counts=True)[1]
    assert corners.tolist() == [8000, 8000, 8000, 8000]
