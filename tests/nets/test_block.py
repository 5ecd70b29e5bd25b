"""The compiled convolution block against ordinary operations in double precision."""

import platform
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import innerloop
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.metagrad import backprop
from innerloop.nets import conv
from innerloop.nets.fused_conv import native
from innerloop.nets.fused_conv.autograd import block

Shape = tuple[int, int, int, int, int]
# (images, in, out, height, width), pool, relu, eps, stride
SHAPES: list[tuple[Shape, int, bool, float | None, int]] = [
    ((3, 1, 64, 28, 28), 2, True, 1e-5, 1),
    ((5, 64, 64, 14, 14), 2, True, 1e-5, 1),
    ((9, 64, 64, 7, 7), 2, True, 1e-5, 1),
    ((2, 16, 32, 23, 20), 2, True, 1e-5, 1),
    ((20, 16, 32, 3, 3), 2, True, 1e-5, 1),
    ((2, 3, 48, 9, 11), 2, False, 1e-5, 1),
    ((4, 32, 80, 6, 5), 1, True, 1e-5, 1),
    ((1, 6, 16, 4, 4), 2, True, 1e-5, 1),
    ((4, 32, 16, 6, 5), 1, False, None, 1),
    ((3, 1, 32, 8, 8), 2, True, None, 1),
    ((3, 1, 64, 28, 28), 1, True, 1e-5, 2),
    ((9, 64, 64, 7, 7), 1, True, 1e-5, 2),
    ((20, 64, 32, 4, 4), 1, True, 1e-5, 2),
    ((4, 6, 48, 9, 12), 2, False, 1e-5, 2),
    ((5, 16, 16, 2, 1), 1, False, None, 2),
]
needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler")


def composed(
    x: Tensor,
    weight: Tensor,
    a: Tensor,
    b: Tensor,
    eps: float | None,
    pool: int,
    relu: bool,
    stride: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    y = F.conv2d(x, weight, stride=stride, padding=1)
    var, mean = torch.var_mean(y, (0, 2, 3), correction=0)
    scale = a if eps is None else a / torch.sqrt(var + eps)
    shift = b if eps is None else b - mean * scale
    z = F.max_pool2d(y * scale.view(-1, 1, 1) + shift.view(-1, 1, 1), pool)
    return F.relu(z) if relu else z, mean, var


def inputs(shape: Shape, seed: int = 0) -> list[Tensor]:
    n, channels, out, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, height, width, generator=generator)
    # flat places, where every pixel of a pooling window is its largest
    x[:, :, : height // 2] = 0
    values = [
        x,
        torch.randn(out, channels, 3, 3, generator=generator) / (3 * channels**0.5),
        *torch.randn(2, out, generator=generator),
    ]
    return [value.requires_grad_() for value in values]


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / (expected.norm() + 1e-12))


def everything(
    function,
    values: list[Tensor],
    eps: float | None,
    pool: int,
    relu: bool,
    moments: bool,
    stride: int = 1,
) -> list[Tensor]:
    """Results, gradients and gradients of gradients for fixed random directions."""
    generator = torch.Generator().manual_seed(1)

    def like(value: Tensor) -> Tensor:
        return torch.randn(value.shape, generator=generator).to(value)

    outputs = function(*values, eps, pool, relu, stride)[: 3 if moments else 1]
    g = [like(out).requires_grad_() for out in outputs]
    first = torch.autograd.grad(outputs, values, g, create_graph=True)
    second = torch.autograd.grad(
        first, [*values[:3], *g], [like(grad) for grad in first]
    )
    return [*outputs, *first, *second]


@needs_compiler
@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize(("shape", "pool", "relu", "eps", "stride"), SHAPES)
def test_results_and_both_derivatives(
    shape: Shape,
    pool: int,
    relu: bool,
    eps: float | None,
    stride: int,
    moments: bool,
) -> None:
    if moments and eps is None:
        pytest.skip("given statistics have no moments")
    values = inputs(shape)
    found = everything(block, values, eps, pool, relu, moments, stride)
    expected = everything(
        composed,
        [v.detach().double().requires_grad_() for v in values],
        eps,
        pool,
        relu,
        moments,
        stride,
    )
    for i, (f, e) in enumerate(zip(found, expected, strict=True)):
        assert distance(f, e) < 1e-5, i


@needs_compiler
def test_images_that_need_no_gradient_and_odd_layouts() -> None:
    x, weight, a, b = inputs(SHAPES[1][0])
    turned = x.detach().permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    grads = torch.autograd.grad(
        block(
            turned, weight.clone(memory_format=torch.channels_last), a, b, 1e-5, 2, True
        )[0]
        .square()
        .sum(),
        weight,
    )
    expected = torch.autograd.grad(
        block(x, weight, a, b, 1e-5, 2, True)[0].square().sum(), weight
    )
    torch.testing.assert_close(grads, expected)


@needs_compiler
@pytest.mark.parametrize("shared", [True, False])
def test_mapped_over_tasks_it_is_the_loop(shared: bool) -> None:
    x, weight, a, b = (
        torch.stack([inputs(SHAPES[2][0], seed)[i] for seed in range(5)]).detach()
        for i in range(4)
    )
    weight = weight[:1].expand_as(weight) if shared else weight

    def hessian_product(x: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
        def loss(weight: Tensor) -> Tensor:
            out, mean, var = block(x, weight, a, b, 1e-5, 2, True)
            return out.square().sum() + mean.sum() * var.sum()

        return torch.func.vjp(torch.func.grad(loss), weight)[1](weight)[0]

    mapped = torch.vmap(hessian_product, (0, None if shared else 0, 0, 0))(
        x, weight[0] if shared else weight, a, b
    )
    looped = torch.stack(
        [hessian_product(*task) for task in zip(x, weight, a, b, strict=True)]
    )
    torch.testing.assert_close(
        mapped, looped, rtol=1e-4, atol=1e-4 * float(looped.abs().max())
    )


@needs_compiler
def test_the_same_twice_and_with_any_number_of_threads() -> None:
    values = inputs((13, 32, 32, 7, 7))
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3, 3):
            torch.set_num_threads(count)
            results.append(everything(block, values, 1e-5, 2, True, True))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(p, q) for p, q in zip(*results[1:], strict=True))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize(("shape", "pool", "relu", "eps", "stride"), SHAPES)
def test_bfloat16_products_err_by_little(
    shape: Shape, pool: int, relu: bool, eps: float | None, stride: int
) -> None:
    values = inputs(shape)
    with torch.autocast("cpu", torch.bfloat16):
        found = everything(block, values, eps, pool, False, False, stride)
    expected = everything(
        composed,
        [v.detach().double().requires_grad_() for v in values],
        eps,
        1,
        False,
        False,
        stride,
    )
    if pool == 1:  # rounding changes which pixel is the largest
        assert all(
            f.dtype == torch.float32 and distance(f, e) < 0.02
            for f, e in zip(found, expected, strict=True)
        )
    assert distance(found[0], F.max_pool2d(expected[0], pool)) < 0.02


@needs_compiler
def test_a_third_derivative_is_refused() -> None:
    x, weight, a, b = inputs(SHAPES[2][0])
    grad = torch.autograd.grad(
        block(x, weight, a, b, 1e-5, 2, True)[0].square().sum(),
        weight,
        create_graph=True,
    )[0]
    again = torch.autograd.grad(grad.square().sum(), weight, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="third derivative"):
        torch.autograd.grad(again.sum(), weight)


def meta_gradient(dtype: torch.dtype) -> dict[str, Tensor | None]:
    torch.manual_seed(0)
    learner = (
        innerloop.MAML.build(
            TaskSpec("classes", (1, 14, 14), 3), inner_steps=2, inner_lr=0.01
        )
        .to(dtype)
        .train()
    )
    x = torch.rand(4, 24, 1, 14, 14, generator=torch.Generator().manual_seed(0)).to(
        dtype
    )
    y = torch.eye(3, dtype=dtype).repeat(4, 8, 1)
    return backprop(
        learner, Task(Examples(x[:, :15], y[:, :15]), Examples(x[:, 15:], y[:, 15:]))
    )[0]


@needs_compiler
def test_the_meta_gradient_is_that_of_double_precision() -> None:
    found, expected = meta_gradient(torch.float32), meta_gradient(torch.float64)
    for name, grad in expected.items():
        assert grad is not None
        assert distance(found[name], grad) < 1e-4, name  # pyright: ignore[reportArgumentType]


def test_without_a_compiler_torch_does_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    try:
        with pytest.warns(UserWarning, match="could not be built"):
            assert native.library() is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # said once
            assert not native.usable(
                torch.zeros(1, 1, 4, 4), torch.zeros(64, 1, 3, 3), *torch.ones(2, 64), 2
            )
        found = meta_gradient(torch.float32)
    finally:
        native.library.cache_clear()
    for name, grad in meta_gradient(torch.float64).items():
        assert distance(found[name], grad) < 1e-4, name  # pyright: ignore[reportArgumentType]


@pytest.fixture
def few_instructions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The compiled code of a processor without AVX."""
    folder = tmp_path_factory.mktemp("few")
    compiler = folder / "cc"
    # little optimization: it is built faster
    compiler.write_text('#!/bin/sh\nexec cc "$@" -march=x86-64 -O1\n')
    compiler.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", str(compiler))
        patch.setenv("XDG_CACHE_HOME", str(folder))
        native.library.cache_clear()
        yield
    native.library.cache_clear()


@needs_compiler
@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="names an instruction set of x86-64"
)
def test_a_processor_with_few_instructions(few_instructions: None) -> None:
    code = native.library()
    assert code is not None
    assert code.innerloop_lanes() == 4
    shape, pool, relu, eps, _ = SHAPES[2]
    for autocast in (False, True):
        values = inputs(shape)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = everything(block, values, eps, pool, relu, True)
        expected = everything(
            composed,
            [v.detach().double().requires_grad_() for v in values],
            eps,
            pool,
            relu,
            True,
        )
        assert all(distance(f, e) < 1e-5 for f, e in zip(found, expected, strict=True))


def test_settled_statistics_by_torch_and_by_the_compiled_code() -> None:
    layer = conv.ConvBlock(3, 16, pool=True).eval()
    layer.norm.mean.uniform_(-1, 1)
    layer.norm.var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(
        layer(x).double(), layer.double()(x.double()), rtol=1e-4, atol=1e-5
    )


@needs_compiler
@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (5, 8, 8), (5, 1, 1, 8)])
def test_what_does_not_fit_is_refused_as_torch_refuses_it(
    shape: tuple[int, ...],
) -> None:
    layer = conv.ConvBlock(1, 64, pool=True).eval()
    with pytest.raises(RuntimeError):
        layer(torch.zeros(shape))
    with pytest.raises(RuntimeError):
        layer.double()(torch.zeros(shape).double())


@needs_compiler
def test_no_images_give_no_results() -> None:
    assert conv.ConvBlock(1, 64, pool=True).eval()(torch.zeros(0, 1, 8, 8)).shape == (
        0,
        64,
        4,
        4,
    )


@needs_compiler
def test_normalization_in_another_type_is_read_as_what_it_is() -> None:
    layer, x = conv.ConvBlock(1, 64, pool=True).train(), torch.rand(4, 1, 8, 8)
    expected = layer(x)
    layer.norm.double()
    torch.testing.assert_close(layer(x), expected)


@needs_compiler
@pytest.mark.skipif(
    not Path("/proc/self/statm").is_file(), reason="reads resident memory from /proc"
)
def test_threads_leave_no_memory_behind() -> None:
    layer, x = conv.ConvBlock(64, 64).eval(), torch.rand(1, 64, 42, 42)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def run(count: int) -> None:
        for _ in range(count):
            thread = threading.Thread(target=lambda: layer(x))
            thread.start()
            thread.join()

    run(20)
    before = resident()
    run(100)
    assert resident() - before < 20e6  # 100 images of 0.9 MB, and more
