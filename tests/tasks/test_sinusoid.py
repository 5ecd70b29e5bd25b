"""Sinusoid tasks stay in their ranges."""

import math

import numpy as np
import pytest
import torch

from innerloop.tasks import sinusoid


def test_tasks_are_sine_waves_in_range() -> None:
    tasks = sinusoid(shots=6, queries=9).sample(500, torch.Generator().manual_seed(0))
    assert tasks.support.x.shape == tasks.support.y.shape == (500, 6, 1)
    assert tasks.query.x.shape == (500, 9, 1)
    amplitudes, phases = [], []
    for task in tasks.unbind():
        x, y = (
            torch.cat(pair).double().numpy()[:, 0] for pair in zip(*task, strict=True)
        )
        (a, b), residual, *_ = np.linalg.lstsq(np.stack([np.sin(x), np.cos(x)], 1), y)
        assert residual[0] < 1e-8
        amplitudes.append(math.hypot(a, b))
        phases.append(math.atan2(-b, a))
    assert 0.1 <= min(amplitudes) < 0.3
    assert 4.8 < max(amplitudes) <= 5 + 1e-6
    assert -1e-5 <= min(phases) < 0.1
    assert math.pi - 0.1 < max(phases) <= math.pi + 1e-5
    x = torch.cat([tasks.support.x, tasks.query.x], 1)
    assert -5 <= float(x.min()) < -4.9
    assert 4.9 < float(x.max()) <= 5


def test_same_seed_same_tasks_and_no_two_alike() -> None:
    first, second, other = (
        sinusoid().sample(3, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first.query.y, second.query.y)
    assert not torch.equal(first.query.y, other.query.y)
    assert not torch.equal(first.query.y[0], first.query.y[1])


def test_spec_and_sizes() -> None:
    tasks = sinusoid("val")
    assert (tasks.spec.kind, tasks.spec.x_shape, tasks.spec.y_dim) == ("reals", (1,), 1)
    assert (tasks.shots, tasks.queries) == (10, 10)


def test_unknown_splits_and_empty_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="train, val, test; got 'valid'"):
        sinusoid("valid")
    for shots, queries in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            sinusoid(shots=shots, queries=queries)
