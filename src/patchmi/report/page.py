"""What the pages have in common: how templates are filled, and how a number names its source."""

import json
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from patchmi.report import numbers
from patchmi.report.document import Document


@cache
def templates() -> Environment:
    """The templates of this package, which escape what they print and know how numbers are written."""
    environment = Environment(
        loader=PackageLoader("patchmi", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=numbers.number,
        point=numbers.point,
        duration=numbers.duration,
        size=numbers.size,
        moment=numbers.moment,
        setting=numbers.setting,
    )
    return environment


def style(name: str) -> Markup:
    """A style sheet of this package."""
    return Markup(files("patchmi.report").joinpath(name).read_text(encoding="utf-8"))


def measure_of(document: Document) -> Callable[..., Markup]:
    """A function for the template that prints the number at a path of the document, and that path."""

    def measure(*path: str | int, decimals: int = 2) -> Markup:
        value: Any = document
        for step in path:
            value = None if value is None else value[step]
        source = pointer(path)
        if value is None:
            return Markup('<span class="measure none" data-path="{}">not computed</span>').format(source)
        if not isinstance(value, dict):
            text = numbers.number(value)
            return Markup('<span class="measure" data-path="{}"><b>{}</b></span>').format(source, text)
        return Markup(
            '<span class="measure" data-path="{}"><b>{}</b> '
            '<span class="uncertainty">{}, n = {}</span></span>'
        ).format(
            source,
            numbers.number(float(value["value"]), decimals=decimals),
            numbers.interval(value, decimals=decimals),
            numbers.number(value["n"]),
        )

    return measure


def pointer(path: Iterable[str | int]) -> str:
    """Where a value stands in a document, as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def embedded(document: Document) -> Markup:
    """The document as JSON that cannot end the `<script>` element it stands in."""
    return Markup(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))
