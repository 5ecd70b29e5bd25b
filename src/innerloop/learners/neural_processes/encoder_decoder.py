"""An encoder and a decoder, trained jointly over tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.likelihood import Gaussian, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.learners.neural_processes.layers import PairEncoder
from innerloop.nets.decoder import perceptron


class EncoderDecoder(Learner):
    """Encoder and decoder: a task is written down as a short code, from which it can be
    read again; both are learned together, over all tasks.

    min over encoder and decoder of sum over tasks of L(decoder(code, x), y), code =
    encoder(support), for what was seen and for what was not The scheme of the
    autoencoder (Hinton and Salakhutdinov 2006, "Reducing the dimensionality of data
    with neural networks") on sets of examples Its objective is the loss of the query
    set (prediction) plus `reconstruction` times that of the support set
    (reconstruction).
    State: the code (code,).

    pairs, squeeze: the encoder: a perceptron of every example, whose mean another
        squeezes into the code. decoder: of code and x. code: numbers that a task is
        written down as. width: units of a layer. reconstruction: what reading the
        support set again counts for.
    """

    pairs: nn.Module
    squeeze: nn.Module
    decoder: nn.Module
    _: KW_ONLY
    code: int = 16
    width: int = 128
    reconstruction: float = 1.0
    likelihood: Likelihood = Gaussian()

    kinds = ("reals", "bits")
    defaults = MetaTrainConfig(batch=16, optimizer="Adam", lr=1e-3)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        width, code = (
            build_args.get("width", cls.width),
            build_args.get("code", cls.code),
        )
        decoder = perceptron(spec.x_size + code, out_dim, width, 3)
        return {
            "pairs": PairEncoder(spec.x_size, spec.y_dim, width),
            "squeeze": perceptron(width, code, width, 1),
            "decoder": decoder,
        }

    def adapt(self, support: Examples) -> Tensor:
        return self.squeeze(self.pairs(support).mean(0))  # (code,)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return self.decoder(torch.cat([x.flatten(1), state.expand(len(x), -1)], -1))

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        code = self.adapt(task.support)
        outputs, again = (
            self.predict(code, task.query.x),
            self.predict(code, task.support.x),
        )
        reconstruction = self.likelihood.nll(again, task.support.y)
        metrics = {
            **self.likelihood.metrics(outputs, task.query.y),
            "reconstruction": reconstruction.detach(),
        }
        return self.likelihood.nll(
            outputs, task.query.y
        ) + self.reconstruction * reconstruction, metrics
