"""The base classes of learners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Self, dataclass_transform, get_type_hints

import torch
from torch import Tensor, nn

from innerloop.core.likelihood import (
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    Metrics,
)
from innerloop.core.task import Examples, Kind, Task, TaskSpec
from innerloop.engine.did_you_mean import did_you_mean
from innerloop.engine.errors import InnerloopError, InnerloopTypeError
from innerloop.engine.functional import frozen_modules
from innerloop.engine.graph_cache import is_recordable
from innerloop.engine.mapping import mapped
from innerloop.engine.norm_stats import Normalizer, use_batch
from innerloop.engine.options import (
    Option,
    check_options,
    options,
)
from innerloop.engine.training_config import MetaTrainConfig

# reasons of learners for `Learner.export_problem`
SEQUENTIAL = "a program would be for one number of examples, read one after the other"
SOLVES = "it solves linear equations, for which ONNX has no operation"

State = Any  # any pytree of tensors: weights, prototypes, a memory


@dataclass_transform(eq_default=False, field_specifiers=(field,))
class Learner(nn.Module, ABC):
    """A learning algorithm; its parameters are the meta-parameters theta. Written for
    ONE task, without side effects.

    A subclass is automatically a dataclass: annotate its networks and hyperparameters.
    A new learner is in evaluation mode; `meta_train` switches to training mode while
    it trains.

    Class variables, which an instance may override where they depend on its fields:
        kinds: the kinds of targets that it can predict.
        defaults: how it is meta-trained by default.
        regression_defaults: other default fields of `build` where targets are reals.
        home: a task source that suits it, for examples in the documentation.
        named_networks: the fields whose networks can be chosen by name.
        sequences: whether it can predict the queries of ordered tasks.
        fixed_ways: whether it predicts only the number of ways it was built for.
        any_columns: whether it reads vectors with any number of features, and predicts
            any number of reals.
        encode_jointly: whether `forward` encodes all tasks at once.
        transductive: whether a prediction uses the other query examples.
        contextual: whether the order of the support examples matters.
        first_order: whether second derivatives are left out of the gradient.
        two_losses: whether parts minimize different losses, so that the gradient is not
            that of `loss`.
        recompute: whether intermediate results are recomputed to save memory.
        low_precision: whether it trains well in bfloat16.
        recordable: whether its operations depend on its parameters, buffers, attributes
            and the task alone, so that a recording of them can be replayed. Subclasses
            do not inherit it; False unless the class itself sets it (the learners of
            this package do).
        export_problem: why its `adapt` and `predict` cannot be exported as programs, or
            an empty string.

    Args:
        likelihood: how outputs are scored against targets; by the kind of the targets
            unless set.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("classes", "reals")
    defaults: ClassVar[MetaTrainConfig] = MetaTrainConfig()
    likelihood: Likelihood
    spec: ClassVar[TaskSpec | None] = None  # the argument of `build`
    build_args: ClassVar[dict[str, Any]] = {}  # its keyword arguments
    home: ClassVar[str] = "strokes"
    named_networks: ClassVar[tuple[str, ...]] = ("encoder", "net")
    regression_defaults: ClassVar[dict[str, Any]] = {}
    sequences: ClassVar[bool] = False
    any_columns: ClassVar[bool] = False
    encode_jointly: ClassVar[bool] = False
    recordable: ClassVar[bool] = False
    low_precision: ClassVar[bool] = True
    fixed_ways = False
    transductive = False
    contextual = False
    first_order = False
    two_losses = False
    recompute = False
    export_problem = ""
    reader: Any = None  # what turns raw inputs into tensors, of a learner from a run

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclass(eq=False, repr=False)(cls)
        cls.recordable = is_recordable(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def __post_init__(self) -> None:
        check_options(self)
        self.eval()

    @abstractmethod
    def adapt(self, support: Examples) -> State:
        """Learn from support x (n, *x_shape), y (n, y_dim); the state is data: any
        pytree of tensors.
        """

    @abstractmethod
    def predict(self, state: State, x: Tensor) -> Tensor:
        """Outputs (m, out_dim) for x (m, *x_shape), to be read by `self.likelihood`."""

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        """What meta-training minimizes: by default the negative log-likelihood of the
        query set after adapting, a scalar; and metrics.
        """
        outputs = self.predict(self.adapt(task.support), task.query.x)
        nll = self.likelihood.nll(outputs, task.query.y)
        return nll, self.likelihood.metrics(outputs, task.query.y)

    def trajectory(self, support: Examples, steps: int) -> Iterator[State]:
        """The states after 0, 1, ... up to `steps` gradient steps; a single state for
        learners that take no steps.
        """
        yield self.adapt(support)

    def novelty(self, state: State, x: Tensor) -> Tensor:
        """How unlike all classes of the support set each of x (m, *x_shape) is, (m,);
        larger values are more unlike: by default minus the largest output.
        """
        return -self.predict(state, x).amax(-1)

    def set_steps(self, steps: int) -> None:
        """Change the number of gradient steps of `adapt`.

        Raises InnerloopTypeError for learners that take none.
        """
        raise InnerloopTypeError(f"{type(self).__name__} takes no gradient steps")

    def generate(
        self, support: Examples, count: int, generator: torch.Generator
    ) -> Tensor:
        """`count` new inputs of each class, (ways, count, *x_shape).

        Raises InnerloopTypeError for learners that are not generative.
        """
        raise InnerloopTypeError(
            f"{type(self).__name__} does not generate examples: train flowmatching, "
            "metavae, metagan or gtn"
        )

    def next_to_label(
        self, pool: Tensor, labeled: Examples | None, labels: int
    ) -> list[int]:
        """Which inputs of a pool (n, *x_shape) to label next, the most useful first.

        Raises InnerloopTypeError for learners that do not learn which to choose.
        """
        raise InnerloopTypeError(
            f"{type(self).__name__} does not choose what to label: train activelearner "
            "on pools"
        )

    def predict_support(self, support: Examples) -> Tensor | None:
        """The outputs (n, out_dim) for the support examples, each predicted before its
        label is seen; None for learners that read the support set as a whole.
        """
        return None

    def on_progress(self, progress: float) -> None:
        """Called before every meta-step with the share of meta-training done, from 0 to
        1, and with 1 at its end: for what changes on the way.
        """

    def trim(self, tasks: Task) -> Task:
        """A batch of tasks without padding that it can do without; `meta_train` trims
        tasks before it moves them to the learner's device.
        """
        return tasks

    def forward(self, tasks: Task) -> tuple[Tensor, Metrics]:
        """Mean loss and mean metrics over a batch of tasks."""
        losses, metrics = self.mapped(self.loss, tasks)
        return losses.mean(), {name: values.mean() for name, values in metrics.items()}

    def mapped(self, function: Callable[..., Any], *trees: Any) -> Any:
        """`function` over the leading axis of `trees`, results stacked: by vmap, or by
        a loop where that is faster or vmap cannot map it.
        """
        return mapped(self, function, *trees)

    @torch.no_grad()
    def calibrate(self, tasks: Task) -> None:
        """Re-estimate the statistics of normalization layers on training tasks, exactly
        instead of by a moving average. Frozen layers keep theirs.

        Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576,
        section 3. Called by `meta_train`.
        """
        if any(isinstance(module, Normalizer) for module in self.modules()):
            with use_batch(self, frozen_modules(self)) as notes:
                for part in [tasks] if self.encode_jointly else tasks.split(0):
                    self(part)
            buffers = dict(self.named_buffers())
            for name, value in notes.moments().items():
                buffers[name].copy_(value)

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of its parameters."""
        parameters = (p.dtype for p in self.parameters() if p.is_floating_point())
        return next(parameters, torch.float32)

    @classmethod
    def fields(cls) -> tuple[Field[Any], ...]:
        """The learner's networks and hyperparameters as dataclass fields."""
        return fields(cls)  # pyright: ignore[reportArgumentType]

    @classmethod
    def options(cls) -> dict[str, Option]:
        """The fields that can be set by plain values: hyperparameters, and networks
        that can be chosen by name; not the sizes that `build` takes from the tasks.
        """
        found = {}
        for name, option in options(cls).items():
            if name in cls.network_fields():
                if name in cls.named_networks:
                    text = option.help or "the network, by name"
                    found[name] = Option(name, str, None, optional=True, help=text)
            elif option.is_plain and option.default is not MISSING:
                found[name] = option
        return found

    @classmethod
    def network_fields(cls) -> tuple[str, ...]:
        """The names of the fields that hold networks."""
        hints = get_type_hints(cls)
        return tuple(
            entry.name
            for entry in cls.fields()
            if isinstance(kind := hints[entry.name], type)
            and issubclass(kind, nn.Module)
        )

    @classmethod
    def networks(
        cls, spec: TaskSpec, build_args: Mapping[str, Any], out_dim: int
    ) -> dict[str, Any]:
        """Suitable networks for `spec`, by field; `build_args` holds the fields that
        were set, networks as modules or by name.
        """
        return {}

    @classmethod
    def specs(cls) -> tuple[TaskSpec, ...]:
        """Specs of tasks that it can be built for, one for each kind of targets; for
        tests and documentation.
        """
        of_kind = {
            "classes": TaskSpec("classes", (1, 28, 28), 5),
            "reals": TaskSpec("reals", (1,), 1),
            "bits": TaskSpec("bits", (4,), 2),
        }
        found = [of_kind[kind] for kind in cls.kinds if kind in of_kind]
        if cls.sequences and "bits" in cls.kinds:
            found.append(TaskSpec("bits", (4,), 2, ordered=True))
        return tuple(found)

    @classmethod
    def paper(cls) -> dict[str, Any]:
        """Where the defaults differ from the paper: the paper's values, as
        {"fields": arguments of `build`, "config": fields of `MetaTrainConfig`}.
        """
        return {}

    @classmethod
    def build(cls, spec: TaskSpec, **build_args: Any) -> Self:
        """This learner with suitable networks for `spec`; `build_args` sets fields,
        networks too, by module or by name ("conv4").

        Raises InnerloopTypeError for a field that does not exist, and InnerloopError
        for a value out of range or a kind of task that this learner cannot predict.
        """
        name = cls.__name__
        known = options(cls)
        for key, value in build_args.items():
            if key not in known:
                guess = did_you_mean(key, list(known), "it has")
                raise InnerloopTypeError(f"{name} has no field {key!r}{guess}")
            if key in cls.network_fields():
                if value is None or isinstance(value, nn.Module):
                    continue
                if not isinstance(value, str) or key not in cls.named_networks:
                    by = " or by name" if key in cls.named_networks else ""
                    raise InnerloopTypeError(
                        f"{name} takes {key} as a module{by}; got {value!r}"
                    )
            else:
                build_args[key] = known[key].check(value, name)
        if spec.kind not in cls.kinds:
            raise InnerloopError(
                f"{name} predicts {' and '.join(cls.kinds)}, but the targets of these "
                f"tasks are {spec.kind}"
            )
        if spec.ordered and not cls.sequences:
            raise InnerloopError(
                f"{name} predicts each query independently, but these tasks are "
                "sequences: try NTM, MANN or LSTM"
            )
        usual = cls.regression_defaults if spec.kind == "reals" else {}
        build_args = {**usual, **build_args}
        of_kind: dict[str, Likelihood] = {
            "classes": Categorical(),
            "bits": Bernoulli(),
        }
        likelihood = build_args.setdefault(
            "likelihood", of_kind.get(spec.kind, Gaussian())
        )
        wired = cls.networks(spec, build_args, likelihood.out_dim(spec.y_dim))
        made = {
            key: module
            for key, module in wired.items()
            if not isinstance(build_args.get(key), nn.Module)
        }
        learner = cls(**{**build_args, **made})
        learner.spec = spec  # pyright: ignore[reportAttributeAccessIssue]
        learner.build_args = {  # pyright: ignore[reportAttributeAccessIssue]
            key: value for key, value in build_args.items() if key != "likelihood"
        }
        return learner


class Streaming(Learner):
    """A learner that takes one example at a time: `adapt` is the fold of `observe` over
    the support set.

    Its objective is the loss of every prediction: for each support example before its
    label is shown, and for the query set. Where support and query are one sequence, it
    is that of the query set.
    """

    export_problem = SEQUENTIAL

    @abstractmethod
    def init(self) -> State:
        """The state before any example."""

    @abstractmethod
    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        """The state after one more example x (*x_shape), y (y_dim,)."""

    def scan(self, examples: Examples) -> tuple[State, Tensor]:
        """The state after the examples, and the outputs (n, out_dim) for each of them,
        predicted before its label was shown.
        """
        state, outputs = self.init(), []
        for x, y in zip(*examples, strict=True):
            outputs.append(self.predict(state, x[None])[0])
            state = self.observe(state, x, y)
        return state, torch.stack(outputs)

    def predict_support(self, support: Examples) -> Tensor:
        return self.scan(support)[1]

    def adapt(self, support: Examples) -> State:
        state = self.init()
        for x, y in zip(*support, strict=True):
            state = self.observe(state, x, y)
        return state

    def loss(self, task: Task) -> tuple[Tensor, Metrics]:
        if self.spec is not None and self.spec.ordered:
            return super().loss(task)
        state, before = self.scan(task.support)
        after = self.predict(state, task.query.x)
        nll = self.likelihood.nll(
            torch.cat([before, after]), torch.cat([task.support.y, task.query.y])
        )
        return nll, self.likelihood.metrics(after, task.query.y)
