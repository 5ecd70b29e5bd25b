"""One of the further processes of a test: `worker.py FOLDER NUMBER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from innerloop.engine.memory import tune_allocator
from innerloop.engine.sharing import Exchange, sharing
from innerloop.experiment import Experiment
from innerloop.measurements import TestPlan
from innerloop.sharded import TEST, WEIGHTS


def main(folder: Path, number: int) -> None:
    """The same test as in the process that wrote the folder."""
    tune_allocator()
    torch.set_num_threads(1)
    test = json.loads((folder / TEST).read_text())
    experiment = Experiment.from_dict(test["experiment"])
    learner = experiment.build_learner()
    learner.load_state_dict(torch.load(folder / WEIGHTS, "cpu", weights_only=True))
    for name, value in test["fields"].items():
        if getattr(learner, name) != value:
            setattr(learner, name, value)
    arguments = test["arguments"]
    plan, options = TestPlan(**arguments.pop("plan")), arguments.pop("options")
    with sharing(Exchange(folder, number)):
        experiment.test(learner.to(test["device"]), plan, **arguments, **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
