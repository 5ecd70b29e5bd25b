"""Actor-critic meta-gradients: advantages and losses against NumPy, and how rollouts
are collected and used.
"""

import numpy as np
import pytest
import torch

from innerloop import LSTM, MAML, RL2, Examples, Learner, Task, meta_train
from innerloop.measurements import TestPlan
from innerloop.rl import (
    A2C,
    META_GRADIENTS,
    PPO,
    Bandits,
    MDPs,
    Policy,
    evaluate,
    generalized_advantages,
    rollout,
)
from innerloop.tasks import sinusoid

ENVIRONMENT = MDPs(3, 2, 2, 2)


def built(learner: type[Learner] = RL2, **build_args: object) -> Learner:
    torch.manual_seed(0)
    return learner.build(
        ENVIRONMENT.spec, likelihood=Policy(value=True), **{"hidden": 5, **build_args}
    ).double()


def tasks(n: int = 4, seed: int = 0) -> Task:
    drawn = ENVIRONMENT.sample(n, torch.Generator().manual_seed(seed))
    return Task(*(Examples(*(t.double() for t in part)) for part in drawn))


def prepared(meta_gradient: A2C, learner: Learner, seed: int = 0) -> A2C:
    rng = torch.Generator().manual_seed(seed)
    meta_gradient.prepare(learner, ENVIRONMENT, rng)
    return meta_gradient


def test_advantages_are_the_sum_of_the_paper() -> None:
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
    found = generalized_advantages(torch.tensor(r), torch.tensor(V), discount, trace)
    np.testing.assert_allclose(found.numpy(), expected)
    rest = [
        [sum(discount ** (k - t) * row[k] for k in range(t, 6)) for t in range(6)]
        for row in r
    ]
    np.testing.assert_allclose(
        generalized_advantages(torch.tensor(r), torch.tensor(V), discount, 1.0).numpy(),
        rest - V,
    )


@pytest.mark.parametrize("name", ["ppo", "a2c"])
def test_the_loss_is_that_of_the_paper_in_numpy(name: str) -> None:
    learner, some = built(), tasks()
    move = META_GRADIENTS[name](discount=0.9, trace=0.8, entropy=0.3, critic=0.7)  # pyright: ignore[reportCallIssue]
    assert isinstance(move, A2C)
    prepared(move, learner).on_progress(0.5)
    trials = move.collect(learner, some)[0]
    with torch.no_grad():
        for p in learner.parameters():
            p.add_(0.2 * torch.randn_like(p))  # so that the policy has changed
    along = torch.vmap(lambda x, y: learner.scan(Examples(x, y))[1])  # pyright: ignore[reportAttributeAccessIssue]
    outputs = along(trials.x, trials.y).detach().numpy()
    logits, value = outputs[..., :2], outputs[..., 2]
    log_pi = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    a = trials.y[..., :2].numpy().argmax(-1)
    log_p = np.take_along_axis(log_pi, a[..., None], -1)[..., 0]
    advantage, old_log_p = trials.advantage.numpy(), trials.log_p.numpy()
    if name == "ppo":
        rho = np.exp(log_p - old_log_p)
        clipped = np.where(advantage > 0, np.minimum(rho, 1.2), np.maximum(rho, 0.8))
        surrogate = clipped * advantage
        assert (surrogate != rho * advantage).any()
    else:
        surrogate = log_p * advantage
    left = np.array([sum(0.9**k for k in range(4 - t)) for t in range(4)])
    error = (value - trials.returns.numpy() / left) ** 2
    entropy = -(np.exp(log_pi) * log_pi).sum(-1)
    expected = -surrogate.mean() + 0.7 * error.mean() - 0.3 * 0.5 * entropy.mean()
    grads, metrics = (
        (update := move.gradient(learner, trials, {})).grads,
        update.metrics,
    )
    assert float(metrics["loss"]) == pytest.approx(expected)
    assert set(grads) == {name for name, _ in learner.named_parameters()}
    direction = {name: torch.randn_like(p) for name, p in learner.named_parameters()}
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for key, p in learner.named_parameters():
                p.add_(sign * 1e-6 * direction[key])
        values.append(float(move.gradient(learner, trials, {}).metrics["loss"]))
        with torch.no_grad():
            for key, p in learner.named_parameters():
                p.sub_(sign * 1e-6 * direction[key])
    slope = sum(
        float((g * direction[key]).sum()) for key, g in grads.items() if g is not None
    )
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_advantages_cross_episodes_and_not_trials() -> None:
    learner = built()
    sampled = prepared(
        A2C(discount=1.0, trace=1.0, sampled_rewards=True), learner
    ).collect(learner, tasks())[0]
    assert sampled.y[:, 1, -1].all()  # an episode ends in the middle of the trial
    torch.testing.assert_close(
        sampled.returns, sampled.y[..., -2].flip(1).cumsum(1).flip(1)
    )
    expected = prepared(A2C(discount=1.0, trace=1.0), learner).collect(
        learner, tasks()
    )[0]
    R = ENVIRONMENT.tables(ENVIRONMENT.params_of(tasks()))[0]
    options = R[torch.arange(4), expected.x[:, -1].argmax(-1)]  # (4, A)
    chosen = options[torch.arange(4), expected.y[:, -1, :2].argmax(-1)]
    # the training reward: without the noise of the sampled reward, less the best one
    torch.testing.assert_close(expected.returns[:, -1], chosen - options.amax(-1))


@pytest.mark.parametrize("learner", [RL2, LSTM])
def test_the_outputs_of_a_rollout_are_those_of_a_scan(learner: type[Learner]) -> None:
    student = built(learner)
    played = rollout(
        student,
        ENVIRONMENT,
        ENVIRONMENT.params_of(tasks()),
        torch.Generator().manual_seed(1),
        repeats=3,
    )
    along = torch.vmap(torch.vmap(lambda x, y: student.scan(Examples(x, y))[1]))  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(along(played.x, played.y), played.outputs)
    # the memory is kept between episodes
    assert (played.outputs[:, :, 2] != played.outputs[:, :, 0]).any()


def test_ppo_draws_tasks_only_for_a_new_round() -> None:
    learner, drawn = built(), []
    move = PPO(epochs=2, minibatches=2)
    prepared(move, learner)

    def draw() -> Task:
        drawn.append(len(drawn))
        return tasks(6, len(drawn))

    seen, left = [], []
    for _ in range(5):
        move(learner, draw)
        assert move.trials is not None
        seen.append(move.trials.x)
        left.append(len(move.parts))
    assert left == [3, 2, 1, 0, 3]
    assert len(drawn) == 2
    assert all(seen[0] is x for x in seen[:4])
    assert seen[4] is not seen[0]


def test_the_weight_of_the_entropy_falls_to_zero() -> None:
    learner, some = built(), tasks()
    grads = {}
    for entropy, progress in ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0)):
        move = prepared(A2C(entropy=entropy), learner)
        move.on_progress(progress)
        grads[entropy, progress] = move(learner, lambda: some).grads["head.weight"]
    assert torch.equal(*(grads[key] for key in ((0.0, 0.0), (1.0, 1.0))))  # pyright: ignore[reportArgumentType]
    assert not torch.equal(*(grads[key] for key in ((0.0, 0.0), (1.0, 0.0))))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["ppo", "a2c"])
def test_learners_that_cannot_act_are_refused(name: str) -> None:
    move = META_GRADIENTS[name]()
    spec = ENVIRONMENT.spec
    with pytest.raises(TypeError, match="needs a Streaming; got MAML"):
        move.check(MAML.build(spec, likelihood=Policy(value=True)), ENVIRONMENT)
    with pytest.raises(TypeError, match="RL2 with likelihood=Policy"):
        move.check(RL2.build(spec), ENVIRONMENT)
    with pytest.raises(TypeError, match=r"RL2 with likelihood=Policy\(value=True\)"):
        move.check(RL2.build(spec, likelihood=Policy()), ENVIRONMENT)
    waves = sinusoid()
    student = LSTM.build(waves.spec)
    with pytest.raises(TypeError, match="these tasks are not environments"):
        move.check(student, waves)


@pytest.mark.parametrize(
    ("option", "value"),
    [("epochs", 0), ("clip", 0.0), ("discount", 3.0), ("trace", -0.1), ("entropy", -1)],
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option} of PPO must be .*; got {value}"):
        PPO(**{option: value})  # pyright: ignore[reportArgumentType]


def test_meta_training_raises_the_reward_of_bandits() -> None:
    torch.manual_seed(0)
    train, test, plan = Bandits(2, 6), Bandits(2, 6, split="test"), TestPlan()
    move = PPO()
    learner = RL2.build(train.spec, likelihood=move.likelihood(train), hidden=24)
    before = reward_of(learner, test, plan)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    for _ in meta_train(
        learner,
        train,
        steps=120,
        batch=256,
        meta_gradient=move,
        optimizer=optimizer,
        clip=0.5,
    ):
        pass
    assert before == pytest.approx(3.0, abs=0.2)
    assert reward_of(learner, test, plan) > 3.3  # the optimum is 3.77


def reward_of(learner: Learner, environment: Bandits, plan: TestPlan) -> float:
    return evaluate(learner, environment, plan).tables[0].rows[0].values[0].mean
