"""Operations on trainings."""

from __future__ import annotations

from innerloop.web.http import Operation

OPERATIONS: list[Operation] = []
