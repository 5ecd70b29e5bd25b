"""A generative flow from noise to new examples of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, Task, TaskSpec
from innerloop.engine.options import Count, Fraction, NonNegative, Positive
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.generative.features import normal
from innerloop.learners.metric.distances import class_means, squared_distance
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.velocity import Velocity, velocity

Condition = tuple[Tensor, Tensor]  # tokens of examples, and which of them are used


class FlowMatching(Learner):
    """Flow matching: new examples of a class by a learned flow from noise.

    dx/dt = v(x, t | D_k) from x_0 ~ N(0, 1) to a new example x_1 of class k, D_k its
    support examples, to whose features v attends. Classes are predicted by the distance
    to the mean of these features, as in a prototypical network.

    Reference: Lipman, Chen, Ben-Hamu, Nickel and Le 2023, "Flow matching for generative
    modeling", arXiv:2210.02747, eq. (20)-(23), with the straight paths of Liu, Gong and
    Liu 2023, "Flow straight and fast: learning to generate and transfer data with
    rectified flow", arXiv:2209.03003, eq. (1).

    Conditioning on a set of examples as in Giannone, Nielsen and Winther 2022,
    "Few-shot diffusion models", arXiv:2205.15463; guidance as in Ho and Salimans 2022,
    "Classifier-free diffusion guidance", arXiv:2207.12598, eq. (6).

    Objective: |v(x_t, t | D_k) - (x_1 - x_0)|^2 per value, x_t = (1 - t) x_0 + t x_1,
    for the query examples x_1; plus `discriminative` times the query loss of the
    classifier, for as many query examples as classes. t is the sigmoid of a normal
    number (Esser et al. 2024, "Scaling rectified flow transformers for high-resolution
    image synthesis", arXiv:2403.03206, section 3.1). D_k are a random number of the
    support examples, or none, with probability `unconditional`. All are drawn from
    torch's global generator, in training only; in evaluation mode the loss is that of
    the classifier, for all query examples.

    State: the mean features (ways, features) of every class.

    Args:
        net: the network v, with the network that reads support examples.
        width: size of the features of a place in an example, a multiple of 32.
        depth: blocks of v at each resolution.
        examples: the largest number of support examples of a class that v uses;
            `generate` uses random ones.
        steps: steps of the midpoint method from noise to an example.
        guidance: how far v is extrapolated from the velocity without support examples
            to that with them; 1 for no extrapolation.
        unconditional: share of the classes in training without support examples.
        discriminative: weight of the query loss.
        scale: initial value of the learned scale of distances.
    """

    net: Velocity
    _: KW_ONLY
    width: Count = 128
    depth: Count = 2
    examples: Count = 5
    steps: Count = 5
    guidance: NonNegative = 2.0
    unconditional: Fraction = 0.1
    discriminative: NonNegative = 0.1
    scale: Positive = 10.0
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    named_networks = ()
    defaults = MetaTrainConfig(
        ways=4, shots=5, queries=10, batch=1, lr=2e-3, weight_decay=0.01, clip=1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.log_scale = log_parameter(self.scale)
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        width = build_args.get("width", cls.width)
        return {"net": velocity(spec, width, build_args.get("depth", cls.depth))}

    def adapt(self, support: Examples) -> Tensor:
        return class_means(self.net.codes(self.net.encode(support.x)), support.y)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return self._scores(state, self.net.codes(self.net.encode(x)))

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        (x, y), query = task.support, task.query
        n, m = len(x), y.shape[1] if self.training else len(query.x)
        tokens = self.net.encode(torch.cat([x, query.x[:m]]))
        codes = self.net.codes(tokens)
        outputs = self._scores(class_means(codes[:n], y), codes[n:])
        nll = self.likelihood.nll(outputs, query.y[:m])
        metrics = self.likelihood.metrics(outputs, query.y[:m])
        if not self.training:
            return nll, metrics
        condition = self._condition(tokens[:n], y, torch.rand_like(y.T))
        index, own = chosen(query.y, len(query.y) // query.y.shape[1])
        error = self._velocity_error(query.x[index], condition)
        error = (error * own).sum() / own.sum()
        loss = error + self.discriminative * nll
        return loss, {**metrics, "velocity_error": error.detach()}

    def generate(
        self, support: Examples, count: int, generator: torch.Generator
    ) -> Tensor:
        y = support.y
        order = torch.rand(y.T.shape, generator=generator).to(y)
        condition = self._condition(self.net.encode(support.x), y, order)
        x = normal(generator, y.shape[1], count, *support.x.shape[1:], like=support.x)
        for step in range(self.steps):
            t, h = step / self.steps, 1 / self.steps
            # no step evaluates the velocity at t = 1, where inputs have no noise left
            half = x + h / 2 * self._velocity(x, t, condition)
            x = x + h * self._velocity(half, t + h / 2, condition)
        return self.net.to_inputs(x)

    def _scores(self, prototypes: Tensor, codes: Tensor) -> Tensor:
        distances = squared_distance(codes, prototypes) / codes.shape[1]
        return -self.log_scale.exp() * distances  # (m, ways)

    def _condition(self, tokens: Tensor, y: Tensor, order: Tensor) -> Condition:
        """The condition of every class from tokens (n, places, width), one-hot y (n,
        ways) and numbers in 0..1 (ways, n), by which support examples are chosen.
        """
        index, used = chosen(y, min(self.examples, len(y)), order)
        if self.training:
            some = torch.rand_like(y[0])[:, None] * used.sum(1, keepdim=True)
            place = torch.arange(used.shape[1], device=some.device)
            used = used * (place < some.ceil())
            used = used * (torch.rand_like(y[0])[:, None] >= self.unconditional)
        return tokens[index], used

    def _velocity_error(self, x: Tensor, condition: Condition) -> Tensor:
        """The squared error of the velocity per value, for each of x (ways, n,
        *x_shape), at random times and noise.
        """
        x = self.net.from_inputs(x)
        noise = torch.randn_like(x)
        t = torch.randn_like(x.flatten(2)[..., 0]).sigmoid()
        at = t.view(*t.shape, *[1] * (x.dim() - 2))
        found = self.net(noise + at * (x - noise), t, *condition)
        return (widened(found) - (x - noise)).square().flatten(2).mean(-1)

    def _velocity(self, x: Tensor, t: float, condition: Condition) -> Tensor:
        """The velocity of x (ways, n, *x_shape), extrapolated by `guidance`."""
        times = torch.full_like(x.flatten(2)[..., 0], t)
        found = widened(self.net(x, times, *condition))
        if self.guidance == 1:
            return found
        tokens, used = condition
        without = widened(self.net(x, times, tokens, torch.zeros_like(used)))
        return without + self.guidance * (found - without)


def chosen(y: Tensor, count: int, order: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """`count` examples of each class by one-hot y (n, ways), those with the largest
    `order` (ways, n) in 0..1: their numbers (ways, count), and whether they are of the
    class, which has fewer otherwise.
    """
    index = (2 * y.T + order).topk(count).indices
    return index, y.T.gather(1, index)
