"""Encoders from a folder with a transformers model: config.json, *.safetensors, and
tokenizer.json for texts or preprocessor_config.json for images.
"""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.encoders.base import PretrainedEncoder, Weights, digest_of
from innerloop.encoders.texts import TransformerTexts
from innerloop.encoders.transformers import load_model
from innerloop.engine.errors import (
    InnerloopError,
    InnerloopFileError,
    MissingPackageError,
)

LENGTH = 512  # most tokens at once
WIDTHS = ("hidden_size", "dim", "d_model", "n_embd")  # as models name their features
BATCH = 8  # images at once


class FolderEncoder(PretrainedEncoder):
    """An encoder in a folder.

    Args:
        name: the path of the folder.
        config: the content of its config.json.
    """

    usual = False
    modules = ("transformers",)
    license = "as its folder says"
    kept: tuple[str, ...]  # files that it depends on beside the weights

    def __init__(self, name: str, config: dict[str, Any]):
        super().__init__(name)
        self.folder = Path(name)
        sizes = [config.get(key) for key in WIDTHS]
        sizes += config.get("hidden_sizes", [])[-1:]  # of stages
        self.features = next((s for s in sizes if isinstance(s, int)), 0)
        if not self.features:
            raise InnerloopError(
                f"{name}/config.json names no hidden_size: only models with one kind "
                "of inputs can be used"
            )

    @cached_property
    def weights(self) -> Weights:  # pyright: ignore[reportIncompatibleVariableOverride]
        files = (
            *(self.folder / kept for kept in ("config.json", *self.kept)),
            *sorted(self.folder.glob("*.safetensors")),
        )
        return Weights(self.folder.name, "folder", digest_of(files), files)

    def installed(self) -> Any:
        missing = next((m for m in self.modules if find_spec(m) is None), None)
        if missing is not None:
            raise MissingPackageError(
                f"the encoder {self.name} needs the package {missing}: pip install "
                "'innerloop[texts]'"
            )


class FolderTexts(FolderEncoder, TransformerTexts):
    """A transformer of texts in a folder: the mean of its outputs over the tokens."""

    modules = ("transformers", "tokenizers")
    kept = ("tokenizer.json",)

    def __init__(self, name: str, config: dict[str, Any]):
        super().__init__(name, config)
        # some models have no position for their first two numbers
        self.length = min(LENGTH, config.get("max_position_embeddings", LENGTH) - 2)

    @property
    def model_folder(self) -> Path:
        return self.folder

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / "tokenizer.json"


class PooledImages(nn.Module):
    """The pooled output of a model: images (n, 3, height, width) in 0..1, scaled to its
    size, to features.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, pools: bool, size: int, mean: Tensor, std: Tensor
    ):
        super().__init__()
        self.model, self.pools, self.size = model, pools, size
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("std", std[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.size, self.size):
            size = (self.size, self.size)
            x = F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)
        found = self.model(pixel_values=(x - self.mean) / self.std)
        pooled = found.get("pooler_output") if self.pools else None
        if pooled is None:
            states = found["last_hidden_state"]  # tokens, or an image of features
            pooled = states[:, 0] if states.dim() == 3 else states.mean((2, 3))
        return pooled.flatten(1)


class FolderImages(FolderEncoder):
    """A transformer or convolutional network of images in a folder: its pooled
    output.
    """

    what = "image"
    kept = ("preprocessor_config.json",)

    def __init__(self, name: str, config: dict[str, Any]):
        super().__init__(name, config)
        self.settings = _json(self.folder / self.kept[0])
        wanted = self.settings.get("crop_size", self.settings.get("size", 224))
        sides = wanted if isinstance(wanted, dict) else {"height": wanted}
        self.size = int(sides.get("height", sides.get("shortest_edge", 224)))

    def embed(self, items: Tensor) -> Tensor:
        """Vectors (n, features) of images (n, 3, height, width), bytes 0..255."""
        with torch.inference_mode():
            parts = [self._network(part / 255) for part in items.split(BATCH)]
        found = torch.cat(parts).clone()
        if found.shape[1] != self.features:
            raise InnerloopError(
                f"the pooled output of the model in {self.name} has {found.shape[1]} "
                f"features, and its config.json says {self.features}"
            )
        return found

    def network(self) -> PooledImages:
        self.installed()
        model, pools = load_model(self.folder)
        if not pools:
            model.pooler = None
        scaled = self.settings.get("do_normalize", True)
        mean, std = (
            torch.tensor(self.settings.get(n, [d] * 3) if scaled else [d] * 3).float()
            for n, d in (("image_mean", 0.0), ("image_std", 1.0))
        )
        # some are for values up to 255, or beyond
        unit = 255 * self.settings.get("rescale_factor", 1 / 255)
        scale = unit if self.settings.get("do_rescale", True) else 255.0
        return PooledImages(model, pools, self.size, mean / scale, std / scale)


@lru_cache(maxsize=8)
def folder_encoder(path: str) -> FolderEncoder:
    """The encoder in a folder.

    Raises InnerloopFileError where there is no such folder, and InnerloopError for one
    without a model of texts or images.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InnerloopFileError(f"there is no folder {path}")
    lacking = [
        what
        for what in ("config.json", "*.safetensors")
        if not next(folder.glob(what), None)
    ]
    if lacking:
        raise InnerloopError(
            f"{path} holds no transformers model: it has no {lacking[0]}"
        )
    config = _json(folder / "config.json")
    for kind in (FolderImages, FolderTexts):
        if (folder / kind.kept[0]).is_file():
            return kind(path, config)
    raise InnerloopError(
        f"{path} needs tokenizer.json for a model of texts, or "
        "preprocessor_config.json for a model of images"
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InnerloopError(f"{file} cannot be read: {error}") from error
