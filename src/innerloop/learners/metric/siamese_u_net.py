"""Siamese U-Nets, which find and segment a symbol in images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.likelihood import Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.options import Count
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.metric.symbol_learner import SymbolLearner, window
from innerloop.learners.metric.symbol_maps import MAPS, SymbolMaps
from innerloop.nets.u_net import MatchingUNet, Pyramid

# raw maps of an untrained network: a probability of 1 %, and distances of 10 pixels
PRIOR = (-4.6, 1.0, 1.0, 1.0, 1.0)


class SiameseUNet(SymbolLearner):
    """Siamese U-Net: finds a symbol in images by comparing it with every place.

    maps(x) = decoder(f(x) * z, f(x)), f(x) * z the correlation of features, normalized,
    z the mean of e over the examples

    Reference: Michaelis, Bethge and Ecker 2018, "One-shot segmentation in clutter",
    arXiv:1803.09597, section 4.1. Here z keeps its 4x4 places, as in Bertinetto,
    Valmadre, Henriques, Vedaldi and Torr 2016, "Fully-convolutional Siamese networks
    for object tracking", arXiv:1606.09549, eq. (1), and features are correlated one by
    one before the decoder sums them up, as in Fan, Zhuo, Tang and Tai 2020, "Few-shot
    object detection with attention-RPN and multi-relation detector", arXiv:1908.01998,
    eq. (1). e starts with the weights of f. The network is smaller, with batch
    normalization instead of layer normalization, and beside the mask it predicts the
    box of the symbol from each of its pixels, as in Tian, Shen, Chen and He 2019,
    "FCOS: fully convolutional one-stage object detection", arXiv:1904.01355.

    State: the features of the symbol (4 filters, 4, 4).

    Args:
        example: the network e, from the middle of an example to its features.
        page: the networks f and decoder, from images and features to maps.
        filters: filters at the finest level of both; twice and four times as many at
            the coarser ones.
    """

    example: nn.Module
    page: nn.Module
    _: KW_ONLY
    filters: Count = 32
    likelihood: Likelihood = SymbolMaps()

    encode_jointly = True
    defaults = MetaTrainConfig(
        shots=1,
        queries=2,
        batch=8,
        optimizer="AdamW",
        lr=2e-3,
        weight_decay=0.01,
        clip=10.0,
        warmup=0.02,
    )

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        found = super().networks(spec, build_args, out_dim)
        filters = build_args.get("filters", cls.filters)
        page = MatchingUNet(spec.x_shape[0], filters, MAPS)
        page.out.bias = nn.Parameter(torch.tensor(PRIOR).repeat_interleave(4))
        example = Pyramid(spec.x_shape[0], filters)
        example.load_state_dict(page.down.state_dict())
        return {**found, "example": example, "page": page}

    def adapt(self, support: Examples) -> Tensor:
        return self.example(window(support.x))[-1].mean(0)  # (4 filters, 4, 4)

    def maps(self, state: Tensor, x: Tensor) -> Tensor:
        return self.page(x, state.expand(len(x), -1, -1, -1))  # (m, 5, height, width)

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        n, m = tasks.query.x.shape[:2]
        crops = window(tasks.support.x)  # (n, shots, channels, side, side)
        features = self.example(crops.flatten(0, 1))[-1]
        z = features.unflatten(0, crops.shape[:2]).mean(1)
        maps = self.page(tasks.query.x.flatten(0, 1), z.repeat_interleave(m, 0))
        outputs = maps.reshape(n, m, -1)
        losses, metrics = self.mapped(self._scored, outputs, tasks.query.y)
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}

    def _scored(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        likelihood = self.likelihood
        return likelihood.nll(outputs, y), likelihood.metrics(outputs, y)
