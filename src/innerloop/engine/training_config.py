"""The settings of meta-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from innerloop.engine.options import (
    Count,
    CountOrZero,
    Fraction,
    NonNegative,
    Positive,
    check_options,
)


@dataclass(frozen=True)
class MetaTrainConfig:
    """How a learner is meta-trained: the episodes and the outer loop.

    Args:
        ways: classes in a training task.
        shots: support examples of a class.
        queries: query examples of a class.
        groups: from how many groups (alphabets, domains) the classes of a task come; 0
            takes any classes.
        batch: tasks in a meta-step, or examples for supervised training.
        meta_gradient: how the meta-parameters move.
        optimizer: name of an optimizer in torch.optim.
        lr: its learning rate.
        pretrained_lr: its learning rate for pretrained networks that are trained
            further, 0 to leave them as they are; by default 0.00005 for an encoder such
            as "minilm:all", and `lr` for networks copied from another run.
        momentum: its momentum, for optimizers with that option (SGD, RMSprop).
        weight_decay: its weight decay.
        warmup: share of training in which the learning rate rises linearly.
        decay: whether the learning rate falls during training.
        schedule: how it falls: along half a "cosine" to zero, or in "steps", to a tenth
            each after a half, two thirds and five sixths of training.
        clip: largest norm of the meta-gradient.
        supervised: train on all classes at once, with labels that never change.
    """

    ways: Count = 5
    shots: Count = 1
    queries: Count = 15
    groups: CountOrZero = 0
    batch: Count = 16
    meta_gradient: str = "backprop"
    optimizer: str = "AdamW"
    lr: Positive = 1e-3
    pretrained_lr: NonNegative | None = None
    momentum: Fraction = 0.0
    weight_decay: Fraction = 0.0
    warmup: Fraction = 0.03
    decay: bool = True
    schedule: Literal["cosine", "steps"] = "cosine"
    clip: Positive = 10.0
    supervised: bool = False

    def __post_init__(self) -> None:
        check_options(self)
