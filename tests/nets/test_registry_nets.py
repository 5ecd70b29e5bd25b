"""Networks of the user's own inside learners."""

import torch
from torch import nn

from innerloop import CentreLossNet, FineTune
from innerloop.core.task import TaskSpec
from innerloop.nets import flat_features

SPEC = TaskSpec("classes", (1, 12, 12), 5)


def own() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 3, 5), nn.BatchNorm2d(3), nn.Flatten())


def test_features_are_counted_whatever_the_type_of_the_weights() -> None:
    for kind in (torch.float64, torch.bfloat16, torch.float32):
        assert flat_features(own().to(kind), SPEC) == 3 * 8 * 8
    assert flat_features(nn.Flatten(), SPEC) == 144


def test_counting_features_leaves_a_network_as_it_was() -> None:
    net = own().train()
    net[1].eval()  # frozen
    flat_features(net, SPEC)
    assert [module.training for module in net.modules()] == [True, True, False, True]
    assert (
        int(net[1].num_batches_tracked),
        float(net[1].running_mean.abs().max()),
    ) == (0, 0)


def test_a_learner_takes_a_network_of_another_type() -> None:
    for learner in (CentreLossNet, FineTune):
        assert learner.build(SPEC, encoder=own().double()).spec == SPEC
