"""Learners that adapt by gradient steps from meta-learned weights, or by solving for a
head.
"""

from innerloop.learners.optimization.alpaca import ALPaCA
from innerloop.learners.optimization.cavia import CAVIA
from innerloop.learners.optimization.dkt import DKT
from innerloop.learners.optimization.es_maml import ESMAML
from innerloop.learners.optimization.imaml import IMAML
from innerloop.learners.optimization.l2o import L2O
from innerloop.learners.optimization.lrd2 import LRD2
from innerloop.learners.optimization.maml import MAML
from innerloop.learners.optimization.meta_lstm import MetaLSTM
from innerloop.learners.optimization.meta_sgd import MetaSGD
from innerloop.learners.optimization.metaoptnet import MetaOptNet
from innerloop.learners.optimization.prompt_tuning import PromptTuning
from innerloop.learners.optimization.r2d2 import R2D2

__all__ = [
    "CAVIA",
    "DKT",
    "ESMAML",
    "IMAML",
    "L2O",
    "LRD2",
    "MAML",
    "R2D2",
    "ALPaCA",
    "MetaLSTM",
    "MetaOptNet",
    "MetaSGD",
    "PromptTuning",
]
