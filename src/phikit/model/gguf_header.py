"""The header of a GGUF file, checked before llama.cpp, torch or numpy see any of it.

`check_gguf` is a pure function of bytes. Its time and memory are bounded whatever the bytes say: counts are held
against limits and against the bytes that are there, and no tensor data is read. Its only error is ValueError.
"""

from __future__ import annotations

import mmap
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_HEADER = 1 << 26  # bytes; a vocabulary of 262,144 tokens with its merges is about 10 MB
MAX_ENTRIES = 1 << 16  # key-value pairs; tensors
MAX_ITEMS = 1 << 21  # strings and truth values of all arrays together
MAX_NAME = 1 << 16  # bytes of a key or of a tensor's name
_FILE_BITS = 56  # no file is larger than 2^56 bytes, so that no product below leaves 64 bits

# type number -> (name, weights in a block, bytes of a block); those that files hold. Q8_1 and Q8_K are only
# made while computing.
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1),
    25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
# value type -> struct and array code of a scalar; 7 (bool), 8 (string) and 9 (array) stand apart
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_UINT32 = 4

Buffer = bytes | bytearray | memoryview | mmap.mmap


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """`shape` as torch has it (rows first; the file lists the row length first). `start` and `size` are
    bytes of the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """`keys` hold int, float, bool, str, list[str], list[bool] or array.array; `end` is where the header ends."""

    version: int
    keys: dict[str, Any]
    tensors: dict[str, GgufTensor]
    end: int


def read_gguf_header(path: Path) -> GgufHeader:
    """`check_gguf` of a file. Raises FileNotFoundError, or ValueError that names the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such GGUF file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return check_gguf(data)
        except ValueError as e:
            raise ValueError(f"{path}: {e}") from e


def check_gguf(data: Buffer) -> GgufHeader:
    """The header of a whole GGUF file (version 2 or 3, little-endian). Raises ValueError where a count, type,
    shape, offset or string cannot be right, where a key or tensor is there twice, and where tensors overlap
    or leave the file."""
    reader = _Reader(data)
    try:
        return _header(reader)
    except (struct.error, UnicodeDecodeError) as e:
        raise ValueError(
            f"the GGUF header is damaged near byte {reader.at}: {e}; fetch the file again"
        ) from e


def _header(r: _Reader) -> GgufHeader:
    if len(r.data) < 24 or r.take(4) != b"GGUF":
        raise ValueError("not a GGUF file (it does not begin with 'GGUF', or is shorter than 24 bytes)")
    version = r.scalar("I")
    if version not in (2, 3):
        raise ValueError(f"GGUF version {version}; 2 and 3 are known (a big-endian file?)")
    n_tensors, n_keys = r.scalar("Q"), r.scalar("Q")
    if n_tensors > MAX_ENTRIES or n_keys > MAX_ENTRIES:
        raise ValueError(f"the GGUF claims {n_tensors} tensors and {n_keys} keys; it is damaged")
    keys: dict[str, Any] = {}
    for _ in range(n_keys):
        key = r.name("key")
        if key in keys:
            raise ValueError(f"key {key!r} is there twice")
        kind = r.scalar("I")
        if key == "general.alignment" and kind != _UINT32:
            raise ValueError("general.alignment must be a uint32")
        keys[key] = r.value(kind, key)
    alignment = keys.get("general.alignment", 32)
    if alignment & (alignment - 1) or not 1 <= alignment <= 1 << 16:
        raise ValueError(f"general.alignment {alignment} is not a power of two up to 65536")
    found: dict[str, GgufTensor] = {}
    for _ in range(n_tensors):
        tensor = _tensor(r, alignment)
        if tensor.name in found:
            raise ValueError(f"tensor {tensor.name!r} is there twice")
        found[tensor.name] = tensor
    base = -(-r.at // alignment) * alignment  # offsets count from the aligned end of the header
    tensors = {n: GgufTensor(t.name, t.type, t.shape, base + t.start, t.size) for n, t in found.items()}
    _check_places(list(tensors.values()), len(r.data))
    return GgufHeader(version, keys, tensors, r.at)


def _tensor(r: _Reader, alignment: int) -> GgufTensor:
    """One entry of the list of tensors; `start` still counts from the end of the header."""
    name, n_dims = r.name("tensor"), r.scalar("I")
    if not 1 <= n_dims <= 4:
        raise ValueError(f"tensor {name!r} has {n_dims} dimensions; GGUF allows 1 to 4")
    dims = [r.scalar("Q") for _ in range(n_dims)]
    kind, offset = r.scalar("I"), r.scalar("Q")
    if kind not in TENSOR_TYPES:
        raise ValueError(f"tensor {name!r} has the unknown type {kind}")
    type_, block, block_bytes = TENSOR_TYPES[kind]
    count = 1
    for d in dims:
        count *= d
        if d == 0 or count >= 1 << _FILE_BITS:
            raise ValueError(f"tensor {name!r} of shape {dims[::-1]} cannot be right; damaged file")
    if dims[0] % block:
        raise ValueError(f"tensor {name!r}: rows of {dims[0]} weights do not fill {type_} blocks of {block}")
    if offset % alignment:
        raise ValueError(f"tensor {name!r} begins at {offset}, not a multiple of the alignment {alignment}")
    return GgufTensor(name, type_, tuple(dims[::-1]), offset, count // block * block_bytes)


def _check_places(tensors: Sequence[GgufTensor], file_size: int) -> None:
    before: GgufTensor | None = None
    for t in sorted(tensors, key=lambda t: t.start):
        if t.start + t.size > file_size:
            raise ValueError(
                f"tensor {t.name!r} ends at byte {t.start + t.size} of {file_size}; the file is cut: fetch it again"
            )
        if before is not None and before.start + before.size > t.start:
            raise ValueError(f"tensors {before.name!r} and {t.name!r} overlap; damaged file")
        before = t


class _Reader:
    """A cursor over the bytes that never leaves them."""

    def __init__(self, data: Buffer) -> None:
        self.data, self.at, self.items_so_far = data, 0, 0
        self.limit = min(len(data), MAX_HEADER)

    def take(self, n: int) -> bytes:
        if n > self.limit - self.at:
            where = "the end of the file" if self.limit == len(self.data) else f"{MAX_HEADER} bytes of header"
            raise ValueError(f"{n} bytes at byte {self.at} run past {where}; it is cut or damaged")
        self.at += n
        return bytes(self.data[self.at - n : self.at])

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))
        return value

    def string(self) -> str:
        return self.take(self.scalar("Q")).decode("utf-8")

    def name(self, what: str) -> str:
        n = self.scalar("Q")
        if not 1 <= n < MAX_NAME:
            raise ValueError(f"the name of a {what} at byte {self.at} has {n} bytes; damaged file")
        return self.take(n).decode("utf-8")

    def value(self, kind: int, key: str) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _BOOL:
            return self.bools(1, key)[0]
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.items(key)
        raise ValueError(f"key {key!r} has the unknown value type {kind}")

    def items(self, key: str) -> Any:
        item, n = self.scalar("I"), self.scalar("Q")
        if item in _SCALARS:
            values = array(_SCALARS[item])
            assert values.itemsize == struct.calcsize("<" + _SCALARS[item])
            values.frombytes(self.take(n * values.itemsize))
            if sys.byteorder == "big":
                values.byteswap()
            return values
        if item == _BOOL:
            return self.bools(n, key)
        if item == _STRING:
            return self.texts(n, key)
        if item == _ARRAY:
            raise ValueError(f"key {key!r} holds arrays in an array, which no model needs")
        raise ValueError(f"key {key!r} is an array of the unknown type {item}")

    def texts(self, n: int, key: str) -> list[str]:
        self.count(n, key)
        data, at, limit, length = self.data, self.at, self.limit, struct.Struct("<Q").unpack_from
        found = []
        for _ in range(n):  # a vocabulary is most of the header: this loop is what checking costs
            if at + 8 > limit or (end := at + 8 + length(data, at)[0]) > limit:
                self.at = at
                raise ValueError(f"a string at byte {at} runs past the end; the file is cut or damaged")
            found.append(str(data[at + 8 : end], "utf-8"))
            at = end
        self.at = at
        return found

    def count(self, n: int, key: str) -> None:
        self.items_so_far += n
        if self.items_so_far > MAX_ITEMS:
            raise ValueError(f"key {key!r} holds {n} items; {MAX_ITEMS} are the most of a file")

    def bools(self, n: int, key: str) -> list[bool]:
        self.count(n, key)
        raw = self.take(n)
        if raw.translate(None, b"\0\1"):
            raise ValueError(f"key {key!r} holds a truth value that is neither 0 nor 1")
        return [b == 1 for b in raw]
