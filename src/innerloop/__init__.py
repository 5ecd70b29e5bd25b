"""innerloop: meta-learning on PyTorch."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

# Threads of torch that wait for others stay awake for a moment only, read when torch is
# imported: a sixth of the usual one, which is as fast on an idle machine, and wastes
# less of the cores on a machine that is busy otherwise.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "50000")

__version__ = "0.2.0"

_HOMES = {
    "innerloop.core.task": ("Examples", "Task", "TaskDistribution", "TaskSpec"),
    "innerloop.core.likelihood": ("Bernoulli", "Categorical", "Gaussian", "Likelihood"),
    "innerloop.core.learner": ("Learner", "MetaTrainConfig", "Streaming"),
    "innerloop.core.descent": ("Descent",),
    "innerloop.evaluation.few_shot": ("meta_test",),
    "innerloop.measurements": ("Report", "TestPlan"),
    "innerloop.engine.errors": ("InnerloopError",),
    "innerloop.engine.memory": ("tune_allocator",),
    "innerloop.metagrad": (
        "CMAES",
        "ES",
        "Backprop",
        "Gradient",
        "Implicit",
        "MetaGradient",
        "Move",
        "NEATEvolution",
        "Reptile",
        "backprop",
        "calibrate",
        "es",
        "implicit",
        "meta_train",
        "reptile",
    ),
    "innerloop.readers.base": ("Inputs", "Reader"),
    "innerloop.learners.active": ("ActiveLearner",),
    "innerloop.learners.amortized": ("CNAPs", "Modular", "Versa"),
    "innerloop.learners.class_incremental": ("OML",),
    "innerloop.learners.generative": ("GTN", "FlowMatching", "MetaGAN", "MetaVAE"),
    "innerloop.learners.memory": (
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
    ),
    "innerloop.learners.metric": (
        "CentreLossNet",
        "MatchingNet",
        "ProtoNet",
        "RelationNet",
        "SiameseNet",
        "SiameseUNet",
        "SlidingProtoNet",
        "TripletNet",
    ),
    "innerloop.learners.neural_processes": ("ANP", "CNP", "NP", "EncoderDecoder"),
    "innerloop.learners.optimization": (
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
    ),
    "innerloop.learners.synthesis": ("DeepCoder", "RobustFill", "RuleSynthesis"),
    "innerloop.learners.transfer": (
        "PMF",
        "FineTune",
        "MetaTransfer",
        "Probe",
        "Scratch",
    ),
    "innerloop.estimators": ("FewShotClassifier", "FewShotRegressor"),
    "innerloop.evaluation.clustering": ("adjusted_rand_index", "cluster"),
    "innerloop.assembly": ("Choice",),
    "innerloop.experiment": ("Experiment", "load"),
    "innerloop.optimizer": ("LearnedOptimizer",),
    "innerloop.registry": ("register",),
    "innerloop.finding": ("find",),
    "innerloop.synthesis": ("synthesize",),
    "innerloop.translation": ("translate",),
    "innerloop.answering": ("answer",),
    "innerloop.summarizing": ("summarize",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import innerloop` and
    `innerloop --help` are quick.
    """
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'innerloop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
