"""safetensors files written tensor by tensor, in shards where they would be large."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from phikit.model.hf_read import INDEX, WEIGHTS
from phikit.records.io import atomic_path, write_json

SHARD = 5_000_000_000  # bytes of tensors in one file, as microsoft/phi-4 has them
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """`pieces()` gives the bytes of `type` (F32, F16, BF16) in order."""

    name: str
    type: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[np.ndarray]]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * _BYTES[self.type]


def write_shards(folder: Path, tensors: Sequence[PlannedTensor], shard: int = SHARD) -> None:
    """Writes model.safetensors, or numbered files of up to `shard` bytes and their index. Weights that lay in
    the folder before are removed. Each file is atomic."""
    files = _split(tensors, shard)
    many = len(files) > 1
    names = [
        f"model-{i + 1:05}-of-{len(files):05}.safetensors" if many else WEIGHTS for i in range(len(files))
    ]
    (folder / INDEX).unlink(missing_ok=True)
    for old in folder.glob("model*.safetensors"):
        if old.name not in names:
            old.unlink()
    for name, part in zip(names, files):
        _write(folder / name, part)
    if many:
        places = {t.name: name for name, part in zip(names, files) for t in part}
        size = sum(t.nbytes for t in tensors)
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def _split(tensors: Sequence[PlannedTensor], shard: int) -> list[list[PlannedTensor]]:
    files: list[list[PlannedTensor]] = [[]]
    size = 0
    for t in tensors:
        if files[-1] and size + t.nbytes > shard:
            files.append([])
            size = 0
        files[-1].append(t)
        size += t.nbytes
    return files


def _write(path: Path, tensors: Sequence[PlannedTensor]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    at = 0
    for t in tensors:
        header[t.name] = {"dtype": t.type, "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as tmp, tmp.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for t in tensors:
            begin = out.tell()
            for piece in t.pieces():
                out.write(np.ascontiguousarray(piece).data.cast("B"))
            assert out.tell() - begin == t.nbytes, t.name
