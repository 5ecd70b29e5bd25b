"""What stands before every request, and how everything is answered."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import StreamingResponse

from innerloop.engine.errors import InnerloopError
from innerloop.web import app as web_app
from innerloop.web import guard as web_guard
from innerloop.web.guard import HEADERS, LARGE, SMALL, Guard
from innerloop.web.http import (
    Call,
    Operation,
    Refused,
    _json_of,
    choice,
    record,
    text,
)
from tests.web.serving import (
    ALLOWED,
    HOST,
    TOKEN,
    application,
    ask,
    completed,
    refusal,
)

FILES = "multipart/form-data; boundary=x"


async def _say(call: Call) -> Any:
    return {"session": call.session, "body": call.body, "path": dict(call.path)}


async def _take(call: Call) -> Any:
    return {"files": [[file.name, len(file.content)] for file in call.files]}


async def _break(call: Call) -> Any:
    raise RuntimeError("a fault with /secret/path in it")


async def _refuse(call: Call) -> Any:
    raise InnerloopError("one\nline only " + "x" * 400)


async def _events(call: Call) -> Any:
    async def values() -> AsyncIterator[Any]:
        yield {"n": 1}
        raise InnerloopError("it ended")

    return values()


async def _late(call: Call) -> Any:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise Refused(413, "too large", "too late")

    return StreamingResponse(chunks())


ANY = record(x=text(SMALL))
OPERATIONS = [
    Operation("POST", "/api/t/say", "say", "", _say, {}, ANY),
    Operation("GET", "/api/t/say", "read", "", _say, {}),
    Operation("GET", "/api/t/of/{project}", "of", "", _say, {}),
    Operation("POST", "/api/t/files", "take", "", _take, {}, files=3),
    Operation("GET", "/api/t/break", "fail", "", _break, {}),
    Operation("GET", "/api/t/refuse", "refuse", "", _refuse, {}),
    Operation("GET", "/api/t/events", "events", "", _events, {}),
    Operation("GET", "/api/t/late", "late", "", _late, {}),
    Operation(
        "GET",
        "/api/t/choice",
        "choose",
        "",
        _say,
        {},
        query={"format": choice("a", "b", default="a")},
    ),
]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    known = web_app.operations()
    monkeypatch.setattr(web_app, "operations", lambda: [*known, *OPERATIONS])
    return application(tmp_path)


# ------------------------------------------------------------------ token


@pytest.mark.parametrize("path", ["/api/t/say", "/api/openapi.json", "/api/nothing"])
@pytest.mark.parametrize(
    "token", [None, "", "t", TOKEN + "t", TOKEN[:-1] + "u", "é", "t\xa0"]
)
def test_without_the_token_nothing_is_answered(
    app: Guard, path: str, token: str | None
) -> None:
    given = {} if token is None else {"x-token": token.encode("latin-1")}
    answer = ask(app, "GET", path, headers=given)
    assert (answer.status_code, refusal(answer)) == (401, "token")
    assert TOKEN not in answer.text


def test_the_token_is_compared_in_constant_time(
    app: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, original = [], secrets.compare_digest

    def compare(first: bytes, second: bytes) -> bool:
        compared.append({first, second})
        return original(first, second)

    monkeypatch.setattr(web_guard.secrets, "compare_digest", compare)
    ask(app, "GET", "/api/t/say", headers={"x-token": "wrong"})
    monkeypatch.undo()
    assert compared == [{b"wrong", TOKEN.encode()}]


def test_the_token_is_no_part_of_an_address(app: Guard) -> None:
    answer = ask(app, "GET", f"/api/t/say?x-token={TOKEN}&token={TOKEN}")
    assert answer.status_code == 401


def test_every_server_has_another_token() -> None:
    tokens = {web_app.Settings().token for _ in range(20)}
    assert len(tokens) == 20
    assert min(map(len, tokens)) >= 32


def test_with_the_token_it_is_answered(app: Guard) -> None:
    assert ask(app, "GET", "/api/t/say", headers=ALLOWED).status_code == 200


@pytest.mark.parametrize("path", ["/", "/learn", "/train", "/static/style.css"])
def test_pages_and_their_files_need_no_token(app: Guard, path: str) -> None:
    assert ask(app, "GET", path).status_code == 200
    assert ask(app, "HEAD", path).status_code == 200


# ------------------------------------------------------------------ host and origin


@pytest.mark.parametrize("host", [HOST, "localhost:8765", "LOCALHOST:8765"])
def test_its_own_names(app: Guard, host: str) -> None:
    answer = ask(app, "GET", "/", headers={"host": host})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8765", "127.0.0.1", "127.0.0.1:80", ""),
        *("127.0.0.1:8765.evil.example", "127.0.0.1:8765@evil.example"),
        *("0.0.0.0:8765", "127.0.0.1:08765", "localhost.:8765", f"{HOST}, {HOST}"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/static/style.css", "/api/t/say"])
def test_other_names_are_refused(app: Guard, host: str, path: str) -> None:
    """A name that another page has pointed at this machine (DNS rebinding)."""
    answer = ask(app, "GET", path, headers={**ALLOWED, "host": host})
    assert (answer.status_code, refusal(answer)) == (421, "host")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_the_names_of_an_address_with_colons(host: str) -> None:
    settings = web_app.Settings(host=host.strip("[]"), token="x")
    assert settings.address == "http://[::1]:8765/#x"
    assert "[::1]:8765" in settings.hosts


def test_browsers_leave_out_port_80() -> None:
    assert "localhost" in web_app.Settings(port=80).hosts
    assert "localhost" not in web_app.Settings(port=81).hosts


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", f"http://{HOST}.evil.example", HOST]
)
@pytest.mark.parametrize("path", ["/api/t/say", "/api/t/events", "/static/style.css"])
def test_pages_of_other_origins_are_refused(app: Guard, origin: str, path: str) -> None:
    answer = ask(app, "GET", path, headers={**ALLOWED, "origin": origin})
    assert (answer.status_code, refusal(answer)) == (403, "origin")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "other"])
def test_requests_from_other_sites_are_refused(app: Guard, site: str) -> None:
    headers = {**ALLOWED, "sec-fetch-site": site}
    for method, path in [
        ("GET", "/api/t/say"),
        ("POST", "/api/t/say"),
        ("GET", "/api/t/events"),
        ("POST", "/"),
        ("GET", "/static/js/api.js"),
    ]:
        answer = ask(app, method, path, headers=headers)
        assert (answer.status_code, refusal(answer)) == (403, "origin")
    # a link on another page may open the page
    assert ask(app, "GET", "/", headers=headers).status_code == 200


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_its_own_page_may_ask(app: Guard, site: str) -> None:
    headers = {**ALLOWED, "sec-fetch-site": site, "origin": f"http://{HOST}"}
    body = {"x": "1"}
    answer = ask(app, "POST", "/api/t/say", headers=headers, json=body)
    assert answer.json()["body"] == body


# ------------------------------------------------------------------ headers, errors


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/static/icon.svg", {}, 200),
        ("GET", "/api/t/say", ALLOWED, 200),
        ("GET", "/api/t/events", ALLOWED, 200),
        ("POST", "/api/t/say", ALLOWED, 415),
        ("GET", "/api/t/say", {}, 401),
        ("GET", "/nothing", ALLOWED, 404),
        ("DELETE", "/api/t/say", ALLOWED, 405),
        ("GET", "/", {"host": "evil"}, 421),
        ("GET", "/api/t/break", ALLOWED, 500),
        ("GET", "/static/../app.py", ALLOWED, 404),
    ],
)
def test_every_answer_has_the_headers(
    app: Guard, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = ask(app, method, path, headers=headers)
    assert answer.status_code == status
    assert {n: answer.headers.get(n) for n in HEADERS} == HEADERS
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "*" not in policy


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "BREW"])
@pytest.mark.parametrize(
    "path",
    [
        *("/x", "/api", "/api/", "/api/x", "/api/t/say/", "/api/../train/x"),
        *("/static", "/static/", "/static/js", "/static/nothing.js"),
        *("/static/%00", "/static/%2e%2e/app.py", "/static//etc/passwd"),
        *("/static/..%2f..%2fhttp.py", "/static/%5c..%5capp.py", "/%ff%fe"),
        *("/static/" + "x" * 5000, "/.env", "/api/t/of/%2e%2e"),
    ],
)
def test_unknown_paths_are_a_line_of_json(app: Guard, method: str, path: str) -> None:
    answer = ask(app, method, path, headers=ALLOWED)
    if answer.status_code == 307:  # to the path without or with the last "/"
        assert answer.headers["location"].startswith(f"http://{HOST}/")
        return
    assert answer.status_code in (404, 405, 422)
    refusal(answer)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/learn", "/static/style.css", "/api/t/break"])
def test_other_methods(app: Guard, method: str, path: str) -> None:
    answer = ask(app, method, path, headers=ALLOWED)
    assert (answer.status_code, refusal(answer)) == (405, "missing")
    assert "GET" in answer.headers["allow"]


def test_faults_say_nothing_of_the_server(
    app: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask(app, "GET", "/api/t/break", headers=ALLOWED)
    assert (answer.status_code, refusal(answer)) == (500, "failed")
    assert "secret" not in answer.text
    assert "a fault with /secret/path" in caplog.text  # it is in the server's log


def test_what_a_user_can_mend_is_one_short_line(app: Guard) -> None:
    answer = ask(app, "GET", "/api/t/refuse", headers=ALLOWED)
    assert (answer.status_code, refusal(answer)) == (422, "unusable")
    assert answer.json()["error"]["message"].startswith("one line only xxx")


def test_an_error_ends_a_stream_as_an_event(app: Guard) -> None:
    answer = ask(app, "GET", "/api/t/events", headers=ALLOWED)
    assert answer.headers["content-type"].startswith("text/event-stream")
    expected = 'data: {"n": 1}\n\nevent: error\ndata: {"message": "it ended"}\n\n'
    assert answer.text == expected


def test_a_refusal_after_the_answer_began_is_no_second_answer(app: Guard) -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = _scope("GET", "/api/t/late")
    with pytest.raises(Exception):  # noqa: B017, PT011  # the server closes
        completed(app(scope, _messages(b""), send))
    assert sent.count("http.response.start") == 1


# ------------------------------------------------------------------ what comes in


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b'"x"x', b"\xff\xfe", b'{"x": "\xed\xa0\x80"}', b"[" * 100_000),
        *(b'{"x": NaN}', b'{"x": -Infinity}', b'{"x": 1e999}', b'{"x": "\\ud800"}'),
        *(b'{"\\udfff": 1}', '{"x": "a"}'.encode("utf-16"), b'{"x": ' + b"9" * 5000),
    ],
)
def test_what_is_no_json(app: Guard, content: bytes) -> None:
    headers = {**ALLOWED, "content-type": "application/json"}
    answer = ask(app, "POST", "/api/t/say", headers=headers, content=content)
    assert (answer.status_code, refusal(answer)) == (400, "invalid")


@pytest.mark.parametrize(
    "content",
    [
        *(b"1", b"null", b"[]", b"{}", b'{"x": 1}', b'{"x": "a", "y": "b"}'),
        *(b"[" * 900 + b"]" * 900, b'{"x": ' + b"[" * 900 + b"]" * 900 + b"}"),
        *(b'{"x":' * 900 + b"1" + b"}" * 900, b'{"x": ' + b"9" * 4000 + b"}"),
    ],
)
def test_what_does_not_fit_the_schema(app: Guard, content: bytes) -> None:
    headers = {**ALLOWED, "content-type": "application/json"}
    answer = ask(app, "POST", "/api/t/say", headers=headers, content=content)
    assert (answer.status_code, refusal(answer)) == (422, "invalid")


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", FILES, "a/b; c=d"]
)
def test_other_media_types(app: Guard, kind: str) -> None:
    """A form of another page can send these without asking the browser first."""
    headers = {**ALLOWED, "content-type": kind}
    answer = ask(app, "POST", "/api/t/say", headers=headers, content=b'{"x": "1"}')
    assert (answer.status_code, refusal(answer)) == (415, "media type")


def test_files(app: Guard) -> None:
    sent = [("file", ("../../etc/passwd", b"12")), ("file", ("ü", b"345"))]
    answer = ask(app, "POST", "/api/t/files", headers=ALLOWED, files=sent)
    assert answer.json()["files"] == [["../../etc/passwd", 2], ["ü", 3]]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"--x", b"--x--", b"nothing", b"--x\r\n\r\n\r\n--x--\r\n"),
        b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\n1\r\n--x--\r\n',
        b"--x\r\ncontent-disposition: form-data\r\n\r\n1\r\n--x--\r\n",
        b'--x\r\n\xff: form-data; name="file"; filename="a"\r\n\r\n1\r\n--x--\r\n',
        b'--x\r\ncontent-disposition: form-data; name="a"; filename="a"\r\n\r\n1',
    ],
)
def test_damaged_forms(app: Guard, content: bytes) -> None:
    headers = {**ALLOWED, "content-type": FILES}
    answer = ask(app, "POST", "/api/t/files", headers=headers, content=content)
    assert answer.status_code in (400, 422)
    refusal(answer)


@pytest.mark.parametrize("kind", ["multipart/form-data", FILES.replace("x", "")])
def test_forms_without_a_boundary(app: Guard, kind: str) -> None:
    headers = {**ALLOWED, "content-type": kind}
    answer = ask(app, "POST", "/api/t/files", headers=headers, content=b"--x--")
    assert answer.status_code in (400, 422)
    refusal(answer)


def test_too_many_files(app: Guard) -> None:
    sent = [("file", (str(n), b"1")) for n in range(4)]
    answer = ask(app, "POST", "/api/t/files", headers=ALLOWED, files=sent)
    assert (answer.status_code, refusal(answer)) == (400, "invalid")


@pytest.mark.parametrize(
    "name", ["..", ".", ".git", "a/b", "a b", "a\n", "é", "x" * 65]
)
def test_what_is_no_identifier(app: Guard, name: str) -> None:
    path = "/api/t/of/" + "".join(f"%{byte:02x}" for byte in name.encode())
    answer = ask(app, "GET", path, headers=ALLOWED)
    assert answer.status_code in (404, 422)
    refusal(answer)


def test_the_query_string_does_not_replace_the_path(app: Guard) -> None:
    answer = ask(app, "GET", "/api/t/of/mine?project=yours", headers=ALLOWED)
    assert answer.json()["path"] == {"project": "mine"}


def test_parameters_of_the_query_string(app: Guard) -> None:
    for query, expected in [("", "a"), ("?format=b", "b"), ("?format=b&x=1", "b")]:
        answer = ask(app, "GET", f"/api/t/choice{query}", headers=ALLOWED)
        assert answer.json()["path"] == {"format": expected}
    answer = ask(app, "GET", "/api/t/choice?format=c", headers=ALLOWED)
    assert (answer.status_code, refusal(answer)) == (422, "invalid")


# ------------------------------------------------------------------ size


def _scope(method: str, path: str, **headers: str) -> dict[str, Any]:
    given = {**ALLOWED, "host": HOST}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "headers": [(n.encode(), v.encode("latin-1")) for n, v in given.items()],
    }


def _messages(*bodies: bytes, end: bool = True) -> Any:
    rest = list(bodies)

    async def receive() -> Any:
        more = len(rest) > 1 or not end
        return {"type": "http.request", "body": rest.pop(0), "more_body": more}

    return receive


def _streamed(app: Guard, kind: str, path: str, first: bytes = b"") -> tuple[Any, int]:
    """The status of an endless body without content-length, and how many bytes were
    taken of it.
    """
    chunk, taken, sent = b"x" * 2**18, 0, []

    async def receive() -> Any:
        nonlocal taken
        body = first if taken == 0 and first else chunk
        taken += len(body)
        assert taken < 2 * LARGE, "it reads without end"
        return {"type": "http.request", "body": body, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    completed(app(_scope("POST", path, content_type=kind), receive, send))
    headers = dict(sent[0]["headers"])
    assert headers[b"connection"] == b"close"
    return sent[0]["status"], taken


def test_a_body_without_end_is_counted_as_it_comes(app: Guard) -> None:
    status, taken = _streamed(app, "application/json", "/api/t/say")
    assert status == 413
    assert taken <= SMALL + 2**18


def test_files_without_end_are_counted_as_they_come(app: Guard) -> None:
    head = b'--x\r\ncontent-disposition: form-data; name="f"; filename="f"\r\n\r\n'
    status, taken = _streamed(app, FILES, "/api/t/files", head)
    assert status == 413
    assert taken <= LARGE + 2**19


def test_files_may_only_be_large_where_files_are_taken(app: Guard) -> None:
    """A JSON operation does not read a body that claims to hold files."""
    headers = {**ALLOWED, "content-type": FILES}
    answer = ask(app, "POST", "/api/t/say", headers=headers, content=b"x" * 2**22)
    assert answer.status_code == 415


def test_the_largest_body_passes(app: Guard) -> None:
    room = SMALL - len('{"x":""}')
    for extra, status in [(0, 200), (1, 413)]:
        body = b'{"x":"' + b"a" * (room + extra) + b'"}'

        async def chunks(body: bytes = body) -> AsyncIterator[bytes]:
            for start in range(0, len(body), 2**16):
                yield body[start : start + 2**16]

        headers = {**ALLOWED, "content-type": "application/json"}
        for content in (body, chunks()):
            answer = ask(app, "POST", "/api/t/say", headers=headers, content=content)
            assert answer.status_code == status
            if status == 413:
                assert refusal(answer) == "too large"
                assert answer.headers["connection"] == "close"


def test_a_body_that_says_it_is_too_large_is_not_read(app: Guard) -> None:
    sent = []

    async def receive() -> Any:
        raise AssertionError("it was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = _scope("POST", "/api/t/say", content_length=str(SMALL + 1))
    completed(app(scope, receive, send))
    assert sent[0]["status"] == 413


@pytest.mark.parametrize("length", ["x", "-1", "1.5", "²", "1e3", "9" * 5000, ""])
def test_lengths_that_are_none(app: Guard, length: str) -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = _scope("POST", "/api/t/say", content_length=length)
    completed(app(scope, _messages(b"{}"), send))
    assert sent[0]["status"] in (400, 413)


def test_a_client_that_goes_away_is_no_fault(
    app: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    for path, kind in [("/api/t/say", "application/json"), ("/api/t/files", FILES)]:
        completed(app(_scope("POST", path, content_type=kind), receive, send))
    assert not caplog.records


# ------------------------------------------------------------------ rate, sessions


def test_the_rate_of_a_session_is_bounded(tmp_path: Path) -> None:
    app = application(tmp_path, rate=0.001)
    first, second = ({**ALLOWED, "x-session": name * 16} for name in "ab")

    async def asked() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url=f"http://{HOST}"
        ) as client:
            found = []
            for headers in [*[first] * 202, second]:
                answer = await client.get("/api/openapi.json", headers=headers)
                found.append(answer.status_code)
            assert refusal(await client.get("/api/x", headers=first)) == "rate"
            assert (await client.get("/static/style.css")).status_code == 200
            return found

    statuses = completed(asked())
    assert statuses[:200] == [200] * 200
    assert statuses[200:202] == [429] * 2
    assert statuses[-1] == 200  # the other session


def test_after_a_while_it_may_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, now = application(tmp_path), 0.0
    app.burst = 1.0
    monkeypatch.setattr(web_guard.time, "monotonic", lambda: now)
    found = []
    for later in (0, 0, 0.01, 0.03, 100, 0):
        now += later
        found.append(ask(app, "GET", "/api/openapi.json", headers=ALLOWED).status_code)
    assert found == [200, 429, 429, 200, 200, 429]


def test_the_sessions_that_are_known_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_guard, "MOST_KNOWN", 5)
    app = application(tmp_path)
    for n in range(9):
        headers = {**ALLOWED, "x-session": f"{n:016}"}
        ask(app, "GET", "/api/openapi.json", headers=headers)
    assert list(app._buckets) == [f"{n:016}" for n in range(4, 9)]


@pytest.mark.parametrize("name", ["", "short", "x" * 65, "../" * 8, "é" * 16, "a" * 15])
def test_names_of_sessions(app: Guard, name: str) -> None:
    headers = {**ALLOWED, "x-session": name.encode()}
    answer = ask(app, "GET", "/api/t/say", headers=headers)
    assert (answer.status_code, refusal(answer)) == (400, "session")


def test_whose_call_it_is(app: Guard) -> None:
    for name in ("a" * 16, "B-_3" * 16):
        headers = {**ALLOWED, "x-session": name}
        answer = ask(app, "GET", "/api/t/say", headers=headers)
        assert answer.json()["session"] == name
    assert ask(app, "GET", "/api/t/say", headers=ALLOWED).json()["session"] == "default"


def test_web_sockets_are_closed(app: Guard) -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    completed(app({"type": "websocket", "path": "/"}, _messages(b""), send))
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_whole_numbers_are_integers() -> None:
    """A handler that counts by them need not know how they were written."""
    found = _json_of(b"[1, 1.0, 1e2, -0.0, 1.5, 1e300]")
    assert [type(value) for value in found] == [*[int] * 4, float, float]
    assert found[:3] == [1, 1, 100]
