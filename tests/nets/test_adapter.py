"""The network that is trained on top of vectors from a frozen encoder."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop import Learner, MatchingNet, ProtoNet, TaskSpec, backprop, meta_train
from innerloop.core.task import Examples, Task
from innerloop.engine.errors import InnerloopError
from innerloop.nets.adapter import Adapter
from innerloop.testing import Blobs

SPEC = TaskSpec("classes", (8,), 3)


def task() -> Task:
    batch = Blobs(SPEC).sample(1, torch.Generator().manual_seed(0))
    return Task(*(Examples(x[0], y[0]) for x, y in batch))


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a[:, None], b[None], dim=-1)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_without_training_angles_are_those_of_the_inputs(size: float) -> None:
    x = size * torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    z = Adapter(8).eval()(x)
    torch.testing.assert_close(cosines(z, z), cosines(x, x))
    torch.testing.assert_close(z.norm(dim=1), torch.full((5,), 8.0))


def test_an_untrained_prototypical_network_is_the_nearest_mean() -> None:
    some = task()
    learner = ProtoNet.build(SPEC, encoder="adapter")
    unit = F.normalize(some.support.x, dim=-1)
    means = torch.stack([unit[some.support.y[:, k] > 0].mean(0) for k in range(3)])
    queries = F.normalize(some.query.x, dim=-1)
    outputs = learner.predict(learner.adapt(some.support), some.query.x)
    expected = -0.1 * 64 * torch.cdist(queries, means).square()
    torch.testing.assert_close(outputs, expected, rtol=1e-3, atol=1e-4)


def test_gradients_reach_the_map_from_its_start() -> None:
    learner = ProtoNet.build(SPEC, encoder="adapter")
    grads, _ = backprop(learner, Blobs(SPEC).sample(2, torch.Generator()))
    assert float(grads["encoder.weight"].abs().sum()) > 0


def test_noise_is_drawn_in_training_only() -> None:
    x, net = torch.ones(4, 8), Adapter(8)
    assert not torch.equal(net.train()(x)[0], net(x)[1])
    assert torch.equal(net.eval()(x)[0], net(x)[1])
    assert torch.equal(Adapter(8, noise=0.0).train()(x)[0], net(x)[0])


@pytest.mark.parametrize("learner", [ProtoNet, MatchingNet])
def test_a_trained_adapter_is_loaded_by_name(learner: type[Learner]) -> None:
    trained = learner.build(SPEC, encoder="adapter")
    for _ in meta_train(trained, Blobs(SPEC), steps=2):
        pass
    other = learner.build(trained.spec or SPEC, **trained.build_args)
    other.load_state_dict(trained.state_dict())
    x = task().query.x
    assert not torch.allclose(trained.encoder(x), Adapter(8).eval()(x))
    torch.testing.assert_close(other.encoder(x), trained.encoder(x))


def test_inputs_must_be_vectors() -> None:
    images = TaskSpec("classes", (3, 84, 84), 5)
    with pytest.raises(InnerloopError, match="adapter needs vectors"):
        ProtoNet.build(images, encoder="adapter")
