"""How computations run: memory, recording, mapping, threads and options. It knows
tensors and functions, and nothing of learning.
"""
