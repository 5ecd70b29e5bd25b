"""Many people at the page at once: how long answers take, and the server's memory.

    python benchmarks/load.py --users 200 --seconds 60

Starts `innerloop serve` on this machine. Every user has a session of its own, teaches a
project two classes of drawings, and then draws: about every `--pause` seconds a
request, of which most ask and some teach, undo, or want the map. Users start within the
first `--pause` seconds. Prints times per operation, from the first byte sent to the
last byte received, as the client sees them; the client takes time of the same
processors.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from reporting import finish, parser_of, row, table

ASKS, TEACHES, MAPS = 0.80, 0.10, 0.05  # shares of requests; the rest undo
CLASSES = ("circle", "cross")


class Http:
    """One connection that stays open, as a browser's."""

    def __init__(self, port: int, headers: dict[str, str]):
        self.port = port
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        self.head = f"Host: 127.0.0.1:{port}\r\n{''.join(lines)}"
        self.pipe: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer; on a new connection where the server has closed
        an idle one, as browsers do.
        """
        if self.pipe is not None:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                return await self._ask(method, path, body)
        return await self._ask(method, path, body)

    async def _ask(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if self.pipe is None:
            self.pipe = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.pipe
        content = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        length = f"Content-Length: {len(content)}\r\n"
        head = f"{method} {path} HTTP/1.1\r\n{self.head}{kind}{length}\r\n"
        try:
            writer.write(head.encode() + content)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            values = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            found = await reader.readexactly(int(values["content-length"]))
        except (OSError, EOFError):
            self.pipe = None
            raise
        return int(lines[0].split()[1]), json.loads(found)

    def close(self) -> None:
        if self.pipe is not None:
            self.pipe[1].close()


def drawing(name: str, rng: random.Random) -> dict[str, Any]:
    """A circle or a cross of a hand that trembles, about 60 points as a pen sends."""

    def near(x: float, y: float) -> list[float]:
        return [round(min(max(v + rng.gauss(0, 0.006), 0), 1), 4) for v in (x, y)]

    x, y = rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6)
    size = rng.uniform(0.2, 0.38)
    if name == "circle":
        turns = [2 * math.pi * n / 60 for n in range(62)]
        lines = [[(x + size * math.cos(t), y + size * math.sin(t)) for t in turns]]
    else:
        steps = [n / 15 - 1 for n in range(31)]
        lines = [
            [(x + size * s, y + side * size * s) for s in steps] for side in (1, -1)
        ]
    return {"strokes": [[near(*point) for point in line] for line in lines]}


class User:
    """Someone who teaches and asks.

    Args:
        number: of the user.
        port, token: of the server.
        times: seconds of the answers, by operation.
        faults: what went wrong.
    """

    def __init__(
        self,
        number: int,
        port: int,
        token: str,
        times: dict[str, list[float]],
        faults: list[str],
    ):
        self.rng = random.Random(number)
        headers = {"X-Token": token, "X-Session": f"user-{number:012}"}
        self.http, self.times, self.faults = Http(port, headers), times, faults
        self.project, self.classes = "", {}
        self.measured = False

    async def ask(self, what: str, method: str, path: str, body: Any = None) -> Any:
        """The answer, or None for a fault, which is noted."""
        began = time.perf_counter()
        try:
            status, found = await self.http.ask(method, path, body)
        except (OSError, EOFError, ValueError, KeyError) as error:
            self.faults.append(f"{what}: {type(error).__name__} {error}")
            return None
        if self.measured:
            self.times[what].append(time.perf_counter() - began)
        if status != 200:
            self.faults.append(f"{what}: {status} {json.dumps(found)[:200]}")
            return None
        return found

    async def start(self) -> None:
        made = await self.ask("create", "POST", "/api/projects", {"model": "drawings"})
        if made is None:
            return
        self.project = f"/api/projects/{made['id']}"
        for n, name in enumerate(CLASSES):
            body = {"name": name}
            state = await self.ask("class", "POST", f"{self.project}/classes", body)
            if state is None:
                return
            self.classes[name] = state["classes"][n]["id"]
            await self.teach(name)
            await self.teach(name)

    async def teach(self, name: str) -> None:
        path = f"{self.project}/classes/{self.classes[name]}/examples"
        body = {"drawings": [drawing(name, self.rng)]}
        await self.ask("teach", "POST", path, body)

    async def query(self, name: str) -> None:
        body = {"drawing": drawing(name, self.rng)}
        found = await self.ask("ask", "POST", f"{self.project}/ask", body)
        if found is not None:
            best = max(found["classes"], key=lambda entry: entry["probability"])
            if best["name"] != name:
                self.faults.append(f"a {name} is a {best['name']}")

    async def step(self) -> None:
        kind, name = self.rng.random(), self.rng.choice(CLASSES)
        if kind < ASKS:
            await self.query(name)
        elif kind < ASKS + TEACHES:
            await self.teach(name)
        elif kind < ASKS + TEACHES + MAPS:
            await self.ask("map", "GET", f"{self.project}/insight")
        else:  # teach and undo, so that there is something to undo
            await self.teach(name)
            await self.ask("undo", "POST", f"{self.project}/undo")

    async def use(self, until: float, pause: float) -> None:
        await asyncio.sleep(self.rng.uniform(0, pause))
        self.measured = True
        while time.perf_counter() < until:
            await self.step()
            await asyncio.sleep(self.rng.uniform(0.5, 1.5) * pause)
        self.http.close()


def memory(process: int) -> float:
    """Memory of a process and its children in MiB; 0 where it cannot be known."""
    total = 0.0
    with suppress(OSError):
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        total += sum(memory(int(child)) for child in children)
        status = Path(f"/proc/{process}/status").read_text()
        total += int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024
    return total


def processor(process: int) -> float:
    """Seconds of processor time that a process has used; 0 where that is unknown."""
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    return 0.0


async def watch(process: int, found: list[float]) -> None:
    while True:
        found.append(memory(process))
        await asyncio.sleep(1)


async def measure(
    options: argparse.Namespace, port: int, token: str, pid: int
) -> dict[str, float]:
    """Run the users; returns what was measured of all requests."""
    times: dict[str, list[float]] = defaultdict(list)
    faults: list[str] = []
    users = [User(n, port, token, times, faults) for n in range(options.users)]
    for user in users:  # one after the other: they come over hours
        await user.start()
    used, spent = [memory(pid)], processor(pid)
    watching = asyncio.create_task(watch(pid, used))
    began = time.perf_counter()
    until = began + options.seconds
    await asyncio.gather(*(user.use(until, options.pause) for user in users))
    seconds = time.perf_counter() - began
    watching.cancel()
    spent = processor(pid) - spent
    found = report(times, seconds)
    count = sum(map(len, times.values()))
    print(
        f"the server used {100 * spent / seconds:.0f} % of a processor, "
        f"{1000 * spent / count:.1f} ms for a request"
    )
    print(f"faults {len(faults)}", *faults[:5], sep="\n  ")
    first, most, last = used[0], max(used), used[-1]
    print(
        f"memory of the server {first:.0f} MiB, at most {most:.0f}, at last {last:.0f}"
    )
    return {**found, "faults": len(faults), "memory of the server, MiB": most}


def report(times: dict[str, list[float]], seconds: float) -> dict[str, float]:
    """Prints times per operation; returns those of all."""
    found: dict[str, float] = {}
    every = [t for some in times.values() for t in some]
    print(
        f"{'':8}{'requests':>9}{'per s':>8}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8} ms"
    )
    for name, some in [*sorted(times.items()), ("all", every)]:
        cuts = statistics.quantiles(some, n=100) if len(some) > 1 else some * 99
        shown = [1000 * value for value in (cuts[49], cuts[94], cuts[98], max(some))]
        print(
            f"{name:8}{len(some):9}{len(some) / seconds:8.1f}",
            *(f"{value:8.0f}" for value in shown),
            sep="",
        )
        found = {
            "requests per second": len(some) / seconds,
            "median, ms": shown[0],
            "95 % within, ms": shown[1],
        }
    return found


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pause", type=float, default=1.0, help="mean, seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "innerloop", "serve", "--port", "0"]
        server = subprocess.Popen(
            [*line, "--projects", folder],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert server.stdout is not None
            found = re.search(r":(\d+)/#(\S+)", server.stdout.readline())
            if found is None:
                return 1
            print(
                f"{options.users} users, a request of each every {options.pause:g} s, "
                f"{options.seconds:g} s, {os.cpu_count()} processors"
            )
            values = asyncio.run(measure(options, int(found[1]), found[2], server.pid))
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    finish(table("requests of all users", [row({}, values)]), options)
    return int(values["faults"] > 0)


if __name__ == "__main__" and main():
    sys.exit(1)
