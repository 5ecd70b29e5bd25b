"""What every task source answers about itself."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import innerloop
from innerloop import Gaussian, Learner, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import options
from innerloop.learners import LEARNERS
from innerloop.measurements import TestPlan
from innerloop.readers import ImageReader
from innerloop.tasks import TASKS, ClassBank
from innerloop.tasks.gp_curves import Curves
from innerloop.tasks.pools import Pools
from innerloop.tasks.splits import task_source

GENERATED = (
    *("strokes", "sinusoid", "sums", "copy", "repeat-copy", "associative-recall"),
    *("gp-curves", "completion", "xor", "quadratics", "ratings", "instructions"),
    *("scan", "tables", "stories"),
)
FROM_DATA = (
    *("omniglot", "cifar-fs", "fc100", "emoji", "folder", "pools", "mlp-digits"),
    *("mlp-omniglot", "names", "descriptions"),
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", [*GENERATED, *FROM_DATA])
def test_every_option_is_described_and_checked(name: str) -> None:
    source = TASKS[name]
    assert ": " in (inspect.getdoc(source) or "").split("\n\n")[0]
    assert next(iter(inspect.signature(source).parameters)) == "split"
    for option in options(source).values():
        assert option.help, option.name
        if option.type in (int, float) and not option.choices:
            assert option.range is not None, option.name
    with pytest.raises(InnerloopError, match="one of train, val, test; got 'dev'"):
        source("dev")
    with pytest.raises(InnerloopError, match="has no option 'wayz'"):
        source(wayz=3)
    for size in {"ways", "shots", "queries", "length", "bits"} & set(options(source)):
        with pytest.raises(InnerloopError, match=f"{size} of .* must be"):
            source(**{size: 0})


@pytest.mark.parametrize("name", GENERATED)
def test_every_source_describes_itself_and_fits_its_spec(name: str) -> None:
    tasks = TASKS[name]()
    assert repr(tasks) == f"<{type(tasks).__name__}: {tasks.describe()}>"
    assert "\n" not in tasks.describe()
    tasks.spec.check(tasks.sample(2, seeded()), 2)
    sizes = {"ways": 5, "shots": 1, "queries": 9}
    assert set(tasks.feasible(sizes)) <= set(sizes)
    for setting in tasks.test_settings(None):
        TASKS[name]("test", **setting).sample(1, seeded())


def test_a_source_checks_split_and_options() -> None:
    @task_source
    def made(split: str = "train", *, root: Path | str, ways: int = 5) -> str:
        """Made: a source.

        Args:
            root: the folder.
            ways: classes.
        """
        return f"{split} {root} {ways}"

    assert made("val", root=Path("a"), ways=2) == "val a 2"
    assert made(root="a") == "train a 5"
    with pytest.raises(InnerloopError, match="made needs root: the folder"):
        made()  # pyright: ignore[reportCallIssue]
    with pytest.raises(InnerloopError, match="ways of made must be at least 1"):
        made(root="a", ways=0)


@pytest.mark.parametrize("name", ["strokes", "completion"])
def test_tasks_of_images_show_a_picture(name: str) -> None:
    tasks: Any = TASKS[name]()
    picture = tasks.show(seed=3)
    assert isinstance(picture, Image.Image)
    assert picture.tobytes() == tasks.show(seed=3).tobytes()
    assert picture.tobytes() != tasks.show(seed=4).tobytes()
    assert "<img src=" in tasks._repr_html_()


def small_learner(tasks: TaskDistribution, **fields: Any) -> Learner:
    torch.manual_seed(0)
    return LEARNERS["cnp"].build(tasks.spec, **fields)


@pytest.mark.parametrize("name", ["gp-curves", "sinusoid", "sums", "completion"])
def test_predictions_are_drawn(name: str) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    tasks = TASKS[name]("test", shots=9, queries=9)
    panels = figures.Figure().subfigures(1, 2)
    for panel, task in zip(panels, tasks.sample(2, seeded()).unbind(), strict=True):
        tasks.plot_task(small_learner(tasks), task, panel)
    images = name == "completion"
    assert len(panels[0].axes) == (4 if images else 1)
    if not images:
        labels = panels[0].axes[0].get_legend_handles_labels()[1]
        exact = ["exact posterior"] if name == "gp-curves" else []
        assert labels == ["learner", *exact, "query", "support"]


def test_tasks_without_a_picture_say_so() -> None:
    tasks = TASKS["xor"]()
    with pytest.raises(InnerloopError, match="no picture"):
        tasks.plot_task(None, tasks.sample(1, seeded()), None)  # pyright: ignore[reportArgumentType]


def values(report: innerloop.Report, table: int) -> dict[str, Any]:
    return {value.name: value for value in report.tables[table].rows[0].values}


class Exact(Learner):
    """Predicts with the exact posterior of the curves, whose mean is shifted."""

    kinds = ("reals",)

    def __init__(self, curves: Curves, shift: float = 0.0):
        super().__init__()
        self.curves, self.shift = curves, shift
        self.likelihood = Gaussian(learned_scale=True)

    def adapt(self, support: Any) -> Any:
        return support

    def predict(self, state: Any, x: torch.Tensor) -> torch.Tensor:
        mean, sd = self.curves.posterior(state, x)
        raw = torch.linspace(-12, 6, 20_001)
        scale = self.likelihood.moments(torch.stack([0 * raw, raw], -1))[1][:, 0]
        nearest = raw[(scale - sd).abs().argmin(-1)]  # the output for this deviation
        return torch.cat([mean + self.shift, nearest[:, None]], -1)


def test_curves_measure_the_distance_to_the_exact_posterior() -> None:
    tasks = TASKS["gp-curves"]("test", shots=5, queries=8)
    assert isinstance(tasks, Curves)
    exact = values(tasks.evaluate(Exact(tasks), TestPlan(n=60)), -1)
    off = values(tasks.evaluate(Exact(tasks, 1.0), TestPlan(n=60)), -1)
    name, best = "loss above the exact posterior", "loss of the exact posterior"
    assert abs(exact[name].mean) < 1e-3
    assert off[name].mean > 0.3
    assert off[best].mean == pytest.approx(exact[best].mean)
    plain = small_learner(tasks, likelihood=Gaussian())
    assert len(tasks.evaluate(plain, TestPlan(n=5)).tables) == 1


def test_sequences_measure_bits_per_sequence() -> None:
    tasks = TASKS["copy"]("test", length=3, bits=4)
    learner = LEARNERS["lstm"].build(tasks.spec)
    plan = TestPlan(n=10, labels={"length": 3})
    report = tasks.evaluate(learner, plan)
    assert report is not None
    loss, bits = values(report, 0)["loss"].mean, values(report, -1)["bits"].mean
    assert report.tables[-1].rows[0].labels == {"length": 3, "answer steps": 3}
    # the loss is the mean over 3 steps of the sum over 4 bits, in nats
    assert bits == pytest.approx(3 * loss / torch.tensor(2.0).log().item())
    assert 6 < bits < 24


def test_pools_measure_what_labels_are_worth() -> None:
    images = torch.randint(0, 256, (12 * 20, 1, 28, 28), generator=seeded())
    bank = ClassBank.of(images.byte(), [20] * 12, [str(i) for i in range(12)])
    pools = Pools(bank)
    active = LEARNERS["activelearner"].build(pools.spec, labels=4)
    report = pools.evaluate(active, TestPlan(n=3))
    assert any("number of labels" in table.title for table in report.tables)
    other = LEARNERS["protonet"].build(pools.spec)
    tables = pools.evaluate(other, TestPlan(n=3)).tables
    assert not any("number of labels" in table.title for table in tables)


def test_strokes_name_the_reader_of_images_like_them() -> None:
    wanted = ImageReader(1, (28, 28), dark_background=True, normalize_strokes=True)
    assert [TASKS["strokes"](s).reader for s in ("train", "val")] == [wanted] * 2
