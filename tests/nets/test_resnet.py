"""ResNet-12 against layers of torch in double precision."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import innerloop
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.functional import functional_call
from innerloop.engine.mapping import mapped
from innerloop.engine.norm_stats import use_batch
from innerloop.metagrad import backprop
from innerloop.nets.registry import encoder
from innerloop.nets.resnet import DropBlock, ResNet12

PHOTOS = TaskSpec("classes", (3, 32, 32), 5)
NARROW = (4, 6, 5, 7)


class Reference(nn.Module):
    """The network as the papers describe it, written with layers of torch."""

    def __init__(self, channels: int, filters: tuple[int, ...], flat: bool):
        super().__init__()
        self.blocks = nn.ModuleList()
        for width in filters:
            block = nn.ModuleDict(
                {
                    "conv1": nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    "conv2": nn.Conv2d(width, width, 3, padding=1, bias=False),
                    "conv3": nn.Conv2d(width, width, 3, padding=1, bias=False),
                    "conv4": nn.Conv2d(channels, width, 1, bias=False),
                }
            )
            for i in "1234":
                block[f"norm{i}"] = nn.BatchNorm2d(width, momentum=None)
            self.blocks.append(block)
            channels = width
        self.flat = flat

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            layer = dict(block.named_children())
            z = F.leaky_relu(layer["norm1"](layer["conv1"](x)), 0.1)
            z = F.leaky_relu(layer["norm2"](layer["conv2"](z)), 0.1)
            z = layer["norm3"](layer["conv3"](z))
            x = F.leaky_relu(z + layer["norm4"](layer["conv4"](x)), 0.1)
            x = F.max_pool2d(x, 2)
        return x.flatten(1) if self.flat else x.mean((2, 3))

    def take(self, net: ResNet12) -> None:
        """The weights of `net`, which has the same layers in another order."""
        theirs = [p.detach() for p in net.parameters()]
        ours = [
            p
            for block in self.blocks
            for i in "1234"
            for part in ("conv", "norm")
            for p in dict(block.named_children())[part + i].parameters()
        ]
        for p, q in zip(ours, theirs, strict=True):
            p.data.copy_(q)
        self.ordered = ours


def without_noise(net: ResNet12) -> ResNet12:
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, DropBlock):
            module.rate = 0.0
    return net.train()


def pair(flat: bool) -> tuple[ResNet12, Reference, Tensor]:
    torch.manual_seed(3)
    net = without_noise(ResNet12((3, 32, 32), (16, 24, 32, 48), flat)).double()
    for p in net.parameters():  # scales and shifts that differ
        p.data += 0.1 * torch.randn_like(p)
    reference = Reference(3, (16, 24, 32, 48), flat).double()
    reference.take(net)
    return net, reference, torch.randn(6, 3, 32, 32, dtype=torch.float64)


@pytest.mark.parametrize("flat", [False, True])
def test_outputs_and_gradients_are_those_of_torch_layers(flat: bool) -> None:
    net, reference, x = pair(flat)
    direction = torch.randn(6, 48 * (4 if flat else 1), dtype=torch.float64)
    ours, theirs = net(x), reference(x)
    torch.testing.assert_close(ours, theirs)
    got = torch.autograd.grad((ours * direction).sum(), [*net.parameters()])
    expected = torch.autograd.grad((theirs * direction).sum(), reference.ordered)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e)


def test_settled_statistics_are_those_of_torch_layers() -> None:
    net, reference, x = pair(flat=False)
    with use_batch(net) as notes:
        net(x)
    buffers = dict(net.named_buffers())
    for name, value in notes.moments().items():
        buffers[name].copy_(value)
    for block in reference.blocks:  # torch keeps the unbiased variance
        for layer in block.children():
            if isinstance(layer, nn.BatchNorm2d):
                layer.train()
    reference(x)
    net.eval()
    sizes = [6 * side**2 for side in (32, 16, 8, 4)]
    for block, size in zip(reference.blocks, sizes, strict=True):
        for layer in block.children():
            if isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None:
                layer.running_var *= (size - 1) / size
    torch.testing.assert_close(net(x), reference.eval()(x))


def test_first_and_second_derivatives_by_finite_differences() -> None:
    torch.manual_seed(0)
    net = without_noise(ResNet12((1, 8, 8), NARROW)).double()
    names = ["0.convs.1.conv.weight", "1.shortcut.norm.weight", "3.convs.2.conv.weight"]
    weights = [net.get_parameter(name).detach().requires_grad_() for name in names]
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)

    def features(*weights: Tensor) -> Tensor:
        return functional_call(net, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(features, weights, fast_mode=True)
    assert torch.autograd.gradgradcheck(features, weights, fast_mode=True)


def test_single_precision_and_bfloat16_err_by_little() -> None:
    net, _, x = pair(flat=False)
    exact = net(x)
    single = copy.deepcopy(net).float()
    torch.testing.assert_close(single(x.float()).double(), exact, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low = single(x.float()).double()
    assert (low - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("noise", [False, True])
def test_mapped_over_tasks_it_is_the_loop(noise: bool) -> None:
    torch.manual_seed(1)
    net = ResNet12((3, 16, 16), NARROW).train()
    net = net if noise else without_noise(net)
    theta = {n: torch.stack([p, 1.1 * p]) for n, p in net.named_parameters()}
    x = torch.randn(2, 5, 3, 16, 16)

    def features(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(net, weights, (x,))

    got = torch.vmap(features, randomness="different")(theta, x)
    if noise:
        assert got.shape == (2, 5, 7)
        assert torch.isfinite(got).all()
    else:
        looped = mapped(net, features, theta, x)
        torch.testing.assert_close(got, looped, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_bits() -> None:
    torch.manual_seed(0)
    net = ResNet12((3, 32, 32), NARROW).train()
    x = torch.randn(4, 3, 32, 32)

    def run(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        y = net(x)
        return [y, *torch.autograd.grad(y.square().sum(), [*net.parameters()])]

    for a, b in zip(run(5), run(5), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(run(5)[0], run(6)[0])


def test_shapes_and_sizes_of_the_papers() -> None:
    net = encoder(PHOTOS, "resnet12")
    assert sum(p.numel() for p in net.parameters()) == 12_424_320
    x = torch.randn(1, 3, 32, 32)
    assert net.eval()(x).shape == (1, 640)
    assert encoder(PHOTOS, "resnet12-flat").eval()(x).shape == (1, 2560)
    assert encoder(PHOTOS, "resnet12-narrow").eval()(x).shape == (1, 512)
    large = ResNet12((3, 84, 84), NARROW, flat=True).eval()
    assert large(torch.randn(1, 3, 84, 84)).shape == (1, 7 * 25)
    tiny = ResNet12((1, 3, 5), NARROW).eval()
    assert tiny(torch.randn(2, 1, 3, 5)).shape == (2, 7)


def test_it_needs_images() -> None:
    with pytest.raises(InnerloopError, match="resnet12 needs images"):
        encoder(TaskSpec("classes", (10,), 5), "resnet12")


def test_dropblock_drops_squares_of_single_channels() -> None:
    torch.manual_seed(0)
    drop = DropBlock(3, 0.1).train()
    x = torch.ones(64, 32, 10, 10)
    y = drop(x)
    dropped = (y == 0).float()
    assert 0.06 < float(dropped.mean()) < 0.12, "squares overlap, so somewhat less"
    torch.testing.assert_close(y.mean(), torch.tensor(1.0), rtol=1e-4, atol=0)
    windows = F.avg_pool2d(dropped, 3, stride=1) == 1  # places of whole squares
    covered = F.max_pool2d(F.pad(windows.float(), [2] * 4), 3, stride=1)
    assert torch.equal(covered, dropped)
    assert len({float(v) for v in dropped.mean((0, 2, 3))}) > 16


def test_dropblock_drops_small_maps_whole_and_nothing_in_evaluation() -> None:
    torch.manual_seed(0)
    drop = DropBlock(5, 0.2)
    x = torch.rand(50, 40, 2, 2) + 1
    assert torch.equal(drop.eval()(x), x)
    share = (drop.train()(x) == 0).float().mean((2, 3))
    assert set(share.unique().tolist()) == {0.0, 1.0}
    assert float(share.mean()) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(
    ("learner", "field"),
    [
        (innerloop.ProtoNet, "encoder"),
        (innerloop.R2D2, "encoder"),
        (innerloop.MetaOptNet, "encoder"),
        (innerloop.FineTune, "encoder"),
        (innerloop.MAML, "net"),
    ],
)
def test_learners_take_it_by_name(learner: type[innerloop.Learner], field: str) -> None:
    torch.manual_seed(0)
    spec = TaskSpec("classes", (3, 8, 8), 2)
    steps = {"inner_steps": 1} if field == "net" else {}
    student = learner.build(spec, **{field: "resnet12-narrow"}, **steps).train()
    y = torch.eye(2)
    support = Examples(torch.randn(1, 2, 3, 8, 8), y[None])
    query = Examples(torch.randn(1, 4, 3, 8, 8), y.repeat(2, 1)[None])
    grads, metrics = backprop(student, Task(support, query))
    assert torch.isfinite(torch.as_tensor(metrics["loss"]))
    moved = [n for n, g in grads.items() if g is not None and g.abs().sum() > 0]
    assert any(".0.convs.0.conv.weight" in name for name in moved)
