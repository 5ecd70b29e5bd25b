"""Operations on projects: teach classes, and ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from innerloop.engine.errors import InnerloopError
from innerloop.web.answers import answer, insight
from innerloop.web.archive import packed, unpacked
from innerloop.web.content import NAME
from innerloop.web.http import (
    Call,
    File,
    Handler,
    Operation,
    Refused,
    array,
    choice,
    record,
    text,
)
from innerloop.web.labels import (
    MOST,
    ask_next,
    is_table,
    labeled_rows,
    labeling,
    pictures_of,
    predict,
    read_inputs,
    refusal,
    rows_of,
    sorted_into,
)
from innerloop.web.models import IMAGES, shown
from innerloop.web.pictures import png
from innerloop.web.project import Project
from innerloop.web.store import Projects
from innerloop.web.teach_schemas import (
    ANSWER,
    BYTES,
    INSIGHT,
    LABELED,
    LISTED,
    MODELS,
    ONE,
    PREDICTED,
    QUERY,
    REFUSED,
    SOME,
    STATE,
    SUPPORT,
)

MOST_FILES = 500
FORMATS = {
    "csv": ("text/csv; charset=utf-8", "labels.csv"),
    "zip": ("application/zip", "labels.zip"),
}

# ----------------------------------------------------------------- handlers


def _computed(function: Callable[[Projects, Call], Any]) -> Handler:
    """A handler that calls a function in one of the threads that compute."""

    async def handle(call: Call) -> Any:
        return await call.compute(function, call.state.projects, call)

    return handle


def _changing(function: Callable[[Project, Call], Any]) -> Handler:
    """A handler of a function that changes a project; returns its state, with what the
    function returns.
    """

    def change(projects: Projects, call: Call) -> Any:
        project = projects.get(call.session, call.path["project"])
        extra = function(project, call)
        projects.changed(project)
        state = project.state()
        return state if extra is None else {"state": state, **extra}

    return _computed(change)


def _project(projects: Projects, call: Call) -> Project:
    return projects.get(call.session, call.path["project"])


def _create(projects: Projects, call: Call) -> Any:
    body = call.body
    return projects.create(call.session, body["model"], body.get("name", "")).state()


def _remove(projects: Projects, call: Call) -> Any:
    projects.remove(call.session, call.path["project"])
    return {}


def _add(projects: Projects, call: Call) -> Any:
    project, id = _project(projects, call), call.path["class"]
    project.group(id)
    refused = []
    if call.files:
        refused = _add_files(projects, project, id, call.files)
    else:
        name, values = next(iter(call.body.items()))
        items = [project.model.item({name[:-1]: value}) for value in values]
        project.add([(id, item) for item in items])
    projects.changed(project)
    return {"state": project.state(), "refused": refused}


def _add_files(
    projects: Projects, project: Project, id: str, files: tuple[File, ...]
) -> list[dict[str, str]]:
    """Add pictures, or the rows of tables; returns what was refused."""
    model = project.model
    if model.kind in IMAGES:
        return pictures_of(
            model,
            files,
            projects.decoders,
            lambda some: project.add([(id, picture) for picture in some]),
        )[1]
    refused: list[dict[str, str]] = []
    for file in files:
        if not is_table(file):
            refused.append(refusal(file.name, "examples are in a .csv with labels"))
            continue
        try:
            rows, bad = labeled_rows(model, file)
            project.add(rows, by_name=True)
            refused += bad
        except (Refused, InnerloopError) as error:
            refused.append(refusal(file.name, " ".join(str(error).split())))
    return refused


def _picture(projects: Projects, call: Call) -> Any:
    image = _project(projects, call).picture(call.path["example"])
    return Response(png(shown(image)), media_type="image/png")


def _ask(projects: Projects, call: Call) -> Any:
    project = _project(projects, call)
    fitted, model = project.fitted(), project.model
    if not call.files:
        return answer(project, fitted, lambda: model.item(call.body))
    if model.kind not in IMAGES:
        raise Refused(422, "kind", f"this model reads {model.kind}s")
    decode, content = projects.decoders.image, call.files[0].content
    return answer(project, fitted, lambda: decode(content, model.side))


def _label(projects: Projects, call: Call) -> Any:
    project, kind = _project(projects, call), call.path["format"]
    fitted = project.fitted()
    read = read_inputs(project.model, call.files, projects.decoders)
    found = labeling(project.model, fitted, read)
    if kind == "json":
        return {
            "rows": rows_of(found),
            "ask_next": ask_next(fitted, read.z, found.probabilities),
            "refused": read.refused,
        }
    if kind == "csv":
        content = found.table().encode("utf-8", "replace")
    elif read.files:
        content = sorted_into(found, read.files)
    else:
        raise Refused(422, "kind", "only pictures can be sorted into folders")
    media_type, name = FORMATS[kind]
    return _download(content, media_type, name)


def _file(projects: Projects, call: Call) -> Any:
    content = packed(_project(projects, call))
    return _download(content, "application/zip", "project.zip")


def _download(content: bytes, media_type: str, name: str) -> Response:
    head = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=media_type, headers=head)


def _open(projects: Projects, call: Call) -> Any:
    project = unpacked(projects, call.session, call.files[0].content)
    projects.changed(project)
    return project.state()


def _predict(projects: Projects, call: Call) -> Any:
    model = projects.models.open(call.body["model"])
    return predict(model, call.body, projects.decoders)


# --------------------------------------------------------------- operations

_ONE = "/api/projects/{project}"
_CLASS = f"{_ONE}/classes/{{class}}"
_NAMED = record(name=text(NAME, 1))

OPERATIONS: list[Operation] = [
    Operation(
        "GET",
        "/api/models",
        "listModels",
        "What can be taught.",
        _computed(lambda projects, call: {"models": projects.models.states()}),
        MODELS,
    ),
    Operation(
        "GET",
        "/api/projects",
        "listProjects",
        "The projects of the session.",
        _computed(lambda projects, call: {"projects": projects.list(call.session)}),
        LISTED,
    ),
    Operation(
        "POST",
        "/api/projects",
        "createProject",
        "A new project, for a model.",
        _computed(_create),
        STATE,
        body=record({"name": text(NAME)}, model=text(64, 1)),
    ),
    Operation(
        "POST",
        "/api/projects/open",
        "openProject",
        "A new project from a project file.",
        _computed(_open),
        STATE,
        files=1,
    ),
    Operation(
        "GET",
        _ONE,
        "getProject",
        "The state of a project.",
        _computed(lambda projects, call: _project(projects, call).state()),
        STATE,
    ),
    Operation(
        "PATCH",
        _ONE,
        "renameProject",
        "Rename a project.",
        _changing(lambda project, call: project.rename(call.body["name"])),
        STATE,
        body=_NAMED,
    ),
    Operation(
        "DELETE",
        _ONE,
        "removeProject",
        "Delete a project, and its folder.",
        _computed(_remove),
        record(),
    ),
    Operation(
        "POST",
        f"{_ONE}/undo",
        "undo",
        "Take back the last change.",
        _changing(lambda project, call: project.undo()),
        STATE,
    ),
    Operation(
        "POST",
        f"{_ONE}/classes",
        "addClass",
        "A new class.",
        _changing(lambda project, call: project.add_group(call.body["name"])),
        STATE,
        body=_NAMED,
    ),
    Operation(
        "PATCH",
        _CLASS,
        "renameClass",
        "Rename a class.",
        _changing(
            lambda project, call: project.rename_group(
                call.path["class"], call.body["name"]
            )
        ),
        STATE,
        body=_NAMED,
    ),
    Operation(
        "DELETE",
        _CLASS,
        "removeClass",
        "Delete a class with its examples.",
        _changing(lambda project, call: project.remove_group(call.path["class"])),
        STATE,
    ),
    Operation(
        "POST",
        f"{_CLASS}/examples",
        "addExamples",
        "Add examples to a class; a table of labeled texts or rows also adds classes.",
        _computed(_add),
        record(state=STATE, refused=REFUSED),
        body=SOME,
        files=MOST_FILES,
    ),
    Operation(
        "DELETE",
        f"{_ONE}/examples/{{example}}",
        "removeExample",
        "Delete an example.",
        _changing(lambda project, call: project.remove_example(call.path["example"])),
        STATE,
    ),
    Operation(
        "GET",
        f"{_ONE}/examples/{{example}}/picture",
        "getPicture",
        "A thumbnail of an example.",
        _computed(_picture),
        BYTES,
        result_type="image/png",
    ),
    Operation(
        "POST",
        f"{_ONE}/ask",
        "ask",
        "Which class a drawing, picture, text or row is of.",
        _computed(_ask),
        ANSWER,
        body=ONE,
        files=1,
    ),
    Operation(
        "GET",
        f"{_ONE}/insight",
        "getInsight",
        "A map of the examples, and how well they are told apart.",
        _computed(lambda projects, call: insight(_project(projects, call))),
        INSIGHT,
    ),
    Operation(
        "POST",
        f"{_ONE}/label",
        "label",
        "Label many pictures, or a table of texts.",
        _computed(_label),
        LABELED,
        files=MOST,
        query={"format": choice("json", "csv", "zip", default="json")},
    ),
    Operation(
        "GET",
        f"{_ONE}/file",
        "downloadProject",
        "The folder of a project as an archive.",
        _computed(_file),
        BYTES,
        result_type="application/zip",
    ),
    Operation(
        "POST",
        "/api/predict",
        "predict",
        "Label a query by a support set; nothing is kept.",
        _computed(_predict),
        PREDICTED,
        body=record(
            model=text(64, 1),
            support=array(SUPPORT, 500, 2),
            query=array(QUERY, 500, 1),
        ),
    ),
]
