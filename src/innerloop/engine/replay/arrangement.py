"""The order in which steps are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from innerloop.engine.replay.plan import Call, Step, View


def arranged(steps: Sequence[Step | Call]) -> list[list[Step | Call]]:
    """The steps in groups, computed one after the other: those that are not tiled, and
    tiled ones, which are computed tile after tile and find what they need in the cache.

    A step stays tiled where each of its tiles needs, of what its group writes, the same
    tile alone.
    """
    left, found = list(steps), list[list[Step | Call]]()
    while left:
        before = len(left)
        for ready in (_whole, _tiled):
            taken = dict.fromkeys(ready(left))
            found.append([left[i] for i in taken])
            left = [step for i, step in enumerate(left) if i not in taken]
        first = left[0] if left else None
        if len(left) == before and isinstance(first, Step):  # it waits for nothing
            left[0] = replace(first, tiled=False)
    return [group for group in found if group]


def _whole(left: Sequence[Step | Call]) -> list[int]:
    """The steps that are not tiled and need nothing from those that are left."""
    found, waiting = list[int](), set[int]()
    for i, step in enumerate(left):
        if step.tiled or not waiting.isdisjoint(view.buffer for view in step.views):
            waiting.update(view.buffer for view in step.outs)
        else:
            found.append(i)
    return found


def _tiled(left: Sequence[Step | Call]) -> list[int]:
    """The tiled steps that can be computed together now."""
    found, waiting = list[int](), set[int]()
    apart = dict[int, int]()  # from one tile to the next, of buffers that they write
    for i, step in enumerate(left):
        own = step.views[0].strides[0] if step.tiled else 0
        if (
            own
            and _in_tiles(step.views[0], own)
            and all(view.buffer not in waiting for view in step.views)
            and all(
                view.strides[0] == apart[view.buffer]
                and _in_tiles(view, apart[view.buffer])
                for view in step.views
                if view.buffer in apart
            )
        ):
            found.append(i)
            apart[step.views[0].buffer] = own
        else:
            waiting.update(view.buffer for view in step.outs)
    return found


def _in_tiles(view: View, apart: int) -> bool:
    """Whether the first part of the first dimension lies in the first `apart` numbers
    of the buffer, the second part in the second ones, and so on.
    """
    inner = zip(view.sizes[1:], view.strides[1:], strict=True)
    return view.offset + sum((n - 1) * stride for n, stride in inner) < apart
