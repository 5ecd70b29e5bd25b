"""A variational autoencoder of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.precision import widened
from innerloop.learners.generative.example_generator import Features, normal
from innerloop.learners.metric.distances import class_means
from innerloop.learners.neural_processes.layers import divergence
from innerloop.nets.decoder import decoder, perceptron

Gaussians = tuple[Tensor, Tensor]  # means and standard deviations


class MetaVAE(Learner):
    """Meta-VAE: a class is a random variable that its examples are generated from;
    learned without labels beyond "these belong together".

    c ~ N(0, 1) for a class, z ~ p(z | c) and x ~ p(x | z, c) for an example; q(c | D)
    from the mean of the features of D, q(z | x, c)
    A query belongs to the class with the smallest KL(q(c | D_k) || q(c | x)).
    Edwards and Storkey 2017, "Towards a neural statistician", arXiv:1606.02185, eq.
    (3)-(5) and section 5.3
    Its objective is the evidence bound of all examples of a class, in nats an example,
    with q(c | D) from all of them or, for half of the classes in training, from the
    support examples alone; and `discriminative` times the query loss of the classifier,
    as in Kingma et al. 2014, arXiv:1406.5298, eq. (9). In the first half of training
    the weight of the divergences rises from 0 to 1 (Sonderby et al. 2016,
    arXiv:1602.02282). State: means and standard deviations (ways, context) of q(c |
    D_k).

    features: of an input. statistic: from their mean to q(c | D). prior, posterior: of
        z. decoder: from c and z to x. context, latent: numbers in c and in z. width:
        features, and units of a layer. discriminative: the weight of the query loss;
        the statistician has 0. pixels: x is brightness in 0..1 ("bernoulli"), or
        anything ("gaussian", variance 1), which `build` takes for vectors.
    """

    features: nn.Module
    statistic: nn.Module
    prior: nn.Module
    posterior: nn.Module
    decoder: nn.Module
    _: KW_ONLY
    context: int = 64
    latent: int = 16
    width: int = 256
    discriminative: float = 10.0
    pixels: Literal["bernoulli", "gaussian"] = "bernoulli"
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(
        ways=20, shots=1, queries=4, batch=1, optimizer="Adam", lr=1e-3, clip=1000.0
    )

    def __post_init__(self) -> None:
        self.weight = 1.0  # of the divergences
        super().__post_init__()

    def on_progress(self, progress: float) -> None:
        self.weight = min(1.0, 2 * progress)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        width, context, latent = (
            build_args.get(name, getattr(cls, name))
            for name in ("width", "context", "latent")
        )
        return {
            "features": Features(spec, width),
            "statistic": perceptron(width, 2 * context, width, 1),
            "decoder": decoder(spec, latent + context),
            "prior": perceptron(context, 2 * latent, width, 1),
            "posterior": perceptron(width + context, 2 * latent, width, 1),
            "pixels": build_args.get(
                "pixels", "bernoulli" if spec.is_image else "gaussian"
            ),
        }

    def adapt(self, support: Examples) -> Gaussians:
        return self._classes(self.features(support.x), support.y)

    def predict(self, state: Gaussians, x: Tensor) -> Tensor:
        return self._scores(state, self.features(x))

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        shots, x, y = (
            len(task.support.y),
            torch.cat([task.support.x, task.query.x]),
            torch.cat([task.support.y, task.query.y]),
        )
        h = self.features(x)
        some, classes = self._classes(h[:shots], y[:shots]), self._classes(h, y)
        outputs = self._scores(some, h[shots:])
        if self.training:
            coin = torch.rand_like(classes[0][:, :1]) < 0.5
            classes = (
                torch.where(coin, some[0], classes[0]),
                torch.where(coin, some[1], classes[1]),
            )
        error, divergences = self._bound(x, y, h, classes)
        loss = (
            self.discriminative * self.likelihood.nll(outputs, task.query.y)
            + error
            + (self.weight if self.training else 1.0) * divergences
        )
        return loss, {
            **self.likelihood.metrics(outputs, task.query.y),
            "bound": -(error + divergences).detach(),
        }

    def imagine(
        self, support: Examples, count: int, generator: torch.Generator
    ) -> Tensor:
        mean, scale = self.adapt(support)
        # (ways, count, context)
        c = mean[:, None] + scale[:, None] * normal(
            generator, len(mean), count, mean.shape[1], like=mean
        )
        mean, scale = _gaussians(self.prior(c))
        code = torch.cat(
            [c, mean + scale * normal(generator, *mean.shape, like=mean)], -1
        )
        x = self.decoder(code.flatten(0, 1)).unflatten(0, code.shape[:2])
        return x.sigmoid() if self.pixels == "bernoulli" else x

    def _classes(self, h: Tensor, y: Tensor) -> Gaussians:
        return _gaussians(self.statistic(class_means(h, y)))  # (ways, context)

    def _scores(self, classes: Gaussians, h: Tensor) -> Tensor:
        mean, scale = _gaussians(self.statistic(h.to(classes[0].dtype)))  # (m, context)
        return -divergence(classes, (mean[:, None], scale[:, None]))  # (m, ways)

    def _bound(
        self, x: Tensor, y: Tensor, h: Tensor, q: Gaussians
    ) -> tuple[Tensor, Tensor]:
        """The two parts of the evidence bound, with the signs turned, in nats an
        example, with q(c) (ways, context): error and divergences.
        """
        c = y @ self._drawn(q)  # (n, context)
        z_prior, z_posterior = (
            _gaussians(self.prior(c)),
            _gaussians(self.posterior(torch.cat([h.to(c.dtype), c], -1))),
        )
        made = (
            self.decoder(torch.cat([c, self._drawn(z_posterior)], -1))
            .to(x.dtype)
            .flatten(1)
        )
        if self.pixels == "bernoulli":
            error = F.binary_cross_entropy_with_logits(
                made, x.flatten(1), reduction="none"
            )
        else:
            error = 0.5 * (made - x.flatten(1)).square()
        of_c = divergence(
            q, (torch.zeros_like(q[0]), torch.ones_like(q[1]))
        ).sum() / len(x)
        return error.sum(-1).mean(), divergence(z_posterior, z_prior).mean() + of_c

    def _drawn(self, q: Gaussians) -> Tensor:
        return q[0] + q[1] * torch.randn_like(q[0]) if self.training else q[0]


def _gaussians(raw: Tensor) -> Gaussians:
    mean, scale = widened(raw).chunk(2, -1)
    return mean, 0.01 + F.softplus(scale)
