"""GGUF in: architectures phi3 and llama as a torch network, dequantized some rows at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from phikit.model.assemble import DTypeName, FileTensor, Place, assemble, mapped, plain
from phikit.model.config import ModelConfig
from phikit.model.gguf_config import config_of
from phikit.model.gguf_header import GgufTensor, read_gguf_header
from phikit.model.names import Layout, table
from phikit.model.transformer import Transformer

_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PIECE = 1 << 18  # weights dequantized at once: the package takes several times their memory
QUANTIZED = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K")


def load_gguf(path: Path, *, dtype: DTypeName = "fp32") -> tuple[Transformer, ModelConfig]:
    """The network of a GGUF in evaluation mode, its weights as the file's types round them. Raises
    FileNotFoundError or ValueError that names the file and the key or tensor."""
    config, layout, tensors = open_gguf(path)
    places = [Place(n.gguf, n.ours) for n in table(config, layout)]
    return assemble(config, places, tensors, dtype=dtype, where=path), config


def open_gguf(path: Path) -> tuple[ModelConfig, Layout, dict[str, FileTensor]]:
    """The shape, the layout and the tensors of a GGUF by name, rows in our order; no weight is read yet. Raises
    as `load_gguf` does."""
    header = read_gguf_header(path)
    try:
        config, layout = config_of(header)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    if config.layers > len(header.tensors):  # keeps a damaged count from building a huge table
        raise ValueError(f"{path}: {config.layers} layers, but {len(header.tensors)} tensors; damaged file")
    tensors = {n: file_tensor(path, t) for n, t in header.tensors.items()}
    if layout == "llama":
        for name, tensor in tensors.items():
            if name.endswith((".attn_q.weight", ".attn_k.weight")):
                tensors[name] = _in_our_order(tensor, config.head_dim)
    return config, layout, tensors


def file_tensor(path: Path, t: GgufTensor) -> FileTensor:
    """A tensor as it lies in the file. Raises ValueError for a type that is not dequantized here."""
    if t.type not in _PLAIN and t.type not in QUANTIZED:
        raise ValueError(
            f"{path}: tensor {t.name!r} is {t.type}; {', '.join((*_PLAIN, *QUANTIZED))} are read"
        )
    row = t.size // t.shape[0]

    def read(a: int, b: int) -> torch.Tensor:
        raw = mapped(path, t.start + a * row, (b - a) * row)
        return _weights(raw, t.type, (b - a, *t.shape[1:]))

    return FileTensor(path, t.type, t.shape, read)


def _in_our_order(tensor: FileTensor, head_dim: int) -> FileTensor:
    if len(tensor.shape) != 2 or tensor.shape[0] % head_dim:
        return tensor  # its shape is refused later, by name

    def read(a: int, b: int) -> torch.Tensor:
        first, last = a // head_dim * head_dim, -(-b // head_dim) * head_dim  # whole heads
        return half_rotation(tensor.read(first, last), head_dim)[a - first : b - first]

    return FileTensor(tensor.file, tensor.stored, tensor.shape, read)


def _weights(raw: np.ndarray, type_: str, shape: tuple[int, ...]) -> torch.Tensor:
    if type_ in _PLAIN:
        return plain(raw, _PLAIN[type_], shape)
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType[type_]
    weights, size = GGML_QUANT_SIZES[kind]
    blocks = np.asarray(raw).reshape(-1, size)
    found = np.empty((len(blocks), weights), np.float32)
    step = PIECE // weights
    for i in range(0, len(blocks), step):
        # As one row: gguf works in groups of 16 rows, and a group costs 0.1 ms.
        with np.errstate(all="ignore"):  # a damaged scale may be no number; the weight is then none, too
            found[i : i + step] = dequantize(blocks[i : i + step].reshape(1, -1), kind).reshape(-1, weights)
    return torch.from_numpy(found).view(shape)


def half_rotation(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of q or k from the order of GGUF arch llama, where the dimensions that rotate together are
    neighbours, to ours, where they are half a head apart. `rows` [heads x H, D] are whole heads."""
    pairs = rows.view(-1, head_dim // 2, 2, rows.shape[-1])
    return pairs.transpose(1, 2).reshape(rows.shape)
