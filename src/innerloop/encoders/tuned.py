"""Encoders that a run trained further, from its folder."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from innerloop.encoders.base import PretrainedEncoder, Weights, digest_of
from innerloop.engine.errors import InnerloopError

EXPERIMENT, WEIGHTS = "experiment.json", "weights.safetensors"


class TunedEncoder(PretrainedEncoder):
    """An encoder with the weights of a run that trained it further, as
    `innerloop train ... --encoder minilm:all` does.

    Args:
        folder: the run folder.
        field: the network of the run's learner that is the encoder.
        base: the encoder as it was before.
    """

    usual = False
    license = "as of the encoder that was trained"

    def __init__(self, folder: Path, field: str, base: PretrainedEncoder):
        super().__init__(str(folder))
        self.folder, self.field, self.base = folder, field, base
        self.what = base.what  # pyright: ignore[reportAttributeAccessIssue]
        self.features, self.size, self.length = base.features, base.size, base.length

    @cached_property
    def _tuned(self) -> PretrainedEncoder:
        return self.base.with_network(self.network())

    def embed(self, items: Any) -> Any:
        """Vectors (n, features) of a batch of items, float32."""
        return self._tuned.embed(items)

    def network(self) -> nn.Module:
        network, prefix = self.base.network(), f"{self.field}."
        try:
            stored = load_file(self.folder / WEIGHTS)
            network.load_state_dict(
                {
                    name.removeprefix(prefix): value
                    for name, value in stored.items()
                    if name.startswith(prefix)
                }
            )
        except (OSError, RuntimeError, SafetensorError) as error:
            raise InnerloopError(
                f"the weights of {self.base.name} in {self.folder} cannot be read: "
                f"{' '.join(str(error).split())[:120]}"
            ) from error
        return network

    @cached_property
    def weights(self) -> Weights:  # pyright: ignore[reportIncompatibleVariableOverride]
        files = (self.folder / WEIGHTS, *self.base.weights.files)
        return Weights(self.folder.name, "run", digest_of(files), files)

    def installed(self) -> Any:
        return self.base.installed()

    def takes(self, x_shape: tuple[int, ...], vocabulary: int) -> bool:
        return self.base.takes(x_shape, vocabulary)


def networks_of(folder: Path) -> dict[str, str]:
    """The networks of a run's learner that are named, by field; {} for a folder that is
    no run.
    """
    try:
        found = json.loads((folder / EXPERIMENT).read_text("utf-8"))
        options = found["experiment"]["learner"]["options"]
        return {n: v for n, v in options.items() if isinstance(v, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
