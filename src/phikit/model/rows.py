"""The tensors of a network in memory, a Hugging Face folder or a GGUF, read a few rows at a time as fp32.

What goes out of a model (an export, a quantized file) reads these: 14.66 B parameters then take the memory of
the rows in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phikit.model.names import Layout, table

if TYPE_CHECKING:
    from phikit.model.assemble import FileTensor
    from phikit.model.config import ModelConfig
    from phikit.model.transformer import Transformer

PIECE = 1 << 22  # weights read at once: 16 MiB of fp32
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a tensor: `read(first, last)` gives fp32 [last - first, width]. `stored` is their type in
    the source, as GGUF calls it."""

    rows: int
    stored: str
    read: Callable[[int, int], np.ndarray]


@dataclass(frozen=True, slots=True)
class Rows:
    """One tensor under its GGUF name. `parts` lie below one another; a tensor of one dimension is one row."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def width(self) -> int:
        return self.shape[-1]

    @property
    def stored(self) -> str:
        return self.parts[0].stored

    @property
    def count(self) -> int:
        """Rows."""
        return self.shape[0] if len(self.shape) > 1 else 1

    def read(self, first: int, last: int) -> np.ndarray:
        """fp32 [last - first, width]."""
        found, begin = [], 0
        for part in self.parts:
            a, b = max(first - begin, 0), min(last - begin, part.rows)
            if a < b:
                found.append(part.read(a, b))
            begin += part.rows
        return found[0] if len(found) == 1 else np.concatenate(found)

    def ranges(self, weights: int = PIECE) -> Iterator[tuple[int, int]]:
        """(first, last) rows of pieces of about `weights` weights."""
        step = max(1, weights // self.width)
        for first in range(0, self.count, step):
            yield first, min(first + step, self.count)


def of_model(model: Transformer, layout: Layout = "phi3") -> list[Rows]:
    """The tensors of a layout. Those of layout `llama` are as a Hugging Face folder has them; a GGUF of that
    architecture would want the rows of q and k in another order."""
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def part(ours: str) -> Part:
        tensor = parameters[ours]
        matrix = tensor if tensor.ndim > 1 else tensor[None]
        return Part(matrix.shape[0], "F32", lambda a, b: matrix[a:b].cpu().float().contiguous().numpy())

    return [
        _joined(n.gguf, [part(o) for o in n.ours], parameters[n.ours[0]].shape)
        for n in table(model.config, layout)
    ]


def of_hf(folder: Path) -> tuple[list[Rows], ModelConfig]:
    """The tensors of a folder in layout phi3, whichever layout the folder has. Raises FileNotFoundError or
    ValueError that names the file and the tensor."""
    from phikit.model.hf_read import open_hf

    config, layout, tensors = open_hf(folder)
    return _network(folder, config, {o: n.hf for n in table(config, layout) for o in n.ours}, tensors), config


def of_gguf_network(path: Path) -> tuple[list[Rows], ModelConfig]:
    """The tensors of a GGUF (architecture phi3 or llama) in layout phi3. Raises FileNotFoundError or
    ValueError that names the file and the key or tensor."""
    from phikit.model.gguf_read import open_gguf

    config, layout, tensors = open_gguf(path)
    return _network(path, config, {o: n.gguf for n in table(config, layout) for o in n.ours}, tensors), config


def of_gguf(path: Path) -> list[Rows]:
    """All tensors of a GGUF in the order of the file. Raises FileNotFoundError or ValueError."""
    from phikit.model.gguf_header import read_gguf_header
    from phikit.model.gguf_read import file_tensor

    tensors = sorted(read_gguf_header(path).tensors.values(), key=lambda t: t.start)
    return [_joined(t.name, [_part(file_tensor(path, t))], t.shape) for t in tensors]


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """GGUF name -> shape of every tensor of layout phi3."""
    c, kv = config, config.kv_heads * config.head_dim
    block = {
        "attn_norm": (c.width,), "attn_qkv": (c.width + 2 * kv, c.width), "attn_output": (c.width, c.width),
        "ffn_norm": (c.width,), "ffn_up": (2 * c.ffn, c.width), "ffn_down": (c.width, c.ffn),
    }  # fmt: skip
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (c.vocab, c.width)}
    found |= {f"blk.{i}.{n}.weight": shape for i in range(c.layers) for n, shape in block.items()}
    found["output_norm.weight"] = (c.width,)
    return found if c.tied else {**found, "output.weight": (c.vocab, c.width)}


def _network(
    where: Path, config: ModelConfig, outside: Mapping[str, str], tensors: Mapping[str, FileTensor]
) -> list[Rows]:
    """`outside` names for each of our parameters the tensor that holds it."""
    from phikit.model.assemble import Place, check_places

    holders = {n.gguf: list(dict.fromkeys(outside[o] for o in n.ours)) for n in table(config)}
    places = [Place(h, tuple(o for o in outside if outside[o] == h)) for h in dict.fromkeys(outside.values())]
    check_places(config, places, tensors, where)
    return [
        _joined(name, [_part(tensors[h]) for h in held], tensors[held[0]].shape)
        for name, held in holders.items()
    ]


def _part(tensor: FileTensor) -> Part:
    if len(tensor.shape) == 1:
        return Part(1, tensor.stored, lambda a, b: tensor.read(0, tensor.shape[0]).float().numpy()[None])
    return Part(tensor.shape[0], tensor.stored, lambda a, b: tensor.read(a, b).float().numpy())


def _joined(name: str, parts: Sequence[Part], shape: Sequence[int]) -> Rows:
    """`shape` is that of the first part."""
    if len(shape) == 1:
        return Rows(name, (shape[0],), tuple(parts))
    return Rows(name, (sum(p.rows for p in parts), *shape[1:]), tuple(parts))
