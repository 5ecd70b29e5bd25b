"""Settings of every test process."""

from innerloop.engine.memory import tune_allocator

tune_allocator()  # as the command line does; large learners take half the time
