"""Models of the `transformers` library as encoders of tokens, with or without adapters
of `peft`.
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
    """Features of a text: the mean of a model's last hidden states over its tokens,
    without padding.

    Args:
        model: an encoder such as BertModel, made from a config or with pretrained
            weights, with `attn_implementation="eager"` (other attention has no second
            derivative on a CPU); or `peft.get_peft_model` of one.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        # second derivatives of torch's own layers are wrong under vmap
        for module in list(model.modules()):
            for name, child in module.named_children():
                if (
                    type(child) is nn.LayerNorm
                    and child.elementwise_affine
                    and child.bias is not None
                    and len(child.normalized_shape) == 1
                ):
                    twin = LayerNorm(child.normalized_shape[0], child.eps)
                    twin.weight, twin.bias = child.weight, child.bias
                    setattr(module, name, twin)

    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        model: Any = self.model
        present = x > 0  # (n, length)
        embedded = model.get_input_embeddings()(x.long())  # (n, length, width)
        visible = present
        if prompt is not None:
            prompts = prompt.to(embedded.dtype).expand(len(x), -1, -1)
            embedded = torch.cat([prompts, embedded], 1)  # (n, p + length, width)
            visible = torch.cat([present.new_ones(len(x), len(prompt)), present], 1)
        # a full mask is used as it is; from one row for each text, a model would make
        # one by a branch on values, which vmap refuses
        mask = torch.zeros_like(visible, dtype=embedded.dtype)
        mask = mask.masked_fill(~visible, torch.finfo(embedded.dtype).min)
        mask = mask[:, None, None].expand(-1, 1, visible.shape[1], -1)
        output = model(inputs_embeds=embedded, attention_mask=mask)
        hidden = output.last_hidden_state[:, -x.shape[1] :]  # (n, length, width)
        share = present.to(hidden.dtype)[..., None]
        return (hidden * share).sum(1) / share.sum(1).clamp_min(1)

    @property
    def vocabulary(self) -> int:
        embedding: Any = self.model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
        return len(embedding.weight)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(tokens)  # pyright: ignore[reportCallIssue]


def bert(spec: TaskSpec) -> TransformersEncoder:
    """A small BERT with random weights: two layers of 128 units. Devlin, Chang, Lee and
    Toutanova 2019, "BERT: pre-training of deep bidirectional transformers for language
    understanding", arXiv:1810.04805.

    Raises MissingPackageError without transformers.
    """
    try:
        from transformers import BertConfig, BertModel
    except ImportError as error:
        raise MissingPackageError(
            "the encoder bert needs transformers: pip install 'innerloop[transformers]'"
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
