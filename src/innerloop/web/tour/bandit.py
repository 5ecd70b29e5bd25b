"""A Bernoulli bandit that a person plays beside RL squared, Thompson sampling and the
Gittins index.

In every pull, the same uniform number decides for all players whether the arm that
they pulled gives a reward.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop.engine.errors import InnerloopError
from innerloop.rl.bandit_baselines import Gittins, Thompson
from innerloop.rl.bandits import Bandits, bandits
from innerloop.rl.rollout import Agent, interact, streaming_agent
from innerloop.web.http import COUNT, array, record
from innerloop.web.tour.piece import SEED, Piece, numbers, ready

PULLS = 20
RUNS = {2: "bandit-2", 5: "bandit-5"}  # by the number of arms
GAMES = 1000  # whose average is shown
KEPT = 256  # games
REWARDS = 4  # added to the seed of a game: the arms and the players have their own


@cache
def environment(arms: int) -> Bandits:
    return bandits("test", arms=arms, pulls=PULLS)


def agents(arms: int, seed: int) -> dict[str, Agent]:
    """New players by name, each with a generator of its own."""
    tasks = environment(arms)
    rngs = (torch.Generator().manual_seed(seed + i) for i in range(1, 4))
    return {
        "rl2": streaming_agent(ready(RUNS[arms]), next(rngs)),
        "thompson": Thompson(tasks, next(rngs)),
        "gittins": Gittins(tasks, next(rngs)),
    }


@cache
def averages(arms: int) -> dict[str, float]:
    """The mean reward of every player in other games."""
    tasks = environment(arms)
    params = tasks.sample_params(GAMES, torch.Generator().manual_seed(0))
    found = {"best": PULLS * params.max(-1).values.mean()}
    for name, agent in agents(arms, 0).items():
        rng = torch.Generator().manual_seed(REWARDS)
        steps = interact(agent, tasks, params, rng, PULLS)
        found[name] = torch.stack([step.y[:, -2] for step in steps]).sum(0).mean()
    return {name: numbers(value)[0] for name, value in found.items()}


@lru_cache(KEPT)
def game(arms: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The means (arms,) of a game, and what every player does: (PULLS, arms + 2)."""
    tasks = environment(arms)
    params = tasks.sample_params(1, torch.Generator().manual_seed(seed))
    played = {}
    for name, agent in agents(arms, seed).items():
        rng = torch.Generator().manual_seed(seed + REWARDS)
        steps = interact(agent, tasks, params, rng, PULLS)
        played[name] = torch.cat([step.y for step in steps])
    return params[0], played


def rewards_of(actions: list[int], arms: int, seed: int) -> list[int]:
    """The rewards of a person's pulls."""
    tasks, (means, _) = environment(arms), game(arms, seed)
    params, rng = means[None], torch.Generator().manual_seed(seed + REWARDS)
    state, found = tasks.start(params, rng), []
    for action in actions:
        one_hot = F.one_hot(torch.tensor([action]), arms).float()
        state, reward, _ = tasks.step(params, state, one_hot, rng)
        found.append(int(reward))
    return found


def run(body: dict[str, Any]) -> dict[str, Any]:
    arms, actions, seed = body["arms"], body["actions"], body["seed"]
    if max(actions, default=0) >= arms:
        raise InnerloopError(f"this bandit has {arms} arms, numbered from 0")
    means, played = game(arms, seed)
    n, over = len(actions), len(actions) == PULLS
    return {
        "pulls": PULLS,
        "rewards": rewards_of(actions, arms, seed),
        "players": [
            {
                "name": name,
                "rewards": y[:n, -2].long().tolist(),
                "actions": y[:, :arms].argmax(-1).tolist() if over else None,
                "average": averages(arms)[name],
            }
            for name, y in played.items()
        ],
        "means": numbers(means) if over else None,
        "best": averages(arms)["best"],
    }


NUMBERS, NOTHING = array({"type": "number"}), {"type": "null"}
PIECE = Piece(
    "bandit",
    "A game of pulls at the arms of a bandit, and what three algorithms do in it.",
    run,
    record(
        seed=SEED,
        arms={"enum": list(RUNS)},
        actions=array({"type": "integer", "minimum": 0, "maximum": 4}, PULLS),
    ),
    record(
        pulls=COUNT,
        rewards=array(COUNT),
        players=array(
            record(
                name={"type": "string"},
                rewards=array(COUNT),
                actions={"anyOf": [array(COUNT), NOTHING]},
                average={"type": "number"},
            )
        ),
        means={"anyOf": [NUMBERS, NOTHING]},
        best={"type": "number"},
    ),
)
