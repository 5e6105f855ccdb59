"""Durations as Ollama's clients write them: numbers are seconds, strings Go's (`5m`, `1h30m`, `-1`)."""

from __future__ import annotations

import math
import re
from typing import Any

FOREVER = math.inf
_UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile("([0-9]*\\.?[0-9]+|[0-9]+\\.)(ns|us|\u00b5s|ms|s|m|h)")


def seconds(value: Any) -> float:
    """Seconds; a negative duration is for ever. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"a duration is a number of seconds or a text such as 5m, not {value!r:.40}")
    if isinstance(value, str):
        value = _go(value.strip())
    if math.isnan(value):
        raise ValueError("a duration cannot be NaN")
    return FOREVER if value < 0 else float(value)


def _go(text: str) -> float:
    try:
        return float(text)  # Ollama takes "-1" and "0" without a unit
    except ValueError:
        pass
    sign, rest, total, at = 1.0, text, 0.0, 0
    if rest[:1] in ("+", "-"):
        sign, rest = (-1.0 if rest[0] == "-" else 1.0), rest[1:]
    while at < len(rest):
        if not (m := _PART.match(rest, at)):
            raise ValueError(f"invalid duration {text[:40]!r}: write 90, 90s, 5m or 1h30m")
        total += float(m[1]) * _UNITS[m[2]]
        at = m.end()
    if not rest:
        raise ValueError(f"invalid duration {text[:40]!r}: write 90, 90s, 5m or 1h30m")
    return sign * total
