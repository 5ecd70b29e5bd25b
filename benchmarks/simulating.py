"""Steps per second of environments of gymnasium with parameters that differ between
tasks, under random actions: all rows at once where the environment has a class for
that, one environment a row, and gymnasium's SyncVectorEnv. Steps of rows whose episode
has ended are not counted.

python benchmarks/simulating.py --rows 128
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from reporting import finish, parser_of, row
from torch import Tensor

from innerloop.engine.errors import InnerloopError
from innerloop.measurements import Report, Table
from innerloop.rl.baselines import RandomActions
from innerloop.rl.gym import Rows
from innerloop.rl.parametrized import Parametrized, parametrized
from innerloop.rl.rollout import interact

ENVIRONMENTS = {
    "CartPole-v1": "masspole=0.05:0.5 length=0.25:1.0 force_mag=5:15",
    "Pendulum-v1": "g=5:15 m=0.5:2",
    "Acrobot-v1": "LINK_LENGTH_1=0.5:1.5",
    "highway-fast-v0": "vehicles_density=0.8:2.0 vehicles_count=10",
}


def played(environment: Parametrized, params: Tensor) -> Iterable[int]:
    """The number of rows that are not idle, at every step of an episode."""
    rng = torch.Generator().manual_seed(0)
    agent, over = RandomActions(environment, rng), torch.zeros(len(params))
    for step in interact(agent, environment, params, rng, environment.horizon):
        yield int((over < 1).sum())
        over = over + step.y[:, -1]


def played_by_gymnasium(environment: Parametrized, params: Tensor) -> Iterable[int]:
    family, rows = environment.family, params.numpy()
    made: list[Callable[[], object]] = [lambda r=r: family.make(r) for r in rows]
    vector = SyncVectorEnv(made, autoreset_mode=AutoresetMode.SAME_STEP)  # pyright: ignore
    vector.reset(seed=0)
    for _ in range(environment.horizon):
        vector.step(np.stack([family.space.sample() for _ in rows]))
        yield len(rows)


def rate(steps: Iterable[int]) -> float:
    begin = time.process_time()
    total = sum(steps)
    return total / (time.process_time() - begin)


def measured(name: str, vary: str, rows: int, horizon: int) -> dict[str, float]:
    environment = parametrized(name, vary, horizon, 1, "train")
    drawn = environment.sample(rows, torch.Generator().manual_seed(0))
    params = environment.params_of(drawn)
    found = {}
    if environment.family.vector is not None:
        found["all rows at once"] = rate(played(environment, params))
    environment.close()
    environment.simulate = lambda n: Rows(environment.family.make, n)
    found["one environment a row"] = rate(played(environment, params))
    found["SyncVectorEnv"] = rate(played_by_gymnasium(environment, params))
    return found


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=128, help="episodes side by side")
    parser.add_argument("--horizon", type=int, default=100, help="steps of an episode")
    parser.add_argument("--only", choices=ENVIRONMENTS, help="one environment")
    options = parser.parse_args()
    rows = []
    for name, vary in ENVIRONMENTS.items():
        if options.only not in (None, name):
            continue
        try:
            found = measured(name, vary, options.rows, options.horizon)
        except InnerloopError as error:
            print(f"{name} is left out: {error}")
            continue
        rows.append(row({"environment": name}, found))
    finish(Report((Table("steps a second of one core", tuple(rows)),)), options)


if __name__ == "__main__":
    main()
