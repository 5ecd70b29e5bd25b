"""Generative learners against references that share no code with them."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from innerloop import (
    GTN,
    Examples,
    FineTune,
    FlowMatching,
    Learner,
    MetaGAN,
    MetaVAE,
    Scratch,
    Task,
    TaskSpec,
)
from innerloop.testing import Blobs

SPEC, IMAGES = TaskSpec("classes", (4,), 3), TaskSpec("classes", (1, 12, 10), 3)
LEARNERS: list[type[Learner]] = [GTN, FlowMatching, MetaGAN, MetaVAE]


def built(learner: type[Learner], spec: TaskSpec = SPEC, **build_args: Any) -> Any:
    torch.manual_seed(0)
    return learner.build(spec, **build_args).double()


def task(spec: TaskSpec = SPEC, seed: int = 0) -> Task:
    support, query = (
        Blobs(spec).sample(1, torch.Generator().manual_seed(seed)).unbind()[0]
    )
    return Task(
        Examples(support.x.double(), support.y.double()),
        Examples(query.x.double(), query.y.double()),
    )


def gaussian(raw: Tensor) -> Normal:
    mean, scale = raw.chunk(2, -1)
    return Normal(mean, 0.01 + torch.log1p(scale.exp()))


@pytest.mark.parametrize("pixels", ["bernoulli", "gaussian"])
def test_meta_vae_is_the_bound_example_by_example(pixels: str) -> None:
    learner, some = built(MetaVAE, context=3, latent=2, width=6, pixels=pixels), task()
    some = Task(
        Examples(some.support.x.sigmoid(), some.support.y),
        Examples(some.query.x.sigmoid(), some.query.y),
    )
    x, y = (
        torch.cat([some.support.x, some.query.x]),
        torch.cat([some.support.y, some.query.y]),
    )
    h, labels = (
        (x @ learner.features.linear.weight.T + learner.features.linear.bias).clamp_min(
            0
        ),
        y.argmax(-1),
    )
    bounds, classes = [], []
    for n in (len(some.support.x), len(x)):
        q = [
            gaussian(learner.statistic(h[:n][labels[:n] == k].mean(0)))
            for k in range(3)
        ]
        classes.append(q)
        total = torch.zeros((), dtype=torch.float64)
        for one, features, k in zip(x, h, labels, strict=True):
            c = q[int(k)].mean
            posterior, prior = (
                gaussian(learner.posterior(torch.cat([features, c]))),
                gaussian(learner.prior(c)),
            )
            made = learner.decoder(torch.cat([c, posterior.mean]))
            chance = torch.distributions.Bernoulli(logits=made, validate_args=False)
            fits = (
                chance.log_prob(one)
                if pixels == "bernoulli"
                else -0.5 * (made - one).square()
            )
            total = total + fits.sum() - kl_divergence(posterior, prior).sum()
        bounds.append(
            (
                total
                - sum(
                    kl_divergence(one, Normal(torch.zeros(3), torch.ones(3))).sum()
                    for one in q
                )
            )
            / len(x)
        )
    features = (
        some.query.x @ learner.features.linear.weight.T + learner.features.linear.bias
    ).clamp_min(0)
    scores = torch.stack(
        [
            torch.stack(
                [
                    -kl_divergence(q, gaussian(learner.statistic(f))).sum()
                    for q in classes[0]
                ]
            )
            for f in features
        ]
    )
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x), scores
    )
    wrong = torch.nn.functional.cross_entropy(scores, some.query.y.argmax(-1))
    torch.testing.assert_close(learner.loss(some)[0], 10 * wrong - bounds[1])
    learner.train()
    learner._sample = lambda q: q[0]
    # a coin for every class
    drawn = torch.stack([learner.loss(some)[1]["bound"] for _ in range(200)])
    assert abs(drawn.mean() - (bounds[0] + bounds[1]) / 2) < 4 * drawn.std() / 200**0.5
    assert drawn.std() > 0


def test_meta_vae_weighs_divergences_less_in_the_first_half_of_training() -> None:
    learner, some = built(MetaVAE).train(), task()
    losses = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        learner.on_progress(progress)
        torch.manual_seed(1)
        losses.append(learner.loss(some)[0].item())
    assert losses[2] == losses[3]
    assert losses[0] < losses[1] < losses[2]
    assert losses[1] - losses[0] == pytest.approx(losses[2] - losses[1])
    estimates = []
    for progress in (0.0, 1.0):
        learner.eval().on_progress(progress)
        estimates.append(learner.loss(some)[0].item())
    assert estimates[0] == estimates[1]  # which count them in full


def test_meta_gan_gives_each_player_its_own_gradient() -> None:
    learner, some = built(MetaGAN, hidden=5, noise=2, fakes=3).train(), task()
    torch.manual_seed(7)
    grads = dict(
        zip(
            [n for n, _ in learner.named_parameters()],
            torch.autograd.grad(learner.loss(some)[0], list(learner.parameters())),
            strict=True,
        )
    )
    torch.manual_seed(7)
    noise = torch.randn(3, 3, 2, dtype=torch.float64)
    labels = some.support.y.argmax(-1)

    def prototypes() -> Tensor:
        return torch.stack(
            [learner.encoder(some.support.x[labels == k]).mean(0) for k in range(3)]
        )

    def scores(x: Tensor, centers: Tensor) -> Tensor:
        gaps = torch.stack(
            [
                torch.stack([(z - c).square().sum() for c in centers])
                for z in learner.encoder(x)
            ]
        )
        return learner.bias - learner.log_scale.exp() * gaps

    read = []
    for k in range(3):
        state = (torch.zeros(1, 5, dtype=torch.float64),) * 2
        for z in learner.encoder(some.support.x[labels == k]).detach():
            state = learner.lstm(z[None], state)
        read.append(state[0][0])
    made = torch.stack(
        [
            learner.generator(torch.cat([noise[k], read[k].expand(3, -1)], -1))
            for k in range(3)
        ]
    ).flatten(0, 1)
    nothing = torch.zeros(9, 1, dtype=torch.float64)
    real, fake = scores(some.query.x, prototypes()), scores(made.detach(), prototypes())
    classifier_loss = F.cross_entropy(real, some.query.y.argmax(-1))
    # softmax over the ways and one more, whose score is 0
    for s, is_fake in ((real, 0.0), (fake, 1.0)):
        chance = torch.cat([s, nothing[: len(s)]], -1).softmax(-1)[:, -1]
        classifier_loss = (
            classifier_loss
            + learner.adversarial
            * F.binary_cross_entropy(chance, torch.full_like(chance, is_fake))
        )
    player = [
        name
        for name, _ in learner.named_parameters()
        if name.split(".")[0] in ("encoder", "log_scale", "bias")
    ]
    own = torch.autograd.grad(
        classifier_loss, [learner.get_parameter(name) for name in player]
    )
    fooled = scores(made, prototypes().detach())
    chance = torch.cat([fooled, nothing], -1).softmax(-1)[:, -1]
    cheat = F.binary_cross_entropy(chance, torch.zeros_like(chance)) + F.cross_entropy(
        fooled, torch.arange(3).repeat_interleave(3)
    )
    other = [name for name in grads if name not in player]
    generator_grads = torch.autograd.grad(
        cheat, [learner.get_parameter(name) for name in other]
    )
    for name, expected in zip([*player, *other], [*own, *generator_grads], strict=True):
        torch.testing.assert_close(grads[name], expected)


def test_gtn_is_gradient_descent_unrolled_by_hand() -> None:
    learner, some = built(GTN, net=nn.Linear(4, 3), count=2, inner_steps=3), task()
    labels = some.support.y.argmax(-1)
    x, y = [*some.support.x], [*some.support.y]
    for k in range(3):
        own = some.support.x[labels == k]
        features = learner.features(own).mean(0)
        for noise in learner.noises[:2]:
            x.append(own.mean(0) + learner.generator(torch.cat([features, noise])))
            y.append(torch.eye(3, dtype=torch.float64)[k])
    x, y = torch.stack(x), torch.stack(y)
    weight, bias = (
        learner.net.weight.clone().requires_grad_(),
        learner.net.bias.clone().requires_grad_(),
    )
    for _ in range(3):
        grads = torch.autograd.grad(
            F.cross_entropy(x @ weight.T + bias, y), (weight, bias), create_graph=True
        )
        weight, bias = weight - 0.1 * grads[0], bias - 0.1 * grads[1]
    expected = F.cross_entropy(some.query.x @ weight.T + bias, some.query.y)
    loss = learner.loss(some)[0]
    torch.testing.assert_close(loss, expected)
    theta = [p for p in learner.parameters() if p.requires_grad]
    assert theta
    torch.testing.assert_close(
        torch.autograd.grad(loss, theta), torch.autograd.grad(expected, theta)
    )


def test_gtn_without_generated_examples_is_training_from_scratch() -> None:
    learner, some = built(GTN, count=0), task()
    net = copy.deepcopy(learner.net).requires_grad_(True)  # GTN freezes its own
    scratch = Scratch(net, inner_lr=0.1, inner_steps=20)
    outputs = learner.predict(learner.adapt(some.support), some.query.x)
    torch.testing.assert_close(
        outputs, scratch.predict(scratch.adapt(some.support), some.query.x)
    )


def test_gtn_without_generated_examples_fine_tunes_a_head() -> None:
    torch.manual_seed(0)
    tuned, some = FineTune.build(IMAGES).double(), task(IMAGES)
    learner = built(
        GTN, IMAGES, count=0, taught="head", encoder=tuned.encoder, inner_steps=100
    )
    expected = tuned.predict(tuned.adapt(some.support), some.query.x)
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x), expected
    )
    assert not learner.training
    learner.train()  # its encoder stays as it is
    torch.testing.assert_close(
        learner.predict(learner.adapt(some.support), some.query.x), expected
    )


def test_gtn_reads_a_fixed_encoder_and_refuses_networks_it_ignores() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(120, 7))
    learner, some = built(GTN, IMAGES, encoder=encoder), task(IMAGES)
    outputs = learner.predict(learner.adapt(some.support), some.query.x)
    assert outputs.shape == (len(some.query.x), 3)
    with pytest.raises(ValueError, match="there is no network 'rubbish'"):
        built(GTN, encoder="rubbish")
    with pytest.raises(ValueError, match="net is a linear layer"):
        built(GTN, taught="head", net="mlp")


def test_gtn_learns_through_generated_examples() -> None:
    learner, some = (
        built(GTN, count=3, inner_steps=2, inner_lr=0.3, net="flatten"),
        task(),
    )
    made = learner.enlarged(some.support)  # pyright: ignore[reportCallIssue]
    assert torch.equal(made.x[: len(some.support.x)], some.support.x)
    assert made.y[len(some.support.y) :].argmax(1).tolist() == [
        0,
        0,
        0,
        1,
        1,
        1,
        2,
        2,
        2,
    ]
    W, b = (p.detach() for p in learner.net.head.parameters())  # pyright: ignore
    for _ in range(2):
        p = (made.x @ W.T + b).softmax(1)
        W, b = (
            W - 0.3 * (p - made.y).T @ made.x / len(made.x),
            b - 0.3 * (p - made.y).mean(0),
        )
    expected = torch.nn.functional.cross_entropy(some.query.x @ W.T + b, some.query.y)
    loss = learner(Task(*(Examples(part.x[None], part.y[None]) for part in some)))[0]
    torch.testing.assert_close(loss, expected)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    for found, wanted in zip(
        torch.autograd.grad(loss, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("spec", [SPEC, IMAGES])
@pytest.mark.parametrize("kind", LEARNERS)
def test_generated_examples_have_the_shape_of_inputs_and_follow_the_seed(
    kind: type[Learner], spec: TaskSpec
) -> None:
    learner, some = built(kind, spec), task(spec)
    first, again, other = (
        learner.generate(some.support, 4, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert first.shape == (3, 4, *spec.x_shape)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:, 0], first[:, 1])
    if spec.is_image:
        assert bool(((first >= 0) & (first <= 1)).all())
    order = torch.tensor([2, 0, 1])
    renamed = learner.generate(
        Examples(some.support.x, some.support.y[:, order]),
        4,
        torch.Generator().manual_seed(0),
    )
    assert renamed.shape == first.shape
    assert not torch.equal(renamed, first)
