"""A soft prompt as the inner loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import Learner, MetaTrainConfig
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import Examples, TaskSpec
from innerloop.engine.errors import InnerloopError
from innerloop.engine.gradient_descent import descend
from innerloop.engine.options import CountOrZero
from innerloop.engine.precision import widened
from innerloop.learners.metric.distances import class_means
from innerloop.nets.log_parameter import positive
from innerloop.nets.registry import encoder
from innerloop.nets.text import Prompted


class PromptTuning(Learner):
    """Prompt tuning: a transformer stays as it is; a few vectors that it reads before
    every text, and a linear head, are tuned for a task.

    prompt, W, b <- their values - rate * grad(support loss of W f(prompt, x) + b), W
    and b begun at the class means of f(prompt, x) Lester, Al-Rfou and Constant 2021,
    "The power of scale for parameter-efficient prompt tuning", arXiv:2104.08691,
    section 2; its learned start: Hou et al. 2022, arXiv:2209.11486, section 3; that of
    the head: Triantafillou et al. 2020, arXiv:1903.03096, section 3
    State: the tuned prompt (prompt_length, width), and weight (ways, d) and bias
    (ways,) of the head.

    encoder: f, never trained here: take that of another run (`train --from`).
        prompt_length: its vectors. start: where the prompt begins in a task, "learned"
        over tasks, as are the rates and the head's scale, or at "words", embeddings of
        random tokens, with nothing to learn. inner_lr, head_lr: the rates of prompt and
        head. inner_steps: how many steps. scale: the head begins at 2 scale c and
        -scale |c|^2 for a class with the mean c. first_order: leave out second
        derivatives.
    """

    encoder: nn.Module
    _: KW_ONLY
    prompt_length: int = 8
    start: Literal["learned", "words"] = "learned"
    inner_lr: float = 0.1
    head_lr: float = 0.1
    inner_steps: CountOrZero = 5
    scale: float = 0.1
    first_order: bool = False
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    defaults = MetaTrainConfig(queries=5, batch=4, optimizer="Adam", lr=3e-3)

    def __post_init__(self) -> None:
        if not isinstance(self.encoder, Prompted):
            raise InnerloopError(
                "a prompt is for a network that reads tokens: these inputs are none, or the encoder is no innerloop.nets.Prompted"
            )
        self.encoder.requires_grad_(False)
        self.register_buffer(
            "tokens", torch.randint(1, self.encoder.vocabulary, (self.prompt_length,))
        )
        # of the prompt, from these tokens
        self.moved = nn.Parameter(
            torch.zeros_like(self.encoder.words(self.get_buffer("tokens")))
        )
        self.log_inner_lr, self.log_head_lr = (
            positive(self.inner_lr, "the prompt's rate"),
            positive(self.head_lr, "the head's rate"),
        )
        self.log_scale = positive(self.scale, "the scale of the head")
        if self.start == "words":
            self.requires_grad_(False)
        super().__post_init__()

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        return {"encoder": encoder(spec, build_args.get("encoder"))}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()  # it stays as it is
        return self

    @property
    def prompt(self) -> Tensor:
        """Where the prompt begins (prompt_length, width)."""
        assert isinstance(self.encoder, Prompted)
        return self.encoder.words(self.get_buffer("tokens")) + self.moved

    def adapt(self, support: Examples) -> dict[str, Tensor]:
        prompt, scale = self.prompt, self.log_scale.exp()
        c = class_means(self._features(prompt, support.x), support.y)  # (ways, d)
        begin = {
            "prompt": prompt,
            "weight": 2 * scale * c,
            "bias": -scale * c.square().sum(-1),
        }
        head = self.log_head_lr.exp()
        rates = {"prompt": self.log_inner_lr.exp(), "weight": head, "bias": head}
        return descend(
            lambda at: self.likelihood.nll(self.predict(at, support.x), support.y),
            begin,
            rates,
            self.inner_steps,
            self.first_order,
        )

    def predict(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        return F.linear(
            self._features(state["prompt"], x), state["weight"], state["bias"]
        )

    def _features(self, prompt: Tensor, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return widened(self.encoder(x, prompt))  # (n, d)
