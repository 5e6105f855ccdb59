"""GGUF files as bytes, right or wrong in any field, for tests of what reads them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

UINT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def array(kind: int, items: list[bytes], n: int | None = None) -> bytes:
    return struct.pack("<IQ", kind, len(items) if n is None else n) + b"".join(items)


@dataclass
class Tensor:
    name: str = "a.weight"
    dims: tuple[int, ...] = (8, 4)  # as the file lists them: row length first
    kind: int = 0  # F32
    offset: int = 0


@dataclass
class Gguf:
    keys: list[tuple[str, int, bytes]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    data: int = 0  # bytes after the aligned header
    magic: bytes = b"GGUF"
    version: int = 3
    n_tensors: int | None = None
    n_keys: int | None = None
    alignment: int = 32

    def bytes(self) -> bytes:
        counts = (
            len(self.tensors) if self.n_tensors is None else self.n_tensors,
            len(self.keys) if self.n_keys is None else self.n_keys,
        )
        out = self.magic + struct.pack("<IQQ", self.version, *counts)
        for key, kind, value in self.keys:
            out += text(key) + struct.pack("<I", kind) + value
        for t in self.tensors:
            out += text(t.name) + struct.pack(f"<I{len(t.dims)}Q", len(t.dims), *t.dims)
            out += struct.pack("<IQ", t.kind, t.offset)
        return out + b"\0" * (-len(out) % self.alignment) + b"\1" * self.data
