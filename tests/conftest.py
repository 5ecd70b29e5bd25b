"""Settings of every test process."""

from innerloop.engine.memory import tune_allocator

tune_allocator()  # as the command line does, because large learners are slow otherwise
