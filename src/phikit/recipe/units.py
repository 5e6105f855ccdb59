"""Units of the recipe file: `2M` tokens, `30%`, `4x`, `4K` of context, `6MB`.

K, M, B and T are powers of 1,000 for tokens and rows. A context length is the exception, as everywhere in the
field: `4K` is 4,096 and `16K` is 16,384.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_THOUSANDS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_BYTES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_NUMBER = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]*)")


def count(value: Any) -> int:
    """Tokens or rows: 2000000, `2M`, `1.5B`, `10T`."""
    return _whole(value, _THOUSANDS, "a count", "2000000 or 2M (K, M, B, T are powers of 1,000)")


def size(value: Any) -> int:
    """Bytes: 6000000 or `6MB` (powers of 1,000)."""
    return _whole(value, _BYTES, "a size in bytes", "6000000 or 6MB (KB, MB, GB, TB are powers of 1,000)")


def context_length(value: Any) -> int:
    """Tokens of context: 4096 or `4K` (K is 1,024 here)."""
    return _whole(value, {"": 1, "K": 1024}, "a context length", "4096 or 4K (K is 1,024)")


def share(value: Any) -> float:
    """A part of a whole: 0.3 or `30%`."""
    number, unit = _split(value, "a share", "0.3 or 30%")
    if unit not in ("", "%"):
        raise ValueError(f"{value!r} is not a share: write 0.3 or 30%")
    number = number / 100 if unit else number
    if number > 1:
        raise ValueError(f"{value!r} is more than the whole: write a share as 0.3 or 30%")
    return number


def multiple(value: Any) -> float:
    """Times: 4 or `4x`."""
    number, unit = _split(value, "a multiple", "4 or 4x")
    if unit not in ("", "x"):
        raise ValueError(f"{value!r} is not a multiple: write 4 or 4x")
    return number


def show_count(n: float) -> str:
    """Three digits and a suffix, for people: 14_659_507_200 -> `14.7B`."""
    for suffix, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= factor:
            return f"{n / factor:.3g}{suffix}"
    return f"{n:,.0f}"


def show_bytes(n: float) -> str:
    """Bytes for people: 29_319_014_400 -> `29.3 GB`."""
    for suffix, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if n >= factor:
            return f"{n / factor:.3g} {suffix}"
    return f"{n:.0f} B"


def _split(value: Any, what: str, examples: str) -> tuple[float, str]:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not {what}: write {examples}")
    if not isinstance(value, str):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{value!r} is not {what}: write {examples}")
        return value, ""
    match = _NUMBER.fullmatch(value.strip())
    if match is None or (number := float(match[1].replace("_", ""))) == float("inf"):
        raise ValueError(f"{value!r} is not {what}: write {examples}")
    return number, match[2]


def _whole(value: Any, factors: dict[str, int], what: str, examples: str) -> int:
    number, unit = _split(value, what, examples)
    if unit not in factors:
        raise ValueError(f"{value!r} is not {what}: write {examples}")
    scaled = number * factors[unit]
    if abs(scaled - round(scaled)) > 1e-6 * max(scaled, 1):
        raise ValueError(f"{value!r} is not a whole number: write {examples}")
    return round(scaled)


def _schema(pattern: str, *, integer: bool) -> WithJsonSchema:
    number = {"type": "integer" if integer else "number", "minimum": 0}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": pattern}]})


_DIGITS = r"^[0-9][0-9_]*(\.[0-9]+)?([eE][+-]?[0-9]+)? ?"
Count = Annotated[int, BeforeValidator(count), _schema(_DIGITS + "[KMBT]?$", integer=True)]
Bytes = Annotated[int, BeforeValidator(size), _schema(_DIGITS + "([KMGT]B)?$", integer=True)]
ContextLength = Annotated[
    int, BeforeValidator(context_length), Field(ge=2), _schema(_DIGITS + "K?$", integer=True)
]
Share = Annotated[float, BeforeValidator(share), _schema(_DIGITS + "%?$", integer=False)]
Multiple = Annotated[float, BeforeValidator(multiple), _schema(_DIGITS + "x?$", integer=False)]
