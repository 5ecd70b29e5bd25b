"""Networks by name, and networks of users inside learners."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from innerloop import CentreLossNet, FineTune
from innerloop.core.task import TaskSpec
from innerloop.nets import flat_features
from innerloop.nets.registry import encoder

SPEC = TaskSpec("classes", (1, 12, 12), 5)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 3, 5), nn.BatchNorm2d(3), nn.Flatten())


@pytest.mark.parametrize("size", [28, 13, 5])
def test_strided_blocks_are_strided_convolutions(size: int) -> None:
    spec = TaskSpec("classes", (1, size, size), 5)
    net: Any = encoder(spec, "conv4-strided").train()
    x = torch.rand(6, 1, size, size)
    expected = x
    for block in list(net)[:-1]:
        stride = 2 if expected.shape[-1] > 1 else 1
        y = F.conv2d(expected, block.conv.weight, stride=stride, padding=1)
        expected = F.relu(F.batch_norm(y, None, None, training=True, eps=1e-5))
    torch.testing.assert_close(net(x), expected.flatten(1), rtol=1e-4, atol=1e-4)
    assert flat_features(net, spec) == 64 * max(1, -(-size // 16)) ** 2


def test_features_are_counted_for_weights_of_any_dtype() -> None:
    for kind in (torch.float64, torch.bfloat16, torch.float32):
        assert flat_features(network().to(kind), SPEC) == 3 * 8 * 8
    assert flat_features(nn.Flatten(), SPEC) == 144


def test_counting_features_leaves_a_network_unchanged() -> None:
    net = network().train()
    net[1].eval()  # frozen
    flat_features(net, SPEC)
    assert [module.training for module in net.modules()] == [True, True, False, True]
    assert (
        int(net[1].num_batches_tracked),
        float(net[1].running_mean.abs().max()),
    ) == (0, 0)


def test_a_learner_accepts_a_network_of_another_dtype() -> None:
    for learner in (CentreLossNet, FineTune):
        assert learner.build(SPEC, encoder=network().double()).spec == SPEC


def test_the_last_two_blocks_side_by_side() -> None:
    spec = TaskSpec("classes", (3, 32, 32), 5)
    plain, both = (encoder(spec, name) for name in ("conv4", "conv4-concat"))
    both.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 32, 32)
    maps = nn.Sequential(*list(plain.children())[:3])(x)
    assert maps.shape == (2, 64, 4, 4)
    torch.testing.assert_close(both(x)[:, :1024], maps.flatten(1))
    torch.testing.assert_close(both(x)[:, 1024:], plain(x))
