"""A network as a GGUF file of either architecture, written here with the `gguf` package alone, for tests of what
reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Block
from gguf import GGUFValueType, GGUFWriter, quants

from phikit.model.names import table
from phikit.model.quantize.types import encode
from phikit.model.transformer import Transformer

SHAPE = {
    "context_length": "context", "embedding_length": "width", "block_count": "layers",
    "feed_forward_length": "ffn", "attention.head_count": "heads", "attention.head_count_kv": "kv_heads",
    "rope.dimension_count": "head_dim", "vocab_size": "vocab",
}  # fmt: skip


def interleaved(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """What llama.cpp's converter does with the rows of q and k for architecture llama."""
    halves = rows.reshape(-1, 2, head_dim // 2, rows.shape[-1])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def write(
    path: Path,
    model: Transformer,
    architecture: str,
    block: Block = Block.F32,
    keys: Mapping[str, Any] = {},
    more: Mapping[str, np.ndarray] = {},
) -> dict[str, np.ndarray]:
    """Writes `path`; returns its tensors as the file rounds them. In `keys` None leaves one out; a name that
    begins with a dot stands below the architecture."""
    c = model.config
    values: dict[str, Any] = {f".{k}": getattr(c, ours) for k, ours in SHAPE.items()}
    values |= {".attention.layer_norm_rms_epsilon": c.norm_eps, ".rope.freq_base": c.rope_base}
    values |= {".attention.sliding_window": 0} if architecture == "phi3" else {}
    values |= keys
    parameters = {n: p.detach().numpy() for n, p in model.named_parameters()}
    writer = GGUFWriter(path, values.pop("general.architecture", architecture))
    for key, value in values.items():
        name = architecture + key if key.startswith(".") else key
        if isinstance(value, list):
            writer.add_array(name, value)
        elif value is not None:
            kind = {bool: GGUFValueType.BOOL, int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32}
            writer.add_key_value(name, value, kind.get(type(value), GGUFValueType.STRING))
    rounded = {}
    for name in table(c, architecture):  # type: ignore[arg-type]
        tensor = np.concatenate([parameters[o] for o in name.ours])
        if architecture == "llama" and name.gguf.endswith((".attn_q.weight", ".attn_k.weight")):
            tensor = interleaved(tensor, c.head_dim)
        kind = block if tensor.ndim > 1 else Block.F32
        raw = encode(tensor, kind).reshape(len(tensor), -1) if kind != Block.F32 else tensor
        writer.add_tensor(name.gguf, raw, raw_dtype=kind)
        rounded[name.gguf] = quants.dequantize(np.ascontiguousarray(raw).view(np.uint8), kind).reshape(
            tensor.shape
        )
    for name, tensor in more.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return rounded
