"""Learning by acting: advantages and losses by hand, and how trials are played and
used.
"""

import numpy as np
import pytest
import torch

from innerloop import LSTM, MAML, RL2, Examples, Learner, Task, meta_train
from innerloop.rl import (
    A2C,
    ACTING,
    PPO,
    Bandits,
    MDPs,
    Policy,
    generalised_advantages,
    play,
    play_test,
)

ENVIRONMENT = MDPs(3, 2, 2, 2)


def built(learner: type[Learner] = RL2, **build_args: object) -> Learner:
    torch.manual_seed(0)
    return learner.build(
        ENVIRONMENT.spec, likelihood=Policy(value=True), **{"hidden": 5, **build_args}
    ).double()


def tasks(n: int = 4, seed: int = 0) -> Task:
    drawn = ENVIRONMENT.sample(n, torch.Generator().manual_seed(seed))
    return Task(*(Examples(*(t.double() for t in part)) for part in drawn))


def test_advantages_are_the_papers_sum() -> None:
    rng = np.random.default_rng(0)
    r, V = rng.normal(size=(2, 6)), rng.normal(size=(2, 6))
    discount, trace = 0.9, 0.7
    delta = r + discount * np.concatenate([V[:, 1:], np.zeros((2, 1))], 1) - V
    expected = [
        [
            sum((discount * trace) ** (k - t) * row[k] for k in range(t, 6))
            for t in range(6)
        ]
        for row in delta
    ]
    found = generalised_advantages(torch.tensor(r), torch.tensor(V), discount, trace)
    np.testing.assert_allclose(found.numpy(), expected)
    rest = [
        [sum(discount ** (k - t) * row[k] for k in range(t, 6)) for t in range(6)]
        for row in r
    ]
    np.testing.assert_allclose(
        generalised_advantages(torch.tensor(r), torch.tensor(V), discount, 1.0).numpy(),
        rest - V,
    )


@pytest.mark.parametrize("name", ["ppo", "a2c"])
def test_the_loss_is_the_papers_in_numpy(name: str) -> None:
    learner, some = built(), tasks()
    player = ACTING[name](ENVIRONMENT, discount=0.9, trace=0.8, entropy=0.3, critic=0.7)
    player.on_progress(0.5)
    policy = learner.likelihood
    assert isinstance(policy, Policy)
    trials = player.round(learner, policy, some)[0]  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        for p in learner.parameters():
            p.add_(0.2 * torch.randn_like(p))  # a policy that has moved on
    outputs = (
        torch.vmap(lambda x, y: learner.scan(Examples(x, y))[1])(trials.x, trials.y)
        .detach()
        .numpy()
    )  # pyright: ignore
    logits, told = outputs[..., :2], outputs[..., 2]
    log_pi = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    a = trials.y[..., :2].numpy().argmax(-1)
    log_p = np.take_along_axis(log_pi, a[..., None], -1)[..., 0]
    advantage, played = trials.advantage.numpy(), trials.log_p.numpy()
    if name == "ppo":
        rho = np.exp(log_p - played)
        rising = (
            np.where(advantage > 0, np.minimum(rho, 1.2), np.maximum(rho, 0.8))
            * advantage
        )
        assert (rising != rho * advantage).any()
    else:
        rising = log_p * advantage
    left = np.array([sum(0.9**k for k in range(4 - t)) for t in range(4)])
    error = (told - trials.returns.numpy() / left) ** 2
    entropy = -(np.exp(log_pi) * log_pi).sum(-1)
    expected = -rising.mean() + 0.7 * error.mean() - 0.3 * 0.5 * entropy.mean()
    grads, metrics = player.gradient(learner, policy, trials, {})  # pyright: ignore[reportArgumentType]
    assert float(metrics["loss"]) == pytest.approx(expected)
    assert set(grads) == {name for name, _ in learner.named_parameters()}
    direction = {name: torch.randn_like(p) for name, p in learner.named_parameters()}
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for key, p in learner.named_parameters():
                p.add_(sign * 1e-6 * direction[key])
        values.append(float(player.gradient(learner, policy, trials, {})[1]["loss"]))  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            for key, p in learner.named_parameters():
                p.sub_(sign * 1e-6 * direction[key])
    slope = sum(
        float((g * direction[key]).sum()) for key, g in grads.items() if g is not None
    )
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_advantages_cross_episodes_and_not_trials() -> None:
    player = A2C(ENVIRONMENT, discount=1.0, trace=1.0, lucky=True)
    learner = built()
    trials = player.round(learner, learner.likelihood, tasks())[0]  # pyright: ignore[reportArgumentType]
    assert trials.y[:, 1, -1].all()  # an episode ends in the middle of the trial
    torch.testing.assert_close(
        trials.returns, trials.y[..., -2].flip(1).cumsum(1).flip(1)
    )
    means = A2C(ENVIRONMENT, discount=1.0, trace=1.0).round(
        learner, learner.likelihood, tasks()
    )[0]  # pyright: ignore[reportArgumentType]
    R, _ = ENVIRONMENT.tables(tasks().support.x[:, 0])
    options = R[torch.arange(4), means.x[:, -1].argmax(-1)]  # (4, A)
    last = options[torch.arange(4), means.y[:, -1, :2].argmax(-1)] - options.amax(-1)
    # the credit: without the noise of the reward that was drawn, and less the best
    torch.testing.assert_close(means.returns[:, -1], last)


@pytest.mark.parametrize("learner", [RL2, LSTM])
def test_what_was_said_in_play_is_what_is_said_again(learner: type[Learner]) -> None:
    student = built(learner)
    played = play(
        student,
        ENVIRONMENT,
        tasks().support.x[:, 0],
        torch.Generator().manual_seed(1),
        times=3,
    )
    follow = torch.vmap(torch.vmap(lambda x, y: student.scan(Examples(x, y))[1]))  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(follow(played.x, played.y), played.outputs)
    # memory outlives an episode
    assert (played.outputs[:, :, 2] != played.outputs[:, :, 0]).any()


def test_ppo_plays_anew_when_it_has_learned_from_everything_so_often() -> None:
    learner, player = built(), PPO(ENVIRONMENT, epochs=2, minibatches=2)
    seen, used = [], []
    for seed in range(5):
        player(learner, tasks(6, seed))
        assert player._trials is not None
        seen.append(player._trials.x)
        used.append(len(player._parts))
    assert used == [3, 2, 1, 0, 3]
    assert all(seen[0] is x for x in seen[:4])
    assert seen[4] is not seen[0]


def test_the_entropy_counts_less_and_less() -> None:
    learner, some = built(), tasks()
    grads = {}
    for entropy, progress in ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0)):
        player = A2C(ENVIRONMENT, entropy=entropy)
        player.on_progress(progress)
        grads[entropy, progress] = player(learner, some)[0]["head.weight"]
    assert torch.equal(*(grads[key] for key in ((0.0, 0.0), (1.0, 1.0))))  # pyright: ignore[reportArgumentType]
    assert not torch.equal(*(grads[key] for key in ((0.0, 0.0), (1.0, 0.0))))  # pyright: ignore[reportArgumentType]


def test_what_cannot_act_is_refused() -> None:
    with pytest.raises(
        TypeError, match="needs a learner that streams, such as RL2 or LSTM; not MAML"
    ):
        PPO(ENVIRONMENT)(
            MAML.build(ENVIRONMENT.spec, likelihood=Policy(value=True)), tasks()
        )
    with pytest.raises(
        TypeError, match=r"build it with likelihood=Policy\(value=True\)"
    ):
        PPO(ENVIRONMENT)(RL2.build(ENVIRONMENT.spec), tasks())
    with pytest.raises(
        ValueError, match="epochs, minibatches and a clip above 0, got 0"
    ):
        PPO(ENVIRONMENT, epochs=0)


def test_bandits_are_learned_to_be_learned() -> None:
    torch.manual_seed(0)
    bandits = Bandits(2, 6)
    learner = RL2.build(bandits.spec, likelihood=PPO.policy(bandits), hidden=24)
    before = play_test(learner, bandits).metrics["reward"]
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    player = PPO(bandits)
    for step in meta_train(
        learner,
        bandits,
        steps=160,
        batch=512,
        meta_gradient=player,
        optimizer=optimizer,
        clip=0.5,
    ):
        player.at(step.progress)
    after = play_test(learner, bandits).metrics["reward"]
    assert before.mean == pytest.approx(3.0, abs=0.2)
    assert after.mean > 3.3  # the best there is reaches 3.77


def test_the_reward_is_told_episode_by_episode() -> None:
    result = play_test(built().float(), ENVIRONMENT, n=50)
    assert len(result.instances) == 2
    assert sum(e.mean for e in result.instances) == pytest.approx(
        result.metrics["reward"].mean
    )
    assert play_test(built().float(), ENVIRONMENT, n=50).metrics == result.metrics
