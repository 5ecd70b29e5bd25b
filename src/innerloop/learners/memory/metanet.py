"""Meta networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.learned_update_rules import preprocessed
from innerloop.nets.log_parameter import positive
from innerloop.nets.recurrent import LSTMCell
from innerloop.nets.registry import reading

Memory = tuple[Tensor, Tensor, Tensor]
# hidden units of the networks that turn gradients into weights (section 3.1)
CODER = 20


class MetaNet(FeatureLearner):
    """Meta networks: slow weights are learned over tasks, fast ones are made for each
    example from the gradient of its loss, and remembered.

    W*_i = m(grad_W L(b(W, x_i), y_i)), kept under r_i = u(Q, Q*, x_i), Q* = d(grad_Q
    L_i); for a query, W* = softmax(scale cosine(r_i, r)) W*_i Munkhdalai and Yu 2017,
    "Meta networks", arXiv:1703.00837, Algorithm 1
    State: the fast weights of every support example (n, weights), the keys (n, d) that
    they are kept under, and the fast weights of u.

    encoder: slow features of an input, shared by u and b; only the fully connected
    layers above have fast weights. hidden: units of these. scale: where the learned
    sharpness of attention begins; the paper has 1, fixed.
    """

    encoder: nn.Module
    features: int
    y_dim: int
    out_dim: int
    _: KW_ONLY
    hidden: int = 64
    scale: float = 10.0
    likelihood: Likelihood = Categorical()

    contextual: ClassVar[bool] = True  # d reads the gradients in order
    defaults = MetaTrainConfig(queries=5, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        def slow(out: int, into: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(out, into) / into**0.5)

        # Q, and what its loss is taken from
        self.embedding, self.embedded = (
            slow(self.hidden, self.features),
            slow(self.out_dim, self.hidden),
        )
        # W
        self.layer, self.head = (
            slow(self.hidden, self.features),
            slow(self.out_dim, self.hidden),
        )
        self.lstm, self.read = LSTMCell(2, CODER), nn.Linear(CODER, 1)  # d
        # m
        self.coder = nn.Sequential(
            nn.Linear(2, CODER),
            nn.ReLU(),
            nn.Linear(CODER, CODER),
            nn.ReLU(),
            nn.Linear(CODER, 1),
        )
        self.log_scale = positive(self.scale, "the scale of attention")
        super().__post_init__()

    fixed_ways = True

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        return reading(spec, out_dim, build_args.get("encoder"), "mlp")

    def embed(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def learned(self, z: Tensor, y: Tensor) -> Memory:
        def embedding_loss(Q: Tensor, z: Tensor, y: Tensor) -> Tensor:
            return self.likelihood.nll(
                (F.relu(z @ Q.T) @ self.embedded.T)[None], y[None]
            )

        def task_loss(W: tuple[Tensor, Tensor], z: Tensor, y: Tensor) -> Tensor:
            return self.likelihood.nll((F.relu(z @ W[0].T) @ W[1].T)[None], y[None])

        z = z.to(y.dtype)
        # (n, hidden, features)
        gradients = torch.vmap(torch.func.grad(embedding_loss), (None, 0, 0))(
            self.embedding, z, y
        )
        state = self.lstm.start(preprocessed(gradients[0]))
        for gradient in gradients:
            state = self.lstm(preprocessed(gradient), state)
        fast = self.read(state[0])[..., 0]  # Q* (hidden, features)
        of_layer, of_head = torch.vmap(torch.func.grad(task_loss), (None, 0, 0))(
            (self.layer, self.head), z, y
        )
        # (n, weights)
        gradients = torch.cat([of_layer.flatten(1), of_head.flatten(1)], 1)
        return self.coder(preprocessed(gradients))[..., 0], self._key(fast, z), fast

    def _key(self, fast: Tensor, z: Tensor) -> Tensor:
        # (m, hidden)
        return F.normalize(F.relu(z @ self.embedding.T) + F.relu(z @ fast.T), dim=-1)

    def answers(self, state: Memory, z: Tensor) -> Tensor:
        kept, keys, fast = state
        z = z.to(keys.dtype)
        # (m, n)
        attention = (self.log_scale.exp() * self._key(fast, z) @ keys.T).softmax(-1)
        of_layer, of_head = (attention @ kept).split(
            [self.layer.numel(), self.head.numel()], -1
        )
        # (m, hidden)
        own = (of_layer.view(-1, *self.layer.shape) @ z[..., None])[..., 0]
        h = F.relu(z @ self.layer.T) + F.relu(own)
        # (m, out_dim)
        return (
            h @ self.head.T
            + (of_head.view(-1, *self.head.shape) @ h[..., None])[..., 0]
        )
