"""Few-shot classification with an adversarial generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.functional import functional_call
from innerloop.engine.options import Count, NonNegative, Positive
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.generative.features import normal
from innerloop.learners.metric.distances import class_means, squared_distance
from innerloop.nets.decoder import decoder
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.recurrent import LSTMCell
from innerloop.nets.registry import encoder, flat_features

State = tuple[Tensor, Tensor]  # prototypes, and the LSTM's state of every class


class MetaGAN(Learner):
    """Meta-GAN: a few-shot classifier that also detects generated examples.

    p(k | x) of ways + 1 classes, softmax over 0 (fake) and s_k = bias - scale |f(x) -
    c_k|^2, c_k the class means of a prototypical network; fake = G(noise, h_k), h_k the
    state of an LSTM after the support examples of class k

    Reference: Zhang, Che, Ghahramani, Bengio and Song 2018, "MetaGAN: an adversarial
    approach to few-shot learning", NeurIPS, eq. (2)-(8). The generator's loss is the
    non-saturating one of Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair,
    Courville and Bengio 2014, "Generative adversarial networks", arXiv:1406.2661,
    section 3.

    Objective: two losses. The classifier minimizes the query loss, and `adversarial`
    times the loss of telling real from fake; the generator, whose gradient the
    classifier does not receive, minimizes the loss of being classified as its class.
    The noise of fakes is drawn from torch's global generator, in training only.

    State: the prototypes (ways, d), and the LSTM's state of every class (ways, hidden).

    Args:
        encoder: the network f.
        generator: the network G.
        features: size of the features of f.
        noise: size of the noise for an example.
        hidden: size of the LSTM.
        fakes: fake examples of each class in a task.
        adversarial: weight of the loss that separates real from fake examples.
        scale: initial value of the learned scale of distances.
    """

    encoder: nn.Module
    generator: nn.Module
    features: int
    _: KW_ONLY
    noise: Count = 32
    hidden: Count = 128
    fakes: Count = 4
    adversarial: NonNegative = 0.2
    scale: Positive = 0.1
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    two_losses = True
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
        super().__post_init__()
        self.lstm = LSTMCell(self.features, self.hidden)
        self.log_scale = log_parameter(self.scale)
        self.bias = nn.Parameter(torch.tensor(0.0))
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"))
        noise = build_args.get("noise", cls.noise)
        hidden = build_args.get("hidden", cls.hidden)
        return {
            "encoder": body,
            "features": flat_features(body, spec),
            "generator": decoder(spec, noise + hidden),
        }

    def adapt(self, support: Examples) -> State:
        z = self.encoder(support.x)
        return class_means(z, support.y), self._class_states(z, support.y)

    def predict(self, state: State, x: Tensor) -> Tensor:
        return self._scores(self.encoder(x), state[0])

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        n, y = len(task.support.y), task.query.y
        z = self.encoder(torch.cat([task.support.x, task.query.x]))
        prototypes = class_means(z[:n], task.support.y)
        real = self._scores(z[n:], prototypes)
        loss, metrics = self.likelihood.nll(real, y), self.likelihood.metrics(real, y)
        # statistics are measured in evaluation mode, on real images alone
        if not self.training:
            return loss, metrics
        states = self._class_states(z[:n].detach(), task.support.y)
        noise = torch.randn_like(z.new_zeros(len(states), self.fakes, self.noise))
        fakes = self._generated(noise, states).flatten(0, 1)  # (ways * fakes, *x_shape)
        labels = torch.eye(len(states), device=y.device)
        labels = labels.repeat_interleave(self.fakes, 0)
        # of the classifier
        fake = self._scores(self.encoder(fakes.detach()), prototypes)
        real_loss = F.softplus(-real.logsumexp(-1)).mean()
        fake_loss = F.softplus(fake.logsumexp(-1)).mean()
        loss = loss + self.adversarial * (real_loss + fake_loss)
        # of the generator
        fixed = {name: p.detach() for name, p in self.encoder.named_parameters()}
        z = functional_call(self.encoder, fixed, (fakes,))
        scores = self._scores(z, prototypes.detach(), fixed=True)
        generator_loss = F.softplus(-scores.logsumexp(-1)).mean()
        generator_loss = generator_loss + Categorical().nll(scores, labels)
        taken_for_real = (fake.detach().logsumexp(-1) > 0).float().mean()
        return loss + generator_loss, {**metrics, "taken_for_real": taken_for_real}

    def generate(
        self, support: Examples, count: int, generator: torch.Generator
    ) -> Tensor:
        states = self.adapt(support)[1]
        noise = normal(generator, len(states), count, self.noise, like=states)
        return self._generated(noise, states)

    def _scores(self, z: Tensor, prototypes: Tensor, *, fixed: bool = False) -> Tensor:
        scale, bias = self.log_scale.exp(), self.bias
        if fixed:
            scale, bias = scale.detach(), bias.detach()
        return bias - scale * squared_distance(z, prototypes)  # (m, ways)

    def _class_states(self, z: Tensor, y: Tensor) -> Tensor:
        """The LSTM's state (ways, hidden) after the examples of every class."""
        z, ways = z.to(y.dtype), y.shape[1]
        h, c = self.lstm.start(z.new_zeros(ways, z.shape[1]))
        for example, label in zip(z, y, strict=True):
            next_h, next_c = self.lstm(example.expand(ways, -1), (h, c))
            own = label[:, None] > 0.5
            h, c = torch.where(own, next_h, h), torch.where(own, next_c, c)
        return h

    def _generated(self, noise: Tensor, states: Tensor) -> Tensor:
        """Noise (ways, count, noise) and states (ways, hidden) to inputs (ways, count,
        *x_shape).
        """
        each = states[:, None].expand(-1, noise.shape[1], -1).to(noise.dtype)
        code = torch.cat([noise, each], -1)
        x = widened(self.generator(code.flatten(0, 1))).unflatten(0, code.shape[:2])
        return x.sigmoid() if x.dim() == 5 else x  # images are in 0..1
