"""Scales and overrides: what is done to a recipe file before it is validated.

One file holds every scale: any value may be a mapping whose keys are scale names,
`lr: {nano: 2e-3, mini: 6e-4, phi4: 3e-4}`, and `resolve` picks one of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

SCALES = ("nano", "mini", "phi4")
OWN = "own"  # of a recipe that begins with somebody's own model, whose size is what it is


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the key's full path and the fix."""


def check_scale(scale: str) -> str:
    if scale not in SCALES:
        near = difflib.get_close_matches(scale, SCALES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise RecipeError(f"unknown scale {scale!r} (known: {', '.join(SCALES)}){hint}")
    return scale


def resolve(value: Any, scale: str, path: str = "") -> Any:
    """`value` with every scale mapping in it replaced by its value at `scale`.

    A scale mapping without the wanted scale is an error: there is no silent default between scales.
    """
    if isinstance(value, Mapping):
        if value and all(k in SCALES for k in value):
            if scale not in value:
                raise RecipeError(
                    f"{path or 'the recipe'} has no value at scale {scale} (it has {', '.join(value)}): "
                    f"add `{scale}: ...` to it"
                )
            return resolve(value[scale], scale, path)
        return {k: resolve(v, scale, f"{path}.{k}" if path else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [resolve(v, scale, f"{path}.{i}") for i, v in enumerate(value)]
    return value


def override(raw: dict[str, Any], settings: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """`raw` (resolved) with `a.b.0.c` paths set. A key that does not exist is added: the schema judges it.

    Raises RecipeError when a path runs through a plain value or past the end of a list.
    """
    raw = _copy(raw)
    for path, value in settings:
        keys = path.split(".")
        if not all(keys):
            raise RecipeError(f"--set {path}=...: write the path as section.key")
        at: Any = raw
        for i, key in enumerate(keys):
            last = i == len(keys) - 1
            here = ".".join(keys[:i]) or "the recipe"
            if isinstance(at, list):
                if not key.isdigit() or int(key) >= len(at):
                    raise RecipeError(f"--set {path}: {here} is a list of {len(at)}, {key!r} is not in it")
                if last:
                    at[int(key)] = value
                at = at[int(key)]
            elif isinstance(at, dict):
                if last:
                    at[key] = value
                elif at.get(key) is None:
                    at[key] = {}
                at = at[key]
            else:
                raise RecipeError(f"--set {path}: {here} is the value {at!r}, it has no keys")
    return raw


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value
