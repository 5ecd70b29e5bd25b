"""`innerloop new`."""

from __future__ import annotations

import click

from innerloop.cli.flags import SectionedCommand, check_parent, option

TEMPLATE = '''"""A template for a learner. Try it:

    innerloop train {file}:{name} strokes --minutes 1 --out runs/{lower}
    innerloop test runs/{lower}
    python {file}
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from innerloop import Categorical, Examples, Learner, Likelihood, TaskSpec
from innerloop.nets import encoder


class {name}(Learner):
    """{name}: classify by the nearest class mean of encoded examples.

    State: the class means (ways, features).

    Args:
        encoder: the network that encodes an input.
        scale: factor of the negative squared distances.
    """

    encoder: nn.Module
    scale: float = 1.0
    likelihood: Likelihood = Categorical()

    kinds = ("classes",)

    @classmethod
    def networks(cls, spec: TaskSpec, build_args, out_dim: int):
        return {{"encoder": encoder(spec, build_args.get("encoder"))}}

    def adapt(self, support: Examples) -> Tensor:
        z = self.encoder(support.x)  # (n, features)
        return support.y.T @ z / support.y.sum(0)[:, None]  # (ways, features)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        z = self.encoder(x)  # (m, features)
        return -self.scale * (z[:, None] - state).square().sum(-1)  # (m, ways)


if __name__ == "__main__":
    from innerloop.testing import check_learner

    torch.manual_seed(0)
    spec = TaskSpec("classes", (8,), 3)
    check_learner({name}.build(spec), spec)
    print("all checks passed")
'''


def run(name: str, out: str | None) -> None:
    from innerloop.engine.errors import InnerloopError
    from innerloop.runs import write_atomically

    if not name.isidentifier():
        raise InnerloopError(f"NAME must be a Python class name; got {name!r}")
    file = check_parent(out or f"{name.lower()}.py")
    assert file is not None
    if file.exists():
        raise InnerloopError(f"{file} exists already: choose another --out")
    text = TEMPLATE.format(name=name, lower=name.lower(), file=file)
    write_atomically(file, text.encode())
    print(f"written: {file}; its first lines show how to run it")


command = SectionedCommand(
    "new",
    params=[
        click.Argument(["name"], metavar="NAME"),
        option("--out", "The file (default: NAME.py).", metavar="FILE"),
    ],
    callback=run,
    help="Write a file with a small working learner, as a template for your own.",
)
