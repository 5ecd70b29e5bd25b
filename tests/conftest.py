"""Settings of every test process."""

import os

from innerloop.engine.memory import tune_allocator

# commands that tests start need not compile the package again
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
tune_allocator()  # as the command line does, because large learners are slow otherwise
