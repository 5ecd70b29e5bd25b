"""Flow matching on Gaussian data, where velocity and transport are known exactly."""

import math

import pytest
import torch
from torch import Tensor

from innerloop import Examples, FlowMatching, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.nets.velocity import Velocity, velocity
from innerloop.testing import Blobs

SPEC, IMAGES = TaskSpec("classes", (4,), 3), TaskSpec("classes", (1, 12, 10), 3)
DEVIATION = 0.5


class Exact(Velocity):
    """The velocity of the flow from N(0, 1) to N(m, DEVIATION^2), m the mean of the
    examples, or 0 without examples; plus an error.
    """

    def __init__(self, error: float = 0.0):
        super().__init__(32, 1)
        self.error, self.seen = error, torch.zeros(0)
        self.code = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]

    def encode(self, x: Tensor) -> Tensor:
        return x[:, None]

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, used: Tensor) -> Tensor:
        self.seen = used
        means = [
            mine[on > 0.5].sum(0)[0] / max(1.0, float(on.sum()))
            for mine, on in zip(tokens, used, strict=True)
        ]
        m, t = torch.stack(means)[:, None], t[..., None]
        variance = (1 - t) ** 2 + (t * DEVIATION) ** 2
        slope = (t * DEVIATION**2 - (1 - t)) / variance
        return m + slope * (x - t * m) + self.error


class Constant(Exact):
    """The mean of the examples, or 1 without examples, as the velocity."""

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, used: Tensor) -> Tensor:
        mean = (tokens * used[..., None, None]).sum((1, 2))
        number = used.sum(1, keepdim=True)
        mean = torch.where(number > 0, mean / number.clamp_min(1), 1.0)
        return mean[:, None].expand_as(x)


def gaussian_task(shots: int, queries: int) -> tuple[Task, Tensor]:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, 4, generator=generator)
    y = torch.eye(3).repeat(queries, 1)
    noise = torch.randn(len(y), 4, generator=generator)
    support = Examples(means.repeat(shots, 1), torch.eye(3).repeat(shots, 1))
    return Task(support, Examples(y @ means + DEVIATION * noise, y)), means


def test_generated_examples_are_the_exact_transport_of_the_noise() -> None:
    task, means = gaussian_task(2, 1)
    learner = FlowMatching(Exact(), steps=200, guidance=1.0)
    found = learner.generate(task.support, 50, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    torch.rand(3, 6, generator=generator)  # which support examples come first
    noise = torch.randn(3, 50, 4, generator=generator)
    expected = means[:, None] + DEVIATION * noise
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_the_loss_of_the_exact_velocity_is_the_variance_that_remains() -> None:
    task, _ = gaussian_task(2, 20000)
    task = Task(task.support, task.query)
    errors = []
    for wrong in (0.0, 0.3):
        torch.manual_seed(1)
        learner = FlowMatching(Exact(wrong), unconditional=0.0, discriminative=0.0)
        loss, metrics = learner.train().loss(task)
        assert loss == metrics["velocity_error"]
        errors.append(float(loss.detach()))
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    weight = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    t = 1 / (1 + torch.exp(-z))
    remaining = DEVIATION**2 / ((1 - t) ** 2 + (t * DEVIATION) ** 2)
    assert errors[0] == pytest.approx(float((weight * remaining).sum()), rel=0.01)
    assert errors[1] - errors[0] == pytest.approx(0.3**2, rel=0.1)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_extrapolates_from_no_examples(guidance: float) -> None:
    task, means = gaussian_task(2, 1)
    learner = FlowMatching(Constant(), guidance=guidance, steps=3)
    without = FlowMatching(Constant(), guidance=0.0, steps=3)
    found, noise = (
        each.generate(task.support, 5, torch.Generator().manual_seed(0))
        for each in (learner, without)
    )
    expected = 1 + guidance * (means[:, None].expand(3, 5, 4) - 1)
    torch.testing.assert_close(found - (noise - 1), expected)


def test_a_velocity_uses_some_examples_of_its_class_in_training_and_else_all() -> None:
    task, _ = gaussian_task(4, 2)
    net = Exact()
    learner = FlowMatching(net, examples=3, unconditional=0.25, guidance=1.0).train()
    torch.manual_seed(0)
    numbers = []
    for _ in range(400):
        learner.loss(task)
        numbers += net.seen.sum(1).long().tolist()
    shares = torch.bincount(torch.tensor(numbers), minlength=4) / len(numbers)
    torch.testing.assert_close(
        shares, torch.full((4,), 0.25), atol=0.05, rtol=0
    )  # 0 to 3 of them
    learner.eval().generate(task.support, 1, torch.Generator())
    assert net.seen.tolist() == [[1, 1, 1]] * 3


def test_classes_of_different_sizes_use_their_own_examples() -> None:
    y = torch.eye(3)[[0, 1, 1, 2, 2, 2]]
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    learner = FlowMatching(Constant(), steps=1, guidance=1.0)
    zero = FlowMatching(Constant(), steps=1, guidance=0.0)
    support = Examples(x, y)
    found = learner.generate(support, 1, torch.Generator().manual_seed(0))
    noise = zero.generate(support, 1, torch.Generator().manual_seed(0))
    means = torch.stack([x[:1].mean(0), x[1:3].mean(0), x[3:].mean(0)])
    torch.testing.assert_close((found - (noise - 1))[:, 0], means)


@pytest.mark.parametrize("spec", [SPEC, IMAGES])
def test_a_velocity_depends_on_the_examples_of_its_set_alone(spec: TaskSpec) -> None:
    torch.manual_seed(0)
    net = velocity(spec, 32, 2)
    for p in net.parameters():  # some are zero at first
        torch.nn.init.normal_(p, std=0.1)
    x, t = torch.randn(2, 3, *spec.x_shape), torch.rand(2, 3)
    tokens = torch.randn(2, 4, net.places, 32)
    used = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 0]])
    before = net(x, t, tokens, used)
    assert before.shape == x.shape

    def after(change: Tensor) -> Tensor:
        return (net(x, t, tokens + change, used) - before).abs().flatten(1).amax(1)

    change = torch.zeros_like(tokens)
    change[0, 2:], change[1, 3:] = 1, 1
    assert after(change).max() == 0  # not used
    change[0, 1] = 1
    differs = after(change)
    assert differs[0] > 1e-3
    assert differs[1] == 0
    order = torch.tensor([1, 0, 2, 3])
    again = net(x, t, tokens[:, order], used)
    torch.testing.assert_close(again, before, atol=1e-4, rtol=1e-4)


def test_images_flow_between_minus_one_and_one() -> None:
    net = velocity(IMAGES, 32, 1)
    x = torch.tensor([0.0, 0.25, 1.0])
    assert net.from_inputs(x).tolist() == [-1.0, -0.5, 1.0]
    assert torch.equal(net.to_inputs(net.from_inputs(x)), x)
    assert net.to_inputs(torch.tensor([-3.0, 3.0])).tolist() == [0.0, 1.0]


def test_classes_are_predicted_by_their_mean_features() -> None:
    task = Blobs(SPEC).sample(1, torch.Generator().manual_seed(0)).unbind()[0]
    torch.manual_seed(0)
    learner = FlowMatching.build(SPEC, width=32)
    labels = task.support.y.argmax(-1)

    def features(x: Tensor) -> Tensor:
        return learner.net.code(learner.net.encode(x))[:, 0]

    means = torch.stack(
        [features(task.support.x[labels == k]).mean(0) for k in (0, 1, 2)]
    )
    gaps = [(f - means).square().mean(1) for f in features(task.query.x)]
    found = learner.predict(learner.adapt(task.support), task.query.x)
    torch.testing.assert_close(found, -10 * torch.stack(gaps))


def test_a_width_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(InnerloopError, match="multiple of 32; got 40"):
        FlowMatching.build(SPEC, width=40)


def test_a_batch_of_image_tasks_under_vmap_is_a_loop() -> None:
    torch.manual_seed(0)
    learner = FlowMatching.build(IMAGES, width=32, depth=1)
    tasks = Blobs(IMAGES).sample(2, torch.Generator().manual_seed(0))
    looped = torch.stack([learner.loss(task)[0] for task in tasks.unbind()])
    torch.testing.assert_close(torch.vmap(learner.loss)(tasks)[0], looped)
    losses, _ = torch.vmap(learner.train().loss, randomness="different")(tasks)
    assert bool(losses.isfinite().all())
