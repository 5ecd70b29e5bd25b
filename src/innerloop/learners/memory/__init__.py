"""Learners with a memory: they store what they learn of a task in activations or in an
external memory, not in weights.
"""

from innerloop.learners.memory.caml import CAML
from innerloop.learners.memory.in_context import InContext
from innerloop.learners.memory.lstm import LSTM
from innerloop.learners.memory.mann import MANN
from innerloop.learners.memory.meta_seq2seq import MetaSeq2Seq
from innerloop.learners.memory.metanet import MetaNet
from innerloop.learners.memory.mlc import MLC
from innerloop.learners.memory.neat import NEAT
from innerloop.learners.memory.ntm import NTM
from innerloop.learners.memory.pearl import PEARL
from innerloop.learners.memory.pfn import PFN
from innerloop.learners.memory.rl2 import RL2

__all__ = [
    "CAML",
    "LSTM",
    "MANN",
    "MLC",
    "NEAT",
    "NTM",
    "PEARL",
    "PFN",
    "RL2",
    "InContext",
    "MetaNet",
    "MetaSeq2Seq",
]
