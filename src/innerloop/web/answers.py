"""What a project answers: which class an input is of, and how well its classes are told
apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from innerloop.web.http import Refused
from innerloop.web.insight import Fitted
from innerloop.web.project import Project


def answer(project: Project, fitted: Fitted, read: Callable[[], Any]) -> dict[str, Any]:
    """Which class the input that `read` returns is of, and why."""
    begin = time.perf_counter()
    z = project.model.new_vectors([read()])
    row = fitted.probabilities(z)[0]
    found = {c: round(float(p), 4) for c, p in zip(fitted.classes, row, strict=True)}
    return {
        "classes": [
            {
                "id": g.id,
                "name": g.name,
                "probability": round(found.get(g.name, 0.0), 4),
            }
            for g in project.content.groups
        ],
        "none": bool(fitted.rejected(z)[0]),
        "neighbors": fitted.neighbors(z[0]),
        "point": fitted.map.point(z[0].flatten()),
        "milliseconds": round(1000 * (time.perf_counter() - begin), 1),
    }


def insight(project: Project) -> dict[str, Any]:
    """A map of the examples, and what held-out examples are taken for."""
    with project.lock:
        version, groups = project.version, project.content.groups
        try:
            fitted = project.fitted()
        except Refused as refused:
            if refused.code != "few":
                raise
            return {"map": [], "accuracy": None, "doubtful": [], "version": version}
    of_example = {e.id: g.id for g in groups for e in g.examples}
    of_name = {g.name: g.id for g in groups}
    return {
        "map": [
            {"example": e, "class": of_example[e], "x": x, "y": y}
            for e, (x, y) in fitted.map.points.items()
        ],
        "accuracy": fitted.accuracy,
        "doubtful": [
            {"example": e, "looks_like": of_name[name]}
            for e, name in fitted.doubtful.items()
        ],
        "version": version,
    }
