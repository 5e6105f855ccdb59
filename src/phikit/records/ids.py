"""Hashes: content ids of records, fingerprints of stages, seeds of random streams."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def content_id(*parts: str) -> str:
    """32 hex digits of sha256 over length-prefixed parts, so that no two splits of a string collide."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()[:32]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def fingerprint(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def seed_of(*parts: Any) -> int:
    """A 63-bit seed that depends on every part: `seed_of(recipe.seed, "pretrain", "order")`."""
    return int(content_id(*(str(p) for p in parts))[:16], 16) >> 1


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")
