"""How numbers are written in a report: one way everywhere, the uncertainty beside the value."""

import json
from datetime import datetime
from typing import Any


def number(value: int | float, *, decimals: int = 2) -> str:
    """A number as the report prints it.

    Whole numbers carry thousands separators; others two decimals without a leading zero (`.97`), one above
    10, none above 100. A value between 0 and 1 that two decimals would round to either gets up
    to four.

    Args:
        value: a finite number.
        decimals: 3 for values below 10 that lie closer together than two decimals tell.

    Returns:
        The text, with U+2212 as the minus sign.
    """
    if isinstance(value, int):
        return f"{value:,}".replace("-", "\N{MINUS SIGN}")
    size = abs(value)
    if size >= 10:
        text = f"{size:,.0f}" if size >= 100 else f"{size:.1f}"
    else:
        text = f"{size:.{decimals}f}"
        for more in (3, 4):
            if float(text) in (0.0, 1.0) and 0 < size < 1:
                text = f"{size:.{more}f}"
        if float(text) == 0.0 and size > 0:
            return "<.0001" if value > 0 else ">\N{MINUS SIGN}.0001"
        if float(text) == 1.0 and size < 1:
            return ">.9999" if value > 0 else "<\N{MINUS SIGN}.9999"
        text = text.removeprefix("0") if size < 1 else text
        text = "0" if float(text) == 0.0 else text
    return text if value >= 0 or text == "0" else "\N{MINUS SIGN}" + text


def estimate(value: dict[str, Any] | int | float | None) -> str:
    """A measured value with its interval and n where it has them: `.97 [.93, .99], n = 30`.

    Args:
        value: `{value, low, high, n}`, a bare number, or None for a value that could not be computed.

    Returns:
        The text; "not computed" for None.
    """
    if value is None:
        return "not computed"
    if not isinstance(value, dict):
        return number(value)
    return f"{number(value['value'])} {interval(value)}, n = {number(value['n'])}"


def interval(value: dict[str, Any], *, decimals: int = 2) -> str:
    """The interval alone, `[.93, .99]`, of a value `{value, low, high, n}`."""
    low, high = (number(float(value[end]), decimals=decimals) for end in ("low", "high"))
    return f"[{low}, {high}]"


def point(value: dict[str, Any] | int | float | None) -> int | float | None:
    """The bare value of a measured value, or None."""
    return value["value"] if isinstance(value, dict) else value


def duration(seconds: int | float) -> str:
    """Seconds in the two largest units that fit: `48 s`, `2 min 11 s`, `3 h 05 min`, `4 d 02 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400:,} d {whole % 86_400 // 3600:02d} h"


def size(byte_count: int) -> str:
    """Bytes in decimal units, `1.4 GB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if byte_count >= factor:
            return f"{byte_count / factor:.1f} {unit}"
    return f"{byte_count} bytes"


def moment(created: str) -> str:
    """An ISO 8601 time as `2026-01-31 12:00 +0000`, "UTC" for a zero offset."""
    time = datetime.fromisoformat(created)
    return time.strftime("%Y-%m-%d %H:%M ") + (time.strftime("%z") if time.utcoffset() else "UTC")


def setting(value: Any) -> str:
    """One setting of a configuration as text: JSON, but texts without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
