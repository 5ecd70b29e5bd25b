"""innerloop: learning to learn, every family of it, behind one interface."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "innerloop.core.task": ("Examples", "Task", "TaskDistribution", "TaskSpec"),
    "innerloop.core.likelihood": ("Bernoulli", "Categorical", "Gaussian", "Likelihood"),
    "innerloop.core.learner": ("Learner", "MetaTrainConfig", "Streaming"),
    "innerloop.core.descent": ("Descent",),
    "innerloop.core.metagrad": ("backprop", "es", "implicit", "reptile"),
    "innerloop.metagrad.meta_train": ("calibrate", "meta_train"),
    "innerloop.core.meta_test": ("meta_test",),
    "innerloop.learners.active": ("ActiveLearner",),
    "innerloop.learners.class_incremental": ("OML",),
    "innerloop.metagrad": ("CMAES", "AugmentingTopologies", "Strategy", "evolve"),
    "innerloop.learners.neural_processes": ("ANP", "CNP", "NP", "EncoderDecoder"),
    "innerloop.learners.generative": ("GTN", "MetaGAN", "MetaVAE"),
    "innerloop.learners.memory": (
        "LSTM",
        "MANN",
        "NEAT",
        "NTM",
        "RL2",
        "InContext",
        "MetaNet",
    ),
    "innerloop.learners.metric": (
        "CentreLossNet",
        "MatchingNet",
        "ProtoNet",
        "RelationNet",
        "SiameseNet",
        "TripletNet",
    ),
    "innerloop.evaluation.clustering": ("adjusted_rand_index", "cluster"),
    "innerloop.learners.optimization": (
        "CAVIA",
        "DKT",
        "ESMAML",
        "IMAML",
        "L2O",
        "LRD2",
        "MAML",
        "R2D2",
        "MetaLSTM",
        "MetaOptNet",
        "MetaSGD",
        "PromptTuning",
    ),
    "innerloop.learners.program": (
        "CNAPs",
        "DeepCoder",
        "Modular",
        "RobustFill",
        "Versa",
    ),
    "innerloop.learners.transfer": ("FineTune", "MetaTransfer", "Scratch"),
    "innerloop.evaluation.active": ("asking_curves",),
    "innerloop.evaluation.class_incremental": ("continual_test",),
    "innerloop.estimators": ("FewShotClassifier", "FewShotRegressor"),
    "innerloop.optimizer": ("LearnedOptimizer",),
    "innerloop.evaluation.head_start": ("head_start",),
    "innerloop.runs": ("load",),
    "innerloop.synthesis": ("synthesize",),
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
