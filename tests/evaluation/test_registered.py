"""What holds of every evaluation that is chosen by name."""

import pytest

from innerloop.engine.options import options
from innerloop.evaluation import EVALUATIONS, Evaluation


@pytest.mark.parametrize("kind", EVALUATIONS.values(), ids=EVALUATIONS)
def test_every_evaluation_describes_its_options(
    kind: type[Evaluation],
) -> None:
    plain = {name: o for name, o in options(kind).items() if o.is_plain}
    assert plain
    assert all(option.help for option in plain.values())
    values = {name: "runs/x" for name, o in plain.items() if o.type is str}
    assert repr(kind(**values)).startswith(f"{kind.__name__}(")
