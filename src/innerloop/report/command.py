"""The command line that repeats a training."""

from __future__ import annotations

import shlex

from innerloop.assembly import TRAIN_FLAGS, training_sections, usual_meta_gradient
from innerloop.engine.options import flag_names
from innerloop.experiment import Experiment


def training_command(experiment: Experiment, out: str) -> str:
    """`innerloop train ...`, with the options that differ from their defaults."""
    learner, tasks = experiment.learner.name, experiment.tasks.name
    how = experiment.meta_gradient
    values = {
        "training": experiment.training,
        "tasks": experiment.tasks.options,
        "learner": experiment.learner.options,
        "how": how.options if how is not None else {},
    }
    words = ["innerloop", "train", learner, tasks]
    taken = set(TRAIN_FLAGS)
    for section in training_sections(learner, tasks, how.name if how else None):
        flags = flag_names(section.options, taken, section.prefix)
        for name, option in section.options.items():
            value = values[section.part].get(name)
            usual = section.usual.get(name, option.default)
            if value is not None and value != usual:
                words += option.words(flags[name], value)
    if how is not None and how.name != usual_meta_gradient(learner):
        words += ["--meta-gradient", how.name]
    for name in ("steps", "minutes", "init_from"):
        value = getattr(experiment, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    for name, default in (("seed", 0), ("precision", "auto"), ("device", "cpu")):
        value = getattr(experiment, name)
        if value != default:
            words += [f"--{name}", str(value)]
    return shlex.join([*words, "--out", out])
