"""Attention with second derivatives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_users = 0  # contexts that are open, in all threads
_before: list[bool] = []

_KERNELS = [
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    (
        torch.backends.cuda.mem_efficient_sdp_enabled,
        torch.backends.cuda.enable_mem_efficient_sdp,
    ),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
]


@contextmanager
def differentiable_attention(wanted: bool = True) -> Iterator[None]:
    """`scaled_dot_product_attention` by its plain kernel, the only one with a second
    derivative (also on a CPU), if `wanted`.

    torch keeps the choice of kernels for the whole process: it is restored when the
    last thread has left.
    """
    global _users, _before
    if not wanted:
        yield
        return
    with _lock:
        if not _users:
            _before = [enabled() for enabled, _ in _KERNELS]
            for _, enable in _KERNELS:
                enable(False)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                for (_, enable), before in zip(_KERNELS, _before, strict=True):
                    enable(before)
