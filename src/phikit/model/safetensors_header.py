"""The header of a safetensors file, checked before any tensor is read.

`check_safetensors` is a pure function of bytes with bounded time and memory; its only error is ValueError.
"""

from __future__ import annotations

import json
import mmap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_HEADER = 1 << 23  # bytes; 243 tensors, as Phi-4 has, take 30 kB
MAX_TENSORS = 1 << 16
MAX_DIMS = 8
# dtype -> bytes of an element
DTYPES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip

Buffer = bytes | bytearray | memoryview | mmap.mmap


@dataclass(frozen=True, slots=True)
class SafeTensor:
    """`start` and `size` are bytes of the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    start: int
    size: int


def read_safetensors_header(path: Path) -> dict[str, SafeTensor]:
    """`check_safetensors` of a file. Raises FileNotFoundError, or ValueError that names the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such safetensors file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return check_safetensors(data)
        except ValueError as e:
            raise ValueError(f"{path}: not a sound safetensors file: {e}; fetch it again") from e


def check_safetensors(data: Buffer) -> dict[str, SafeTensor]:
    """The tensors of a whole safetensors file by name. Raises ValueError where the header is not what the
    format says: its length, a JSON object without repeated names, known dtypes, shapes that match the sizes, and
    tensors that fill the rest of the file one after another."""
    if len(data) < 8:
        raise ValueError(f"{len(data)} bytes are too short")
    length = int.from_bytes(bytes(data[:8]), "little")
    if not 2 <= length <= min(MAX_HEADER, len(data) - 8):
        raise ValueError(
            f"a header of {length} bytes in a file of {len(data)}; {MAX_HEADER} bytes are the most"
        )
    try:
        header = json.loads(
            bytes(data[8 : 8 + length]).decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant
        )
    except RecursionError as e:
        raise ValueError("the header is nested too deeply") from e
    except ValueError as e:  # also what is not UTF-8
        raise ValueError(f"the header is no sound JSON ({e})") from e
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("__metadata__ is no object of strings")
    if len(header) > MAX_TENSORS:
        raise ValueError(f"{len(header)} tensors; {MAX_TENSORS} are the most")
    tensors = [_tensor(name, entry, 8 + length) for name, entry in header.items()]
    at = 8 + length
    for t in sorted(tensors, key=lambda t: (t.start, t.size)):
        if t.start != at:
            raise ValueError(f"tensor {t.name!r} begins at byte {t.start}, the one before it ends at {at}")
        at += t.size
    if at != len(data):
        raise ValueError(f"the tensors end at byte {at} of {len(data)}")
    return {t.name: t for t in tensors}


def _tensor(name: str, entry: Any, base: int) -> SafeTensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name[:80]!r} needs dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"tensor {name[:80]!r} has the unknown dtype {str(dtype)[:40]!r}")
    if not _whole(shape) or len(shape) > MAX_DIMS:
        raise ValueError(f"tensor {name[:80]!r}: the shape is no list of up to {MAX_DIMS} whole numbers")
    if not _whole(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise ValueError(f"tensor {name[:80]!r}: data_offsets is no pair of begin and end")
    size = DTYPES[dtype]
    for d in shape:
        size *= d
    if size != offsets[1] - offsets[0]:
        raise ValueError(
            f"tensor {name[:80]!r}: {dtype} {shape} takes {size} bytes, not {offsets[1] - offsets[0]}"
        )
    return SafeTensor(name, dtype, tuple(shape), base + offsets[0], size)


def _whole(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 56 for n in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(k for k, _ in pairs).most_common(1)[0]
        raise ValueError(f"{twice[:80]!r} is there twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
