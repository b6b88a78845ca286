"""How the tests read a page: as a reader, as a browser, and by the contrast of its colours."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "path", "circle"}


class Page(HTMLParser):
    """What a reader and a browser get: numbers with their source, tables, texts, scripts, attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.measures: list[tuple[str, str]] = []
        self.loose_cells: list[str] = []
        self.scripts: list[tuple[dict, str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self._open: list[tuple[str, dict]] = []
        self.feed(html)
        assert [tag for tag, _ in self._open] == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in VOID:
            return
        self._open.append((tag, dict(attrs)))
        if "data-path" in dict(attrs):
            self.measures.append((dict(attrs)["data-path"] or "", ""))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            opened, _ = self._open.pop()
            assert opened == tag

    def handle_data(self, data):
        inside = [tag for tag, _ in self._open]
        if "script" in inside:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
            return
        if "style" in inside or "svg" in inside:
            return
        self.words.append(data)
        if any("data-path" in attrs for _, attrs in self._open):
            path, text = self.measures[-1]
            self.measures[-1] = (path, text + data)
        elif "td" in inside and not any("words" in (attrs.get("class") or "") for _, attrs in self._open):
            self.loose_cells.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def part_of(html: str, pattern: str) -> str:
    """The first group of the pattern in the page."""
    found = re.search(pattern, html, flags=re.DOTALL)
    assert found, pattern
    return found.group(1)


def resolve(document, pointer: str):
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        document = document[int(step)] if isinstance(document, list) else document[step]
        if document is None:
            return None
    return document


def is_printed_as(text: str, value) -> bool:
    """Whether a printed number is the value to half its last digit (a slow, separate reading of the text)."""
    bare = text.lstrip("<>").replace("−", "-").replace(",", "")
    decimals = len(bare.partition(".")[2])
    return text[0] in "<>" or abs(float(bare) - value) <= 0.5 * 10**-decimals + 1e-9


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
