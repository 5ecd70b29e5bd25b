"""A hypernetwork that writes a classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.precision import widened
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.metric.distances import class_means
from innerloop.nets.decoder import perceptron
from innerloop.nets.registry import encoder, flat_features

Gaussians = tuple[Tensor, Tensor]  # means and scales


class Versa(FeatureLearner):
    """VERSA: a network writes the weights of every class, as a distribution, from the
    mean of its embedded examples.

    w_k ~ N(mean(c_k), scale(c_k)^2), c_k the mean of f over the support examples of k;
    p(y | x) = E softmax(w f(x))
    Gordon, Bronskill, Bauer, Nowozin and Turner 2019, "Meta-learning probabilistic
    inference for prediction", arXiv:1805.09921, eq. (4)-(5) and section 3.1
    In training mode the expectation is a mean of draws; in evaluation each logit is
    divided by sqrt(1 + pi variance / 8) instead (MacKay 1992), which needs none.
    State: means and scales (ways, d + 1) of the weights; the last column is the bias.

    encoder: f; its d features are divided by the root of d. writer: from the mean of a
        class to the means and scales of its weights. width: units of its layers. draws:
        for the expectation in training.
    """

    encoder: nn.Module
    writer: nn.Module
    _: KW_ONLY
    width: int = 256
    draws: int = 10
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
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
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"))
        features = flat_features(body, spec)
        return {
            "encoder": body,
            "writer": perceptron(
                features, 2 * (features + 1), build_args.get("width", cls.width), 2
            ),
        }

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) as features (m, d), divided by the root of d."""
        z = widened(self.encoder(x).flatten(1))
        return z / z.shape[1] ** 0.5

    def learned(self, z: Tensor, y: Tensor) -> Gaussians:
        mean, raw = widened(self.writer(class_means(z, y))).chunk(2, -1)
        return mean, 0.1 * F.softplus(raw - 2)  # (ways, d + 1); scales begin small

    def answers(self, state: Gaussians, z: Tensor) -> Tensor:
        z = torch.cat([z, torch.ones_like(z[:, :1])], 1)  # (m, d + 1)
        with torch.autocast(z.device.type, enabled=False):
            # (m, ways)
            mean, variance = z @ state[0].T, z.square() @ state[1].T.square()
        if not self.training:
            return mean * torch.rsqrt(1 + math.pi / 8 * variance)
        noise = torch.randn(
            self.draws, *mean.shape, device=mean.device, dtype=mean.dtype
        )
        logits = mean + (variance + 1e-12).sqrt() * noise  # (draws, m, ways)
        return logits.log_softmax(-1).logsumexp(0) - math.log(self.draws)
