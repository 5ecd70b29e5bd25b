"""Learners that encode a task's examples and decode answers."""

from innerloop.learners.neural_processes.anp import ANP
from innerloop.learners.neural_processes.cnp import CNP
from innerloop.learners.neural_processes.encoder_decoder import EncoderDecoder
from innerloop.learners.neural_processes.np import NP

__all__ = ["ANP", "CNP", "NP", "EncoderDecoder"]
