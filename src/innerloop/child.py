"""A command in a process that does not outlive the one that started it.

`python -m innerloop.child SECONDS ARGUMENTS...` runs `innerloop ARGUMENTS...`, or the
script that the first argument names (`FILE.py ARGUMENTS...`). The process that starts
it holds the other end of its standard input: when that closes, for whatever reason, or
when the time is over, the command is stopped as by SIGTERM, so that a training saves a
checkpoint first.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

GRACE = 60.0  # seconds to save in


def stop() -> None:
    """SIGTERM to this process; then its end."""
    os.kill(os.getpid(), signal.SIGTERM)
    end = threading.Timer(GRACE, os._exit, (1,))
    end.daemon = True
    end.start()


def watch(descriptor: int) -> None:
    """Stop when the other end of a pipe closes."""
    while os.read(descriptor, 1024):
        pass
    stop()


def main() -> None:
    limit = threading.Timer(float(sys.argv.pop(1)), stop)
    watcher = threading.Thread(target=watch, args=(sys.stdin.fileno(),))
    for thread in (limit, watcher):
        thread.daemon = True
        thread.start()
    if hasattr(os, "nice"):
        os.nice(5)  # the process that started it comes first
    if sys.argv[1].endswith(".py"):
        script = sys.argv[1]
        del sys.argv[0]
        sys.path.insert(0, os.path.dirname(script))
        runpy.run_path(script, run_name="__main__")
    else:
        runpy.run_module("innerloop", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
