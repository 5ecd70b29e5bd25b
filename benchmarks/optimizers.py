"""A learned optimizer beside hand-made ones, each at its best rate: on quadratic
functions, on the digits, and on networks that it never trained.

python benchmarks/optimizers.py --quadratics RUN --digits RUN --plot docs/optimizers.png
Both runs are made by `innerloop train l2o`. Every figure of a hand-made optimizer is at
the rate with the lowest such figure on the validation split; figures are of the test
split.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from reporting import finish, parser_of, row
from torch import Tensor, nn
from torch.func import functional_call

import innerloop
from innerloop.core.task import Task, TaskDistribution
from innerloop.learners.optimization.l2o import L2O
from innerloop.measurements import Report, Table
from innerloop.tasks import mlp_digits, quadratics

RATES = [float(f"{m}e{e}") for e in range(-4, 2) for m in (1, 3)]  # 0.0001 to 30
OPTIMIZERS: dict[str, Callable[[list[Tensor], float], torch.optim.Optimizer]] = {
    "SGD": lambda w, lr: torch.optim.SGD(w, lr=lr),
    "momentum": lambda w, lr: torch.optim.SGD(w, lr=lr, momentum=0.9),
    "RMSprop": lambda w, lr: torch.optim.RMSprop(w, lr=lr),
    "Adam": lambda w, lr: torch.optim.Adam(w, lr=lr),
}
Weights = dict[str, Tensor]


def starts(make: Callable[[], nn.Module], n: int) -> Weights:
    """`n` random initializations, stacked."""
    torch.manual_seed(0)
    nets = [dict(make().named_parameters()) for _ in range(n)]
    return {name: torch.stack([net[name].detach() for net in nets]) for name in nets[0]}


def curve_of(
    optimizer: Callable[[list[Tensor], float], torch.optim.Optimizer],
    rate: float,
    learner: L2O,
    begin: Weights,
    tasks: Task,
) -> Tensor:
    """The query loss before every step and after the last (tasks, steps + 1), with the
    minibatches that the learner sees.
    """
    weights = {name: w.clone().requires_grad_() for name, w in begin.items()}
    made, losses = optimizer(list(weights.values()), rate), []

    def loss(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
        return learner.likelihood.nll(functional_call(learner.net, weights, (x,)), y)

    for step in range(learner.inner_steps + 1):
        with torch.no_grad():
            losses.append(torch.vmap(loss)(weights, *tasks.query))
        made.zero_grad()
        part = torch.vmap(
            lambda support: learner.part(support, torch.tensor(float(step)))  # noqa: B023
        )(tasks.support)
        torch.vmap(loss)(weights, *part).sum().backward()
        made.step()
    return torch.stack(losses, 1).nan_to_num(math.inf)


@torch.no_grad()
def learned_curve(learner: L2O, begin: Weights, tasks: Task) -> Tensor:
    rows = []
    for i, task in enumerate(tasks.unbind()):
        for name, p in learner.net.named_parameters():
            p.copy_(begin[name][i])
        states = learner.trajectory(task.support, learner.inner_steps)
        rows.append(
            torch.stack(
                [
                    learner.likelihood.nll(
                        learner.predict(state, task.query.x), task.query.y
                    )
                    for state in states
                ]
            )
        )
    return torch.stack(rows)


def compare(
    run: L2O,
    make: Callable[[], nn.Module],
    tasks: Callable[[str], TaskDistribution],
    n: int,
    seed: int,
) -> dict[str, tuple[dict[str, Tensor | float], Tensor]]:
    """For every optimizer, the last loss and the mean over all steps of `n` test tasks,
    by how much they are above those of the learned one, and the rates; and the curve of
    the optimizer with the best mean, with half widths of 95 % intervals.
    """
    spec = tasks("test").spec
    learner = L2O.build(
        spec,
        net=make(),
        rule=run.rule,
        inner_steps=run.inner_steps,
        minibatch=run.minibatch,
    )
    learner.change.load_state_dict(run.change.state_dict())
    val, test = (
        tasks(split).sample(n, torch.Generator().manual_seed(seed))
        for split, seed in (("val", 1), ("test", seed))
    )
    begin = starts(make, n)
    measures: dict[str, Callable[[Tensor], Tensor]] = {
        "final loss": lambda curves: curves[:, -1],
        "mean loss": lambda curves: curves.mean(1),
    }
    own = learned_curve(learner, begin, test)
    rows: dict[str, tuple[dict[str, Tensor | float], Tensor]] = {}
    for name in ("learned", *OPTIMIZERS):
        found: dict[str, Tensor | float] = {}
        tried = (
            {
                rate: curve_of(OPTIMIZERS[name], rate, learner, begin, val)
                for rate in RATES
            }
            if name in OPTIMIZERS
            else {}
        )
        curves = own
        for measure, of in measures.items():
            if tried:
                rate = min(tried, key=lambda rate: float(of(tried[rate]).mean()))
                curves = curve_of(OPTIMIZERS[name], rate, learner, begin, test)
                found[f"rate for {measure}"] = rate
                found[f"{measure} minus learned"] = of(curves) - of(own)
            found[measure] = of(curves)
        half = 1.96 * curves.std(0) / n**0.5
        rows[name] = found, torch.stack([curves.mean(0), half])
    return rows


def mlp(*hidden: int) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        sizes, layers = [64, *hidden], [nn.Flatten()]
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.Sigmoid()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))

    return make


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--quadratics", required=True, help="a run of l2o on quadratics"
    )
    parser.add_argument("--digits", required=True, help="a run of l2o on mlp-digits")
    parser.add_argument(
        "--functions",
        type=int,
        default=100,
        help="unseen functions or trainings of each kind (100)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=2,
        help="seed of the test functions (2); choose on another seed",
    )
    parser.add_argument("--plot", help="a file for the curves")
    options = parser.parse_args()
    runs = {
        name: innerloop.load(getattr(options, name))
        for name in ("quadratics", "digits")
    }
    settings = {
        "quadratics": (
            "quadratics",
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(10, 1, bias=False)),
            quadratics,
        ),
        "digits, 20 units": ("digits", mlp(20), mlp_digits),
        "digits, 40 units": ("digits", mlp(40), mlp_digits),
        "digits, two layers of 20": ("digits", mlp(20, 20), mlp_digits),
    }
    results, tables = {}, []
    for name, (run, make, tasks) in settings.items():
        results[name] = compare(runs[run], make, tasks, options.functions, options.seed)  # pyright: ignore[reportArgumentType]
        rows = [
            row({"optimizer": optimizer}, found)
            for optimizer, (found, _) in results[name].items()
        ]
        tables.append(Table(name, tuple(rows)))
        print(tables[-1], flush=True)
    finish(Report(tuple(tables)), options)
    if options.plot:
        figure, axes = plt.subplots(
            1, len(results), figsize=(4 * len(results), 3.4), constrained_layout=True
        )
        for axis, (name, found) in zip(axes, results.items(), strict=True):
            for optimizer, (_, (mean, half)) in found.items():
                style: dict[str, Any] = (
                    {"color": "black", "lw": 2} if optimizer == "learned" else {"lw": 1}
                )
                line = axis.plot(mean, label=optimizer, **style)[0]
                axis.fill_between(
                    range(len(mean)),
                    (mean - half).clamp_min(1e-9),
                    mean + half,
                    alpha=0.2,
                    color=line.get_color(),
                )
            axis.set(
                title=name,
                xlabel="step",
                ylabel="loss on new examples" if "digits" in name else "f(w)",
                yscale="log",
            )
        axes[0].legend(frameon=False)
        figure.savefig(options.plot, dpi=110)


if __name__ == "__main__":
    main()
