"""The parts of an experiment: how they are chosen and built."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from innerloop.core.learner import Learner
from innerloop.core.task import TaskDistribution, TaskSpec
from innerloop.encoders import split_name, trained_part
from innerloop.engine import options as typed
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.training_config import MetaTrainConfig
from innerloop.engine.user_file import absolute, is_in_file
from innerloop.metagrad import MetaGradient
from innerloop.readers.base import Reader
from innerloop.readers.encoded import encoded_reader
from innerloop.registry import Entry, entries, find
from innerloop.runs import RunError

SIZES = ("ways", "shots", "queries", "groups")
SMALLEST = {"ways": 2, "shots": 1, "queries": 1, "groups": 0}

# flags of `innerloop train` itself; options with these names have a prefix
TRAIN_FLAGS = frozenset(
    f"--{name}"
    for name in (
        *("out", "resume", "events", "tensorboard", "init-from", "steps", "minutes"),
        *("meta-gradient", "precision", "device", "processes", "ray", "seed"),
    )
)


def preferred_sizes(source: Entry, config: MetaTrainConfig) -> dict[str, int]:
    """The sizes of the tasks that a learner prefers, by option of the task source;
    empty where the source has no ways.
    """
    return {
        name: value
        for name in SIZES
        if {"ways", name} <= source.options.keys()
        and (value := vars(config)[name]) is not None
    }


def usual_meta_gradient(learner: str) -> str:
    """The meta-gradient of a learner, by its name."""
    entry = find("learner", learner)
    preset = entry.preset.meta_gradient if entry.preset else None
    return preset or entry.factory.defaults.meta_gradient


@dataclass(frozen=True)
class Section:
    """Options of a training that belong together.

    Args:
        part: "training", "tasks", "learner" or "how", the meta-gradient.
        title: for the reader.
        prefix: precedes a flag whose name is taken.
        options: by name.
        usual: defaults that differ from those of the options, by name.
    """

    part: str
    title: str
    prefix: str
    options: Mapping[str, typed.Option]
    usual: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dest(self) -> str:
        """What precedes the options' names in the arguments of a command."""
        return f"{self.part}__"


def training_sections(
    learner: str, tasks: str | None = None, meta_gradient: str | None = None
) -> list[Section]:
    """The options of a training, from the names of its parts, in the order of the help
    text and of forms.

    Raises InnerloopError for a name that does not exist.
    """
    entry = find("learner", learner)
    usual = entry.factory.defaults
    left_out = (*SIZES, "meta_gradient")  # options of the tasks, and a flag of its own
    training = {
        n: o for n, o in typed.options(MetaTrainConfig).items() if n not in left_out
    }
    found = [Section("training", "Meta-training", "training", training, vars(usual))]
    if tasks is not None:
        source = find("tasks", tasks)
        sizes = preferred_sizes(source, usual)
        title = f"Tasks: {source.name}"
        found.append(Section("tasks", title, "tasks", source.options, sizes))
    preset = entry.preset.fields if entry.preset else {}
    title = f"Learner: {entry.name}"
    found.append(Section("learner", title, "learner", entry.options, preset))
    how = find("meta-gradient", meta_gradient or usual_meta_gradient(learner))
    title = f"Meta-gradient: {how.name}"
    return [*found, Section("how", title, "meta-gradient", how.options)]


@dataclass(frozen=True)
class Choice:
    """Something chosen by name, with the options that differ from its defaults."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options = self.options
        if not isinstance(self.name, str) or not isinstance(options, dict):
            raise InnerloopTypeError(
                "a choice must be a name, or a name and its options; got "
                f"{self.name!r:.60} and {options!r:.60}"
            )

    @classmethod
    def of(cls, value: Choice | str | Mapping[str, Any]) -> Choice:
        """A choice from its name, or from JSON. Raises InnerloopTypeError for anything
        else.
        """
        if isinstance(value, Choice):
            return value
        if isinstance(value, Mapping):
            return cls(value.get("name", ""), value.get("options", {}))
        return cls(value)


def build_tasks(
    source: Entry, split: str, options: Mapping[str, Any], reader: Choice | None
) -> TaskDistribution:
    takes_reader = "reader" in typed.options(source.factory)
    extra = {"reader": make_reader(reader)} if takes_reader and reader else {}
    return source.factory(split, **options, **extra)


def smallest(source: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with the smallest sizes where none are set."""
    sizes = {n: v for n, v in SMALLEST.items() if n in source.options}
    return {**sizes, **options}


def probed(source: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of training for tasks of another split, which may have fewer classes:
    with the smallest ways and queries.
    """
    kept = {n: v for n, v in options.items() if n not in ("ways", "queries")}
    return smallest(source, kept)


def choose_meta_gradient(
    learner: type[Learner], tasks: TaskDistribution, wanted: Choice | None
) -> tuple[str, MetaGradient]:
    """Name and instance of the meta-gradient that is wanted, or of the one that suits
    the learner and the tasks.
    """
    known = entries("meta-gradient")
    suiting = [
        n for n, e in known.items() if e.factory.supports(learner, tasks) is None
    ]
    if wanted is not None:
        entry = find("meta-gradient", wanted.name)
        reason = entry.factory.supports(learner, tasks)
        if reason is not None:
            raise InnerloopTypeError(
                f"{entry.name} cannot train {learner.__name__} on these tasks: "
                f"{reason}; "
                f"choose one of {', '.join(suiting)}"
            )
        return entry.name, entry.factory(**entry.check(wanted.options))
    usual = learner.defaults.meta_gradient
    if usual not in suiting and not suiting:
        reason = known[usual].factory.supports(learner, tasks)
        raise InnerloopTypeError(
            f"no meta-gradient can train {learner.__name__} on these tasks: {reason}"
        )
    # one that knows how it trains best, such as ppo for a learner with memory
    ready = [n for n in suiting if known[n].factory.defaults is not None]
    name = usual if usual in suiting else (ready or suiting)[0]
    return name, known[name].factory()


def training_config(
    learner: type[Learner], name: str, rule: MetaGradient, changed: Mapping[str, Any]
) -> MetaTrainConfig:
    own = learner.defaults.meta_gradient == name or rule.defaults is None
    usual = learner.defaults if own else rule.defaults
    assert usual is not None
    if not rule.uses_optimizer:
        ours = (
            *("optimizer", "lr", "pretrained_lr"),
            *("weight_decay", "warmup", "decay", "clip"),
        )
        wrong = next(
            (k for k in ours if changed.get(k, getattr(usual, k)) != getattr(usual, k)),
            None,
        )
        if wrong is not None:
            raise InnerloopError(
                f"{name} moves the parameters without an optimizer, so "
                f"--{wrong.replace('_', '-')} does not apply"
            )
    return replace(usual, **{**changed, "meta_gradient": name})


def choice_of(kind: Any, value: Any) -> Choice | None:
    """The entry and options that a dataclass instance was made of."""
    if value is None:
        return None
    for name, entry in entries(kind).items():
        if entry.factory is type(value):
            return Choice(name, asdict(value))
    raise InnerloopError(f"{type(value).__name__} is not in the registry of {kind}s")


def reader_choice(reader: Reader | None) -> Choice | None:
    return None if reader is None else Choice(reader.kind, reader.settings())


def encoded_choice(learner: type[Learner], experiment: Any) -> Choice | None:
    """The reader of the pretrained encoder that a network of the learner is named by,
    or None.

    Raises InnerloopError where networks name different ones, and for tasks whose inputs
    no reader makes.
    """
    options, source = experiment.learner.options, experiment.tasks.name
    names = {
        value
        for network in learner.named_networks
        if split_name(value := options.get(network))[0] or trained_part(value)
    }
    if not names:
        return None
    if len(names) > 1:
        raise InnerloopError(
            f"networks of one learner read the same inputs; got {', '.join(names)}"
        )
    if "reader" not in typed.options(find("tasks", source).factory):
        raise InnerloopError(
            f"{names.pop()} reads images, texts or sounds, and {source} makes its own "
            "inputs: choose another encoder"
        )
    return reader_choice(encoded_reader(names.pop(), experiment.tasks.options))


def make_reader(choice: Choice | None) -> Reader | None:
    """A reader from its settings. Raises RunError for settings that are none."""
    if choice is None:
        return None
    try:
        return find("reader", choice.name).factory.from_settings(choice.options)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise RunError(f"the reader's settings cannot be used: {error}") from error


def reader_fits(reader: Reader | None, spec: TaskSpec) -> bool:
    """Whether a reader makes the inputs that a task has."""
    return (
        reader is not None
        and reader.vocabulary == spec.vocabulary
        and reader.x_shape in (None, spec.x_shape)
    )


def check_required(source: Entry, options: Mapping[str, Any]) -> None:
    """Raises InnerloopError where an option without a default is missing."""
    for name, option in source.options.items():
        if option.default is MISSING and name not in options:
            text = f", {option.help}" if option.help else ""
            raise InnerloopError(f"{source.name} needs {option.flag}{text}")


def absolute_paths(source: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with paths that hold from any folder."""
    known = source.options

    def held(name: str, value: Any) -> Any:
        if is_in_file(value):
            return absolute(value)
        return str(Path(value).resolve()) if value and known[name].is_path else value

    return {name: held(name, value) for name, value in options.items()}


def check_reader_options(
    reader: Choice, options: Mapping[str, Any], owner: str
) -> None:
    """Raises InnerloopError where options ask for another way of reading inputs."""
    for name, value in options.items():
        if name.endswith("_column"):  # columns have nothing to do with networks
            continue
        there = reader.options.get(name, value)
        sizes = there if isinstance(there, list | tuple) else [there]
        if any(size != value for size in sizes):
            raise InnerloopError(
                f"{name} {value} does not fit the networks of {owner}, which read "
                "their "
                f"inputs with {name} {sizes[0]}"
            )


def data_digest(tasks: TaskDistribution) -> str | None:
    keys = sorted(tasks.class_keys())
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16] if keys else None


def check_device(name: str) -> torch.device:
    """The device of that name. Raises InnerloopError where this machine has none."""
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise InnerloopError("the device meta holds no data: choose cpu or cuda")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InnerloopError(f"there is no device {name!r} here: {reason}") from error
    return device


def fast_bf16(device: str) -> bool:
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return (
        device == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def to_device(tree: Any, device: str) -> Any:
    """A pytree with its tensors on a device."""
    return tree_map(lambda t: t.to(device) if isinstance(t, Tensor) else t, tree)


def copy_networks(learner: Learner, source: Learner, run: str) -> list[str]:
    """Copy the networks of another learner, of a run; returns their names.

    A network is copied whole. One that can be chosen by name, such as an encoder, must
    fit; others, such as an output layer for another number of ways, stay new where they
    do not. Networks inside a field `net` match those that stand alone.

    Raises RunError where a network does not fit, or none is shared.
    """
    stored = _by_network(source.state_dict())
    own = _by_network(learner.state_dict())
    copied: dict[str, Tensor] = {}
    names = []
    for network in sorted(own.keys() & stored.keys()):
        ours, theirs = own[network], stored[network]
        wrong = [
            n for n in sorted({*ours, *theirs}) if _shape(ours, n) != _shape(theirs, n)
        ]
        if not wrong:
            copied |= theirs
            names.append(network)
        elif network in learner.named_networks:
            raise RunError(
                f"the network {network} of {run} does not fit: {wrong[0]} has shape "
                f"{_shape(theirs, wrong[0])} there and {_shape(ours, wrong[0])} here"
            )
    if not names:
        raise RunError(
            f"{run} shares no network with {type(learner).__name__}: it has "
            f"{', '.join(sorted(stored)) or 'none'}"
        )
    state = learner.state_dict()
    fitting = {n: copied[s] for n in state if (s := n.removeprefix("net.")) in copied}
    learner.load_state_dict({**state, **fitting})
    return names


def _by_network(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by the network that holds them; a learner's own parameters are none."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        short = name.removeprefix("net.")
        if "." in short:
            found.setdefault(short.split(".")[0], {})[short] = tensor
    return found


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
