"""Navigation, and advantages."""

import numpy as np
import pytest
import torch

from innerloop import MAML
from innerloop.rl import Navigation, PolicyGradient, Rollout, rollout
from innerloop.rl.advantages import (
    advantages,
    first_episode,
    linear_baseline,
    returns,
)


def test_goals_are_in_the_unit_square_around_the_start() -> None:
    goals = Navigation().sample_params(2000, torch.Generator().manual_seed(0))
    assert goals.shape == (2000, 2)
    assert goals.abs().max() <= 0.5
    assert (goals.min(0).values < -0.49).all()
    assert (goals.max(0).values > 0.49).all()
    torch.testing.assert_close(goals.mean(0), torch.zeros(2), atol=0.03, rtol=0)


def test_a_step_is_clipped_and_rewarded_by_the_negative_squared_distance() -> None:
    environment, generator = Navigation(), torch.Generator()
    goals = torch.tensor([[0.3, -0.4], [0.1, 0.0], [0.0, 0.2]])
    state = environment.start(goals, generator)
    assert state.tolist() == [[0, 0]] * 3
    state, reward, done = environment.step(
        goals, state, torch.tensor([[0.5, -7.0], [3.0, 0.05], [0.0, 0.0]]), generator
    )
    torch.testing.assert_close(
        state, torch.tensor([[0.05, -0.1], [0.1, 0.005], [0.0, 0.0]])
    )
    torch.testing.assert_close(
        reward, -torch.tensor([0.25**2 + 0.3**2, 0.005**2, 0.2**2])
    )
    assert done.tolist() == [False, True, False]
    assert torch.equal(environment.observe(goals, state), state)


def test_an_episode_ends_at_the_goal_or_the_horizon() -> None:
    environment = Navigation(horizon=6)
    torch.manual_seed(0)
    learner = MAML.build(environment.spec, likelihood=PolicyGradient(discrete=False))
    with torch.no_grad():  # straight to the right, nearly without noise
        learner.net.head.weight.zero_()  # pyright: ignore[reportCallIssue]
        learner.net.head.bias.copy_(torch.tensor([1.0, 0.0, -20.0, -20.0]))  # pyright: ignore[reportCallIssue]
    state = {
        name: w.detach().expand(2, *w.shape)
        for name, w in learner.net.named_parameters()
    }
    goals = torch.tensor([[0.195, 0.0], [0.0, 0.5]])
    played = rollout(
        learner,
        environment,
        goals,
        torch.Generator().manual_seed(0),
        state=state,
        repeats=4,
        episodes=1,
    )
    assert played.done[0, :, 1].sum() >= 2, "within 0.01 after two steps, mostly"
    assert played.done[1].tolist() == [[0, 0, 0, 0, 0, 1]] * 4


def made(k: int = 3, steps: int = 5) -> Rollout:
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(2, k, steps, 2, generator=generator) * 4,
        torch.randn(2, k, steps, 4, generator=generator),
    )
    y[..., -1] = 0
    y[0, 0, 2, -1] = y[1, 2, 0, -1] = 1
    y[..., -1, -1] = 1
    return Rollout(x, y, torch.zeros(2, k, steps, 4), y[..., -2])


def test_returns_end_with_the_episode() -> None:
    played, gamma = made(), 0.9
    found = returns(played, gamma)
    for task, row in np.ndindex(2, 3):
        rewards, done = (
            played.reward[task, row].tolist(),
            played.done[task, row].tolist(),
        )
        for step in range(5):
            end = next(i for i in range(step, 5) if done[i])
            assert float(found[task, row, step]) == pytest.approx(
                sum(gamma ** (i - step) * rewards[i] for i in range(step, end + 1)),
                abs=1e-5,
            )
    assert first_episode(played)[0, 0].tolist() == [1, 1, 1, 0, 0]
    assert first_episode(played)[1, 2].tolist() == [1, 0, 0, 0, 0]
    assert first_episode(played)[1, 1].tolist() == [1, 1, 1, 1, 1]


def test_the_baseline_is_numpys_least_squares() -> None:
    played, ridge = made(), 0.01
    targets = returns(played)
    found = linear_baseline(played, targets, ridge)
    for task in range(2):
        x = played.x[task].numpy().astype(np.float64).clip(-10, 10).reshape(15, 2)
        t = np.tile(np.arange(5.0) / 100, 3)[:, None]
        features = np.concatenate([x, x**2, t, t**2, t**3, np.ones_like(t)], 1)
        kept = first_episode(played)[task].numpy().reshape(15) > 0
        rows = np.concatenate([features[kept], ridge**0.5 * np.eye(8)])
        wanted = np.concatenate([targets[task].numpy().reshape(15)[kept], np.zeros(8)])
        solution = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        np.testing.assert_allclose(
            found[task].reshape(15).numpy(), features @ solution, atol=1e-4
        )


def test_advantages_are_standardized_and_zero_after_the_end() -> None:
    played = made(k=20)
    found, counts = advantages(played), first_episode(played)
    assert found[counts == 0].abs().max() == 0
    for task in range(2):
        kept = found[task][counts[task] > 0]
        assert float(kept.mean()) == pytest.approx(0, abs=1e-5)
        assert float(kept.square().mean()) == pytest.approx(1, abs=1e-4)
    plain = advantages(played, 0.99, standardized=False)
    torch.testing.assert_close(
        plain,
        (returns(played, 0.99) - linear_baseline(played, returns(played, 0.99)))
        * counts,
    )
