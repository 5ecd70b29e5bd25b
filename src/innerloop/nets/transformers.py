"""Models of the `transformers` library as encoders of tokens, with adapters of `peft`
or without.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from innerloop.core.task import TaskSpec
from innerloop.engine.errors import MissingPackageError
from innerloop.nets.norm import LayerNorm
from innerloop.nets.text import Prompted


class TransformersEncoder(Prompted):
    """Tokens to features: the mean of a transformers model's last hidden states over
    what is no padding.

    model: an encoder such as BertModel, made from a config or loaded by you, with
    `attn_implementation="eager"`, whose attention alone has a second derivative on a
    CPU; or what `peft.get_peft_model` makes of one.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        # torch's own are wrong under vmap where they move
        for module in list(model.modules()):
            for name, child in module.named_children():
                if (
                    type(child) is nn.LayerNorm
                    and child.elementwise_affine
                    and child.bias is not None
                    and len(child.normalized_shape) == 1
                ):
                    own = LayerNorm(child.normalized_shape[0], child.eps)
                    own.weight, own.bias = child.weight, child.bias
                    setattr(module, name, own)

    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        model: Any = self.model
        there = x > 0  # (n, length)
        embedded = model.get_input_embeddings()(x.long())
        if prompt is not None:
            embedded = torch.cat(
                [prompt.to(embedded.dtype).expand(len(x), -1, -1), embedded], 1
            )
        seen = torch.cat(
            [there.new_ones(len(x), embedded.shape[1] - x.shape[1]), there], 1
        )
        # whole masks are taken as they are; from a row for each text a model makes one
        # by looking at values, which vmap refuses
        hidden = torch.zeros_like(seen, dtype=embedded.dtype).masked_fill(
            ~seen, torch.finfo(embedded.dtype).min
        )
        hidden = hidden[:, None, None].expand(-1, 1, seen.shape[1], -1)
        found = model(inputs_embeds=embedded, attention_mask=hidden).last_hidden_state[
            :, -x.shape[1] :
        ]
        share = there.to(found.dtype)[..., None]
        return (found * share).sum(1) / share.sum(1).clamp_min(1)

    @property
    def vocabulary(self) -> int:
        return len(self.model.get_input_embeddings().weight)  # pyright: ignore[reportCallIssue]

    def words(self, tokens: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(tokens)  # pyright: ignore[reportCallIssue]


def bert(spec: TaskSpec) -> TransformersEncoder:
    """A small BERT with random weights: two layers of 128 units (Devlin et al. 2019,
    arXiv:1810.04805). Raises ImportError without transformers.
    """
    try:
        from transformers import BertConfig, BertModel
    except ImportError as error:
        raise MissingPackageError(
            "bert is a model of transformers: pip install 'innerloop[transformers]'"
        ) from error
    config = BertConfig(
        vocab_size=spec.vocabulary,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=spec.x_size + 128,
        attn_implementation="eager",  # pyright: ignore[reportCallIssue]
    )
    return TransformersEncoder(BertModel(config, add_pooling_layer=False))
