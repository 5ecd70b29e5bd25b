"""CMA-ES as the outer loop."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.engine.errors import InnerloopError, MissingPackageError
from innerloop.engine.options import Positive, Range
from innerloop.metagrad.population import EvolutionStrategy

FULL = 400  # parameters; of more, the covariance is kept diagonal


class CMAES(EvolutionStrategy):
    """CMA-ES: the mean and covariance of a Gaussian follow the better half of every
    generation; the covariance is diagonal for more than 400 parameters.

    theta_i ~ N(m, sigma^2 C); m <- sum_i w_i theta_i over the best members

    Reference: Hansen and Ostermeier 2001, "Completely derandomized self-adaptation in
    evolution strategies", Evolutionary Computation 9 (2); tutorial: Hansen 2016,
    arXiv:1604.00772; diagonal form: Ros and Hansen 2008, "A simple modification in
    CMA-ES achieving linear time and space complexity".

    Needs the package cmaes: pip install 'innerloop[evolution]'.

    Args:
        sigma: the first step size.
        population: members of a generation (default: 4 + 3 ln parameters).
    """

    sigma: Positive = 0.1
    population: Annotated[int, Range(4)] | None = None

    def start(self, learner: Learner, seed: int) -> None:
        try:
            from cmaes import CMA, SepCMA
        except ImportError as error:
            raise MissingPackageError(
                "CMA-ES needs the package cmaes: pip install 'innerloop[evolution]'"
            ) from error
        trainable = {n: p for n, p in learner.named_parameters() if p.requires_grad}
        self.shapes = {name: p.shape for name, p in trainable.items()}
        vectors = [p.detach().flatten() for p in trainable.values()]
        mean = torch.cat(vectors).double().cpu().numpy()
        if len(mean) < 2:
            raise InnerloopError(
                f"CMA-ES needs at least 2 parameters; {type(learner).__name__} has "
                f"{len(mean)}"
            )
        self.cma: Any = (CMA if len(mean) <= FULL else SepCMA)(
            mean=mean,
            sigma=self.sigma,
            population_size=self.population,
            seed=seed % 2**32,
        )
        self.asked: list[np.ndarray] = []

    def ask(self) -> dict[str, Tensor]:
        self.asked = [self.cma.ask() for _ in range(self.cma.population_size)]
        return self._named(np.stack(self.asked))

    def tell(self, losses: Tensor) -> dict[str, Tensor]:
        self.cma.tell(list(zip(self.asked, losses.tolist(), strict=True)))
        return self._named(self.cma.mean)

    def _named(self, vectors: np.ndarray) -> dict[str, Tensor]:
        """Vectors (..., parameters) as parameters by name."""
        parts = torch.from_numpy(vectors).split(
            [shape.numel() for shape in self.shapes.values()], -1
        )
        return {
            name: part.reshape((*vectors.shape[:-1], *shape))
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for name, value in vars(self.cma).items():
            if isinstance(value, np.random.RandomState):
                told: dict[str, Any] = value.get_state(legacy=False)  # pyright: ignore[reportAssignmentType]
                key = torch.from_numpy(told["state"]["key"].astype(np.int64))
                plain[name] = (
                    told["bit_generator"],
                    key,
                    told["state"]["pos"],
                    told["has_gauss"],
                    told["gauss"],
                )
            else:
                value = value.item() if isinstance(value, np.generic) else value
                plain[name] = (
                    torch.from_numpy(value.copy())
                    if isinstance(value, np.ndarray)
                    else value
                )
        return plain

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if isinstance(getattr(self.cma, name), np.random.RandomState):
                getattr(self.cma, name).set_state(
                    (value[0], value[1].numpy().astype(np.uint32), *value[2:])
                )
            else:
                setattr(
                    self.cma,
                    name,
                    value.numpy().copy() if isinstance(value, Tensor) else value,
                )
