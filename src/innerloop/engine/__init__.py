"""How to compute, whatever is computed: less memory, less overhead, no waiting. Knows
tensors and functions, and nothing of learning.
"""
