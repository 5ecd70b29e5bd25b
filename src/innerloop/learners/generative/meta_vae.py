"""A variational autoencoder of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.options import Count, NonNegative
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.generative.features import Features, normal
from innerloop.learners.metric.distances import class_means
from innerloop.learners.neural_processes.layers import divergence
from innerloop.nets.decoder import decoder, perceptron

Gaussians = tuple[Tensor, Tensor]  # means and standard deviations


class MetaVAE(Learner):
    """Meta-VAE: classes are latent variables of a generative model.

    c ~ N(0, 1) for a class, z ~ p(z | c) and x ~ p(x | z, c) for an example; q(c | D)
    from the mean of the features of D, q(z | x, c); the predicted class is the one with
    the smallest KL(q(c | D_k) || q(c | x))

    Reference: Edwards and Storkey 2017, "Towards a neural statistician",
    arXiv:1606.02185, eq. (3)-(5) and section 5.3.

    Defaults differ from the paper: it has no classifier, `discriminative` 0.

    Objective: the negative evidence lower bound of all examples of a class, in nats per
    example, with q(c | D) from all of them or, for a random half of the classes in
    training, from the support examples alone; plus `discriminative` times the query
    loss of the classifier, as in Kingma, Rezende, Mohamed and Welling 2014,
    "Semi-supervised learning with deep generative models", arXiv:1406.5298, eq. (9). In
    the first half of training the weight of the divergences rises from 0 to 1
    (Sønderby, Raiko, Maaløe, Sønderby and Winther 2016, "Ladder variational
    autoencoders", arXiv:1602.02282). Latent variables and the halves are drawn from
    torch's global generator, in training only; otherwise means are used.

    State: means and standard deviations (ways, context) of q(c | D_k).

    Args:
        features: the network from an input to features.
        statistic: the network from their mean to q(c | D).
        prior: the network p(z | c).
        posterior: the network q(z | x, c).
        decoder: the network from c and z to x.
        context: size of c.
        latent: size of z.
        width: size of the features, and units of a layer; the image decoder's hidden
            layer has twice as many.
        maps: feature maps of the first layer of the image decoder.
        discriminative: weight of the query loss.
        pixels: distribution of x: "bernoulli" for brightness in 0..1, "gaussian" with
            variance 1 for anything else. By default chosen by the shape of inputs.
    """

    features: nn.Module
    statistic: nn.Module
    prior: nn.Module
    posterior: nn.Module
    decoder: nn.Module
    _: KW_ONLY
    context: Count = 64
    latent: Count = 16
    width: Count = 256
    maps: Count = 64
    discriminative: NonNegative = 10.0
    pixels: Literal["bernoulli", "gaussian"] = "bernoulli"
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(
        ways=20, shots=1, queries=4, batch=1, optimizer="Adam", lr=1e-3, clip=1000.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.divergence_weight = 1.0

    def on_progress(self, progress: float) -> None:
        self.divergence_weight = min(1.0, 2 * progress)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        width = build_args.get("width", cls.width)
        context = build_args.get("context", cls.context)
        latent = build_args.get("latent", cls.latent)
        maps = build_args.get("maps", cls.maps)
        pixels = "bernoulli" if spec.is_image else "gaussian"
        return {
            "features": Features(spec, width),
            "statistic": perceptron(width, 2 * context, width, 1),
            "decoder": decoder(spec, latent + context, maps, 2 * width),
            "prior": perceptron(context, 2 * latent, width, 1),
            "posterior": perceptron(width + context, 2 * latent, width, 1),
            "pixels": build_args.get("pixels", pixels),
        }

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {"fields": {"discriminative": 0.0}}

    def adapt(self, support: Examples) -> Gaussians:
        return self._contexts(self.features(support.x), support.y)

    def predict(self, state: Gaussians, x: Tensor) -> Tensor:
        return self._scores(state, self.features(x))

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        n = len(task.support.y)
        x = torch.cat([task.support.x, task.query.x])
        y = torch.cat([task.support.y, task.query.y])
        h = self.features(x)
        of_support, q = self._contexts(h[:n], y[:n]), self._contexts(h, y)
        outputs = self._scores(of_support, h[n:])
        weight = 1.0
        if self.training:
            weight = self.divergence_weight
            half = torch.rand_like(q[0][:, :1]) < 0.5
            mean = torch.where(half, of_support[0], q[0])
            q = mean, torch.where(half, of_support[1], q[1])
        error, divergences = self._bound(x, y, h, q)
        nll = self.likelihood.nll(outputs, task.query.y)
        metrics = self.likelihood.metrics(outputs, task.query.y)
        loss = self.discriminative * nll + error + weight * divergences
        return loss, {**metrics, "bound": -(error + divergences).detach()}

    def generate(
        self, support: Examples, count: int, generator: torch.Generator
    ) -> Tensor:
        mean, scale = (part[:, None] for part in self.adapt(support))
        noise = normal(generator, len(mean), count, mean.shape[-1], like=mean)
        c = mean + scale * noise  # (ways, count, context)
        mean, scale = _gaussians(self.prior(c))
        z = mean + scale * normal(generator, *mean.shape, like=mean)
        code = torch.cat([c, z], -1)
        x = self.decoder(code.flatten(0, 1)).unflatten(0, code.shape[:2])
        return x.sigmoid() if self.pixels == "bernoulli" else x

    def _contexts(self, h: Tensor, y: Tensor) -> Gaussians:
        """q(c | D_k), (ways, context), from features h (n, width)."""
        return _gaussians(self.statistic(class_means(h, y)))

    def _scores(self, contexts: Gaussians, h: Tensor) -> Tensor:
        mean, scale = _gaussians(
            self.statistic(h.to(contexts[0].dtype))
        )  # (m, context)
        return -divergence(contexts, (mean[:, None], scale[:, None]))  # (m, ways)

    def _bound(
        self, x: Tensor, y: Tensor, h: Tensor, q: Gaussians
    ) -> tuple[Tensor, Tensor]:
        """The two parts of the negative evidence lower bound, in nats per example, with
        q(c) (ways, context): reconstruction error and divergences.
        """
        c = y @ self._sample(q)  # (n, context)
        prior = _gaussians(self.prior(c))
        posterior = _gaussians(self.posterior(torch.cat([h.to(c.dtype), c], -1)))
        decoded = self.decoder(torch.cat([c, self._sample(posterior)], -1))
        decoded, x = decoded.to(x.dtype).flatten(1), x.flatten(1)
        if self.pixels == "bernoulli":
            error = F.binary_cross_entropy_with_logits(decoded, x, reduction="none")
        else:
            error = 0.5 * (decoded - x).square()
        standard = torch.zeros_like(q[0]), torch.ones_like(q[1])
        of_c = divergence(q, standard).sum() / len(x)
        return error.sum(-1).mean(), divergence(posterior, prior).mean() + of_c

    def _sample(self, q: Gaussians) -> Tensor:
        """A sample in training, else the mean."""
        return q[0] + q[1] * torch.randn_like(q[0]) if self.training else q[0]


def _gaussians(raw: Tensor) -> Gaussians:
    mean, scale = widened(raw).chunk(2, -1)
    return mean, 0.01 + F.softplus(scale)
