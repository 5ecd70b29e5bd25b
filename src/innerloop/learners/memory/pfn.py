"""Prior-data fitted networks for tables."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Gaussian, Likelihood
from innerloop.core.task import Examples, Task
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.neural_processes.layers import unsoftplus
from innerloop.nets.norm import LayerNorm
from innerloop.nets.table_attention import (
    TableBlock,
    cell_features,
    in_order_of,
    moments,
)
from innerloop.nets.table_regression import TableRegression
from innerloop.nets.table_tokens import Codes, TableTokens

State = dict[str, Any]
RARE = 1e-6  # share of a class that no row has


class PFN(Learner):
    """PFN: a prior-data fitted transformer over the cells of a table.

    p(y | x, support), for tables from a prior, is approximated by q(y | x, support) =
    softmax over classes c of log share(c) + g(x) r(x, c) + q(x) u(c) / sqrt(width), or,
    for real targets, by a Gaussian with mean g(x) r(x) + q(x).
    r is an average of ridge regressions on the cells, see `TableRegression`; g and q,
    the transformer's: a row has a token for each cell, W [z, rank of z] + V code of its
    column; one for r, in support rows without the row itself; and one for its target,
    u(c) = U code of its class, or one that stands for an unknown target. The last one
    gives g = softplus(linear), with the mean of those of the support rows, and q =
    linear, which are 1 and 0 before training.

    Reference: Müller, Hollmann, Pineda Arango, Grabocka and Hutter 2022, "Transformers
    can do Bayesian inference", arXiv:2112.10510, eq. (1)-(3). The attention in rows and
    in columns: Hollmann, Müller, Purucker, Krishnakumar, Körfer, Hoo, Schirrmeister and
    Hutter 2025, "Accurate predictions on small data with a tabular foundation model",
    Nature 637, figure 1b. Predictions as inputs: Wolpert 1992, "Stacked
    generalization", Neural Networks 5.

    It takes any number of columns, rows and classes. z is the standardized cell;
    columns that are constant in the support set are not used. Codes are random vectors
    that tell columns, classes and targets apart: in training, new ones for every task
    from torch's global generator; in evaluation mode the same ones, in an order that
    depends on what the columns and classes hold, not on where they stand. So the order
    of rows, columns and classes does not matter, unless columns that differ have equal
    moments. Differs from TabPFN: it has no fixed number of classes, starts as ridge
    regressions, and is much smaller.

    State: keys and values of the support rows in every layer (cells, heads, n, width /
    heads); the columns' moments (features,) and standardized cells (n, features); codes
    of columns and targets; coefficients of the regressions (8, n, y_dim) and the
    columns' relevance (features,); moments of the targets (y_dim,); the support rows'
    part of g (1,).

    Args:
        width: size of a token.
        layers: layers of the transformer.
        heads: attention heads of the transformer.
    """

    _: KW_ONLY
    width: Count = 32
    layers: Count = 2
    heads: Count = 2
    likelihood: Likelihood = Categorical()

    kinds = ("classes", "reals")
    any_columns = True
    home = "tables"
    regression_defaults: ClassVar[dict[str, Any]] = {
        "likelihood": Gaussian(learned_scale=True)
    }
    defaults = MetaTrainConfig(
        *(10, 10, 3), batch=16, optimizer="AdamW", lr=2e-3, warmup=0.05, clip=1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise InnerloopError(
                f"width must be a multiple of heads; got {self.width} and {self.heads}"
            )
        if not self._classes and self.likelihood != Gaussian(learned_scale=True):
            raise InnerloopError(
                "PFN predicts a mean and a scale: likelihood must be "
                f"Gaussian(learned_scale=True); got {self.likelihood}"
            )
        self.tokens = TableTokens(self.width, self._classes)
        self.blocks = nn.ModuleList(
            TableBlock(self.width, self.heads) for _ in range(self.layers)
        )
        self.norm = LayerNorm(self.width)
        self.regression = TableRegression(self._classes)
        # of the support rows and of the row itself
        self.gates = nn.ModuleList(nn.Linear(self.width, 1) for _ in range(2))
        # q; of real targets, also the scale
        self.head = nn.Linear(self.width, self.width if self._classes else 2)
        for parameter in (*self.gates.parameters(), *self.head.parameters()):
            parameter.data.zero_()
        self.gates[0].bias.data = unsoftplus(torch.ones(1))
        self.eval()

    @property
    def _classes(self) -> bool:
        return isinstance(self.likelihood, Categorical)

    def adapt(self, support: Examples) -> State:
        x, y = support.x.flatten(1), support.y
        mean, scale, used = moments(x)  # (features,)
        y_mean, y_scale, _ = moments(y)  # (y_dim,)
        z, y_z = (x - mean) / scale, (y - y_mean) / y_scale
        # what columns and targets are told apart by, in any order of either
        fit = z.T @ y_z / len(x)  # (features, y_dim)
        skew, y_skew = z.pow(3).mean(0), y_z.pow(3).mean(0)
        traits = (skew + fit.square().sum(1)).masked_fill(~used, torch.inf)
        drawn = self.tokens.draw(len(mean), len(y_mean))
        codes = Codes(
            in_order_of(traits, drawn.columns),
            in_order_of(y_skew + skew @ fit, drawn.targets),
        )
        cells, shown = cell_features(z, z), y if self._classes else y_z
        fitted, left_out = self.regression.fit(cells, used, shown)
        known = self.tokens.of_targets(shown, codes)
        tokens = self.tokens(cells, left_out, known, codes)  # (n, cells, width)
        visible = F.pad(used, (0, tokens.shape[1] - len(used)), value=True)
        kept = []
        for block in self.blocks:
            tokens, keys_and_values = block(tokens, visible)
            kept.append(keys_and_values)
        out = self.norm(tokens[:, -known.shape[1] :])
        return {
            "moments": (mean, scale),
            "y_moments": (y_mean, y_scale),
            "z": z,
            "codes": codes,
            "used": visible,
            "kept": kept,
            "fitted": fitted,
            "gates": self.gates[0](out.mean((0, 1))),
        }

    def predict(self, state: State, x: Tensor) -> Tensor:
        (mean, scale), codes = state["moments"], state["codes"]
        z = (x.flatten(1) - mean) / scale
        cells = cell_features(z, state["z"])
        among = cell_features(state["z"], state["z"])
        fitted = self.regression.predict(state["fitted"], cells, among)  # (m, y_dim)
        unknown = self.tokens.of_unknown(len(x), codes)
        tokens = self.tokens(cells, fitted, unknown, codes)
        for block, kept in zip(self.blocks, state["kept"], strict=True):
            tokens, _ = block(tokens, state["used"], kept)
        out = self.norm(tokens[:, -unknown.shape[1] :])  # (m, targets, width)
        gates = F.softplus(state["gates"] + self.gates[1](out))  # (m, targets, 1)
        fitted = gates[..., 0] * fitted
        found, (mean, scale) = self.head(out), state["y_moments"]
        if self._classes:
            own = self.tokens.targets(codes.targets)  # (ways, width)
            scores = found[:, 0] @ own.T / self.width**0.5
            return (mean + RARE).log() + fitted + scores
        mean = mean + scale * (fitted + found[..., 0])
        deviation = (0.01 + 0.99 * F.softplus(found[..., 1])) * scale
        return torch.cat([mean, unsoftplus((deviation - 0.01) / 0.99)], -1)

    def trim(self, tasks: Task) -> Task:
        """Without columns that are constant and classes that are absent everywhere."""
        (x, y), (query_x, query_y) = tasks
        x, query_x = x.flatten(2), query_x.flatten(2)
        varies = (x != x[:, :1]).flatten(0, 1).any(0)  # (features,)
        varies[0] |= ~varies.any()
        if self._classes:
            shown = (torch.cat([y, query_y], 1) != 0).flatten(0, 1).any(0)
            y, query_y = y[..., shown], query_y[..., shown]
        support = Examples(x[..., varies], y)
        return Task(support, Examples(query_x[..., varies], query_y))
