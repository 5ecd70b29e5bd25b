"""Meta networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.options import Count, Positive
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.learned_update_rules import preprocessed
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.recurrent import LSTMCell
from innerloop.nets.registry import reading

# fast weights (n, weights), their keys (n, hidden), and the fast weights of u
Memory = tuple[Tensor, Tensor, Tensor]
CODER = 20  # hidden units of the networks from gradients to weights, section 3.1


class MetaNet(FeatureLearner):
    """Meta networks: fast weights computed from the gradient of each example.

    W*_i = m(grad_W L(b(W, x_i), y_i)), stored under the key r_i = u(Q, Q*, x_i), where
    Q* = d(grad_Q L_i); for a query, W* = sum_i softmax_i(scale * cosine(r_i, r)) W*_i

    Reference: Munkhdalai and Yu 2017, "Meta networks", arXiv:1703.00837, Algorithm 1.

    Defaults differ from the paper: `scale` is 1 there, fixed.

    State: the fast weights of every support example (n, weights), their keys (n,
    hidden), and the fast weights of u (hidden, features).

    Args:
        encoder: slow features of an input, shared by u and b; only the fully connected
            layers above it have fast weights.
        features: size of the features.
        y_dim: size of a target.
        out_dim: number of outputs.
        hidden: units of the layers with fast weights.
        scale: initial value of the learned sharpness of attention.
    """

    encoder: nn.Module
    features: int
    y_dim: int
    out_dim: int
    _: KW_ONLY
    hidden: Count = 64
    scale: Positive = 10.0
    likelihood: Likelihood = Categorical()

    contextual = True  # d reads the gradients in order
    fixed_ways = True
    defaults = MetaTrainConfig(queries=5, optimizer="Adam", lr=1e-3)

    def __post_init__(self) -> None:
        super().__post_init__()

        def slow(out: int, size: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(out, size) / size**0.5)

        # Q, and the layer for its loss
        self.embedding = slow(self.hidden, self.features)
        self.embedding_head = slow(self.out_dim, self.hidden)
        # W
        self.layer = slow(self.hidden, self.features)
        self.head = slow(self.out_dim, self.hidden)
        # d
        self.lstm = LSTMCell(2, CODER)
        self.read = nn.Linear(CODER, 1)
        # m
        self.coder = nn.Sequential(
            nn.Linear(2, CODER),
            nn.ReLU(),
            nn.Linear(CODER, CODER),
            nn.ReLU(),
            nn.Linear(CODER, 1),
        )
        self.log_scale = log_parameter(self.scale)
        self.eval()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        return reading(spec, out_dim, build_args.get("encoder"), "mlp")

    @classmethod
    def paper(cls) -> dict[str, Any]:
        return {"fields": {"scale": 1.0}}

    def embed(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def learned(self, z: Tensor, y: Tensor) -> Memory:
        def embedding_loss(Q: Tensor, z: Tensor, y: Tensor) -> Tensor:
            outputs = F.relu(z @ Q.T) @ self.embedding_head.T
            return self.likelihood.nll(outputs[None], y[None])

        def task_loss(W: tuple[Tensor, Tensor], z: Tensor, y: Tensor) -> Tensor:
            outputs = F.relu(z @ W[0].T) @ W[1].T
            return self.likelihood.nll(outputs[None], y[None])

        z = z.to(y.dtype)
        each = (None, 0, 0)  # one gradient for every example
        # (n, hidden, features)
        grads = torch.vmap(torch.func.grad(embedding_loss), each)(self.embedding, z, y)
        state = self.lstm.start(preprocessed(grads[0]))
        for grad in grads:
            state = self.lstm(preprocessed(grad), state)
        fast = self.read(state[0])[..., 0]  # Q* (hidden, features)
        slow = (self.layer, self.head)
        of_layer, of_head = torch.vmap(torch.func.grad(task_loss), each)(slow, z, y)
        grads = torch.cat([of_layer.flatten(1), of_head.flatten(1)], 1)  # (n, weights)
        return self.coder(preprocessed(grads))[..., 0], self._key(fast, z), fast

    def _key(self, fast: Tensor, z: Tensor) -> Tensor:
        key = F.relu(z @ self.embedding.T) + F.relu(z @ fast.T)
        return F.normalize(key, dim=-1)  # (m, hidden)

    def answers(self, state: Memory, z: Tensor) -> Tensor:
        stored, keys, fast = state
        z = z.to(keys.dtype)
        scores = self.log_scale.exp() * self._key(fast, z) @ keys.T
        weights = scores.softmax(-1) @ stored  # (m, weights)
        sizes = [self.layer.numel(), self.head.numel()]
        of_layer, of_head = weights.split(sizes, -1)
        W = of_layer.view(-1, *self.layer.shape)
        h = F.relu(z @ self.layer.T) + F.relu((W @ z[..., None])[..., 0])  # (m, hidden)
        W = of_head.view(-1, *self.head.shape)
        return h @ self.head.T + (W @ h[..., None])[..., 0]  # (m, out_dim)
