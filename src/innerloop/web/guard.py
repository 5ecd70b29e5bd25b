"""What stands before every request: who may ask, from where, how much and how often.

The server has no users. Whoever knows the token, which is printed with the address, may
use it. The other checks keep pages of other origins, which a browser on the same
machine may show, from using or reading it.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from innerloop.web.http import DEFAULT_SESSION, Refused

TOKEN, SESSION = "x-token", "x-session"
NAME = re.compile(r"[A-Za-z0-9_-]{16,64}|" + DEFAULT_SESSION)
OPEN = ("/", "/learn", "/train")  # pages without data; and all under /static/
SMALL = 2**21  # bytes of a body
LARGE = 2**27  # bytes of a body with files
MOST_KNOWN = 10_000  # sessions whose rate is known
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


@dataclass
class Bucket:
    """Requests that are still allowed, and when that was counted."""

    left: float
    at: float


@dataclass
class Guard:
    """An ASGI application that lets through to another what may pass.

    Args:
        app: the other application.
        token: the token, or "" for none.
        hosts: the names and addresses, with port, under which the server is asked.
        rate: requests of one session in a second, on average.
        burst: requests of one session at once.
    """

    app: ASGIApp
    token: str
    hosts: Sequence[str]
    rate: float = 50.0
    burst: float = 200.0
    _buckets: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        counted = _Counted(receive, LARGE if _has_files(headers) else SMALL)
        guarded = _Guarded(send)
        try:
            self._admit(scope, headers)
            scope.setdefault("state", {})["session"] = self._session(scope, headers)
            counted.check(_declared(headers))
            await self.app(scope, counted, guarded)
        except Refused as refused:
            if guarded.started:  # what is sent cannot be taken back
                raise
            await refused.response()(scope, receive, guarded)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        if headers.get("host", "").lower() not in self.hosts:
            raise Refused(421, "host", "this server does not answer under that name")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() not in self.hosts:
            raise Refused(403, "origin", "pages of other origins may not use this")
        page = scope["path"] in OPEN and scope["method"] in ("GET", "HEAD")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not page:
            raise Refused(403, "origin", "pages of other origins may not use this")
        if page or scope["path"].startswith("/static/") or not self.token:
            return
        given = headers.get(TOKEN, "").encode("utf-8", "surrogateescape")
        if not secrets.compare_digest(given, self.token.encode()):
            raise Refused(
                401, "token", "the token is missing or wrong: open the printed address"
            )

    def _session(self, scope: Scope, headers: Headers) -> str:
        name = headers.get(SESSION, DEFAULT_SESSION)
        if not NAME.fullmatch(name):
            raise Refused(
                400, "session", f"{SESSION} must be 16 to 64 letters and digits"
            )
        if not scope["path"].startswith("/api/"):
            return name
        now = time.monotonic()
        bucket = self._buckets.pop(name, None) or Bucket(self.burst, now)
        bucket.left = min(self.burst, bucket.left + self.rate * (now - bucket.at))
        bucket.at = now
        self._buckets[name] = bucket
        while len(self._buckets) > MOST_KNOWN:
            self._buckets.popitem(last=False)
        if bucket.left < 1:
            raise Refused(429, "rate", "too many requests at once: wait a second")
        bucket.left -= 1
        return name


class TooLarge(Refused):
    """A body that is too large."""

    def __init__(self, most: int):
        super().__init__(
            413, "too large", f"the request is larger than {most // 2**20} MiB"
        )


@dataclass
class _Counted:
    """The messages of a request, whose bytes are counted as they come."""

    receive: Receive
    most: int
    count: int = 0

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request":
            self.count += len(message.get("body", b""))
            self.check(self.count)
        return message

    def check(self, count: int) -> None:
        if count > self.most:
            raise TooLarge(self.most)


def _declared(headers: Headers) -> int:
    """The bytes that a request says it has."""
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Refused(400, "invalid", "content-length must be a number")
    return int(text)


def _has_files(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


@dataclass
class _Guarded:
    """The messages of an answer, with the headers of every answer."""

    send: Send
    started: bool = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            present = {name.lower() for name, _ in message.get("headers", [])}
            extra = [
                (name.encode(), value.encode())
                for name, value in HEADERS.items()
                if name.encode() not in present
            ]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await self.send(message)
