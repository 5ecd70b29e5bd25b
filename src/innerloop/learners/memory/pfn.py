"""Prior-data fitted networks for tables."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innerloop.core.learner import Learner
from innerloop.core.likelihood import Categorical, Gaussian, Likelihood, Metrics
from innerloop.core.task import Examples, Task
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.learners.neural_processes.layers import unsoftplus
from innerloop.nets.norm import LayerNorm
from innerloop.nets.table_attention import TableBlock, ranks, symmetry_breaking

State = dict[str, Any]
CODE = 16  # size of the codes of columns and classes
MOST = 1024  # columns, and classes


class PFN(Learner):
    """PFN: a prior-data fitted network, a transformer over the cells of a table.

    q(y | x, support) after training on tables from a prior = the prior's posterior
    predictive, up to the network; token of a cell = W [z, rank of z] + V code of its
    column, of a target = U y, of a target to predict = u

    Reference: Müller, Hollmann, Pineda Arango, Grabocka and Hutter 2022, "Transformers
    can do Bayesian inference", arXiv:2112.10510, eq. (1)-(3). The attention in rows and
    in columns: Hollmann, Müller, Purucker, Krishnakumar, Körfer, Hoo, Schirrmeister and
    Hutter 2025, "Accurate predictions on small data with a tabular foundation model",
    Nature 637, figure 1b.

    It takes any number of columns, rows and classes. z is the standardized cell;
    columns that are constant in the support set are not used. Codes are random vectors
    that keep columns, classes and targets apart: new ones for every training task, from
    torch's global generator; in evaluation mode the same ones, in an order that depends
    on what the columns and classes hold and not on where they stand. So the order of
    rows, columns and classes does not matter, unless two columns have equal moments.
    Differs from TabPFN: it has no positions and no fixed number of classes, and is much
    smaller.

    State: keys and values of the support rows in every layer (cells, heads, n, width /
    heads); the mean and deviation of each column (features,) and its values; the codes
    of columns and classes; the mean and deviation of real targets.

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
    home = "tables"
    regression_defaults: ClassVar[dict[str, Any]] = {
        "likelihood": Gaussian(learned_scale=True)
    }
    defaults = MetaTrainConfig(
        *(10, 10, 3), batch=16, optimizer="AdamW", lr=1e-3, warmup=0.05, clip=1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise InnerloopError(
                f"width must be a multiple of heads; got {self.width} and {self.heads}"
            )
        classes = isinstance(self.likelihood, Categorical)
        if not classes and self.likelihood != Gaussian(learned_scale=True):
            raise InnerloopError(
                "PFN predicts a mean and a scale: likelihood must be "
                f"Gaussian(learned_scale=True); got {self.likelihood}"
            )
        self.cells = nn.Linear(2, self.width)
        self.column_codes = nn.Linear(CODE, self.width, bias=False)
        self.targets = nn.Linear(CODE if classes else 1, self.width)
        self.unknown = nn.Parameter(torch.zeros(self.width))
        self.blocks = nn.ModuleList(
            TableBlock(self.width, self.heads) for _ in range(self.layers)
        )
        self.head = nn.Sequential(
            LayerNorm(self.width), nn.Linear(self.width, CODE if classes else 2)
        )
        codes = torch.randn(2, MOST, CODE, generator=torch.Generator().manual_seed(0))
        self.register_buffer("codes", codes, persistent=False)
        self.eval()

    def adapt(self, support: Examples) -> State:
        x, y = support.x.flatten(1), support.y
        var, mean = torch.var_mean(x, 0, correction=0)  # (features,)
        used = var > 1e-10 * (mean.square() + 1e-10)
        scale = torch.where(used, var, 1.0).sqrt()
        z = (x - mean) / scale
        y_var, y_mean = torch.var_mean(y, 0, correction=0)  # (y_dim,)
        y_scale = torch.where(y_var > 0, y_var, 1.0).sqrt()
        fit = z.T @ ((y - y_mean) / y_scale) / len(x)  # (features, y_dim)
        skew = z.clamp(-3, 3).pow(3).mean(0)  # of a column
        column_codes, target_codes = self._codes(len(mean), y.shape[1])
        bent = fit.abs() @ fit.abs().sum(0)
        state: State = {
            "columns": symmetry_breaking(skew + bent, column_codes),
            "targets": symmetry_breaking(
                skew @ fit + fit.pow(2).sum(0) + y_mean, target_codes
            ),
            "used": F.pad(used, (0, self._targets(y)), value=True),
            "moments": (mean, scale),
            "among": z,
            "y_moments": (y_mean, y_scale),
        }
        tokens, kept = self._tokens(state, x, self._known(state, y)), []
        for block in self.blocks:
            tokens, keys_and_values = block(tokens, state["used"])
            kept.append(keys_and_values)
        return {**state, "kept": kept}

    def predict(self, state: State, x: Tensor) -> Tensor:
        targets = state["used"].shape[-1] - len(state["columns"])
        unknown = self.unknown.expand(len(x), targets, -1)
        if not isinstance(self.likelihood, Categorical):
            unknown = unknown + self.column_codes(state["targets"])
        tokens = self._tokens(state, x.flatten(1), unknown)
        for block, kept in zip(self.blocks, state["kept"], strict=True):
            tokens, _ = block(tokens, state["used"], kept)
        out = self.head(tokens[:, -targets:])  # (m, targets, ...)
        if isinstance(self.likelihood, Categorical):
            return out[:, 0] @ state["targets"].T.to(out.dtype)  # (m, ways)
        mean, scale = state["y_moments"]
        # the deviation is that of standardized targets times their scale
        sd = (0.01 + 0.99 * F.softplus(out[..., 1])) * scale
        return torch.cat(
            [mean + scale * out[..., 0], unsoftplus((sd - 0.01) / 0.99)], -1
        )

    def _targets(self, y: Tensor) -> int:
        """The number of tokens for the targets of a row."""
        return 1 if isinstance(self.likelihood, Categorical) else y.shape[-1]

    def _known(self, state: State, y: Tensor) -> Tensor:
        """Tokens (n, targets, width) of known targets y (n, y_dim)."""
        if isinstance(self.likelihood, Categorical):
            return self.targets(y @ state["targets"])[:, None]
        mean, scale = state["y_moments"]
        tokens = self.targets(((y - mean) / scale)[..., None])
        return tokens + self.column_codes(state["targets"])

    def _tokens(self, state: State, x: Tensor, targets: Tensor) -> Tensor:
        """Tokens (m, features + targets, width) of rows x (m, features)."""
        mean, scale = state["moments"]
        z = (x - mean) / scale
        # large values count by their logarithm
        bounded = z.sign() * z.abs().log1p()
        values = torch.stack([bounded, ranks(z, state["among"])], -1)
        cells = self.cells(values) + self.column_codes(state["columns"])
        return torch.cat([cells, targets.to(cells.dtype)], -2)

    def _codes(self, columns: int, targets: int) -> tuple[Tensor, Tensor]:
        """Codes (columns, d) and (targets, d) of length about 1."""
        codes = self.get_buffer("codes")
        if max(columns, targets) > MOST:
            raise InnerloopError(
                f"PFN takes at most {MOST} columns and classes; got {columns} columns "
                f"and {targets} classes or targets"
            )
        if self.training:
            codes = torch.randn(
                2, max(columns, targets), CODE, device=codes.device, dtype=codes.dtype
            )
        return codes[0, :columns] / CODE**0.5, codes[1, :targets] / CODE**0.5

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        """Without the columns that are constant in all support sets, for speed."""
        (x, y), (query_x, query_y) = tasks
        x, query_x = x.flatten(2), query_x.flatten(2)
        varies = (x != x[:, :1]).any(1).any(0)  # (features,)
        varies[0] |= ~varies.any()
        shown = (
            y.abs().sum((0, 1)) > 0 if isinstance(self.likelihood, Categorical) else ...
        )
        return super().forward(
            Task(
                Examples(x[..., varies], y[..., shown]),
                Examples(query_x[..., varies], query_y[..., shown]),
            )
        )
