"""Two hosts on one machine: one is lost in the middle of a training, and another joins.

    sudo python benchmarks/hosts.py

Every host has a network, processes and a name of its own (`ip netns`, `unshare`), and
runs torchrun with one worker; their cables end in a switch of a further namespace. All
processes of the second host are killed at once. Prints what happens, and fails where
the training does not end, or a validation is missing from its log. With `--slow`, every
cable has a delay of so many milliseconds (`tc netem`). Needs Linux and root; removes
what it creates.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from innerloop.runs import Run

SWITCH = "ilswitch"
NETWORK = "10.77.0."
# seconds until a host that says nothing counts as lost: 3 times the interval
RENDEZVOUS = "keep_alive_interval=1,keep_alive_max_attempt=3,last_call_timeout=2"


def ran(line: str) -> None:
    """Run a command. Raises SystemExit where this machine does not allow it."""
    done = subprocess.run(shlex.split(line), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"this machine does not allow `{line}`: {done.stderr.strip()}")


def _remove(name: str) -> None:
    """Remove a network namespace, if it was created."""
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Host:
    """A host with a network namespace, and a cable to the switch.

    number: the last part of its address.
    """

    def __init__(self, number: int):
        self.number, self.name = number, f"ilhost{number}"
        self.address = f"{NETWORK}{number}"
        self.process: subprocess.Popen[bytes] | None = None

    def connect(self, slow: int) -> None:
        """Lay its cable, with a delay of so many milliseconds."""
        port = f"p{self.number}"
        ran(f"ip netns add {self.name}")
        cable = f"eth0 netns {self.name} type veth peer name {port} netns {SWITCH}"
        ran(f"ip link add {cable}")
        ran(f"ip -n {SWITCH} link set {port} master br0 up")
        ran(f"ip -n {self.name} address add {self.address}/24 dev eth0")
        ran(f"ip -n {self.name} link set eth0 up")
        ran(f"ip -n {self.name} link set lo up")
        if slow:
            delay = f"root netem delay {slow}ms"
            ran(f"ip netns exec {self.name} tc qdisc add dev eth0 {delay}")

    def train(self, line: str, output: Path) -> None:
        """Start torchrun with one worker."""
        first = self.number == 1
        torchrun = [
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "10"),
            *("--rdzv-backend", "c10d", "--rdzv-id", "hosts"),
            *("--rdzv-endpoint", f"{NETWORK}1:29400", "--local-addr", self.address),
            *("--rdzv-conf", f"{RENDEZVOUS},is_host={int(first)}"),
            *("-m", "innerloop", "train", *shlex.split(line)),
        ]
        inside = f"hostname {self.name}; exec {shlex.join(torchrun)}"
        with output.open("ab") as opened:
            self.process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.name, "unshare", "--pid", "--uts"),
                    *("--fork", "--kill-child", "--mount-proc", "sh", "-c", inside),
                ],
                stdout=opened,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "INNERLOOP_GRAPH_CACHE": "0",
                    "GLOO_SOCKET_IFNAME": "eth0",
                    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
                },
            )

    def cut(self) -> None:
        """End all its processes at once."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        _remove(self.name)


@contextlib.contextmanager
def switch() -> Iterator[list[Host]]:
    """A switch; the hosts in the list that it yields are removed with it."""
    hosts: list[Host] = []
    ran(f"ip netns add {SWITCH}")
    try:
        ran(f"ip -n {SWITCH} link add br0 type bridge")
        ran(f"ip -n {SWITCH} link set br0 up")
        yield hosts
    finally:
        for host in hosts:
            host.remove()
        _remove(SWITCH)


class Watch:
    """Follows the events of the training, and prints those that tell what happens."""

    def __init__(self, file: Path, first: Host, output: Path):
        self.file, self.first, self.output = file, first, output
        self.read, self.began, self.lines = 0, time.monotonic(), list[dict[str, Any]]()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def until(self, what: str, **wanted: Any) -> dict[str, Any]:
        """The next event of that kind whose values are at least those wanted."""
        while True:
            if self.file.exists():
                text = self.file.read_text()
                whole = text[: text.rfind("\n") + 1]
                new, self.read = whole[self.read :].splitlines(), len(whole)
                self.lines += map(json.loads, new)
            while self.lines:
                event = self.lines.pop(0)
                if event["event"] == "started":
                    size = [n for n in event["notes"] if n.endswith("processes")]
                    self.say(f"step {event['step']}: {(size or ['1 process'])[0]}")
                if event["event"] == what and all(
                    event[name] >= value for name, value in wanted.items()
                ):
                    return event
            assert self.first.process is not None
            if self.first.process.poll() is not None:
                print(self.output.read_text())
                raise SystemExit("the first host has ended")
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of the training")
    parser.add_argument("--slow", type=int, default=0, metavar="MILLISECONDS")
    options = parser.parse_args()
    if sys.platform != "linux" or os.geteuid():
        raise SystemExit("this needs Linux and root, for network namespaces")
    with tempfile.TemporaryDirectory() as name, switch() as hosts:
        folder, events = Path(name, "run"), Path(name, "events.jsonl")
        length = f"--minutes {options.minutes}"
        line = f"maml sinusoid {length} --out {folder} --events {events}"
        hosts += [Host(1), Host(2)]
        for host in hosts:
            host.connect(options.slow)
            host.train(line, Path(name, f"{host.name}.txt"))
        watch = Watch(events, hosts[0], Path(name, "ilhost1.txt"))
        watch.until("stepped", progress=0.25)
        watch.say("ilhost2 loses power")
        hosts[1].cut()
        watch.until("started")
        watch.until("stepped", progress=0.4)
        hosts.append(Host(3))
        hosts[2].connect(options.slow)
        watch.say("ilhost3 joins")
        hosts[2].train(line, Path(name, "ilhost3.txt"))
        watch.until("started")
        last = watch.until("finished")["step"]
        watch.say(f"step {last}: finished")
        codes = [
            host.process.wait(timeout=60)
            for host in (hosts[0], hosts[2])
            if host.process is not None
        ]
        log = [entry["step"] for entry in Run(folder).read_log()]
        whole = log == sorted(set(log)) and log[0] == 1 and log[-1] == last
        print(f"exit codes {codes}, validations at steps {log}")
        if any(codes) or not whole:
            for host in hosts:
                print(Path(name, f"{host.name}.txt").read_text())
            raise SystemExit("the training is not whole")
        print("the training is whole")


if __name__ == "__main__":
    main()
