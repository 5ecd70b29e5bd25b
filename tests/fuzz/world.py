"""Good data and small trained runs, of which bad ones are made."""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch

from innerloop.assembly import Choice
from innerloop.cli import main
from innerloop.core.task import TaskSpec
from innerloop.experiment import Experiment
from innerloop.programs import strings
from innerloop.programs.strings import LONGEST
from innerloop.readers import ImageReader, MoleculeReader
from innerloop.runs import Run
from innerloop.tasks import stories
from innerloop.tasks.programs import SYMBOLS
from innerloop.tasks.sentences import FEATURES
from tests.fuzz.bad_data import write_arrays, write_pictures, write_table

SHORT = "--steps 1 --batch 1 --seed 1"
CLASSES = f"--ways 2 --shots 1 --queries 1 {SHORT}"
TRAINED = {
    "images": "protonet folder --root {data}/pictures --size 8 --encoder mlp "
    f"{CLASSES}",
    "texts": f"protonet text --file {{data}}/text.csv {CLASSES}",
    "rows": f"protonet arrays --file {{data}}/table.csv {CLASSES}",
    "arrays": f"r2d2 arrays --file {{data}}/arrays.npz {CLASSES}",
    "drawn": f"metavae folder --root {{data}}/pictures --size 8 --width 4 {CLASSES}",
    "sine": f"maml sinusoid {SHORT}",
    "curves": f"cnp gp-curves --width 8 {SHORT}",
    "bandits": f"rl2 bandits --arms 2 --pulls 3 --hidden 4 {SHORT}",
    "scratch": f"scratch sinusoid {SHORT}",
}
IMAGES = Choice("image", ImageReader(1, (8, 8)).settings())
# runs whose training data are large, or whose training takes long
UNTRAINED = {
    "active": Experiment(
        Choice("activelearner", {"encoder": "mlp", "labels": 3}),
        Choice("pools"),
        reader=IMAGES,
        spec=TaskSpec("classes", (1, 8, 8), 4),
    ),
    "molecules": Experiment(
        Choice("protonet"),
        Choice("tox21"),
        reader=Choice("molecule", MoleculeReader(bits=16).settings()),
        spec=TaskSpec("classes", (16,), 2),
    ),
    "languages": Experiment(
        Choice("mlc", {"width": 8, "heads": 2, "layers": 2}),
        Choice("instructions", {"symbols": 8}),
        spec=TaskSpec("tokens", (8,), 9, vocabulary=10),
    ),
    "stories": Experiment(
        Choice("incontext", {"width": 8, "heads": 2, "layers": 1}),
        Choice("stories", {"facts": 4, "symbols": 6}),
        spec=stories(facts=4, symbols=6).spec,
    ),
    "summaries": Experiment(
        Choice("alpaca", {"encoder": "flatten"}),
        Choice("descriptions"),
        spec=TaskSpec("reals", (FEATURES,), 3),
    ),
    "programs": Experiment(
        Choice("robustfill", {"width": 8, "heads": 2, "layers": 1, "hidden": 8}),
        Choice("string-programs"),
        spec=TaskSpec(
            "programs", (LONGEST,), LONGEST + SYMBOLS, vocabulary=strings.VOCABULARY
        ),
    ),
}


def make(folder: Path) -> list[str]:
    """Good data in FOLDER/data and runs in FOLDER/runs; returns their names."""
    data, runs = folder / "data", folder / "runs"
    data.mkdir(parents=True)
    rng = Random(0)
    write_pictures(data / "pictures", rng)
    kinds = ("text", "table", "molecules", "programs", "languages", "summaries")
    for kind in kinds:
        write_table(data / f"{kind}.csv", kind, rng)
    (data / "story.txt").write_text("Ann went to the shop. Ann took a hat.\n")
    write_arrays(data / "arrays.npz")
    for name, line in TRAINED.items():
        words = line.format(data=data).split()
        assert main(["train", *words, "--out", str(runs / name)]) == 0, name
    for name, experiment in UNTRAINED.items():
        torch.manual_seed(0)
        run = Run(runs / name)
        with run.locked():
            run.create(experiment.as_dict())
            run.save_weights(experiment.build_learner().state_dict())
    return [*TRAINED, *UNTRAINED]
