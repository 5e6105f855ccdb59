"""GGUF out: architecture phi3, so that llama.cpp and what is built on it run the network (facts section 1.8).

The tokenizer goes along (`model/gguf_vocabulary.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from phikit.model.gguf_stream import Planned, write_gguf
from phikit.model.gguf_vocabulary import add_vocabulary
from phikit.model.quantize.types import QUANTIZED, FileType, encode, file_type, file_type_number, mix
from phikit.model.rows import Rows, of_model
from phikit.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

    from phikit.model.config import ModelConfig
    from phikit.model.transformer import Transformer

ARCHITECTURE = "phi3"


def save_gguf(
    model: Transformer,
    tokenizer: Tokenizer,
    path: Path,
    *,
    ftype: str = "f16",
    name: str = "phikit",
) -> None:
    """Writes `path` atomically in a type of `quantize/types.py`. Norms stay fp32 in every type, as llama.cpp
    wants them. Raises ValueError where the tokenizer does not fit the network or llama.cpp, where rows are no
    multiples of a type's blocks, or where a weight is beyond the range of f16."""
    type_ = file_type(ftype)
    write_rows(path, of_model(model), type_, phi3_keys(model.config, tokenizer, type_, name))


def write_rows(
    path: Path,
    rows: Sequence[Rows],
    type_: FileType,
    keys: Callable[[GGUFWriter], None],
    *,
    architecture: str = ARCHITECTURE,
    threads: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, GGMLQuantizationType]:
    """Writes all tensors in `type_` and its mix; returns the block type of each. The memory is that of the
    rows in hand. Raises ValueError naming the tensor."""
    blocks = mix({r.name: r.shape for r in rows}, type_)
    tensors = [
        Planned(r.name, r.shape, blocks[r.name], _pieces(r, blocks[r.name], threads, say)) for r in rows
    ]
    write_gguf(path, architecture, keys, tensors)
    return blocks


def _pieces(
    rows: Rows, block: GGMLQuantizationType, threads: int, say: Callable[[str], None]
) -> Callable[[], Iterator[np.ndarray]]:
    def piece(first: int, last: int) -> np.ndarray:
        try:
            return encode(rows.read(first, last), block)
        except ValueError as e:
            raise ValueError(f"{rows.name}: {e}") from e

    def pieces() -> Iterator[np.ndarray]:
        say(f"{rows.name}  {list(rows.shape)}  {block.name}")
        if threads == 1:
            yield from (piece(*r) for r in rows.ranges())
            return
        with ThreadPoolExecutor(threads) as pool:  # numpy lets other threads run while it computes
            ahead: deque[Future[np.ndarray]] = deque()
            for r in rows.ranges():
                ahead.append(pool.submit(piece, *r))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    return pieces


def phi3_keys(
    config: ModelConfig, tokenizer: Tokenizer, type_: FileType, name: str
) -> Callable[[GGUFWriter], None]:
    """Writes the key-value pairs of a network and its tokenizer. Raises ValueError where the two do not
    fit."""

    def keys(writer: GGUFWriter) -> None:
        _shape(writer, config, type_, name)
        add_vocabulary(writer, tokenizer, config.vocab)

    return keys


def copied_keys(source: Path, type_: FileType) -> Callable[[GGUFWriter], None]:
    """Copies the key-value pairs of another GGUF, which has been checked, but for its type."""

    def keys(writer: GGUFWriter) -> None:
        from gguf import GGUFReader

        reader = GGUFReader(source)
        skip = {"general.architecture", "general.file_type", "general.quantization_version"}
        for key, field in reader.fields.items():
            if key not in skip and not key.startswith("GGUF."):
                writer.add_key_value(key, field.contents(), field.types[0], *field.types[1:2])
        _add_type(writer, type_)

    return keys


def _add_type(writer: GGUFWriter, type_: FileType) -> None:
    from gguf.constants import GGML_QUANT_VERSION

    writer.add_file_type(file_type_number(type_))
    if type_ in QUANTIZED:
        writer.add_quantization_version(GGML_QUANT_VERSION)


def _shape(writer: GGUFWriter, c: ModelConfig, type_: FileType, name: str) -> None:
    writer.add_type("model")
    writer.add_name(name)
    _add_type(writer, type_)
    writer.add_vocab_size(c.vocab)
    writer.add_context_length(c.context)
    writer.add_rope_scaling_orig_ctx_len(c.context)
    writer.add_embedding_length(c.width)
    writer.add_feed_forward_length(c.ffn)
    writer.add_block_count(c.layers)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_sliding_window(0)  # absent, llama.cpp takes the model for a Phi-3 with a window
