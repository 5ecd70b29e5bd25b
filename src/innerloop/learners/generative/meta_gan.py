"""Few-shot classification sharpened by an adversary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.functional import functional_call
from innerloop.engine.precision import widened
from innerloop.learners.generative.example_generator import normal
from innerloop.learners.metric.distances import class_means, squared_distance
from innerloop.nets.decoder import decoder
from innerloop.nets.log_parameter import positive
from innerloop.nets.recurrent import LSTMCell
from innerloop.nets.registry import encoder, flat_features


class MetaGAN(Learner):
    """Meta-GAN: a generator makes fake examples of a task's classes, and the few-shot
    classifier must tell them from real ones, too.

    p(k | x) of ways + 1 classes, softmax over 0 (fake) and s_k = bias - scale |f(x) -
    c_k|^2, c_k the class means of a prototypical network; fake = G(noise, h_k), h_k the
    state of an LSTM that has read the support examples of class k
    Zhang, Che, Ghahramani, Bengio and Song 2018, "MetaGAN: an adversarial approach to
    few-shot learning", NeurIPS, eq. (2)-(8); the loss of the generator is the
    non-saturating one of Goodfellow et al. 2014, arXiv:1406.2661, section 3
    Its objective is two in one: the classifier lowers the query loss, and `adversarial`
    times that of telling real from fake; the generator, whose gradient the classifier
    never sees, lowers that of being taken for its class.
    State: the prototypes (ways, d), and what the LSTM has read of every class (ways,
    hidden).

    encoder: f. generator: G. noise: how many random numbers G gets. hidden: of the
    LSTM. fakes: of each class in a task. adversarial: its weight. scale: where the
    learned scale of distances begins.
    """

    encoder: nn.Module
    generator: nn.Module
    features: int
    _: KW_ONLY
    noise: int = 32
    hidden: int = 128
    fakes: int = 4
    adversarial: float = 0.2
    scale: float = 0.1
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    two_losses: ClassVar[bool] = True  # the gradient is not that of the loss
    defaults = MetaTrainConfig(
        ways=20,
        shots=1,
        queries=4,
        groups=0,
        batch=1,
        optimizer="AdamW",
        lr=1e-3,
        weight_decay=0.01,
    )

    def __post_init__(self) -> None:
        self.lstm = LSTMCell(self.features, self.hidden)
        self.log_scale, self.bias = (
            positive(self.scale, "the scale of distances"),
            nn.Parameter(torch.tensor(0.0)),
        )
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"))
        into = build_args.get("noise", cls.noise) + build_args.get("hidden", cls.hidden)
        return {
            "encoder": body,
            "features": flat_features(body, spec),
            "generator": decoder(spec, into),
        }

    def adapt(self, support: Examples) -> tuple[Tensor, Tensor]:
        z = self.encoder(support.x)
        return class_means(z, support.y), self._read(z, support.y)

    def predict(self, state: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        return self._scores(self.encoder(x), state[0])

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        shots, y = len(task.support.y), task.query.y
        z = self.encoder(torch.cat([task.support.x, task.query.x]))
        prototypes, read = (
            class_means(z[:shots], task.support.y),
            self._read(z[:shots].detach(), task.support.y),
        )
        real = self._scores(z[shots:], prototypes)
        noise = z.new_zeros(len(read), self.fakes, self.noise)
        # (ways, fakes, *x_shape)
        made = self._made(torch.randn_like(noise) if self.training else noise, read)
        loss, metrics = self.likelihood.nll(real, y), self.likelihood.metrics(real, y)
        # nor are statistics of fakes mixed with those of real images
        if not self.training:
            return loss, metrics
        wanted = torch.eye(len(read), device=y.device).repeat_interleave(self.fakes, 0)
        fake = self._scores(self.encoder(made.detach().flatten(0, 1)), prototypes)
        loss = loss + self.adversarial * (
            F.softplus(-real.logsumexp(-1)).mean()
            + F.softplus(fake.logsumexp(-1)).mean()
        )
        fixed = {name: p.detach() for name, p in self.encoder.named_parameters()}
        fooled = self._scores(
            functional_call(self.encoder, fixed, (made.flatten(0, 1),)),
            prototypes.detach(),
            still=True,
        )
        cheat = F.softplus(-fooled.logsumexp(-1)).mean() + Categorical().nll(
            fooled, wanted
        )
        return loss + cheat, {
            **metrics,
            "taken_for_real": (fake.detach().logsumexp(-1) > 0).float().mean(),
        }

    def imagine(
        self, support: Examples, count: int, generator: torch.Generator
    ) -> Tensor:
        read = self.adapt(support)[1]
        return self._made(
            normal(generator, len(read), count, self.noise, like=read), read
        )

    def _scores(self, z: Tensor, prototypes: Tensor, *, still: bool = False) -> Tensor:
        scale, bias = self.log_scale.exp(), self.bias
        # (m, ways)
        return (bias.detach() if still else bias) - (
            scale.detach() if still else scale
        ) * squared_distance(z, prototypes)

    def _read(self, z: Tensor, y: Tensor) -> Tensor:
        """What the LSTM has read of every class (ways, hidden), example by example."""
        z = z.to(y.dtype)
        h, c = self.lstm.start(z.new_zeros(y.shape[1], z.shape[1]))
        for example, label in zip(z, y, strict=True):
            after = self.lstm(example.expand(y.shape[1], -1), (h, c))
            h, c = (
                torch.where(label[:, None] > 0.5, new, old)
                for new, old in zip(after, (h, c), strict=True)
            )
        return h

    def _made(self, noise: Tensor, read: Tensor) -> Tensor:
        """Noise (ways, count, noise) and what was read (ways, hidden) to inputs (ways,
        count, *x_shape).
        """
        code = torch.cat(
            [noise, read[:, None].expand(-1, noise.shape[1], -1).to(noise.dtype)], -1
        )
        x = widened(self.generator(code.flatten(0, 1))).unflatten(0, code.shape[:2])
        return x.sigmoid() if x.dim() == 5 else x  # images are in 0..1
