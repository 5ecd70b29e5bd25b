"""What a report says first: a card for every run, what differs, and the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from innerloop.common_tasks import TrainedRun, remarks
from innerloop.evaluation.comparison import UNCLEAR, paired_difference, verdict
from innerloop.measurements import Estimate, Measurement
from innerloop.report.charts import (
    legend,
    training_chart,
)
from innerloop.report.html import (
    Html,
    badge,
    color,
    details,
    join,
    paragraph,
    soft,
    table,
    tag,
)
from innerloop.report.measure import Measured
from innerloop.report.svg import percent, short


def named(found: Measured, name: str) -> Html:
    return join([badge(found.place(name)), f" {name}"])


def setting_name(labels: dict[str, Any]) -> str:
    """The labels of a setting in words, such as "5-way 1-shot"."""
    rest = dict(labels)
    words = [f"{rest.pop(k)}-{k[:-1]}" for k in ("ways", "shots") if k in rest]
    words += [f"{key} {value}" for key, value in rest.items()]
    return " ".join(words)


def points(difference: Estimate, unit: str) -> str:
    """A difference with its sign; of fractions in percentage points."""
    scale, digits, name = (100, 2, " points") if unit == "%" else (1, 4, "")
    text = f"{scale * difference.mean:+.{digits}f}".replace("-", "−")
    if difference.interval is not None:
        text += f" ± {scale * difference.interval:.{digits}f}"
    return text + name


# ---------------------------------------------------------------------- summary


def summary(found: Measured) -> Html:
    cards = tag("div", *(_card(found, run) for run in found.runs), class_="grid2")
    return join([cards, *_verdicts(found)])


def _card(found: Measured, run: TrainedRun) -> Html:
    """The facts of a run."""
    main, experiment = found.main, run.experiment
    log = run.run.read_log()
    big: list[Any] = []
    if main is not None and run.name in main.scores:
        value = main.scores[run.name].measurement()
        mean, _, interval = str(value).partition(" ± ")
        interval = f" ± {interval}" if interval else ""
        big = [
            tag("div", mean, tag("small", interval), class_="big"),
            soft(
                f"{value.name} on {value.n} unseen {setting_name(main.labels)} tasks"
                f"{', transductive' if value.transductive else ''}"
            ),
        ]
    facts = {
        "learner": experiment.learner.name,
        "trained on": experiment.tasks.name,
        "parameters": f"{sum(p.numel() for p in run.learner.parameters()):,}",
    }
    if log:
        seconds = float(log[-1].get("seconds") or 0)
        facts["trained for"] = f"{log[-1]['step']:,} meta-steps, {_time(seconds)}"
        unseen = log[-1].get("validation_unseen", True)
        if isinstance(value := log[-1].get("validation"), int | float):
            interval = log[-1].get("validation_interval")
            measured = Measurement(*_score(run), value, interval, unit=_unit(run))
            seen = "" if unseen else " (classes seen in training)"
            facts["last validation"] = f"{measured.name} {measured}{seen}"
    place = found.place(run.name)
    pairs = [tag("dt", k) + tag("dd", v) for k, v in facts.items()]
    heading = tag("h3", badge(place), run.name)
    return tag(
        "div",
        heading,
        *big,
        tag("dl", *map(Html, pairs)),
        class_="card run",
        style=color(place),
    )


def _score(run: TrainedRun) -> tuple[str]:
    return (run.learner.likelihood.score,)


def _unit(run: TrainedRun) -> Any:
    likelihood = run.learner.likelihood
    return "%" if likelihood.score in likelihood.percent else ""


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _verdicts(found: Measured) -> list[Html]:
    """What the comparison says, in a sentence for every run."""
    main = found.main
    if main is None:
        return [paragraph(found.problem, class_="warning")] if found.problem else []
    names = list(main.scores)
    lines = []
    for name in names[1:]:
        base = main.scores[names[0]]
        gap = paired_difference(main.scores[name], base)
        known = verdict(gap, base.higher_is_better)
        words = (
            f"than {names[0]}"
            if known != UNCLEAR
            else (f"from {names[0]}: the 95 % interval holds 0")
        )
        said = known if known != UNCLEAR else "is not clearly different"
        lines.append(
            tag(
                "li",
                badge(found.place(name)),
                tag(
                    "span",
                    name,
                    f"{' is ' if known != UNCLEAR else ' '}",
                    tag("b", said),
                    f" {words}",
                    f" ({base.name} {points(gap, base.unit)}, {found.plan.n} tasks)",
                ),
            )
        )
    warnings = [
        paragraph(line, class_="warning")
        for line in remarks(found.runs, found.settings)
    ]
    return [tag("ul", *lines, class_="verdicts") if lines else Html(), *warnings]


# ---------------------------------------------------------------------- training


def training(found: Measured) -> Html:
    logs = {found.place(r.name): (r.name, r.run.read_log()) for r in found.runs}
    known = {place: entry for place, entry in logs.items() if entry[1]}
    scores: dict[tuple[str, str], dict[int, Any]] = {}
    for run in found.runs:
        place = found.place(run.name)
        if place in known:
            scores.setdefault((*_score(run), _unit(run)), {})[place] = known[place]
    drawn = []
    for value, name, group, unit in (
        ("loss", "training loss", known, ""),
        *(("validation", f"validation {n}", g, u) for (n, u), g in scores.items()),
    ):
        show: Callable[[float], str] = percent if unit == "%" else short
        for by in ("step", "seconds"):
            shown = training_chart(group, value, by, name, show)
            if shown is not None:
                words = {"step": "meta-steps", "seconds": "seconds"}[by]
                caption = f"{name[0].upper()}{name[1:]} by {words}"
                drawn.append(
                    tag("figure", tag("figcaption", caption), shown, class_="card")
                )
    if not drawn:
        return soft("These runs have no log: nothing was trained.")
    names = {place: name for place, (name, _) in known.items()}
    note = (
        "Bands are 95 % intervals over validation tasks; the loss is that of the "
        "last meta-batch before a validation."
    )
    return join(
        [
            legend(names),
            tag("div", *drawn, class_="grid2"),
            soft(note),
            details("The numbers", *(_log_table(*e) for e in known.values())),
        ]
    )


def _log_table(name: str, log: list[dict[str, Any]]) -> Html:
    keys = ("step", "seconds", "loss", "validation", "validation_interval")
    columns = [k for k in keys if any(k in line for line in log)]
    rows = [[_cell(line.get(k)) for k in columns] for line in log]
    return table(name, [k.replace("_", " ") for k in columns], rows)


def _cell(value: Any) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else str("" if value is None else value)
    )
