"""Tuning a soft prompt as the inner loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.gradient_descent import descend
from innerloop.engine.options import Count, CountOrZero, Positive
from innerloop.engine.precision import widened
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.metric.distances import class_means
from innerloop.nets.log_parameter import log_parameter
from innerloop.nets.registry import encoder
from innerloop.nets.text import Prompted


class PromptTuning(Learner):
    """Prompt tuning: a frozen transformer; each task tunes a prompt and a head.

    prompt, W, b <- their values - rate * grad(support loss of W f(prompt, x) + b), from
    a learned prompt, and W and b from the class means of f(prompt, x)

    Reference: Lester, Al-Rfou and Constant 2021, "The power of scale for
    parameter-efficient prompt tuning", arXiv:2104.08691, section 2.

    The prompt's initialization is meta-learned as in Hou, Dong, Wang, Li and Che 2022,
    "MetaPrompting: learning to learn better prompts", arXiv:2209.11486, section 3; the
    head is initialized as in Triantafillou et al. 2020, arXiv:1903.03096, section 3.

    State: the tuned prompt (prompt_length, width), and weight (ways, d) and bias
    (ways,) of the head.

    Args:
        encoder: the network f, frozen: use that of another run.
        prompt_length: number of vectors in the prompt.
        start: initialization of the prompt: "learned" over tasks, together with the
            step sizes and the scale of the head; or "words", the embeddings of random
            tokens, with nothing to meta-learn.
        inner_lr: initial value of the learned step size of the prompt.
        head_lr: initial value of the learned step size of the head.
        inner_steps: number of inner steps.
        scale: for a class with mean c, the head begins with weight 2 scale c and bias
            -scale |c|^2; the initial value of a learned scale.
        first_order: leave out second derivatives.
    """

    encoder: nn.Module
    _: KW_ONLY
    prompt_length: Count = 8
    start: Literal["learned", "words"] = "learned"
    inner_lr: Positive = 0.1
    head_lr: Positive = 0.1
    inner_steps: CountOrZero = 5
    scale: Positive = 0.1
    first_order: bool = False
    likelihood: Likelihood = Categorical()

    home = "clinc"
    kinds = ("classes",)
    defaults = MetaTrainConfig(queries=5, batch=4, optimizer="Adam", lr=3e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        encoder = self.encoder
        if not isinstance(encoder, Prompted):
            raise InnerloopError(
                "PromptTuning needs inputs that are tokens, and an encoder that is an "
                f"innerloop.nets.Prompted; got {type(encoder).__name__}"
            )
        encoder.requires_grad_(False)
        tokens = torch.randint(1, encoder.vocabulary, (self.prompt_length,))
        self.register_buffer("tokens", tokens)
        # what is learned is the difference from the embeddings of these tokens
        self.offset = nn.Parameter(torch.zeros_like(encoder.embed_tokens(tokens)))
        self.log_inner_lr = log_parameter(self.inner_lr)
        self.log_head_lr = log_parameter(self.head_lr)
        self.log_scale = log_parameter(self.scale)
        if self.start == "words":
            self.requires_grad_(False)

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        return (TaskSpec("classes", (12,), 5, vocabulary=100),)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        return {"encoder": encoder(spec, build_args.get("encoder"))}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()  # it is frozen
        return self

    @property
    def prompt(self) -> Tensor:
        """The prompt before any step (prompt_length, width)."""
        assert isinstance(self.encoder, Prompted)
        return self.encoder.embed_tokens(self.get_buffer("tokens")) + self.offset

    def adapt(self, support: Examples) -> dict[str, Tensor]:
        prompt, scale = self.prompt, self.log_scale.exp()
        c = class_means(self._features(prompt, support.x), support.y)  # (ways, d)
        weight, bias = 2 * scale * c, -scale * c.square().sum(-1)
        head_lr = self.log_head_lr.exp()
        rates = {
            "prompt": self.log_inner_lr.exp(),
            "weight": head_lr,
            "bias": head_lr,
        }

        def loss(state: dict[str, Tensor]) -> Tensor:
            return self.likelihood.nll(self.predict(state, support.x), support.y)

        begin = {"prompt": prompt, "weight": weight, "bias": bias}
        return descend(loss, begin, rates, self.inner_steps, self.first_order)

    def predict(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        z = self._features(state["prompt"], x)  # (m, d)
        return F.linear(z, state["weight"], state["bias"])  # (m, ways)

    def _features(self, prompt: Tensor, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return widened(self.encoder(x, prompt))
