"""A document that was left out, and why: a row of `rejected.jsonl.zst`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phikit.records import Document

SHOWN = 400  # characters of the text that a row keeps


@dataclass(frozen=True, slots=True)
class Rejection:
    """`reason` is a short fixed name to count by; `detail` says what was measured or which document it
    repeats."""

    id: str
    source: str
    path: str
    reason: str
    detail: str
    text: str = ""

    @classmethod
    def of(cls, document: Document, reason: str, detail: str) -> Rejection:
        path = str(document.meta.get("path", ""))
        return cls(document.id, document.source, path, reason, detail, document.text[:SHOWN])

    def row(self) -> Mapping[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}
