"""Memory that is freed stays at hand, once tasks are mapped over."""

import subprocess
import sys

import pytest

CODE = """
import torch
from innerloop import ProtoNet, TaskSpec
from innerloop.testing import Blobs
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def left():
    before = resident()
    kept = torch.ones(50_000_000)
    del kept
    return resident() - before
first = left()
spec = TaskSpec("classes", (4,), 3)
ProtoNet.build(spec)(Blobs(spec).sample(2, torch.Generator()))
print(first, left())
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="the C library's allocator is told on Linux"
)
def test_freed_memory_is_kept_once_tasks_are_mapped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert before < 50e6, "memory was kept before anybody asked for it"
    assert after > 150e6
