"""The allocator keeps freed memory once it is tuned, and not before."""

import subprocess
import sys

import pytest

CODE = """
import torch
from innerloop.core.task import TaskSpec
from innerloop.engine.memory import tune_allocator
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.testing import Blobs
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def left():
    before = resident()
    kept = torch.ones(50_000_000)
    del kept
    return resident() - before
spec = TaskSpec("classes", (4,), 3)
ProtoNet.build(spec)(Blobs(spec).sample(2, torch.Generator()))
untuned = left()
tune_allocator()
print(untuned, left())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has mallopt")
def test_only_a_tuned_allocator_keeps_freed_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    )
    untuned, tuned = map(int, done.stdout.split())
    assert untuned < 50e6, "the library changed the allocator by itself"
    assert tuned > 150e6
