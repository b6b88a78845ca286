"""Settings of an attack on the command line: `views=false`, `identity.loss=logit`."""

import tomllib
from collections.abc import Iterable
from typing import Any


def read_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Nested settings from `name=value` texts; dots lead into groups.

    Values are TOML's: numbers, true, false; anything else is a text, with or without quotes.

    Raises:
        ValueError: A text has no name or no value, or names a setting twice: one line.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        *groups, last = name.strip().split(".")
        if not equals or not last or not all(groups):
            raise ValueError(f"--setting {text}: give NAME=VALUE, as views=false or identity.loss=logit")
        group: Any = settings
        for part in groups:
            group = group.setdefault(part, {}) if isinstance(group, dict) else group
        if not isinstance(group, dict) or last in group:
            raise ValueError(f"--setting {text}: {name.strip()} is set twice")
        group[last] = _value(value.strip())
    return settings


def _value(text: str) -> Any:
    """A TOML value, or the text as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
