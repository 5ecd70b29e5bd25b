"""Closed-form classifiers on fixed features, chosen and calibrated on the support
set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import SOLVES
from innerloop.core.likelihood import Categorical, Likelihood
from innerloop.core.task import TaskSpec
from innerloop.engine.options import Positive
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.closed_form import HEADS, Design, Fit, scores
from innerloop.learners.feature_learner import FeatureLearner
from innerloop.nets.registry import encoder

STRENGTHS = {"mean": 1.0, "ridge": 1.0, "logistic": 0.1, "mahalanobis": 0.1}
AVERAGED = ("ridge", "logistic")  # the heads of "auto"
SPREAD = 0.3  # standard deviation of the logarithm of the scale around its usual value
SCALE = 10.0  # of cosine similarities, in the novelty and in transductive predictions
REFINEMENTS = 10  # of transductive predictions


class Probe(FeatureLearner):
    """Probe: a calibrated classifier on fixed features, in closed form.

    z = (f(x) - c) / |f(x) - c|, c the mean of the class means of f;
    outputs = scale * head(z), with the scale from leave-one-out predictions

    Reference: Bateni, Goyal, Masrani, Wood and Sigal 2020, "Improved few-shot visual
    classification", arXiv:1912.03432, eq. (2)-(4), for the head "mahalanobis"; the
    quadratic probe of Formont, Jeannin, Piantanida and Ben Ayed 2024, "A strong
    baseline for molecular few-shot learning", arXiv:2404.02314, has the same form if
    the class means are not optimized.

    Center and equal length: Wang, Chao, Weinberger and van der Maaten 2019,
    "SimpleShot: revisiting nearest-neighbor classification for few-shot learning",
    arXiv:1911.04623. The covariance of a class is shrunk to that within all classes,
    not to the total covariance of the paper.

    The scale of the scores has a log-normal prior, the same for all tasks, and is
    updated by the likelihood of leave-one-out predictions (with the center fixed) for
    the examples of classes with at least two. The head "auto" is the average of "ridge"
    and "logistic", weighted by the same likelihood.

    State: the center (d,), the class means (ways, d) and the weights of the head.

    Args:
        encoder: the network f; by default the inputs are the features.
        head: "mean" (cosine similarity to class means), "ridge" (regression to one-hot
            labels), "logistic" (multinomial regression), "mahalanobis" (Gaussian
            classes) or "auto".
        strength: strength of the regularization; by default 1 for "ridge" and 0.1 for
            "logistic" and "mahalanobis".
        transductive: refine predictions by the other query examples: class means are
            moved to the examples that are predicted to be theirs.
    """

    encoder: nn.Module
    _: KW_ONLY
    head: Literal["auto", "mean", "ridge", "logistic", "mahalanobis"] = "auto"
    strength: Positive | None = None
    transductive: bool = False
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)
    export_problem = SOLVES
    defaults = MetaTrainConfig(ways=5, shots=5, queries=10, batch=4)

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, nn.Module]:
        given = build_args.get("encoder")
        return {"encoder": encoder(spec, given, image="flatten", vector="flatten")}

    def embed(self, x: Tensor) -> Tensor:
        return self.encoder(x).flatten(1)

    def learned(self, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        with torch.autocast(z.device.type, enabled=False):
            exact, labels = z.double(), y.double()
            counts = labels.sum(0).clamp_min(1)
            present = (labels.sum(0) > 0).double()
            center = (labels / counts @ present @ exact) / present.sum()
            design = Design(unit(exact - center), labels)
            names = AVERAGED if self.head == "auto" else (self.head,)
            fits = [HEADS[n](design, self.strength or STRENGTHS[n]) for n in names]
            scales, evidence = zip(*(calibrated(f, design) for f in fits), strict=True)
            if self.head == "auto":
                shares = torch.stack(evidence).softmax(0)
                parts = zip(fits, scales, shares, strict=True)
                weight = sum(c * s * fit.head["weight"] for fit, s, c in parts)
                head = {"weight": weight}
            else:
                head = {**fits[0].head, "scale": scales[0]}
            means = unit(labels.T @ unit(exact - center) / counts[:, None])
            state = {"center": center, "means": means, **head}
            if self.transductive:
                state |= {"support": exact, "labels": labels}
            return {name: value.to(z.dtype) for name, value in state.items()}

    def novelty(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        # of cosines, whatever the scale: that depends on the support set
        with torch.autocast(x.device.type, enabled=False):
            z = unit(self.embed(x).to(state["center"].dtype) - state["center"])
            return -(SCALE * z @ state["means"].T).logsumexp(-1) / SCALE

    def answers(self, state: dict[str, Tensor], z: Tensor) -> Tensor:
        head = {name: value for name, value in state.items() if name != "means"}
        center, scale = head.pop("center"), head.pop("scale", 1.0)
        support, y = head.pop("support", None), head.pop("labels", None)
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(center.dtype)
            outputs = scale * scores(head, unit(z - center))
            if support is None or y is None:
                return outputs
            return refined(outputs, support, y, z)


def unit(z: Tensor) -> Tensor:
    """Features (n, d) of length 1."""
    return F.normalize(z, dim=-1)


def calibrated(fit: Fit, design: Design) -> tuple[Tensor, Tensor]:
    """The posterior mean of the scale, and the logarithm of its evidence, from the
    leave-one-out scores.
    """
    known = design.share * (design.y @ design.counts > 1.5)  # (n,)
    steps = torch.linspace(-3, 1, 41, dtype=fit.loo.dtype, device=fit.loo.device)
    fits = [
        known @ (design.y * (fit.scale * step.exp() * fit.loo).log_softmax(-1)).sum(-1)
        for step in steps
    ]
    up, down = steps.clamp_min(0) / SPREAD, steps.clamp_max(0) / SPREAD
    log_posterior = torch.stack(fits) - up.square() / 2 + down
    mean = log_posterior.softmax(0) @ steps
    return fit.scale * mean.exp(), log_posterior.logsumexp(0)


def refined(outputs: Tensor, support: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Outputs (m, ways) after soft k-means on the query features z (m, d), with the
    labels y of the support features fixed; features are centered by the mean of all.
    """
    every = torch.cat([support, z])
    center = every.mean(0)
    support, z = unit(support - center), unit(z - center)
    for _ in range(REFINEMENTS):
        means = unit(y.T @ support + outputs.softmax(-1).T @ z)
        outputs = SCALE * z @ means.T
    return outputs
