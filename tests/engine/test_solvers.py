"""Solvers against known solutions."""

import torch
from torch import Tensor

from innerloop.engine.solvers import conjugate_gradient


def test_conjugate_gradient_solves_in_as_many_steps_as_there_are_unknowns() -> None:
    generator = torch.Generator().manual_seed(0)
    root, target = (
        torch.randn(5, size, generator=generator, dtype=torch.float64)
        for size in (5, 1)
    )
    matrix = root @ root.T + torch.eye(5)

    def product(v: dict[str, Tensor]) -> dict[str, Tensor]:
        whole = matrix @ torch.cat([v["a"], v["b"]])
        return {"a": whole[:2], "b": whole[2:]}

    solved = conjugate_gradient(product, {"a": target[:2], "b": target[2:]}, 5)
    torch.testing.assert_close(
        torch.cat([solved["a"], solved["b"]]), torch.linalg.solve(matrix, target)
    )
    torch.testing.assert_close(
        conjugate_gradient(product, {"a": target[:2], "b": target[2:]}, 30)["a"],
        solved["a"],
    )


def test_conjugate_gradient_takes_no_step_where_the_matrix_is_negative() -> None:
    solved = conjugate_gradient(lambda v: {"a": -v["a"]}, {"a": torch.ones(3)}, 4)
    assert torch.equal(solved["a"], torch.zeros(3))
