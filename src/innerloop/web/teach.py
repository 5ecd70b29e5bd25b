"""Operations on projects: teach classes, and ask."""

from __future__ import annotations

from innerloop.web.http import Operation

OPERATIONS: list[Operation] = []
