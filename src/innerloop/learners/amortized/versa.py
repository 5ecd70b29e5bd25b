"""A network that generates the weights of a classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.options import Count
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.metric.distances import class_means
from innerloop.nets.decoder import perceptron
from innerloop.nets.registry import encoder, flat_features

Gaussians = tuple[Tensor, Tensor]  # means and scales


class Versa(FeatureLearner):
    """VERSA: generates a distribution of linear heads from class means.

    w_k ~ N(mean(c_k), scale(c_k)^2), c_k the mean of f over the support examples of k;
    p(y | x) = E softmax(w f(x))

    Reference: Gordon, Bronskill, Bauer, Nowozin and Turner 2019, "Meta-learning
    probabilistic inference for prediction", arXiv:1805.09921, eq. (4)-(5), section 3.1.

    In training mode, the expectation is a mean over samples of the logits, drawn from
    torch's global generator. In evaluation mode nothing is drawn: each logit is divided
    by sqrt(1 + pi variance / 8) (MacKay 1992, "The evidence framework applied to
    classification networks", Neural Computation 4(5)).

    State: means and scales (ways, d + 1) of the weights; the last column is the bias.

    Args:
        encoder: the network f; its d features are divided by the square root of d.
        generator: the network from the mean of a class to the means and scales of its
            weights.
        width: units of the generator's layers.
        samples: samples of a logit in training.
    """

    encoder: nn.Module
    generator: nn.Module
    _: KW_ONLY
    width: Count = 256
    samples: Count = 10
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
        width = build_args.get("width", cls.width)
        generator = perceptron(features, 2 * (features + 1), width, 2)
        return {"encoder": body, "generator": generator}

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) as features (m, d), divided by the square root of d."""
        z = widened(self.encoder(x).flatten(1))
        return z / z.shape[1] ** 0.5

    def learned(self, z: Tensor, y: Tensor) -> Gaussians:
        mean, raw = widened(self.generator(class_means(z, y))).chunk(2, -1)
        return mean, 0.1 * F.softplus(raw - 2)  # (ways, d + 1); small scales at first

    def answers(self, state: Gaussians, z: Tensor) -> Tensor:
        z = torch.cat([z, torch.ones_like(z[:, :1])], 1)  # (m, d + 1)
        with torch.autocast(z.device.type, enabled=False):
            mean = z @ state[0].T  # (m, ways)
            variance = z.square() @ state[1].T.square()
        if not self.training:
            return mean * torch.rsqrt(1 + math.pi / 8 * variance)
        shape = (self.samples, *mean.shape)
        noise = torch.randn(shape, device=mean.device, dtype=mean.dtype)
        logits = mean + (variance + 1e-12).sqrt() * noise  # (samples, m, ways)
        return logits.log_softmax(-1).logsumexp(0) - math.log(self.samples)
