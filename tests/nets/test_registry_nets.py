"""Networks of users inside learners."""

import torch
from torch import nn

from innerloop import CentreLossNet, FineTune
from innerloop.core.task import TaskSpec
from innerloop.nets import flat_features

SPEC = TaskSpec("classes", (1, 12, 12), 5)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 3, 5), nn.BatchNorm2d(3), nn.Flatten())


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
