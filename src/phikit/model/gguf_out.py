"""Any model of ours as a GGUF of a given type: from a Hugging Face folder, or from a GGUF that is not quantized."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phikit.model.gguf_header import read_gguf_header

if TYPE_CHECKING:
    from phikit.model.quantize.types import FileType
    from phikit.model.rows import Rows
    from phikit.text.tokenizer import Tokenizer


def tokenizer_of(path: Path) -> Tokenizer:
    """The tokenizer of a folder or GGUF. Raises ValueError where it is of a kind that is not written here."""
    from phikit.model.gguf_tokenizer import read_tokenizer
    from phikit.text.tokenizer import Tokenizer

    if path.is_dir():
        return Tokenizer.load(path)
    try:
        return read_tokenizer(read_gguf_header(path).keys)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e


def write_gguf(
    path: Path,
    type_: FileType,
    out: Path,
    *,
    name: str = "model",
    threads: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[Rows], dict[str, Any]]:
    """Writes `out`; returns the tensors read and the block type each was given. Raises ValueError where the source is
    quantized already, or its rows do not fit the type."""
    from phikit.model import gguf
    from phikit.model.quantize.types import QUANTIZED
    from phikit.model.rows import FLOATS, of_gguf, of_hf

    architecture = gguf.ARCHITECTURE
    if path.is_file():
        rows = of_gguf(path)
        if type_ in QUANTIZED and (coarse := [r for r in rows if r.stored not in FLOATS]):
            raise ValueError(
                f"{path}: {coarse[0].name} is {coarse[0].stored} already, and quantizing twice adds two "
                "errors: begin from the F32, F16 or BF16 file or the Hugging Face folder"
            )
        architecture, keys = _architecture(path), gguf.copied_keys(path, type_)
    else:
        rows, config = of_hf(path)
        keys = gguf.phi3_keys(config, tokenizer_of(path), type_, name)
    try:
        blocks = gguf.write_rows(
            out, rows, type_, keys, architecture=architecture, threads=threads or os.cpu_count() or 1, say=say
        )
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    return rows, blocks


def _architecture(path: Path) -> str:
    """The mix of types is known for these two."""
    found = str(read_gguf_header(path).keys.get("general.architecture"))
    if found not in ("phi3", "llama"):
        raise ValueError(f"{path}: architecture {found[:40]!r}; phi3 and llama are quantized here")
    return found
