"""A GGUF file written tensor by tensor: header first, then the bytes of each tensor in pieces, so that no more
than a few pieces are ever in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phikit.records.io import atomic_path

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter


@dataclass(frozen=True, slots=True)
class Planned:
    """One tensor to write. `shape` counts weights, rows first; `pieces()` gives its bytes in order."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    pieces: Callable[[], Iterator[np.ndarray]]

    @property
    def nbytes(self) -> int:
        from gguf import GGML_QUANT_SIZES

        block, size = GGML_QUANT_SIZES[self.type]
        assert self.shape[-1] % block == 0, (self.name, self.shape, self.type)
        return int(np.prod(self.shape, dtype=np.int64)) // block * size


def write_gguf(
    path: Path, architecture: str, keys: Callable[[GGUFWriter], None], tensors: Sequence[Planned]
) -> None:
    """Writes `path` atomically: `keys` fills in the key-value pairs, then the tensors in their order."""
    from gguf import GGUFWriter

    with atomic_path(path) as tmp:
        writer = GGUFWriter(tmp, architecture)
        try:
            keys(writer)
            for t in tensors:
                writer.add_tensor_info(t.name, t.shape, np.dtype(np.float16), t.nbytes, raw_dtype=t.type)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            assert writer.fout
            out = writer.fout[0]
            for t in tensors:
                writer.write_padding(out, out.tell())
                begin = out.tell()
                for piece in t.pieces():
                    out.write(np.ascontiguousarray(piece).data.cast("B"))
                assert out.tell() - begin == t.nbytes, (t.name, out.tell() - begin, t.nbytes)
            writer.write_padding(out, out.tell())
        finally:
            writer.close()
