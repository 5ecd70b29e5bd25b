"""`innerloop serve` as a person starts it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.web.serving import command, environment, refusal, serving

# a package that cannot be imported, and the command line
WITHOUT = (
    "import sys; sys.modules[sys.argv.pop(1)] = None; "
    "from innerloop.cli import main; sys.exit(main())"
)


def refused(line: list[str]) -> str:
    """The one line that a command says, which must fail."""
    done = subprocess.run(
        line, capture_output=True, text=True, env=environment(), timeout=300
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert len(said) < 300
    return said


def test_a_server_answers_and_ends(tmp_path: Path) -> None:
    with serving(tmp_path / "projects") as server:
        assert server.address.startswith("http://127.0.0.1:")
        assert len(server.token) >= 32
        with httpx.Client(base_url=server.address, trust_env=False) as client:
            page = client.get("/")
            assert '<body data-page="teach">' in page.text
            assert "server" not in page.headers
            assert refusal(client.get("/api/openapi.json")) == "token"
            allowed = {"x-token": server.token}
            document = client.get("/api/openapi.json", headers=allowed).json()
            assert document["openapi"].startswith("3.1")
            elsewhere = client.get("/", headers={"host": "evil.example"})
            assert elsewhere.status_code == 421
        code, said = server.interrupt()
    assert said.strip() in ("", "stop it with Ctrl-C")
    assert code == 0


def test_a_connection_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    """A connection that stays open, as a browser's does."""
    with (
        serving(tmp_path / "projects") as server,
        socket.create_connection(("127.0.0.1", int(server.address.split(":")[2]))),
    ):
        code, said = server.interrupt()
    assert "Traceback" not in said
    assert code == 0


@pytest.mark.slow
def test_it_starts_within_five_seconds(tmp_path: Path) -> None:
    """The best of three, because other programs may be running."""
    seconds = []
    for n in range(3):
        with serving(tmp_path / str(n)) as server:
            seconds.append(server.seconds)
    assert min(seconds) < 5, seconds


def test_a_port_that_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused(command("--port", port, "--projects", tmp_path))
    assert f"cannot listen at 127.0.0.1:{port}: " in said
    assert "choose another --port" in said


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_here(host: str, tmp_path: Path) -> None:
    said = refused(command("--host", host, "--port", "0", "--projects", tmp_path))
    assert f"cannot listen at {host}:0: " in said


@pytest.mark.parametrize(
    "package", ["uvicorn", "starlette", "jsonschema", "python_multipart"]
)
def test_a_package_that_is_missing(package: str) -> None:
    said = refused([sys.executable, "-c", WITHOUT, package, "serve", "--port", "0"])
    assert f"needs the package {package}" in said
    assert "pip install 'innerloop[web]'" in said


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    said = refused(command("--port", "0", tmp_path / "nothing"))
    assert "nothing" in said
