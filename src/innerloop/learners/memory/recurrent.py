"""The base class of recurrent learners."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.learner import SEQUENTIAL, State, Streaming
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, TaskSpec
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.norm import LayerNorm
from innerloop.nets.registry import reading

FEATURE_LENGTH = 2.0  # of an image, at the start of meta-training
Memory = Any  # a pytree of tensors: what a recurrent network carries between steps


@Streaming.register
class Recurrent(FeatureLearner):
    """A recurrent network that learns in its memory.

    Every step reads an example and the label of the one before it, so that every step
    can predict before it reads the label (Hochreiter, Younger and Conwell 2001,
    "Learning to learn using gradient descent"; Santoro, Bartunov, Botvinick, Wierstra
    and Lillicrap 2016, "One-shot learning with memory-augmented neural networks",
    arXiv:1605.06065, section 2). Queries are predicted independently of each other,
    from the same state; where support and query are one sequence, they are read in
    order, without labels.

    It also has the interface of `Streaming`, whose methods it all implements.

    State: the memory, and the label to be read by the next step.
    """

    encoder: nn.Module
    normal: nn.Module
    features: int
    y_dim: int
    out_dim: int
    _: KW_ONLY
    likelihood: Likelihood = Categorical()

    kinds = ("classes", "reals", "bits")
    sequences = True
    fixed_ways = True
    export_problem = SEQUENTIAL
    # whether `step` also takes memory and inputs with a leading axis of tasks
    batched_step: ClassVar[bool] = False

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        found = reading(spec, out_dim, build_args.get("encoder"))
        if not spec.is_image:
            return {**found, "normal": nn.Identity()}
        # features of convolution blocks have a large common part, which would make all
        # images alike to a memory; longer ones would drown the label, of length 1
        scale = FEATURE_LENGTH * found["features"] ** -0.5
        return {**found, "normal": LayerNorm(found["features"], scale=scale)}

    @abstractmethod
    def start(self) -> Memory:
        """The memory before the first step."""

    @abstractmethod
    def step(self, memory: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        """One step: the outputs (out_dim,) for inputs (features + y_dim,), and the
        memory after it.
        """

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) as features (m, features), in full precision: rounding errors
        accumulate in a memory.
        """
        return self.normal(self.encoder(x)).to(next(self.parameters()).dtype)

    def init(self) -> State:
        return self.start(), next(self.parameters()).new_zeros(self.y_dim)

    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        return self._read(state, self.embed(x[None]), y[None])[0]

    def step_batch(self, state: State, x: Tensor) -> tuple[Tensor, Memory]:
        """Outputs (n, out_dim) for x (n, *x_shape) in n tasks at once, and the memories
        after the step; with the labels of x, these are the next states.

        An agent thus predicts and observes in one step of the network.
        """
        memory, label = state
        step = (
            self.step
            if self.batched_step
            else torch.vmap(self.step, randomness="different")
        )
        with torch.autocast(x.device.type, enabled=False):
            return step(memory, torch.cat([self.embed(x), label], -1))

    def scan_batch(self, examples: Examples) -> Tensor:
        """The outputs (n, steps, out_dim) of `scan` for n tasks at once."""
        return torch.vmap(
            lambda examples: self.scan(examples)[1], randomness="different"
        )(examples)

    def scan(self, examples: Examples) -> tuple[State, Tensor]:
        return self._read(self.init(), self.embed(examples.x), examples.y)

    def predict_support(self, support: Examples) -> Tensor:
        return self.scan(support)[1]

    def learned(self, z: Tensor, y: Tensor) -> State:
        return self._read(self.init(), z, y)[0]

    def outcome(
        self, z: Tensor, y: Tensor, query_z: Tensor, query_y: Tensor
    ) -> tuple[Tensor, Metrics]:
        state, before = self._read(self.init(), z, y)
        outputs = self.answers(state, query_z)
        metrics = self.likelihood.metrics(outputs, query_y)
        if self._ordered:
            # the sum over a sequence: a long one counts more than a short one
            return len(query_y) * self.likelihood.nll(outputs, query_y), metrics
        nll = self.likelihood.nll(torch.cat([before, outputs]), torch.cat([y, query_y]))
        return nll, metrics

    @property
    def _ordered(self) -> bool:
        return self.spec is not None and self.spec.ordered

    def _read(self, state: State, z: Tensor, y: Tensor) -> tuple[State, Tensor]:
        """The state after features z (n, features) with labels y (n, y_dim), and the
        outputs (n, out_dim) of all steps.
        """
        (memory, previous), outputs = state, []
        with torch.autocast(z.device.type, enabled=False):
            for features, label in zip(z, y, strict=True):
                output, memory = self.step(memory, torch.cat([features, previous]))
                outputs.append(output)
                previous = label
        return (memory, previous), torch.stack(outputs)

    def answers(self, state: State, z: Tensor) -> Tensor:
        memory, label = state
        if self._ordered:
            return self._read(state, z, label.new_zeros(len(z), self.y_dim))[1]
        with torch.autocast(z.device.type, enabled=False):
            return torch.vmap(
                lambda features: self.step(memory, torch.cat([features, label]))[0],
                randomness="different",
            )(z)
