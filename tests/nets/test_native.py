"""What the compiled convolution block refuses, and how it is built and loaded."""

import ctypes
import errno
import hashlib
import os
import re
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from innerloop.engine import native_code
from innerloop.engine.errors import InnerloopError
from innerloop.engine.mapping import needs_loop
from innerloop.nets import conv
from innerloop.nets.fused_conv import loading, native
from innerloop.nets.fused_conv.autograd import block

needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler")
NAN = float("nan")


@pytest.fixture(scope="session")
def prebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled code, built once for all tests of the loading."""
    loaded = native.library()
    if loaded is None:
        pytest.skip("no C compiler")
    if (kept := Path(loaded._name)).is_file():
        return kept
    built = tmp_path_factory.mktemp("prebuilt") / "block.so"
    native_code.compiled(loading.SOURCE, ["cc"], built)
    return built


@pytest.fixture
def compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prebuilt: Path
) -> Iterator[Path]:
    """A compiler that copies the code that is built already, and notes that it ran."""
    script, log = tmp_path / "cc", tmp_path / "builds"
    log.touch()
    script.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && exit\n'
        f"echo >> {log}\n"
        'while [ "$1" != -o ]; do shift; done\n'
        f'exec cp {prebuilt} "$2"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    return log


@pytest.fixture
def cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: Path
) -> Iterator[Path]:
    """An empty cache folder of the user's; the folder for compiled code in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native.library.cache_clear()
    yield tmp_path / "cache" / "innerloop-native"
    native.library.cache_clear()


def reload() -> ctypes.CDLL | None:
    native.library.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return native.library()


def reload_with_warning() -> ctypes.CDLL | None:
    native.library.cache_clear()
    with pytest.warns(UserWarning, match="others may write to .*; remove it"):
        return native.library()


def location(code: ctypes.CDLL | None) -> Path:
    assert code is not None
    return Path(code._name)


# -- Values and sizes


@needs_compiler
@pytest.mark.parametrize("name", ["norm.weight", "norm.bias"])
@pytest.mark.parametrize("size", [1, 63, 128])
@pytest.mark.parametrize("training", [True, False])
def test_scale_and_shift_of_another_size_are_left_to_torch(
    name: str, size: int, training: bool
) -> None:
    layer = conv.ConvBlock(3, 64, pool=True).train(training)
    wrong = dict(layer.named_parameters()) | {name: torch.ones(size)}
    x = torch.rand(2, 3, 8, 8)

    def run(dtype: torch.dtype) -> torch.Tensor | str:
        weights = {key: value.to(dtype) for key, value in wrong.items()}
        try:
            return functional_call(layer.to(dtype), weights, x.to(dtype)).float()
        except RuntimeError:
            return "refused"

    in_double, found = run(torch.float64), run(torch.float32)
    assert isinstance(found, str) == isinstance(in_double, str)
    if isinstance(found, torch.Tensor):
        torch.testing.assert_close(found, in_double, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_the_operator_refuses_wrong_sizes() -> None:
    x, weight, a = torch.rand(2, 3, 8, 8), torch.rand(64, 3, 3, 3), torch.ones(64)
    for wrong in ((a[:1], a), (a, a[:1]), (a[:48], a[:48])):
        with pytest.raises(InnerloopError, match="expected"):
            block(x, weight, *wrong, 1e-5, 2, True)
    with pytest.raises(InnerloopError, match="expected"):
        block(x[:, :2], weight, a, a, 1e-5, 2, True)
    with pytest.raises(InnerloopError, match="scale"):  # of two tasks
        native.forward(
            x[None],
            weight[None],
            a.expand(2, 64),
            a[None],
            *native.Settings(1e-5, 1, 2, True, False, True),
        )
    with pytest.raises(InnerloopError, match="pooling window"):
        block(x[..., :1], weight, a, a, 1e-5, 2, True)
    with pytest.raises(InnerloopError, match="pooling window"):
        block(x[..., :2], weight, a, a, 1e-5, 2, True, 2)
    with pytest.raises(InnerloopError, match="stride of 3"):
        block(x, weight, a, a, 1e-5, 2, True, 3)


@needs_compiler
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("relu", [True, False])
def test_nan_under_a_pooling_window_comes_out(
    place: int, sign: float, relu: bool
) -> None:
    x, weight = torch.rand(1, 1, 6, 6), torch.zeros(64, 1, 3, 3)
    weight[:, 0, 1, 1] = 1.0
    # of the window in the middle, only the pixel in this corner is within its reach
    x[0, 0, 1 + 3 * (place // 2), 1 + 3 * (place % 2)] = NAN
    a, b = sign * torch.ones(64), torch.ones(64)
    out = block(x, weight, a, b, None, 2, relu)[0]
    y = F.conv2d(x, weight, padding=1) * sign + 1
    expected = F.max_pool2d(F.relu(y) if relu else y, 2)
    assert expected.isnan().any()
    torch.testing.assert_close(out, expected, equal_nan=True)


@needs_compiler
def test_nan_of_any_bits_stays_nan_in_bfloat16() -> None:
    for bits in (0x7FFFFFFF, 0x7F800001, -1, 0x7FC00000):
        x = torch.full((1, 16, 2, 2), bits, dtype=torch.int32).view(torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            out = block(
                x, torch.ones(16, 16, 3, 3), *torch.ones(2, 16), None, 1, False
            )[0]
        assert out.isnan().all(), hex(bits)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_images_of_another_type_are_refused_as_torch_refuses_them(
    dtype: torch.dtype,
) -> None:
    layer = conv.ConvBlock(1, 64, pool=True).eval()
    with pytest.raises(RuntimeError):
        layer(torch.ones(2, 1, 8, 8).to(dtype))


@needs_compiler
def test_too_little_memory_is_a_memory_error() -> None:
    x, weight = torch.rand(1, 2, 16, 4, 4), torch.rand(1, 16, 16, 3, 3)
    a = torch.ones(1, 16)
    out, mean, var, y, extreme = native.forward(
        x, weight, a, a, 1e-5, 1, 1, True, False, True
    )
    for name, bf16 in (
        (name, bf16)
        for name in ("forward", "backward", "double_backward")
        for bf16 in (0, 1)
    ):
        call = native._Call(
            x, weight, a, a, native.Settings(1e-5, 1, 1, True, False, True)
        )
        # no memory holds such images; nothing is read before that is known
        call.shape.height = call.shape.width = 1 << 22
        call.shape.rows = call.shape.columns = 1 << 22
        call.shape.bf16 = bf16 and call.code.innerloop_multiplies_bf16()
        some = [torch.ones(64)] * 16
        arguments = {
            "forward": [y, extreme, out, mean, var],
            "backward": [*some[:5], None, None, None, *some[:4]],
            "double_backward": [
                *some[:5],
                None,
                None,
                some[0],
                call.filters(weight),
                *some[:9],
            ],
        }[name]
        with pytest.raises(MemoryError, match="not enough memory"):
            call(f"innerloop_{name}", *arguments)
    # and afterwards it works as before
    torch.testing.assert_close(
        native.forward(x, weight, a, a, 1e-5, 1, 1, True, False, True)[0], out
    )


def free_memory() -> int:
    """In bytes, as far as the system says it."""
    path = Path("/proc/meminfo")
    text = path.read_text() if path.is_file() else ""
    return 1024 * int(re.search(r"MemAvailable: *(\d+)|$", text)[1] or 0)  # pyright: ignore[reportOptionalSubscript]


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(free_memory() < 8e9, reason="takes 7 GB of free memory")
def test_images_of_two_gibibytes() -> None:
    side, channels = 1024, 520
    x = torch.zeros(1, channels, side, side)
    x[0, :, -2:, -2:] = 1.0
    weight = torch.zeros(16, channels, 3, 3, requires_grad=True)
    a = torch.ones(16)
    block(x, weight, a, a, None, 1, False)[0].sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(
        weight.grad[0, -1],
        torch.tensor([[1.0, 2.0, 2.0], [2.0, 4.0, 4.0], [2.0, 4.0, 4.0]]),
    )


@needs_compiler
def test_forward_mode_and_tracing_are_left_to_torch() -> None:
    layer, x = conv.ConvBlock(1, 64, pool=True).eval(), torch.rand(2, 1, 8, 8)
    found = torch.func.jvp(layer, (x,), (torch.ones_like(x),))[1]
    step = (layer.double()(x.double() + 1e-6) - layer(x.double() - 1e-6)) / 2e-6
    torch.testing.assert_close(found.double(), step, rtol=1e-3, atol=1e-3)
    layer.float()
    traced = torch.jit.trace(layer, (x,))
    torch.testing.assert_close(traced(x), layer(x), rtol=1e-4, atol=1e-5)


# -- Layout of the parameters


def test_parameters_are_laid_out_as_those_of_torch() -> None:
    layer, x = conv.ConvBlock(3, 64, pool=True), torch.rand(2, 3, 8, 8)
    plain = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    plain.load_state_dict(layer.conv.state_dict())
    assert layer.conv.weight.stride() == plain.weight.stride()
    layer(x).square().sum().backward()
    for parameter in layer.parameters():
        assert parameter.is_contiguous()
        assert parameter.grad is not None
        assert parameter.grad.is_contiguous()
    vector = torch.nn.utils.parameters_to_vector(layer.parameters())
    torch.nn.utils.vector_to_parameters(vector, layer.parameters())
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=2)

    def loss() -> float:
        optimizer.zero_grad()
        value = (layer(x) - 1).square().mean()
        value.backward()
        return float(value)

    before = loss()
    optimizer.step(loss)
    assert loss() < before


@needs_compiler
def test_weights_are_the_same_with_and_without_the_compiled_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.rand(4, 1, 28, 28)
    compiled = conv.Conv4((1, 28, 28)).train()
    expected = compiled(x)
    monkeypatch.setenv("INNERLOOP_NATIVE", "0")
    native.library.cache_clear()
    try:
        plain = conv.Conv4((1, 28, 28)).train()
        plain.load_state_dict(compiled.state_dict())
        shapes = [
            {name: value.shape for name, value in net.state_dict().items()}
            for net in (plain, compiled)
        ]
        assert shapes[0] == shapes[1]
        torch.testing.assert_close(plain(x), expected, rtol=1e-4, atol=1e-4)
    finally:
        native.library.cache_clear()


@needs_compiler
def test_tasks_are_looped_over_without_the_compiled_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, other = torch.device("cpu"), torch.device("meta")
    layer = conv.ConvBlock(1, 64)
    assert needs_loop(torch.nn.Conv2d(1, 64, 3), cpu)
    assert not needs_loop(layer, cpu)
    monkeypatch.setenv("INNERLOOP_NATIVE", "0")
    native.library.cache_clear()
    try:
        assert needs_loop(layer, cpu)
        assert not needs_loop(layer, other)
    finally:
        native.library.cache_clear()


# -- Threads and processes


@needs_compiler
def test_eight_threads_at_once() -> None:
    values = [torch.rand(9, 16, 7, 7), torch.rand(32, 16, 3, 3), *torch.rand(2, 32)]

    def gradient(_: int = 0) -> torch.Tensor:
        x, weight, a, b = (v.clone().requires_grad_() for v in values)
        loss = block(x, weight, a, b, 1e-5, 2, True)[0].square().sum()
        (grad,) = torch.autograd.grad(loss, weight, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), weight)[0]

    expected = gradient()
    with ThreadPoolExecutor(8) as pool:
        assert all(torch.equal(g, expected) for g in pool.map(gradient, range(64)))


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_compute_it() -> None:
    # in a process of its own: with more than one thread a forked process would hang
    program = """
import os, torch
from innerloop.nets.conv import ConvBlock
torch.set_num_threads(1)
layer, x = ConvBlock(1, 64).eval(), torch.rand(4, 1, 8, 8)
expected = layer(x).detach()
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(layer(x), expected) else 1)
assert os.waitpid(child, 0)[1] == 0
torch.set_num_threads(2)
layer(x)
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, i):
        return layer(x).detach()
for batch in torch.utils.data.DataLoader(Data(), num_workers=1, timeout=60):
    assert torch.allclose(batch[0], expected)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


# -- Building and loading


@needs_compiler
def test_it_is_built_at_the_first_forward_pass(cache: Path) -> None:
    layer = conv.ConvBlock(1, 64)
    assert not cache.exists()
    layer(torch.rand(2, 1, 8, 8))
    (built,) = cache.glob("*.so")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert (
        built.with_suffix(".sha256").read_text()
        == hashlib.sha256(built.read_bytes()).hexdigest()
    )


@needs_compiler
def test_it_is_built_once(cache: Path, compiler: Path) -> None:
    reload()
    reload()
    assert compiler.read_text().count("\n") == 1


@needs_compiler
def test_part_of_a_file_is_built_again(cache: Path) -> None:
    built = location(reload())
    # in another process: code that is cut short while it is loaded ends it
    program = f"""
import pathlib, shutil
import os
from innerloop.nets.fused_conv import loading
for size in (0, 4, 4096, 70_000, 130_000):
    folder = pathlib.Path("{cache.parent}") / str(size) / "innerloop-native"
    shutil.copytree("{cache}", folder)
    file = folder / "{built.name}"
    file.write_bytes(file.read_bytes()[:size])
    os.environ["XDG_CACHE_HOME"] = str(folder.parent)
    loading.library.cache_clear()
    assert loading.library().innerloop_lanes() >= 4
    assert file.stat().st_size == {built.stat().st_size}
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@needs_compiler
def test_a_full_disk_does_no_harm(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert not location(reload()).is_relative_to(cache)
    assert not list(cache.iterdir())


@needs_compiler
@pytest.mark.parametrize("what", ["folder", "file", "checksum"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_what_others_may_write_to_is_not_loaded(
    cache: Path, what: str, mode: int
) -> None:
    built = location(reload())
    path = {
        "folder": cache,
        "file": built,
        "checksum": built.with_suffix(".sha256"),
    }[what]
    path.chmod(path.stat().st_mode | mode)
    assert not location(reload_with_warning()).is_relative_to(cache)


@needs_compiler
def test_what_others_own_is_not_loaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reload()
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert not location(reload_with_warning()).is_relative_to(cache)


@needs_compiler
def test_links_are_not_followed(cache: Path) -> None:
    built = location(reload())
    target = built.rename(built.with_name("elsewhere"))
    built.symlink_to(target)
    assert not location(reload()).is_relative_to(cache)


@needs_compiler
@pytest.mark.parametrize("value", ["", ".", "cache"])
def test_an_empty_or_relative_cache_folder_is_ignored(
    value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert native_code.cache_folder() == tmp_path / ".cache" / "innerloop-native"


def test_the_data_cache_and_the_package_hold_no_code(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "data"))
    package = set(loading.SOURCE.path.parent.iterdir())
    assert location(reload()).parent == cache
    assert not (tmp_path / "data").exists()
    assert set(loading.SOURCE.path.parent.iterdir()) == package


def test_it_can_be_switched_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERLOOP_NATIVE", "0")
    assert reload() is None
    conv.ConvBlock(1, 64)(torch.rand(2, 1, 8, 8)).sum().backward()
    assert not cache.exists()


def test_a_compiler_that_hangs_is_stopped(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler, ended = tmp_path / "cc", tmp_path / "ended"
    compiler.write_text(f"#!/bin/sh\nsleep 20\ntouch {ended}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setattr(native_code, "COMPILER_SECONDS", 0.2)
    native.library.cache_clear()
    with pytest.warns(UserWarning, match="could not be built.*timed out"):
        assert native.library() is None
    assert not ended.exists()


@needs_compiler
def test_another_compiler_and_another_torch_are_built_for_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, compiler = loading.SOURCE, tmp_path / "cc"
    names = {native_code.fingerprint(source, ["cc"])}
    compiler.write_text("#!/bin/sh\necho another version\n")
    compiler.chmod(0o755)
    names.add(native_code.fingerprint(source, [str(compiler)]))
    compiler.write_text("#!/bin/sh\necho a third version\n")
    names.add(native_code.fingerprint(source, [str(compiler)]))
    names.add(native_code.fingerprint(replace(source, flags=("-O2",)), ["cc"]))
    for owner, name, value in (
        (torch, "__version__", "0.0"),
        (native_code.platform, "libc_ver", lambda: ("other", "1")),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            names.add(native_code.fingerprint(source, ["cc"]))
    assert len(names) == 6


@needs_compiler
def test_code_of_another_interface_is_not_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(loading.SOURCE, abi=loading.SOURCE.abi + 1)
    monkeypatch.setattr(loading, "SOURCE", other)
    native.library.cache_clear()
    with pytest.warns(UserWarning, match="interface"):
        assert native.library() is None


@needs_compiler
def test_a_home_without_a_place_to_write_does_no_harm(
    compiler: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "folder"))
    try:
        assert reload() is not None
    finally:
        native.library.cache_clear()
