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
    distances,
    in_order_of,
    moments,
)

State = dict[str, Any]
CODE = 16  # size of the codes of columns and classes
MOST = 1024  # columns, and classes


class PFN(Learner):
    """PFN: a prior-data fitted transformer over the cells of a table.

    p(y | x, support), for tables from a prior, is approximated by q(y | x, support) =
    sum over rows i of a(i) [y_i = y], a = softmax over rows of q(x) k(i) / sqrt(width)
    - s |z - z_i|^2 / sqrt(columns), or, for real targets, by a Gaussian with mean g(x)
    + sum over rows i of a(i) y_i; token of a cell = W [z, rank of z] + V code of its
    column, of a target = U code of its class, of a target to predict = u

    Reference: Müller, Hollmann, Pineda Arango, Grabocka and Hutter 2022, "Transformers
    can do Bayesian inference", arXiv:2112.10510, eq. (1)-(3). The attention in rows and
    in columns: Hollmann, Müller, Purucker, Krishnakumar, Körfer, Hoo, Schirrmeister and
    Hutter 2025, "Accurate predictions on small data with a tabular foundation model",
    Nature 637, figure 1b. The votes of support rows: Arbel, Salinas and Hutter 2025,
    "EquiTabPFN: a target-permutation equivariant prior fitted network",
    arXiv:2502.06684.

    It takes any number of columns, rows and classes. z is the standardized cell;
    columns that are constant in the support set are not used. Codes are random vectors
    that tell columns, classes and targets apart: in training, new ones for every task
    from torch's global generator; in evaluation mode the same ones, in an order that
    depends on what the columns and classes hold, not on where they stand. So the order
    of rows, columns and classes does not matter, unless columns that differ have equal
    moments. Differs from TabPFN: it has no fixed number of classes, starts as a vote of
    near rows, and is much smaller.

    State: keys and values of the support rows in every layer (cells, heads, n, width /
    heads); the columns' moments (features,) and standardized cells (n, features); codes
    of columns and targets; keys of the votes (n, targets, width); logarithmic labels
    (n, ways), or standardized targets (n, y_dim) and their moments.

    Args:
        width: size of a token.
        layers: layers of the transformer.
        heads: attention heads of the transformer.
    """

    _: KW_ONLY
    width: Count = 64
    layers: Count = 4
    heads: Count = 4
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
        self.cells = nn.Linear(2, self.width)
        self.column_codes = nn.Linear(CODE, self.width, bias=False)
        self.targets = nn.Linear(CODE if self._classes else 1, self.width)
        self.unknown = nn.Parameter(torch.zeros(self.width))
        self.blocks = nn.ModuleList(
            TableBlock(self.width, self.heads) for _ in range(self.layers)
        )
        # queries and keys of the votes; g and the scale of real targets
        last = nn.Linear(self.width, 2 * self.width + (0 if self._classes else 2))
        self.head = nn.Sequential(LayerNorm(self.width), last)
        self.distance_scale = nn.Parameter(torch.zeros(()))  # s = softplus of it
        codes = torch.randn(2, MOST, CODE, generator=torch.Generator().manual_seed(0))
        self.register_buffer("codes", codes, persistent=False)
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
        columns, targets = self._codes(len(mean), len(y_mean))
        state: State = {
            "moments": (mean, scale),
            "z": z,
            "columns": in_order_of(traits, columns),
            "targets": in_order_of(y_skew + skew @ fit, targets),
            "used": F.pad(used, (0, 1 if self._classes else len(y_mean)), value=True),
        }
        if self._classes:
            known = self.targets(y @ state["targets"])[:, None]
        else:
            state["y_moments"] = y_mean, y_scale
            known = self.targets(y_z[..., None]) + self.column_codes(state["targets"])
        tokens = self._tokens(state, z, known)  # (n, cells, width)
        state["kept"] = []
        for block in self.blocks:
            tokens, keys_and_values = block(tokens, state["used"])
            state["kept"].append(keys_and_values)
        keys = self.head(tokens[:, len(mean) :])[..., self.width : 2 * self.width]
        return {**state, "keys": keys, "y": (y + 1e-6).log() if self._classes else y_z}

    def predict(self, state: State, x: Tensor) -> Tensor:
        features = len(state["columns"])
        unknown = self.unknown.expand(len(x), len(state["used"]) - features, -1)
        if not self._classes:
            unknown = unknown + self.column_codes(state["targets"])
        mean, scale = state["moments"]
        z = (x.flatten(1) - mean) / scale
        tokens = self._tokens(state, z, unknown)
        for block, kept in zip(self.blocks, state["kept"], strict=True):
            tokens, _ = block(tokens, state["used"], kept)
        out = self.head(tokens[:, features:])  # (m, targets, ...)
        votes = torch.einsum("mtd,ntd->mnt", out[..., : self.width], state["keys"])
        near = distances(z, state["z"], state["used"][:features])[..., None]
        votes = votes / self.width**0.5 - F.softplus(self.distance_scale) * near
        if self._classes:
            return (votes + state["y"]).logsumexp(1)  # (m, ways)
        mean, scale = state["y_moments"]
        found = (votes.softmax(1) * state["y"]).sum(1) + out[..., -2]  # (m, y_dim)
        deviation = (0.01 + 0.99 * F.softplus(out[..., -1])) * scale
        return torch.cat(
            [mean + scale * found, unsoftplus((deviation - 0.01) / 0.99)], -1
        )

    def _tokens(self, state: State, z: Tensor, targets: Tensor) -> Tensor:
        """Tokens (m, cells, width) of standardized rows z (m, features) and their
        targets (m, targets, width).
        """
        cells = self.cells(cell_features(z, state["z"]))
        cells = cells + self.column_codes(state["columns"])
        return torch.cat([cells, targets.to(cells.dtype)], -2)

    def _codes(self, columns: int, targets: int) -> tuple[Tensor, Tensor]:
        """Codes of `columns` and of `targets`, of length about 1."""
        codes = self.get_buffer("codes")
        if max(columns, targets) > MOST:
            found = f"{columns} columns and {targets} classes or targets"
            raise InnerloopError(f"PFN takes at most {MOST} columns; got {found}")
        if self.training:
            codes = torch.randn_like(codes[:, : max(columns, targets)])
        codes = codes.to(self.unknown) / CODE**0.5
        return codes[0, :columns], codes[1, :targets]

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
