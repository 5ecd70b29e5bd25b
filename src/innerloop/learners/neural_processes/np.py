"""Neural processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.neural_processes.layers import Latent, PairEncoder
from innerloop.learners.neural_processes.process import LatentProcess
from innerloop.nets.decoder import perceptron


class NP(LatentProcess):
    """Neural process: a CNP with a latent variable for the uncertainty of a task.

    p(y | x) = mean over z of g(x, r, z), z from q(z | support), r = mean of h(x_i, y_i)

    Reference: Garnelo, Schwarz, Rosenbaum, Viola, Rezende, Eslami and Teh 2018, "Neural
    processes", arXiv:1807.01622, eq. (8). With r beside z, as in Kim, Mnih, Schwarz,
    Garnelo, Eslami, Rosenbaum, Vinyals and Teh 2019, "Attentive neural processes",
    arXiv:1901.05761, eq. (2)-(3).

    Objective: the negative evidence lower bound: the negative log-likelihood of support
    and query set under a z drawn from q(z | both), plus KL(q(z | both) || q(z |
    support)), both divided by the number of examples. In training, z is drawn from
    torch's global generator.

    State: r (width,), and samples of z (samples, latent).

    Args:
        pairs: the encoder h of an example.
        posterior: the network q.
        decoder: the network g.
        latent: size of z.
        width: units of the layers.
        samples: samples of z in a prediction, always from the same noise; the
            prediction is a Gaussian with the mean and the variance of their mixture.
    """

    home = "gp-curves"
    defaults = MetaTrainConfig(batch=16, optimizer="Adam", lr=1e-3)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        width = build_args.get("width", cls.width)
        latent = build_args.get("latent", cls.latent)
        return {
            "pairs": PairEncoder(spec.x_size, spec.y_dim, width),
            "posterior": Latent(spec.x_size, spec.y_dim, width, latent),
            "decoder": perceptron(spec.x_size + width + latent, out_dim, width, 3),
        }

    def represent(self, support: Examples) -> Tensor:
        return self.pairs(support).mean(0)  # (width,)

    def context(self, representation: Tensor, x: Tensor) -> Tensor:
        return representation.expand(x.shape[0], -1)
