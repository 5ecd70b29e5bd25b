"""Convolution, normalization, activation and pooling in one compiled pass."""
