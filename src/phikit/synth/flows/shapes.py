"""JSON schemas in few words, for what flows ask a teacher to tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def shape(**properties: Any) -> dict[str, Any]:
    """An object with these properties, all of them required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def text(most: int, least: int = 1) -> dict[str, Any]:
    """A string of `least` to `most` characters: the bound keeps a small model from filling its budget with one."""
    return {"type": "string", "minLength": least, "maxLength": most}


def note(most: int, least: int = 1) -> dict[str, Any]:
    """A string that may be cut at `most`: a remark about the work, no part of it."""
    return text(most, least) | {"description": "may be cut"}


def mark(low: int = 1, high: int = 5) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


def one_of(names: Sequence[str]) -> dict[str, Any]:
    return {"enum": list(names)}


def some(item: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": least, "maxItems": most}
