"""Pre-training, meta-training and fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.augmentation import augmented
from innerloop.engine.functional import functional_call, trainable_names
from innerloop.engine.gradient_descent import Tensors, adam
from innerloop.engine.mapping import mapped
from innerloop.engine.options import CountOrZero, NonNegative, Positive
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.learners.metric.distances import class_means, cosine_similarity
from innerloop.learners.metric.protonet import ProtoNet, rotated_loss
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.registry import encoder

PROTOTYPES = "prototypes"  # beside the weights in a state


class PMF(FeatureLearner):
    """PMF: pre-train, meta-train by prototypes, fine-tune in a task.

    p(class k | x) = softmax(scale * cos(f(x), c_k)), c_k the mean of f over the support
    examples of k; Adam steps on f lower -log p(y | changed copy of x) of these examples

    Reference: Hu, Li, Stühmer, Kim and Hospedales 2022, "Pushing the limits of simple
    pipelines for few-shot learning: external data and fine-tuning make a difference",
    arXiv:2204.07305, section 3.

    For frozen vectors (`efficientnet`), the adapter on top of them is trained and
    fine-tuned; for `efficientnet:all`, the network itself. The authors choose
    `inner_lr` in every domain: `innerloop test RUN --split val --steps 20` helps.

    Defaults differ from the paper: tasks as for ProtoNet, fewer steps, fixed colors.

    Objective: the query loss before any step, by ProtoNet's rotated support sets.

    State: adapted weights, a dict name -> tensor, and "prototypes" (ways, d).

    Args:
        encoder: the network f.
        tokens: whether inputs are texts of tokens.
        scale: initial value of the learned scale of cosine similarities.
        inner_lr: step size of Adam.
        inner_steps: number of steps; without, it is a ProtoNet with cosines.
        noise: length of the noise in copies of vectors, as a fraction of theirs.
    """

    encoder: nn.Module
    tokens: bool
    _: KW_ONLY
    scale: Positive = 10.0
    inner_lr: NonNegative = 0.0001
    inner_steps: CountOrZero = 20
    noise: NonNegative = 0.5
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = ProtoNet.defaults

    def __post_init__(self) -> None:
        self.log_scale = log_parameter(self.scale)
        super().__post_init__()

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        texts = TaskSpec("classes", (12,), 5, vocabulary=100)
        return (*super().specs(), texts)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        body = encoder(spec, build_args.get("encoder"), "conv6", "wide-mlp")
        return {"encoder": body, "tokens": spec.vocabulary > 0}

    @classmethod
    def paper(cls) -> dict[str, Any]:
        tasks = {"ways": 5, "shots": 5, "queries": 15, "groups": 0}
        return {"fields": {"inner_steps": 50}, "config": tasks}

    def embed(self, x: Tensor) -> Tensor:
        return self.encoder(x).flatten(1)

    def learned(self, z: Tensor, y: Tensor) -> Tensors:
        return {PROTOTYPES: class_means(z, y)}

    def answers(self, state: Tensors, z: Tensor) -> Tensor:
        return self.compare(z, state[PROTOTYPES])

    def compare(self, z: Tensor, prototypes: Tensor) -> Tensor:
        """Logits (m, k) of features z (m, d) for prototypes (k, d)."""
        return self.log_scale.exp() * cosine_similarity(z, prototypes)

    def outcome(
        self, z: Tensor, y: Tensor, query_z: Tensor, query_y: Tensor
    ) -> tuple[Tensor, Metrics]:
        z, labels = torch.cat([z, query_z]), torch.cat([y, query_y])
        return rotated_loss(z, labels, len(y), self.compare, self.likelihood)

    def adapt(self, support: Examples) -> Tensors:
        weights = next(islice(self._descent(support), self.inner_steps, None))
        return self._state(weights, support)

    def trajectory(self, support: Examples, steps: int) -> Iterator[Tensors]:
        for weights in islice(self._descent(support), steps + 1):
            yield self._state(weights, support)

    def set_steps(self, steps: int) -> None:
        self.inner_steps = steps

    def predict(self, state: Tensors, x: Tensor) -> Tensor:
        weights = {name: w for name, w in state.items() if name != PROTOTYPES}
        return self.answers(state, self._features(weights, x))

    def mapped(self, function: Callable[..., Any], *trees: Any) -> Any:
        # the copies of a task are the same within a batch of tasks as alone
        return mapped(self, function, *trees, randomness="same")

    def _descent(self, support: Examples) -> Iterator[Tensors]:
        """The weights that are not frozen after 0, 1, 2, ... steps."""
        generator = torch.Generator().manual_seed(0)
        # sorted, so that the order of the examples does not matter
        key = torch.randn(support.x[0].numel(), generator=generator).to(support.x)
        x, y = (part[(support.x.flatten(1) * key).sum(1).argsort()] for part in support)

        def loss(weights: Tensors) -> Tensor:
            copies = augmented(x, self.tokens, self.noise, generator)
            z, changed = self._features(weights, torch.cat([x, copies])).chunk(2)
            return self.likelihood.nll(self.compare(changed, class_means(z, y)), y)

        weights = dict(self.encoder.named_parameters())
        start = {name: weights[name] for name in trainable_names(self.encoder)}
        return adam(loss, start, self.inner_lr)

    def _state(self, weights: Tensors, support: Examples) -> Tensors:
        return weights | self.learned(self._features(weights, support.x), support.y)

    def _features(self, weights: Tensors, x: Tensor) -> Tensor:
        return functional_call(self.encoder, weights, (x,)).flatten(1)
