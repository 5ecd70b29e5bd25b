"""Thousands of requests that fit the OpenAPI document, and that do not.

A server may refuse any of them, but it must not fail, and what it answers must fit the
document.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from innerloop.web.http import ERROR
from tests.web.serving import ALLOWED, HOST, application, ask

pytestmark = pytest.mark.slow
schemathesis = pytest.importorskip("schemathesis")

CASES = 2200  # of all operations together
TURNS = 3  # rounds over the operations, each with the projects as they are then
STREAMED = "text/event-stream"


@pytest.fixture
def app(tmp_path: Path) -> Any:
    return application(tmp_path / "projects", rate=1e9)


def document(app: Any) -> dict[str, Any]:
    return ask(app, "GET", "/api/openapi.json", headers=ALLOWED).json()


def test_the_document_is_valid(app: Any) -> None:
    found = document(app)
    assert len(found["paths"]) > 5
    names = []
    for path, methods in found["paths"].items():
        for operation in methods.values():
            names.append(operation["operationId"])
            assert operation["summary"].endswith("."), names[-1]
            named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part[:1] == "{"}
            for content in _contents(operation):
                Draft202012Validator.check_schema(content["schema"])
    assert len(set(names)) == len(names)


def _contents(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from operation.get("requestBody", {"content": {}})["content"].values()
    for answer in operation["responses"].values():
        yield from answer["content"].values()


def taught(app: Any) -> dict[str, str]:
    """A project with two classes of two drawings: values of parameters in paths."""

    def post(path: str, body: Any) -> Any:
        answer = ask(app, "POST", f"/api/projects{path}", headers=ALLOWED, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    state = post("", {"model": "drawings"})
    project = state["id"]
    for n in range(2):
        state = post(f"/{project}/classes", {"name": f"class {n}"})
        line = {"strokes": [[[0.1, 0.1 + 0.5 * n], [0.9, 0.6 - 0.5 * n]]]}
        group = state["classes"][n]["id"]
        body = {"drawings": [line, line]}
        state = post(f"/{project}/classes/{group}/examples", body)["state"]
    group = state["classes"][0]
    example = group["examples"][0]["id"]
    return {"project": project, "class": group["id"], "example": example}


def parameters(operation: Any, known: dict[str, str]) -> st.SearchStrategy[Any]:
    """Nothing, or values that exist, for the parameters in a path."""
    names = [p.name for p in operation.path_parameters]
    there = {name: known[name] for name in names if name in known}
    return st.sampled_from([None, *[there] * 4]) if there else st.none()


def cases(operation: Any, known: dict[str, str]) -> st.SearchStrategy[Any]:
    from schemathesis import GenerationMode

    modes = st.sampled_from([*[GenerationMode.POSITIVE] * 2, GenerationMode.NEGATIVE])
    return st.tuples(modes, parameters(operation, known)).flatmap(
        lambda drawn: operation.as_strategy(drawn[0], path_parameters=drawn[1])
    )


def judge(operation: Any, declared: dict[str, Any], answer: Any) -> None:
    """Raises AssertionError for an answer that does not fit the document."""
    kind = answer.headers["content-type"][0].partition(";")[0]
    status, text = answer.status_code, answer.content
    if status >= 400:
        assert kind == "application/json"
        body = json.loads(text)
        Draft202012Validator(ERROR).validate(body)
        full = body["error"]["code"] == "full"
        assert status < 500 or full, f"{operation.label}: {status} {text[:300]!r}"
    elif status == 200:
        content = declared["responses"]["200"]["content"]
        kinds = {*content, STREAMED}
        assert kind in kinds or "application/json" not in kinds or kind != "text/html"
        if kind == "application/json":
            Draft202012Validator(content[kind]["schema"]).validate(json.loads(text))
    else:
        assert status in (304, 307), status


def test_no_request_makes_it_fail(app: Any) -> None:
    found = document(app)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # requests without the token are refused, which is tested elsewhere
        schema = schemathesis.openapi.from_dict({**found, "security": []})
    schema.app = app
    operations = [result.ok() for result in schema.get_all_operations()]
    each = -(-CASES // (TURNS * len(operations)))
    statuses: Counter[int] = Counter()

    def attempt(operation: Any, known: dict[str, str]) -> None:
        declared = found["paths"][operation.path][operation.method.lower()]

        @settings(
            max_examples=each,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
        )
        @given(case=cases(operation, known))
        def send(case: Any) -> None:
            answer = case.call(base_url=f"http://{HOST}", headers={**ALLOWED})
            statuses[answer.status_code] += 1
            judge(operation, declared, answer)

        send()

    for _ in range(TURNS):
        for operation in operations:
            attempt(operation, taught(app))
    print(f"{statuses.total()} requests: {dict(statuses.most_common())}")
    assert statuses.total() >= 2000
    assert statuses[200] > statuses.total() / 10, statuses
    # right afterwards
    known = taught(app)
    drawing = {"strokes": [[[0.1, 0.1], [0.9, 0.6]]]}
    answer = ask(
        app,
        "POST",
        f"/api/projects/{known['project']}/ask",
        headers=ALLOWED,
        json={"drawing": drawing},
    )
    first, second = (c["probability"] for c in answer.json()["classes"])
    assert first > second
