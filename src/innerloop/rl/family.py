"""Families of environments of gymnasium: how an environment takes the parameters that
differ between tasks.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError
from innerloop.engine.user_file import from_file, is_in_file
from innerloop.rl.gym import (
    Array,
    Env,
    EnvSpec,
    VectorEnv,
    gymnasium,
    load_env_creator,
)
from innerloop.rl.parameters import PLAIN, Parameter

PLUGINS = ("gymnasium.envs", "gymnasium.envs.__root__")  # entry points of packages
CHECKED_STEPS = 20  # of an environment, before it is used


class Family:
    """An environment of gymnasium, of which some parameters differ between tasks.

    A parameter is a keyword of the environment's constructor; or a key of its
    dictionary `config`, where the constructor takes one; or else an attribute. An
    attribute has its value while the constructor runs already, so that what is computed
    from it there follows, and assignments do not change it.

    Args:
        env: "Name-v0", "module:Name-v0" where a package registers it when it is
            imported, or "file.py:Class".
        parameters: those that differ.

    Raises InnerloopError for an environment that does not exist, or a parameter that it
    does not take.
    """

    def __init__(self, env: str, parameters: Sequence[Parameter]):
        self.name, self.spec = env, find(env)
        self.creator = _creator(self.spec)
        self.keywords = _keywords(self.creator)
        # a constructor may need some of them
        first = {p.name: p.value(p.ends()[0]) for p in parameters}
        needed = {k: v for k, v in first.items() if k in self.keywords}
        try:
            plain = self._made(self.creator, needed)
        except Exception as error:
            raise _cannot_be_made(env, needed, error) from error
        known = self._known(plain.unwrapped)
        plain.close()
        names = [parameter.name for parameter in parameters]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InnerloopError(f"vary names {twice} more than once")
        for name in names or [""]:
            if not any(name in group for group in known.values()):
                raise InnerloopError(self._problem(name, known))
        defaults = {
            k: v for group in reversed(known.values()) for k, v in group.items()
        }
        self.parameters = [each.typed(defaults[each.name]) for each in parameters]
        self.given = {
            name: next(way for way, group in known.items() if name in group)
            for name in names
        }
        self.held = [name for name, way in self.given.items() if way == "attributes"]
        corners = self._corners()
        made = [self.make(row) for row in corners]
        self.observed, self.space = made[0].observation_space, made[0].action_space
        for row, one in zip(corners, made, strict=True):
            one.close()
            shape = one.observation_space.shape
            if shape != self.observed.shape or one.action_space != self.space:
                raise InnerloopError(
                    f"all tasks must have the same observations and actions; with "
                    f"{self.words(row)}, {env} has {one.observation_space} and "
                    f"{one.action_space}, and with {self.words(corners[0])} it has "
                    f"{self.observed} and {self.space}"
                )

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """The parameters (n, p) of n tasks."""
        drawn = [each.sample(n, generator) for each in self.parameters]
        return torch.stack(drawn, 1)

    def values(self, params: Array) -> dict[str, Any]:
        """The parameters (p,) of a task, by name."""
        numbers = zip(self.parameters, params.tolist(), strict=True)
        return {each.name: each.value(number) for each, number in numbers}

    def words(self, params: Array) -> str:
        """The parameters (p,) of a task, for the reader."""
        return _words(self.values(params))

    def make(self, params: Array, old: Env | None = None) -> Env:
        """The environment of a task with parameters (p,).

        Raises InnerloopError where it cannot be made.
        """
        if old is not None:
            old.close()
        try:
            values = self.values(params)
            return self._made(
                self._entry(self.creator, values), self._arguments(values)
            )
        except Exception as error:
            raise _cannot_be_made(self.name, self.values(params), error) from error

    @cached_property
    def vector(self) -> Any:
        """The class that simulates all rows at once: the `vector_entry_point` of the
        environment, if with arrays of parameters (n,) every row of it moves as it does
        with the number in that row; or None.
        """
        creator = self.spec.vector_entry_point
        numeric = all(each.is_numeric for each in self.parameters)
        if creator is None or not numeric or self.spec.additional_wrappers:
            return None
        creator = load_env_creator(creator) if isinstance(creator, str) else creator
        rng, n = torch.Generator().manual_seed(0), 3
        params = self.sample(n, rng).numpy()
        self.space.seed(0)
        actions = [self.space.sample() for _ in range(n * CHECKED_STEPS)]
        taken = np.stack(actions).reshape(CHECKED_STEPS, n, *(self.space.shape or ()))

        def played(values: Mapping[str, Any]) -> Array:
            """What every row meets until its episode ends, (steps, n, d)."""
            made = self.made_together(creator, n, values, CHECKED_STEPS)
            made.reset(seed=0)
            rows, over = [], np.zeros(n, dtype=bool)
            for action in taken:
                observed, reward, done, cut, _ = made.step(action)
                parts = (
                    observed.reshape(n, -1),
                    reward[:, None],
                    (done | cut)[:, None],
                )
                rows.append(np.where(over[:, None], 0.0, np.concatenate(parts, 1)))
                over = over | done | cut
            made.close()
            return np.stack(rows)

        try:
            plain = self.made_together(creator, n, {}, CHECKED_STEPS)
            if not all(hasattr(plain, name) for name in self.held):
                return None
            together = played(self.columns(params))
            alone = [played(self.values(row))[:, i] for i, row in enumerate(params)]
        except Exception:  # it takes no arrays, or does not have the parameters
            return None
        same = np.allclose(together, np.stack(alone, 1), rtol=1e-5, atol=1e-6)
        return creator if same else None

    @cached_property
    def unnoticed(self) -> list[str]:
        """The parameters of which the first and the last value make no difference to
        some steps with random actions.
        """
        found = []
        for i, parameter in enumerate(self.parameters):
            ends = parameter.ends()
            rows = np.array([[each.ends()[0] for each in self.parameters]] * 2)
            rows[1, i] = ends[-1]
            first, last = map(self._played, rows)
            same = first.shape == last.shape and np.array_equal(first, last)
            if len(ends) > 1 and same:
                found.append(parameter.name)
        return found

    def _played(self, params: Array) -> Array:
        """The observations and rewards of an episode of a task with parameters (p,),
        with the same seed and random actions for all of them.
        """
        env = self.make(params)
        self.space.seed(0)
        met = [np.ravel(env.reset(seed=0)[0])]
        for _ in range(CHECKED_STEPS):
            observed, reward, done, cut, _ = env.step(self.space.sample())
            met += [np.ravel(observed), np.array([reward])]
            if done or cut:
                break
        env.close()
        return np.concatenate(met)

    def columns(self, params: Array) -> dict[str, Array]:
        """The parameters (n, p) of n tasks as arrays (n,), by name."""
        rows = [self.values(row) for row in params]
        return {name: np.array([row[name] for row in rows]) for name in self.given}

    def made_together(
        self, creator: Any, n: int, values: Mapping[str, Any], horizon: int
    ) -> VectorEnv:
        """A vector environment of n rows, with parameters that are numbers, or arrays
        (n,).
        """
        sizes = {"num_envs": n, "max_episode_steps": horizon + 1}
        taken = {k: v for k, v in sizes.items() if k in _keywords(creator)}
        arguments = {**self.spec.kwargs, **self._arguments(values)}
        return self._entry(creator, values)(**taken, **arguments)

    def _made(self, creator: Any, arguments: Mapping[str, Any]) -> Env:
        env = gymnasium.make(
            replace(self.spec, entry_point=creator),
            max_episode_steps=-1,
            disable_env_checker=True,
            **arguments,
        )
        box = isinstance(env.observation_space, gymnasium.spaces.Box)
        if not box or not env.observation_space.shape:
            env = gymnasium.wrappers.FlattenObservation(env)
        return env

    def _entry(self, creator: Any, values: Mapping[str, Any]) -> Any:
        """What makes an environment that has the attributes among the values."""
        held = {name: values[name] for name in self.held if name in values}
        return _holding(creator, held) if held else creator

    def _arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the constructor for the values."""
        by_way: dict[str, dict[str, Any]] = {"keywords": {}, "config": {}}
        for name, value in values.items():
            by_way.setdefault(self.given[name], {})[name] = value
        if by_way["config"]:
            usual = self.spec.kwargs.get("config") or {}
            by_way["keywords"]["config"] = {**usual, **by_way["config"]}
        return by_way["keywords"]

    def _known(self, env: Env) -> dict[str, dict[str, Any]]:
        """What the environment takes, by way and name, with defaults."""
        found: dict[str, dict[str, Any]] = {
            "keywords": {**self.keywords, **self.spec.kwargs}
        }
        config = getattr(env, "config", None)
        if "config" in self.keywords and isinstance(config, dict):
            del found["keywords"]["config"]
            found["config"] = config
        if self.creator is type(env):
            public = [name for name in dir(env) if name[0] != "_"]
            found["attributes"] = {
                name: value
                for name in public
                if isinstance(value := inspect.getattr_static(env, name), PLAIN)
            }
        return {
            way: {
                name: value
                for name, value in group.items()
                if name not in ("self", "render_mode")
            }
            for way, group in found.items()
        }

    def _problem(self, name: str, known: Mapping[str, Mapping[str, Any]]) -> str:
        every = [key for group in known.values() for key in group]
        guess = did_you_mean(name, every, "") if name else ""
        listed = "; ".join(
            f"{way}: {', '.join(sorted(group))}"
            for way, group in known.items()
            if group
        )
        said = (
            f"{self.name} has no parameter {name!r}{guess}"
            if name
            else (f"{self.name} needs at least one parameter that varies")
        )
        return f"{said} (it has {listed or 'none'})"

    def _corners(self) -> list[Array]:
        """Parameters (p,) that together have every end and every choice."""
        ends = [each.ends() for each in self.parameters]
        most = max(map(len, ends))
        return [
            np.array([some[min(i, len(some) - 1)] for some in ends])
            for i in range(most)
        ]


def find(env: str) -> EnvSpec:
    """The specification of an environment by name.

    Raises InnerloopError where there is none.
    """
    if is_in_file(env):
        name = "".join(c for c in env.rsplit(":", 1)[1] if c.isalnum() or c == "_")
        return EnvSpec(f"own/{name}-v0", entry_point=from_file(env))
    module, colon, name = env.rpartition(":")
    try:
        if colon:
            importlib.import_module(module)
        elif name not in gymnasium.registry:
            _load_plugins()
        return gymnasium.spec(name)
    except (ImportError, gymnasium.error.Error) as error:
        text = str(error).split("\n")[0]
        raise InnerloopError(
            f"there is no environment {env!r} ({text}): name one that gymnasium knows, "
            "MODULE:NAME for one of another package, or FILE.py:CLASS; or install the "
            "package that has it"
        ) from error


def _words(values: Mapping[str, Any]) -> str:
    shown = {k: f"{v:.4g}" if type(v) is float else v for k, v in values.items()}
    return ", ".join(f"{k} = {v}" for k, v in shown.items())


def _cannot_be_made(
    env: str, values: Mapping[str, Any], error: Exception
) -> InnerloopError:
    given = f" with {_words(values)}" if values else ""
    return InnerloopError(
        f"{env} cannot be made{given}: {type(error).__name__}: {error}"
    )


def _load_plugins() -> None:
    """Let installed packages register their environments."""
    for group in PLUGINS:
        for entry in metadata.entry_points(group=group):
            entry.load()()


def _creator(spec: EnvSpec) -> Any:
    entry = spec.entry_point
    try:
        return load_env_creator(entry) if isinstance(entry, str) else entry
    except (ImportError, AttributeError, gymnasium.error.Error) as error:
        raise InnerloopError(f"{spec.id} cannot be imported: {error}") from error


def _keywords(creator: Any) -> dict[str, Any]:
    """The keyword arguments of a class or function with their defaults, None where
    there is none.
    """
    named = (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    return {
        name: None if p.default is p.empty else p.default
        for name, p in inspect.signature(creator).parameters.items()
        if p.kind in named
    }


def _holding(cls: Any, held: Mapping[str, Any]) -> Any:
    """A class like `cls` whose instances have these attributes from the beginning, and
    keep them when they are assigned.
    """

    def ignored(self: Any, value: Any) -> None:
        pass

    def attribute(value: Any) -> property:
        return property(lambda self: value, ignored)

    return type(cls.__name__, (cls,), {k: attribute(v) for k, v in held.items()})
