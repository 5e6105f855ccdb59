"""A network filled from the tensors of files, some rows at a time.

Each piece of a file is mapped, copied and unmapped, for mapped pages count as memory too: loading peaks at the
network's own size and a few MB, whatever the size of one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from phikit.model.config import ModelConfig
from phikit.model.transformer import Transformer

CHUNK = 1 << 18  # weights read at once: dequantizing takes several times its result
DTypeName = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor of a file. `read(a, b)` gives rows a to b (of a vector: elements) in a float type; `stored` is the
    type in the file."""

    file: Path
    stored: str
    shape: tuple[int, ...]
    read: Callable[[int, int], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Place:
    """The tensor `outside` of a file holds the rows of the parameters `ours`, one after another."""

    outside: str
    ours: tuple[str, ...]


def mapped(file: Path, start: int, size: int) -> np.ndarray:
    """Bytes of a file as uint8, mapped until the array is dropped. Raises ValueError where they are not there."""
    try:
        return np.memmap(file, np.uint8, "r", start, (size,))
    except ValueError as e:
        raise ValueError(f"{file}: the file was cut while it was read ({e})") from e


def plain(raw: np.ndarray, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    """A copy of bytes as a tensor."""
    return torch.frombuffer(bytearray(raw), dtype=dtype).view(*shape)


def assemble(
    config: ModelConfig,
    places: Sequence[Place],
    tensors: Mapping[str, FileTensor],
    *,
    dtype: DTypeName,
    where: Path,
) -> Transformer:
    """The network with each place filled, in evaluation mode. Raises as `check_places` does, before memory is
    taken."""
    check_places(config, places, tensors, where)
    with torch.device("meta"):
        model = Transformer(config).to(DTYPES[dtype])
    parameters = dict(model.to_empty(device="cpu").named_parameters())
    with torch.no_grad():
        for place in places:
            at = 0
            for part in place.ours:
                _fill(parameters[part], tensors[place.outside], at)
                at += parameters[part].shape[0]
    return model.eval()


def check_places(
    config: ModelConfig, places: Sequence[Place], tensors: Mapping[str, FileTensor], where: Path
) -> None:
    """Raises ValueError where a tensor is missing, unknown, or of another shape than the configuration says."""
    with torch.device("meta"):
        shapes = {n: tuple(p.shape) for n, p in Transformer(config).named_parameters()}
    if missing := sorted({p.outside for p in places} - set(tensors)):
        raise ValueError(f"{where}: {len(missing)} tensors are missing, such as {missing[0]!r}")
    if unknown := sorted(set(tensors) - {p.outside for p in places}):
        raise ValueError(
            f"{tensors[unknown[0]].file}: tensor {unknown[0]!r} has no place in a network of "
            f"{config.layers} layers without biases and norms of queries and keys"
        )
    for place in places:
        tensor = tensors[place.outside]
        parts = [shapes[o] for o in place.ours]
        shape = (sum(p[0] for p in parts), *parts[0][1:])
        if tensor.shape != shape:
            raise ValueError(
                f"{tensor.file}: tensor {place.outside!r} has the shape {tensor.shape}; the configuration says {shape}"
            )


def differs(a: FileTensor, b: FileTensor) -> bool:
    """Whether two tensors are not the same numbers."""
    return a.shape != b.shape or any(
        not torch.equal(a.read(*r).float(), b.read(*r).float()) for r in _chunks(a)
    )


def _fill(target: torch.Tensor, tensor: FileTensor, at: int) -> None:
    """Copies the rows from `at` on."""
    for a, b in _chunks(tensor, target.shape[0]):
        target[a:b].copy_(tensor.read(at + a, at + b))


def _chunks(tensor: FileTensor, rows: int | None = None) -> list[tuple[int, int]]:
    rows = tensor.shape[0] if rows is None else rows
    width = tensor.shape[1] if len(tensor.shape) > 1 else 1
    step = max(CHUNK // width, 1)
    return [(a, min(a + step, rows)) for a in range(0, rows, step)]
