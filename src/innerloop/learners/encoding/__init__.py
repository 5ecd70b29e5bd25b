"""Learners that encode a task's examples and decode answers."""

from innerloop.learners.encoding.anp import ANP
from innerloop.learners.encoding.cnp import CNP
from innerloop.learners.encoding.encoder_decoder import EncoderDecoder
from innerloop.learners.encoding.np import NP

__all__ = ["ANP", "CNP", "NP", "EncoderDecoder"]
