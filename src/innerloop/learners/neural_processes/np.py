"""Neural processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.task import Examples, TaskSpec
from innerloop.learners.neural_processes.layers import Latent, PairEncoder
from innerloop.learners.neural_processes.process import LatentProcess
from innerloop.nets.decoder import perceptron


class NP(LatentProcess):
    """Neural process: beside a mean of encoded examples, a random variable stands for
    what the support set leaves open about the whole task.

    p(y | x) = mean over z of g(x, r, z), z from q(z | support), r = mean of h(x_i, y_i)
    Garnelo, Schwarz, Rosenbaum, Viola, Rezende, Eslami and Teh 2018, "Neural
    processes", arXiv:1807.01622, eq. (8); with r beside z, as in Kim et al. 2019,
    arXiv:1901.05761, eq. (2)-(3)
    Its objective is the evidence bound: the negative log-likelihood of support and
    query set under a z drawn from q(z | both), plus KL(q(z | both) || q(z | support)),
    both divided by the number of these examples.
    State: r (width,), and draws of z (draws, latent).

    pairs: h. posterior: q. decoder: g. latent: the size of z. width: units of a layer.
        draws: of z in a prediction, always from the same noise; the answer is a
        Gaussian with the mean and the variance of their mixture.
    """

    defaults = MetaTrainConfig(batch=16, optimizer="Adam", lr=1e-3)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        width, latent = (
            build_args.get("width", cls.width),
            build_args.get("latent", cls.latent),
        )
        return {
            "pairs": PairEncoder(spec.x_size, spec.y_dim, width),
            "posterior": Latent(spec.x_size, spec.y_dim, width, latent),
            "decoder": perceptron(spec.x_size + width + latent, out_dim, width, 3),
        }

    def told(self, support: Examples) -> Tensor:
        return self.pairs(support).mean(0)  # (width,)

    def found(self, told: Tensor, x: Tensor) -> Tensor:
        return told.expand(len(x), -1)
