"""The structure of the package, from its imports: docs/house.svg. A box is a part of
the package, or several that import each other; an arrow points to what it imports.
Arrows that follow from others are left out.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

import innerloop

SOURCE = Path(innerloop.__file__).parent
PICTURE = Path(__file__).resolve().parent / "house.svg"
Graph = Mapping[str, set[str]]
WIDTH, GAP, ROW, BOX = 940, 14, 74, 40  # pixels
STYLE = """\
text{font:13px system-ui,sans-serif;fill:#1b1f24;text-anchor:middle}
.small{font-size:10px;fill:#57606a}
rect{fill:#eef3fb;stroke:#5b7db1}
.theory{fill:#fdf3df;stroke:#b98a2f}
path{fill:none;stroke:#8c959f;stroke-width:1.2;marker-end:url(#head)}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9aa4af}
rect{fill:#1d2a3d}.theory{fill:#3a2f17}}"""


def layer(dotted: str) -> str:
    """The part of the package that `innerloop.x.y` belongs to; a public name counts as
    the place it comes from.
    """
    parts = dotted.split(".")[1:]
    if parts and parts[0] in innerloop._HOME:
        return layer(innerloop._HOME[parts[0]])
    return (
        "__init__"
        if not parts or (parts[0].startswith("__") and parts[0] != "__main__")
        else parts[0]
    )


def imported(file: Path, source: str) -> list[str]:
    """Every module or name of the package that a file imports, at its top or in a
    function, as a dotted name.
    """
    package = ["innerloop", *file.relative_to(SOURCE).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join(
                    [
                        *package[: len(package) - node.level + 1],
                        *([node.module] if node.module else []),
                    ]
                )
                if node.level
                else node.module or ""
            )
            found += (
                [f"{base}.{alias.name}" for alias in node.names]
                if base == "innerloop"
                else [base]
            )
    return [name for name in found if name.split(".")[0] == "innerloop"]


def graph() -> tuple[dict[str, set[str]], dict[str, int]]:
    """What each box imports, and its lines of code."""
    edges, lines = parts()
    inside = {part: reachable(edges, part) for part in edges}
    name = {
        part: " · ".join(
            sorted({part} | {near for near in inside[part] if part in inside[near]})
        )
        for part in edges
    }
    boxes: dict[str, set[str]] = {box: set() for box in name.values()}
    sums = dict.fromkeys(boxes, 0)
    for part, box in name.items():
        boxes[box] |= {name[target] for target in edges[part]} - {box}
        sums[box] += lines[part]
    return boxes, sums


def parts() -> tuple[dict[str, set[str]], dict[str, int]]:
    """What each part imports, and its lines of code."""
    edges: dict[str, set[str]] = {}
    lines: dict[str, int] = {}
    for file in sorted(SOURCE.rglob("*.py")):
        own = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if own.startswith("__"):
            continue
        source = file.read_text("utf-8")
        found = {layer(name) for name in imported(file, source)}
        edges[own] = edges.get(own, set()) | found - {own, "__init__"}
        lines[own] = lines.get(own, 0) + source.count("\n")
    return edges, lines


def reachable(edges: Graph, start: str) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        new = edges[ahead.pop()] - found
        found |= new
        ahead += new
    return found


def reduced(edges: Graph) -> dict[str, set[str]]:
    """Without the arrows that follow from others."""
    return {
        part: {
            near
            for near in targets
            if not any(near in reachable(edges, other) for other in targets - {near})
        }
        for part, targets in edges.items()
    }


def levels(edges: Graph) -> dict[str, int]:
    """How far above the lowest parts each one is."""
    found: dict[str, int] = {}

    def level(part: str) -> int:
        if part not in found:
            found[part] = 1 + max(map(level, edges[part]), default=-1)
        return found[part]

    for part in edges:
        level(part)
    return found


def places(edges: Graph) -> dict[str, tuple[float, int]]:
    """The middle of each box, row by row from below; in a row, in the order of what
    they import, so that arrows are short.
    """
    level = levels(edges)
    found: dict[str, tuple[float, int]] = {}
    top = max(level.values())
    for number in range(top + 1):
        row = [part for part in edges if level[part] == number]

        def wanted(part: str) -> tuple[float, str]:
            below = [found[target][0] for target in edges[part]]
            return (sum(below) / len(below) if below else WIDTH / 2), part

        row.sort(key=wanted)
        step = WIDTH / len(row)
        for place, part in enumerate(row):
            found[part] = (step * (place + 0.5), 30 + (top - number) * ROW)
    return found


def picture() -> str:
    edges, lines = graph()
    arrows = reduced(edges)
    spots = places(arrows)
    theory = {"core"} | reachable(edges, "learners")
    height = max(y for _, y in spots.values()) + BOX
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#8c959f;'
        'stroke:none;marker-end:none"/></marker></defs>',
    ]
    for part, targets in arrows.items():
        x, y = spots[part]
        for target in sorted(targets):
            to, below = spots[target]
            start, end = y + BOX / 2, below - BOX / 2
            bend = (end - start) / 2
            drawn.append(
                f'<path d="M{x:.0f} {start:.0f}C{x:.0f} {start + bend:.0f} '
                f'{to:.0f} {end - bend:.0f} {to:.0f} {end:.0f}"/>'
            )
    rows: dict[int, int] = {}
    for _, y in spots.values():
        rows[y] = rows.get(y, 0) + 1
    for part, (x, y) in spots.items():
        wide = min(max(110, 8 * len(part)), WIDTH / rows[y] - GAP)
        kind = ' class="theory"' if part in theory | {"learners"} else ""
        drawn += [
            f'<rect{kind} x="{x - wide / 2:.0f}" y="{y - BOX / 2:.0f}" '
            f'width="{wide:.0f}" height="{BOX}" rx="6"/>',
            f'<text x="{x:.0f}" y="{y:.0f}">{escape(part)}</text>',
            f'<text class="small" x="{x:.0f}" y="{y + 14:.0f}">'
            f"{round(lines[part], -2) or 100:,} lines</text>",
        ]
    return "\n".join([*drawn, "</svg>"]) + "\n"
