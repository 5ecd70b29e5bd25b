"""An encoder and a decoder, trained jointly over tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Gaussian, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.options import Count, NonNegative
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.neural_processes.layers import PairEncoder
from innerloop.nets.decoder import perceptron


class EncoderDecoder(Learner):
    """Encoder-decoder: a short code of the support set, from which queries decode.

    min over encoder and decoder of the sum over tasks of L(decoder(code, x), y), code =
    encoder(support), for support and query examples

    Reference: Hinton and Salakhutdinov 2006, "Reducing the dimensionality of data with
    neural networks", Science 313(5786): the autoencoder, here of sets of examples.

    Objective: the loss of the query set (prediction) plus `reconstruction` times that
    of the support set (reconstruction).

    State: the code (code,).

    Args:
        pairs: the first part of the encoder, a perceptron of every example.
        bottleneck: the second part, a perceptron of the mean over examples.
        decoder: the decoder of code and x.
        code: size of the code.
        width: units of the layers.
        reconstruction: weight of the reconstruction loss.
    """

    pairs: nn.Module
    bottleneck: nn.Module
    decoder: nn.Module
    _: KW_ONLY
    code: Count = 16
    width: Count = 128
    reconstruction: NonNegative = 1.0
    likelihood: Likelihood = Gaussian()

    home = "gp-curves"
    kinds = ("reals", "bits")
    defaults = MetaTrainConfig(batch=16, optimizer="Adam", lr=1e-3)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        width = build_args.get("width", cls.width)
        code = build_args.get("code", cls.code)
        return {
            "pairs": PairEncoder(spec.x_size, spec.y_dim, width),
            "bottleneck": perceptron(width, code, width, 1),
            "decoder": perceptron(spec.x_size + code, out_dim, width, 3),
        }

    def adapt(self, support: Examples) -> Tensor:
        return self.bottleneck(self.pairs(support).mean(0))  # (code,)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return self.decoder(torch.cat([x.flatten(1), state.expand(x.shape[0], -1)], -1))

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        support, query = task
        code = self.adapt(support)
        outputs = self.predict(code, query.x)
        nll = self.likelihood.nll(outputs, query.y)
        reconstruction = self.likelihood.nll(self.predict(code, support.x), support.y)
        metrics = self.likelihood.metrics(outputs, query.y)
        metrics = {**metrics, "reconstruction": reconstruction.detach()}
        return nll + self.reconstruction * reconstruction, metrics
