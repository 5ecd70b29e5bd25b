"""vmap where it works and is right, a loop elsewhere."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine import mapping, population
from innerloop.engine.mapping import mapped
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.learners.optimization.maml import MAML
from innerloop.metagrad import backprop
from innerloop.testing import Blobs, check_learner

SPEC = TaskSpec("classes", (4,), 3)


def tasks(n: int = 3) -> Task:
    return Blobs(SPEC).sample(n, torch.Generator().manual_seed(0))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells, self.head = kind(2, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x.view(-1, 2, 2))[0][:, -1])


class Branching(nn.Module):
    """A layer that depends on the values of tensors."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else 2 * x


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(2, 1, 4, 0.0, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.view(-1, 2, 2)).flatten(1))


NETS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "statistics": lambda: nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
    ),
    "branches": lambda: nn.Sequential(nn.Linear(4, 5), Branching(), nn.Linear(5, 3)),
    "attention": Attending,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("training", [False, True])
def test_any_network_adapts_to_several_tasks(name: str, training: bool) -> None:
    torch.manual_seed(0)
    learner = MAML.build(SPEC, net=NETS[name]()).train(training)
    grads, metrics = backprop(learner, tasks())
    losses = torch.stack([learner.loss(task)[0] for task in tasks().unbind()])
    exact = torch.autograd.grad(losses.mean(), list(learner.parameters()))
    torch.testing.assert_close(metrics["loss"], losses.mean().detach())
    torch.testing.assert_close(tuple(grads.values()), exact)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", ["gru", "branches"])
def test_the_loop_is_announced_once_with_the_line(name: str) -> None:
    learner = MAML.build(SPEC, net=NETS[name]())
    with pytest.warns(RuntimeWarning, match="MAML is run task by task") as caught:
        learner(tasks())
    (message,) = [str(w.message) for w in caught]
    assert "test_mapping.py, line " in message
    assert "docs/gotchas.md" in message
    assert len(message) < 300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner(tasks())


def test_no_warning_where_the_loop_is_chosen() -> None:
    learner = MAML.build(SPEC, net=nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner(tasks())


def test_a_mistake_keeps_its_own_error() -> None:
    class Mistaken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ torch.ones(7, 3)

    learner = MAML.build(SPEC, net=nn.Sequential(nn.Linear(4, 4), Mistaken()))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        learner(tasks())
    assert learner not in mapping._failed


def no_memory(x: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_lack_of_memory_is_not_taken_for_a_failure_of_vmap() -> None:
    learner = ProtoNet.build(SPEC)
    with pytest.raises(torch.OutOfMemoryError):
        mapped(learner, no_memory, torch.ones(3))
    assert learner not in mapping._failed
    members = {"log_scale": torch.zeros(3)}
    with pytest.raises(torch.OutOfMemoryError):
        population.evaluated(learner, no_memory, members, torch.ones(3))
    assert learner not in mapping._failed


NORMALIZATIONS: dict[str, Callable[[], nn.Module]] = {
    "layer": lambda: nn.LayerNorm(6),
    "batch": lambda: nn.BatchNorm1d(6, track_running_stats=False),
    "batch, images": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 1, 2)),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.Flatten(),
    ),
    "instance": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.InstanceNorm1d(3, affine=True), nn.Flatten()
    ),
    "group": lambda: nn.GroupNorm(2, 6),
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_second_derivatives_of_normalization_are_right(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 6), NORMALIZATIONS[name](), nn.Tanh(), nn.Linear(6, 3)
    )
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    learner = MAML.build(SPEC, net=net, inner_lr=0.3)
    check_learner(learner, SPEC, checks=["gradient_is_right"])
    check_learner(learner, SPEC, checks=["mapped_is_looped"])


class Median(Learner):
    """A learner that picks examples by a mask, as numpy users do."""

    likelihood: Likelihood = Categorical()

    kinds = ("classes",)

    def __post_init__(self) -> None:
        self.scale = nn.Parameter(torch.ones(()))
        super().__post_init__()

    def adapt(self, support: Examples) -> Tensor:
        x, y = support
        rows = [x[y[:, k] > 0.5].median(0).values for k in range(y.shape[1])]
        return torch.stack(rows)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return -self.scale * (x[:, None] - state).square().sum(-1)


@pytest.mark.filterwarnings("ignore:Median is run task by task")
def test_an_own_learner_may_select_by_a_mask_and_passes_the_laws() -> None:
    learner = Median.build(SPEC)
    with pytest.warns(RuntimeWarning, match=r"test_mapping.py, line \d+"):
        backprop(learner, tasks())
    check_learner(learner, SPEC)
