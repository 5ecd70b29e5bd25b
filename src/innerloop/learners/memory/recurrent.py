"""What recurrent learners share: how examples go in and answers come out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from innerloop.core.learner import State, Streaming
from innerloop.core.likelihood import Categorical, Likelihood, Metrics
from innerloop.core.task import Examples, TaskSpec
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.norm import LayerNorm
from innerloop.nets.registry import reading

# what a recurrent network carries from one step to the next: a pytree of tensors
Memory = Any


class Recurrent(FeatureLearner, Streaming):
    """A learner that is a recurrent network, whose memory is what it has learned.

    An example goes in together with the label of the one before it: labels arrive one
    step late, so that every step may answer (Hochreiter, Younger and Conwell 2001;
    Santoro et al. 2016, section 2). State: the memory and the label still to come.
    Queries are answered independently of each other, from the same state; where support
    and query are one sequence, in order and without labels.
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
    # whether `step` takes many tasks at once, memory and inputs with a leading axis
    side_by_side: ClassVar[bool] = False

    fixed_ways = True

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        found = reading(spec, out_dim, build_args.get("encoder"))
        # what a convolution block gives is mostly the same for all images, and a memory
        # then finds them all alike
        return {
            **found,
            "normal": LayerNorm(found["features"]) if spec.is_image else nn.Identity(),
        }

    @abstractmethod
    def start(self) -> Memory:
        """The memory before the first step."""

    @abstractmethod
    def step(self, memory: Memory, inputs: Tensor) -> tuple[Tensor, Memory]:
        """One step: inputs (features + y_dim,) to an answer (out_dim,), and the memory
        after it.
        """

    def embed(self, x: Tensor) -> Tensor:
        """x (m, *x_shape) as features (m, features), in full precision: a memory is
        read and written many times.
        """
        return self.normal(self.encoder(x)).to(next(self.parameters()).dtype)

    def init(self) -> State:
        return self.start(), next(self.parameters()).new_zeros(self.y_dim)

    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        return self._read(state, self.embed(x[None]), y[None])[0]

    def respond(self, state: State, x: Tensor) -> tuple[Tensor, Memory]:
        """Outputs (n, out_dim) for x (n, *x_shape) in n tasks at once, and the memories
        after it: with the label to come, the state.

        A memory does not wait for the label, so that one who acts need not take every
        step twice.
        """
        memory, late = state
        step = (
            self.step
            if self.side_by_side
            else torch.vmap(self.step, randomness="different")
        )
        with torch.autocast(x.device.type, enabled=False):
            return step(memory, torch.cat([self.embed(x), late], -1))

    def along(self, examples: Examples) -> Tensor:
        """The outputs (n, steps, out_dim) of `follow` for n tasks at once."""
        return torch.vmap(
            lambda examples: self.scan(examples)[1], randomness="different"
        )(examples)

    def scan(self, examples: Examples) -> tuple[State, Tensor]:
        return self._read(self.init(), self.embed(examples.x), examples.y)

    def learned(self, z: Tensor, y: Tensor) -> State:
        return self._read(self.init(), z, y)[0]

    def outcome(
        self, z: Tensor, y: Tensor, asked: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Metrics]:
        state, before = self._read(self.init(), z, y)
        outputs = self.answers(state, asked)
        metrics = self.likelihood.metrics(outputs, wanted)
        # of the whole answer: a short sequence counts less than a long one
        if self._ordered:
            return len(wanted) * self.likelihood.nll(outputs, wanted), metrics
        return self.likelihood.nll(
            torch.cat([before, outputs]), torch.cat([y, wanted])
        ), metrics

    @property
    def _ordered(self) -> bool:
        return self.spec is not None and self.spec.ordered

    def _read(self, state: State, z: Tensor, y: Tensor) -> tuple[State, Tensor]:
        """The state after features z (n, features) with labels y (n, y_dim), and the
        answers (n, out_dim) on the way.
        """
        (memory, late), answers = state, []
        with torch.autocast(z.device.type, enabled=False):
            for features, label in zip(z, y, strict=True):
                answer, memory = self.step(memory, torch.cat([features, late]))
                answers.append(answer)
                late = label
        return (memory, late), torch.stack(answers)

    def answers(self, state: State, z: Tensor) -> Tensor:
        memory, late = state
        if self._ordered:
            return self._read(state, z, late.new_zeros(len(z), self.y_dim))[1]
        with torch.autocast(z.device.type, enabled=False):
            return torch.vmap(
                lambda features: self.step(memory, torch.cat([features, late]))[0],
                randomness="different",
            )(z)
