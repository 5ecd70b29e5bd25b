"""The sections of a report. Each says in a line why it is empty, where it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from innerloop.common_tasks import TrainedRun, problems, remarks
from innerloop.evaluation.comparison import UNCLEAR, paired_difference, verdict
from innerloop.measurements import Estimate, Measurement, Report
from innerloop.report.charts import (
    adaptation_chart,
    interval_bar,
    legend,
    reliability_chart,
    training_chart,
)
from innerloop.report.html import (
    Html,
    badge,
    code,
    color,
    details,
    join,
    paragraph,
    result,
    soft,
    table,
    tag,
)
from innerloop.report.measure import Measured
from innerloop.report.svg import percent, short

TESTS = 6  # stored results of a run that are shown


def _named(found: Measured, name: str) -> Html:
    return join([badge(found.place(name)), f" {name}"])


def _setting(labels: dict[str, Any]) -> str:
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
                f"{value.name} on {value.n} unseen {_setting(main.labels)} tasks"
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


# ---------------------------------------------------------------------- comparison


def comparison(found: Measured) -> Html:
    lines = problems(found.settings)
    if found.problem:
        lines.append(found.problem)
    parts = [paragraph(line, class_="soft") for line in lines]
    if not found.settings:
        return join(parts)
    first = found.runs[0].name
    gaps = {
        (i, name): paired_difference(scores, setting.scores[first])
        for i, setting in enumerate(found.settings)
        for name, scores in setting.scores.items()
        if name != first
    }
    reach = max((abs(g.mean) + (g.interval or 0) for g in gaps.values()), default=0)
    rows = []
    for i, setting in enumerate(found.settings):
        for name, scores in setting.scores.items():
            value = scores.measurement()
            row = [
                _setting(setting.labels) or "all",
                _named(found, name),
                value.name,
                str(value),
            ]
            gap = gaps.get((i, name))
            if gap is not None:
                known = verdict(gap, scores.higher_is_better)
                mark = known if known != UNCLEAR else "unclear"
                row += [
                    points(gap, scores.unit),
                    interval_bar(gap, found.place(name), 1.05 * reach or 1.0),
                    tag("span", known, class_=f"chip {mark}"),
                ]
            elif gaps:
                row += ["", "", tag("span", "baseline", class_="chip")]
            rows.append(row)
    head = ["setting", "run", "score", "on unseen tasks"]
    if gaps:
        head += [
            f"difference to {first}",
            Html('<span class="visually-hidden">drawn</span>'),
            "verdict",
        ]
    n = found.plan.n
    note = (
        f"{n} tasks of the {found.where.split} split, seed {found.plan.seed}; ± is a "
        "95 % interval over tasks (Student's t)."
    )
    if gaps:
        note += (
            " All runs are tested on the same tasks, and differences are paired: the "
            "mean over tasks of a run's score minus the first run's."
        )
    elif len(found.runs) == 1:
        note += " Name several runs to compare them on the same tasks."
    shown = table("scores on unseen tasks", head, rows, hidden=True)
    return join([tag("div", shown, class_="card"), soft(note), *parts])


# ---------------------------------------------------------------------- adaptation


def adaptation(found: Measured) -> Html:
    curves = {found.place(n): (n, c) for n, c in found.adaptation.items() if c}
    if not curves or found.main is None:
        return soft("None of the tested learners takes gradient steps.")
    scores = next(iter(found.main.scores.values()))
    name = found.runs[next(iter(curves))].learner.likelihood.score
    unit = scores.unit if scores.name == name else ""
    drawn = adaptation_chart(curves, name, unit)
    caption = f"{name} after each gradient step, {_setting(found.main.labels)} tasks"
    rows = [
        [
            i,
            *(
                str(Measurement.of(name, c[i], found.plan.n, unit))  # type: ignore[arg-type]
                if i < len(c)
                else ""
                for _, c in curves.values()
            ),
        ]
        for i in range(max(len(c) for _, c in curves.values()))
    ]
    names = {place: n for place, (n, _) in curves.items()}
    numbers = table(name, ["steps", *names.values()], rows, hidden=True)
    figure = tag("figure", tag("figcaption", caption), drawn, class_="card")
    beside = tag("div", numbers, class_="card")
    return join([legend(names), tag("div", figure, beside, class_="grid2")])


# ---------------------------------------------------------------------- calibration


def calibration(found: Measured) -> Html:
    if not found.calibration or found.main is None:
        return soft("Calibration needs tasks of classes.")
    cards = []
    for name, report in found.calibration.items():
        place = found.place(name)
        error = report.tables[0].rows[0].values[0]
        cards.append(
            tag(
                "figure",
                tag("figcaption", badge(place), f" {name}"),
                tag("div", str(error), class_="big"),
                soft(error.name),
                reliability_chart(name, place, report),
                class_="card",
            )
        )
    note = (
        "Bars are the accuracy of predictions by confidence, the darker the more of "
        "them; a short line is their mean confidence. On the dashed line, the two are "
        f"equal. {_setting(found.main.labels)} tasks."
    )
    tables = [result(r) for r in found.calibration.values()]
    return join(
        [
            tag("div", *cards, class_="grid2"),
            soft(note),
            details("The numbers", *tables),
        ]
    )


# ---------------------------------------------------------------------- head start


def head_start(found: Measured) -> Html:
    if found.head_start is None:
        return soft(
            "Not measured. ",
            code("innerloop report RUN --head-start"),
            " compares with training from scratch, in minutes.",
        )
    parts = []
    for name, report in found.head_start.items():
        shown = result(report) if isinstance(report, Report) else soft(report)
        parts.append(
            tag("div", tag("h3", _named(found, name)), shown, class_="card stack")
        )
    return join(parts)


# ---------------------------------------------------------------------- stored tests


def stored(found: Measured) -> Html:
    parts = []
    for run in found.runs:
        heading = tag("h3", _named(found, run.name))
        results = list(_stored(run))
        shown = [_test(data, report) for data, report in results[:TESTS]]
        if not shown:
            shown = [
                soft(
                    "No test is stored: ",
                    code("innerloop test"),
                    " stores its results.",
                )
            ]
        if len(results) > TESTS:
            shown.append(soft(f"and {len(results) - TESTS} older results"))
        parts.append(tag("div", heading, *shown, class_="card stack"))
    return join(parts)


def _stored(run: TrainedRun) -> Iterator[tuple[dict[str, Any], Report]]:
    """The results in a run's folder, the newest first; what is none is left out."""
    files = sorted(
        (run.run.folder / "tests").glob("*.json"),
        key=lambda file: file.stat().st_mtime,
        reverse=True,
    )
    for file in files:
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            yield data, Report.from_dict(data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue


def _test(data: dict[str, Any], report: Report) -> Html:
    plan = data.get("plan") or {}
    what = data.get("evaluation") or {}
    words = [
        *(str(data.get(k)) for k in ("tasks", "split") if data.get(k)),
        *([str(what["name"])] if what.get("name") else []),
        *(f"{k} {v}" for k, v in (data.get("options") or {}).items()),
        f"{plan.get('n', '?')} tasks, seed {plan.get('seed', '?')}",
    ]
    seen = data.get("seen_classes")
    warning = (
        paragraph(f"{seen} of these classes were seen in training", class_="warning")
        if seen
        else ""
    )
    return join([tag("h4", ", ".join(words)), warning, result(report, 1)])
