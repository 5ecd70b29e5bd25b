"""The page around the sections of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple
from urllib.parse import quote

from innerloop.report.html import Html, tag

LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" aria-hidden="true">'
    '<rect width="32" height="32" rx="8" fill="#0f766e"/>'
    '<g fill="none" stroke="#fff" stroke-linecap="round">'
    '<path d="M16 6a10 10 0 1 1-9.6 7.2" stroke-width="2.6"/>'
    '<path d="M16 11.5a4.5 4.5 0 1 1-4.3 3.2" stroke-width="2.6" stroke="#fcd34d"/>'
    "</g></svg>"
)
# nothing may be loaded, and nothing run
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Section(NamedTuple):
    """A part of the page: its anchor, its name in the navigation, heading, content."""

    anchor: str
    name: str
    heading: str
    content: Html


def page(
    title: str, lead: str, sections: Sequence[Section], footer: Mapping[str, str]
) -> str:
    """A page that is complete in itself: no script, and nothing that is loaded."""
    style = files("innerloop.report").joinpath("style.css").read_text("utf-8")
    links = [tag("a", s.name, href=f"#{s.anchor}") for s in sections]
    brand = tag("span", Html(LOGO), tag("span", "innerloop"), class_="brand")
    body = [
        tag(
            "section",
            tag("h2", s.heading, id=f"{s.anchor}-heading"),
            s.content,
            id=s.anchor,
            aria_labelledby=f"{s.anchor}-heading",
        )
        for s in sections
    ]
    written = " · ".join(f"{key} {value}" for key, value in footer.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:image/svg+xml,{quote(LOGO)}">
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#{sections[0].anchor}">Skip to the results</a>
{tag("nav", brand, *links, aria_label="Sections")}
{tag("header", tag("h1", title), tag("p", lead), class_="title")}
<main>
{"".join(body)}
</main>
{tag("footer", written)}
</body>
</html>
"""
