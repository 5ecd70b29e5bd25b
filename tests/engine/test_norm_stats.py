"""Which statistics a normalizer uses, and what is handed out."""

import copy

import pytest
import torch
from torch import Tensor, nn

from innerloop import Examples, ProtoNet, Task, TaskSpec
from innerloop.engine.norm_stats import Normalizer, use_batch, use_stored
from innerloop.nets import BatchNorm
from innerloop.testing import Blobs


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 2 + 3 * torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def settled(features: int = 3) -> BatchNorm:
    norm = BatchNorm(features).double()
    norm.mean.copy_(draw(features, seed=5))
    norm.var.copy_(draw(features, seed=6).abs() + 1)
    return norm


def own(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()


def buffered(norm: Normalizer, x: Tensor) -> Tensor:
    return (x - norm.mean) / (norm.var + 1e-5).sqrt()


def test_mode_decides_where_nothing_else_is_said() -> None:
    norm, x = settled(), draw(8, 3)
    torch.testing.assert_close(norm.train()(x), own(x))
    torch.testing.assert_close(norm.eval()(x), buffered(norm, x))


@pytest.mark.parametrize("training", [False, True])
def test_measured_and_given_override_the_mode(training: bool) -> None:
    norm, x = settled().train(training), draw(8, 3)
    with use_batch(norm):
        torch.testing.assert_close(norm(x), own(x))
        with use_stored():
            torch.testing.assert_close(norm(x), buffered(norm, x))
            with use_batch(norm):
                torch.testing.assert_close(norm(x), own(x))
            torch.testing.assert_close(norm(x), buffered(norm, x))
        torch.testing.assert_close(norm(x), own(x))
    torch.testing.assert_close(norm(x), own(x) if training else buffered(norm, x))


def test_contexts_end_with_an_exception() -> None:
    norm, x = settled().eval(), draw(8, 3)
    with pytest.raises(ZeroDivisionError), use_batch(norm), use_stored():
        raise ZeroDivisionError
    torch.testing.assert_close(norm(x), buffered(norm, x))
    with pytest.raises(ZeroDivisionError), use_batch(norm):
        raise ZeroDivisionError
    torch.testing.assert_close(norm(x), buffered(norm, x))


def test_moments_bear_the_names_of_buffers() -> None:
    net = nn.Sequential(
        nn.Linear(3, 4), BatchNorm(4), nn.Sequential(BatchNorm(4))
    ).double()
    with use_batch(net) as notes:
        net(draw(8, 3))
    assert set(notes.moments()) == {name for name, _ in net.named_buffers()}
    bare = BatchNorm(3).double()
    with use_batch(bare) as notes:
        bare(draw(8, 3))
    assert set(notes.moments()) == {"mean", "var"}


def test_moments_of_several_passes_are_those_of_all_examples() -> None:
    norm, x = (
        BatchNorm(3).double(),
        draw(4, 6, 3, 5, 5) + torch.arange(4.0).view(4, 1, 1, 1, 1),
    )
    with use_batch(norm) as notes:
        for part in x:
            norm(part)
    whole = x.flatten(0, 1)
    torch.testing.assert_close(notes.moments()["mean"], whole.mean((0, 2, 3)))
    torch.testing.assert_close(
        notes.moments()["var"], whole.var((0, 2, 3), correction=0)
    )


def test_only_the_named_net_is_noted() -> None:
    inside, outside, x = BatchNorm(3).double(), BatchNorm(3).double(), draw(8, 3)
    with use_batch(inside) as notes:
        outside(inside(x))
    assert set(notes.moments()) == {"mean", "var"}
    torch.testing.assert_close(notes.moments()["mean"], x.mean(0))


def test_a_pass_writes_nothing() -> None:
    norm = settled().train()
    before = copy.deepcopy(norm.state_dict())
    with use_batch(norm):
        norm(draw(8, 3))
    norm(draw(8, 3))
    assert all(
        torch.equal(value, before[name]) for name, value in norm.state_dict().items()
    )


def test_moments_are_differentiable_and_cross_vmap() -> None:
    norm = BatchNorm(3).double()

    def spread(x: Tensor) -> Tensor:
        with use_batch(norm) as notes:
            norm(x)
        return notes.moments()["var"].sum()

    x = draw(5, 8, 3)
    torch.testing.assert_close(torch.vmap(spread)(x), x.var(1, correction=0).sum(-1))
    torch.testing.assert_close(
        torch.func.grad(spread)(x[0]), 2 * (x[0] - x[0].mean(0)) / 8
    )


def test_calibrate_settles_exact_statistics() -> None:
    spec = TaskSpec("classes", (6,), 3)
    torch.manual_seed(0)
    learner = ProtoNet(nn.Sequential(nn.Linear(6, 4), BatchNorm(4))).double()
    sample = Blobs(spec, shots=3, queries=3).sample(4, torch.Generator().manual_seed(1))
    tasks = Task(*(Examples(part.x.double(), part.y.double()) for part in sample))
    learner.calibrate(tasks)
    z = learner.encoder[0](
        torch.cat([tasks.support.x, tasks.query.x], 1).flatten(0, 1)
    ).detach()
    torch.testing.assert_close(learner.encoder[1].mean, z.mean(0))
    torch.testing.assert_close(learner.encoder[1].var, z.var(0, correction=0))
