"""The results of a report. Each section says in a line why it is empty, where it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from innerloop.common_tasks import TrainedRun, problems
from innerloop.evaluation.comparison import UNCLEAR, paired_difference, verdict
from innerloop.measurements import Measurement, Report
from innerloop.report.charts import (
    adaptation_chart,
    interval_bar,
    legend,
    reliability_chart,
)
from innerloop.report.html import (
    Html,
    badge,
    code,
    details,
    join,
    paragraph,
    result,
    soft,
    table,
    tag,
)
from innerloop.report.measure import Measured
from innerloop.report.summary import named, points, setting_name

TESTS = 6  # stored results of a run that are shown


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
                setting_name(setting.labels) or "all",
                named(found, name),
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
    caption = (
        f"{name} after each gradient step, {setting_name(found.main.labels)} tasks"
    )
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
        f"equal. {setting_name(found.main.labels)} tasks."
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
            tag("div", tag("h3", named(found, name)), shown, class_="card stack")
        )
    return join(parts)


# ---------------------------------------------------------------------- stored tests


def stored(found: Measured) -> Html:
    parts = []
    for run in found.runs:
        heading = tag("h3", named(found, run.name))
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
