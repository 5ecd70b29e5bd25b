"""Learners, meta-gradients, environments, evaluations and programs on another device
than the CPU: no tensor may stay behind.

They run on a simulated device in processes of their own, `test_devices.py PART`.
"""

from __future__ import annotations

import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from innerloop import MAML, RL2, DeepCoder, RobustFill, meta_test
from innerloop.core.learner import Learner
from innerloop.core.task import Task, TaskDistribution
from innerloop.engine.options import options
from innerloop.estimators import FewShotClassifier
from innerloop.evaluation import EVALUATIONS
from innerloop.learners import LEARNERS
from innerloop.measurements import TestPlan
from innerloop.metagrad import META_GRADIENTS, backprop, meta_train
from innerloop.optimizer import LearnedOptimizer
from innerloop.rl import META_GRADIENTS as ACTING
from innerloop.rl import Bandits, Environment, Mazes, MDPs, Navigation
from innerloop.tasks import list_programs, string_programs
from innerloop.tasks.episodes import ClassBank, Episodes
from innerloop.testing import Blobs
from tests.engine.simulated_device import NAME, SimulatedDevice, waits
from tests.test_properties import SPECS, built, cases

Case = tuple[str, Callable[[], Any]]
SECONDS = 600
SMALL = {"population": 4, "pairs": 2}


def task(tasks: TaskDistribution) -> Task:
    return tasks.sample(1, torch.Generator().manual_seed(0)).unbind()[0].to(NAME)


def trained(learner: Learner, tasks: TaskDistribution, how: Any) -> None:
    """Two meta-steps."""
    small = {name: n for name, n in SMALL.items() if name in options(how)}
    learner.to(NAME)
    for _ in meta_train(
        learner, tasks, steps=2, batch=2, meta_gradient=how(**small), clip=1.0
    ):
        pass


def learned(kind: Any, fields: dict[str, Any], spec: str) -> None:
    """A gradient, for which the host must not wait for the device, and predictions."""
    short: Any = {n: 2 for n in ("inner_steps", "steps") if n in options(kind)}
    learner, tasks = built(kind, short | fields, spec).to(NAME), Blobs(SPECS[spec])
    batch = tasks.sample(2, torch.Generator().manual_seed(0)).to(NAME)
    if any(p.requires_grad for p in learner.parameters()):
        waits.clear()
        backprop(learner.train(), batch)
        assert not waits, f"the host waits for the device: {dict(waits)}"
        learner.calibrate(batch)
        learner.eval()
    support, query = batch.unbind()[0]
    with torch.no_grad():
        state = learner.adapt(support)
        learner.predict(state, query.x)
        learner.novelty(state, query.x)
        if kind.generate is not Learner.generate:
            learner.generate(support, 2, torch.Generator())
        if kind.next_to_label is not Learner.next_to_label:
            learner.next_to_label(query.x, support, 2)


def learners() -> Iterator[Case]:
    done = set[str]()
    for kind, fields, spec in cases():
        name = f"{kind.__name__} {fields}"
        # convolutions, and all else once
        image = spec == "images" and kind.__name__ in ("FlowMatching", "MAML")
        if name not in done or image:
            done.add(name)
            yield f"{name} {spec}", lambda k=kind, f=fields, s=spec: learned(k, f, s)


def rules() -> Iterator[Case]:
    suiting = {"implicit": "imaml", "neat": "neat"}
    for name, how in META_GRADIENTS.items():
        learner = built(LEARNERS[suiting.get(name, "maml")], {}, "vectors")
        yield name, lambda s=learner, h=how: trained(s, Blobs(SPECS["vectors"]), h)


def acted(learner: type[Learner], how: Any, where: Environment) -> None:
    likelihood = how().likelihood(where)
    torch.manual_seed(0)
    student = learner.build(where.spec, likelihood=likelihood)
    trained(student, where, how)
    where.evaluate(student, TestPlan(n=2))


def environments() -> Iterator[Case]:
    small: Any = {"horizon": 2, "episodes": 2}
    bandits = Bandits(2, 2)
    places = [Bandits(2, 2, "gaussian"), MDPs(2, 2, **small), Navigation(**small)]
    plays = [(RL2, ACTING["ppo"], where) for where in (Mazes(2, **small), *places)]
    plays += [(MAML, ACTING["policy-gradient"], where) for where in (bandits, *places)]
    plays += [(RL2, ACTING["a2c"], bandits), (RL2, META_GRADIENTS["cma-es"], bandits)]
    for learner, how, where in plays:
        name = f"{how.__name__} in {where.title}"
        yield name, lambda s=learner, h=how, w=where: acted(s, h, w)


def evaluations() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(12 * 8, 6, generator=generator)
    of = [group for group in range(4) for _ in range(3)]
    bank = ClassBank.of(values, [8] * 12, [str(i) for i in range(12)], of)
    tasks = Episodes(bank, 3, 2, 2)
    small: Any = {"tasks": 2, "steps": 4, "unknown": 2, "streams": 1, "groups": 2}
    small |= {"shots": 2, "queries": 2}
    suiting = {"labeling": "activelearner", "head-start": "maml"}
    for name in ("maml", "lstm"):
        learner = built(LEARNERS[name], {}, "vectors").to(NAME)
        steps = 1 if name == "maml" else None
        yield (
            f"few-shot of {name}",
            lambda s=learner, n=steps: meta_test(s, tasks, n=2, curve_steps=n),
        )
    for name, kind in EVALUATIONS.items():
        learner = built(LEARNERS[suiting.get(name, "protonet")], {}, "vectors").to(NAME)
        if kind.supports(learner, tasks) is None:
            chosen = {n: value for n, value in small.items() if n in options(kind)}
            if name == "generated-support":
                chosen["generator_run"] = "flowmatching"

            def measured(
                kind: Any = kind, learner: Learner = learner, chosen: Any = chosen
            ) -> None:
                measure = kind(**chosen)
                measure.prepare(lambda run: built(LEARNERS[run], {}, "vectors").eval())
                measure(learner, tasks, TestPlan(n=2))

            yield name, measured


def programs() -> Iterator[Case]:
    small = {"width": 16, "seconds": 5.0}
    texts = {"heads": 2, "layers": 1, "hidden": 16, "beam": 4, "positions": 8}
    for learner, source in (
        (DeepCoder.build(list_programs().spec, **small), list_programs),
        (RobustFill.build(string_programs().spec, **small, **texts), string_programs),
    ):
        tasks = source("val", shots=2, queries=2)

        def inferred(learner: Learner = learner, tasks: Any = tasks) -> None:
            trained(learner, tasks, META_GRADIENTS["backprop"])
            search: Any = EVALUATIONS["program-search"]
            search(compare=False)(learner, tasks, TestPlan(n=1))

        yield type(learner).__name__, inferred


def uses() -> Iterator[Case]:
    def mixing() -> None:
        far = torch.ones(2, device=NAME)
        with pytest.raises(RuntimeError, match="is on the CPU"):
            far.add(torch.ones(2))
        with pytest.raises(RuntimeError, match="is on the CPU"):
            torch.ones(2)[far.long()]
        with pytest.raises(RuntimeError, match="generator is on the CPU"):
            torch.rand(2, generator=torch.Generator(), device=NAME)

    def estimator() -> None:
        support, query = task(Blobs(SPECS["vectors"])).to("cpu")
        learner = built(LEARNERS["protonet"], {}, "vectors").to(NAME)
        model = FewShotClassifier(learner, reject=0.1)
        model.fit(support.x, support.y.argmax(-1))
        model.predict(query.x)
        model.predict_sets(query.x)

    def optimizer() -> None:
        net = torch.nn.Linear(3, 2).to(NAME)
        learner: Any = built(LEARNERS["l2o"], {}, "vectors")
        rule = LearnedOptimizer(net.parameters(), learner)
        for _ in range(2):
            net(torch.ones(4, 3, device=NAME)).square().sum().backward()
            rule.step()
        rule.load_state_dict(rule.state_dict())

    yield "a mixture of devices", mixing
    yield "FewShotClassifier", estimator
    yield "LearnedOptimizer", optimizer


# each in a process of its own
PARTS: dict[str, list[Callable[[], Iterator[Case]]]] = {
    "learners": [learners],
    "others": [rules, environments, evaluations, programs, uses],
}


def main(part: str) -> str:
    """What went wrong in the cases of a part."""
    wrong: list[str] = []
    with SimulatedDevice(), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a loop in the place of vmap
        for name, case in chain.from_iterable(cases() for cases in PARTS[part]):
            try:
                case()
            except Exception:
                wrong.append(f"{name}\n{traceback.format_exc()}")
    return "\n".join(wrong)


@pytest.mark.parametrize("part", PARTS)
def test_nothing_stays_on_the_cpu(part: str) -> None:
    words = [sys.executable, "-m", __name__, part]
    done = subprocess.run(
        words,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert not done.returncode, done.stderr


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) or 0)
