"""Neural processes: learners that encode a set of examples and decode predictions."""

from innerloop.learners.neural_processes.anp import ANP
from innerloop.learners.neural_processes.cnp import CNP
from innerloop.learners.neural_processes.encoder_decoder import EncoderDecoder
from innerloop.learners.neural_processes.np import NP

__all__ = ["ANP", "CNP", "NP", "EncoderDecoder"]
