"""Relation networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.metric.distances import class_means
from innerloop.nets.conv import Conv4
from innerloop.nets.registry import encoder, flat_features


class RelationNet(Learner):
    """Relation networks: a network scores how well a query matches a class.

    r = g([f(class), f(query)]), f(class) the mean feature map of its examples

    Reference: Sung, Yang, Zhang, Xiang, Torr and Hospedales 2018, "Learning to compare:
    relation network for few-shot learning", arXiv:1711.06025, eq. (1)-(2).

    Defaults differ from the paper: 20 ways with 5 queries, and AdamW. The outputs are r
    before the sigmoid.

    Objective: the squared error of sigmoid(r) from 1 for the right class and 0 for the
    others, eq. (3).

    State: the feature maps of the classes (ways, channels, height, width).

    Args:
        encoder: the network f, to feature maps.
        relation: the network g, pairs of maps (n, 2 channels, height, width) to (n, 1).
    """

    encoder: nn.Module
    relation: nn.Module
    _: KW_ONLY
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    named_networks = ()
    defaults = MetaTrainConfig(
        ways=20,
        shots=1,
        queries=5,
        batch=1,
        optimizer="AdamW",
        lr=1e-3,
        weight_decay=0.01,
    )

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        if not spec.is_image:
            body = encoder(spec, vector="wide-mlp")
            pair = 2 * flat_features(body, spec)
            layers = nn.Linear(pair, 128), nn.ReLU(), nn.Linear(128, 1)
            return {"encoder": body, "relation": nn.Sequential(*layers)}
        body = Conv4(spec.x_shape, pooled=2, flat=False)
        height, width = (max(size // 4, 1) for size in spec.x_shape[1:])
        compare = Conv4((128, height, width), pooled=2, blocks=2)
        features = flat_features(compare, TaskSpec("reals", (128, height, width), 1))
        layers = nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, 1)
        return {"encoder": body, "relation": nn.Sequential(compare, *layers)}

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {
            "config": {
                "ways": 5,
                "queries": 19,
                "optimizer": "Adam",
                "weight_decay": 0.0,
            }
        }

    def adapt(self, support: Examples) -> Tensor:
        maps = self.encoder(support.x)  # (n, c, h, w)
        return class_means(maps.flatten(1), support.y).view(-1, *maps.shape[1:])

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        maps = self.encoder(x)  # (m, c, h, w)
        m, ways = maps.shape[0], state.shape[0]
        classes = state.to(maps.dtype).expand(m, *state.shape)  # (m, ways, c, h, w)
        queries = maps[:, None].expand(m, *state.shape)
        pairs = torch.cat([classes, queries], 2)  # (m, ways, 2 c, h, w)
        return self.relation(pairs.flatten(0, 1)).view(m, ways)

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        outputs = widened(self.predict(self.adapt(task.support), task.query.x))
        error = (outputs.sigmoid() - task.query.y).square().sum(-1)  # (m,)
        return error.mean(), self.likelihood.metrics(outputs, task.query.y)
