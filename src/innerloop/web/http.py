"""Operations of the HTTP interface: what one takes and returns, and how it is called.

An operation is declared once, with JSON schemas. The same declaration checks what comes
in, makes the OpenAPI document and routes the call.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

import anyio.to_thread
import torch
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from innerloop.engine.errors import InnerloopError
from innerloop.web.validation import Validator

Schema = Mapping[str, Any]
Result = TypeVar("Result")

log = logging.getLogger("innerloop.web")

TOO_LONG = 300  # characters of a message
DEFAULT_SESSION = "default"


class Refused(Exception):
    """A call that is refused: its status, a code for the page and one line that says
    why.
    """

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def response(self) -> Response:
        error = {"code": self.code, "message": self.message[:TOO_LONG]}
        close = {"connection": "close"} if self.status == 413 else None
        return JSONResponse({"error": error}, self.status, close)


@dataclass(frozen=True)
class File:
    """A file that came with a call: its name, as the client says it, and content. The
    name is for messages only.
    """

    name: str
    content: bytes


@dataclass(frozen=True)
class Call:
    """What came in, checked.

    Args:
        request: the request.
        session: whose call it is.
        path: the parameters in the path, and of the query string.
        body: what was sent as JSON; {} without a body.
        files: what was sent as files.
    """

    request: Request
    session: str
    path: Mapping[str, str]
    body: Any = field(default_factory=dict)
    files: tuple[File, ...] = ()

    @property
    def state(self) -> Any:
        """What the application keeps, see `app.State`."""
        return self.request.app.state.innerloop

    async def compute(
        self, function: Callable[..., Result], *arguments: Any, **options: Any
    ) -> Result:
        """The result of a function that computes, in one of few threads, without
        gradients: threads that record them for the same weights can deadlock.
        """
        work = torch.no_grad()(partial(function, *arguments, **options))
        return await anyio.to_thread.run_sync(work, limiter=self.state.threads)

    async def each(self, values: Iterator[Result]) -> AsyncIterator[Result]:
        """The values of an iterator that computes, each in one of few threads."""
        end = object()
        while (value := await self.compute(next, values, end)) is not end:
            yield value  # pyright: ignore[reportReturnType]


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True)
class Operation:
    """One operation of the interface.

    Args:
        method: of HTTP.
        path: such as "/api/projects/{project}".
        name: unique, in camel case; the operationId of OpenAPI.
        summary: one sentence.
        handler: returns what is sent as JSON, a `Response`, or an asynchronous iterator
            whose values are sent as events.
        result: schema of the JSON, or of an event.
        body: schema of the JSON that it takes, or None.
        files: how many files it takes, instead of JSON or beside it.
        query: schemas of parameters of the query string, strings.
        result_type: media type of the result.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    result: Schema
    body: Schema | None = None
    files: int = 0
    query: Mapping[str, Schema] = field(default_factory=dict)
    result_type: str = "application/json"

    @cached_property
    def _check(self) -> Any:
        return Validator(self.body or {})

    @property
    def parameters(self) -> dict[str, tuple[str, Schema]]:
        """Where a parameter is, and its schema, by name."""
        in_path = [part[1:-1] for part in self.path.split("/") if part[:1] == "{"]
        return {
            **{name: ("path", IDENTIFIER) for name in in_path},
            **{name: ("query", schema) for name, schema in self.query.items()},
        }

    async def __call__(self, request: Request) -> Response:
        try:
            call = Call(
                request,
                request.scope["state"]["session"],
                self._parameters(request),
                *await self._content(request),
            )
            return self._response(await self.handler(call))
        except Refused as refused:
            return refused.response()
        except InnerloopError as error:
            line = " ".join(str(error).split())
            return Refused(422, "unusable", line).response()
        except ClientDisconnect:
            return Response(status_code=400)  # nobody receives it
        except Exception:
            log.exception("%s failed", self.name)
            return Refused(500, "failed", "something failed in the server").response()

    def _parameters(self, request: Request) -> dict[str, str]:
        values = {"path": request.path_params, "query": request.query_params}
        found = {}
        for name, (where, schema) in self.parameters.items():
            value = values[where].get(name, schema.get("default"))
            if value is None:
                raise Refused(422, "invalid", f"the parameter {name} is missing")
            if not value.isprintable():  # a "$" in a pattern allows a last line feed
                raise Refused(422, "invalid", f"{name} has a control character")
            check(schema, value, name)
            found[name] = value
        return found

    async def _content(self, request: Request) -> tuple[Any, tuple[File, ...]]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if self.files and kind == "multipart/form-data":
            return {}, await self._multipart(request)
        if self.body is None and not self.files:
            return {}, ()
        if self.body is None or kind != "application/json":
            takes = ["application/json"] if self.body is not None else []
            takes += ["multipart/form-data"] if self.files else []
            raise Refused(
                415, "media type", f"send {' or '.join(takes)}; got {kind or 'nothing'}"
            )
        body = _json_of(await request.body())
        try:
            check(self._check, body, "body")
        except RecursionError as error:
            raise Refused(422, "invalid", "the body is nested too deeply") from error
        return body, ()

    async def _multipart(self, request: Request) -> tuple[File, ...]:
        from starlette.exceptions import HTTPException

        try:
            async with request.form(max_files=self.files, max_fields=8) as form:
                found = []
                for _, value in form.multi_items():
                    if isinstance(value, str):
                        continue
                    found.append(File(value.filename or "", await value.read()))
        except HTTPException as error:
            raise Refused(400, "invalid", str(error.detail)) from error
        if not found:
            raise Refused(422, "invalid", "no file was sent")
        return tuple(found)

    def _response(self, result: Any) -> Response:
        if isinstance(result, Response):
            return result
        if isinstance(result, AsyncIterator):
            return StreamingResponse(_events(result), media_type="text/event-stream")
        return JSONResponse(result)


def _json_of(content: bytes) -> Any:
    """JSON as RFC 8259 has it: in UTF-8, without NaN, infinity and halves of characters
    (lone surrogates), which no file can hold. Whole numbers are integers however they
    are written, as JSON Schema has it.
    """
    try:
        text = content.decode()
        found = json.loads(text, parse_constant=_no_constant, parse_float=_number)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        line = str(error).encode(errors="replace").decode()
        raise Refused(400, "invalid", f"this is no JSON: {line}") from error
    return found


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        return _no_constant(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


async def _events(values: AsyncIterator[Any]) -> AsyncIterator[str]:
    """Values as server-sent events; an error is the last event."""
    try:
        async for value in values:
            yield f"data: {json.dumps(value)}\n\n"
    except InnerloopError as error:
        line = " ".join(str(error).split())[:TOO_LONG]
        yield f"event: error\ndata: {json.dumps({'message': line})}\n\n"
    except Exception:
        log.exception("a stream failed")
        text = json.dumps({"message": "something failed in the server"})
        yield f"event: error\ndata: {text}\n\n"


def check(schema: Any, value: Any, name: str) -> None:
    """Raises Refused for a value that does not fit a schema, or a `Validator` of
    one.
    """
    validator = schema if isinstance(schema, Validator) else Validator(schema)
    for error in validator.iter_errors(value):
        place = "".join(f"[{part!r}]" for part in error.absolute_path)
        raise Refused(422, "invalid", f"{name}{place}: {error.message[:200]}")


# ------------------------------------------------------------------ schemas

# never "." or "..", nor a hidden file
IDENTIFIER: Schema = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$",
}
NUMBER: Schema = {"type": "number", "minimum": -1e9, "maximum": 1e9}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}


def text(most: int, least: int = 0) -> Schema:
    return {"type": "string", "minLength": least, "maxLength": most}


def array(items: Schema, most: int | None = None, least: int = 0) -> Schema:
    bounds = {"minItems": least} | ({} if most is None else {"maxItems": most})
    return {"type": "array", "items": items, **bounds}


def choice(*values: str, default: str | None = None) -> Schema:
    return {"enum": list(values)} | ({} if default is None else {"default": default})


def record(optional: Mapping[str, Schema] | None = None, /, **needed: Schema) -> Schema:
    """An object with these entries and no others."""
    return {
        "type": "object",
        "properties": {**needed, **(optional or {})},
        "required": list(needed),
        "additionalProperties": False,
    }


ERROR = record(error=record(code=text(40), message=text(TOO_LONG)))


def openapi(operations: list[Operation], version: str) -> dict[str, Any]:
    """The OpenAPI document of operations."""
    paths: dict[str, Any] = {}
    problem = {"description": "refused", "content": _json(ERROR)}
    for operation in operations:
        content = {} if operation.body is None else _json(operation.body)
        if operation.files:
            file = {"type": "string", "format": "binary"}
            some = array(file, operation.files, 1)
            schema = record(file=some)
            content["multipart/form-data"] = {"schema": schema}
        body = {"requestBody": {"required": True, "content": content}}
        good = {operation.result_type: {"schema": dict(operation.result)}}
        paths.setdefault(operation.path, {})[operation.method.lower()] = {
            "operationId": operation.name,
            "summary": operation.summary,
            "parameters": [
                {
                    "name": name,
                    "in": where,
                    "required": where == "path",
                    "schema": dict(schema),
                }
                for name, (where, schema) in operation.parameters.items()
            ],
            **(body if content else {}),
            "responses": {
                "200": {"description": "done", "content": good},
                "default": problem,
            },
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "innerloop", "version": version},
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Token"}
            }
        },
        "security": [{"token": []}],
    }


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": dict(schema)}}
