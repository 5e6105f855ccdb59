"""Which block type each tensor of a GGUF gets, and the blocks themselves.

The mix rules are those with which the published Phi-4 files were made: Q4_K_M has 101 tensors of Q4_K, 40 of
Q5_K, 21 of Q6_K and 81 norms in fp32 (facts section 1.8; tests/unit/test_model_quantize.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
from gguf import GGMLQuantizationType as Block
from gguf import LlamaFileType, quants

from phikit.model.quantize.kquants import q4_k, q5_k, q6_k

FileType = Literal["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"]
FILE_TYPES: tuple[FileType, ...] = get_args(FileType)
QUANTIZED = FILE_TYPES[3:]
K_ROW = 256  # weights of a K-quant block, which lies within a row
_BASE = {"Q5_K_M": Block.Q5_K, "Q4_K_M": Block.Q4_K}  # the others are called as their block
_K_QUANTS: dict[Block, Callable[[np.ndarray], np.ndarray]] = {
    Block.Q4_K: q4_k, Block.Q5_K: q5_k, Block.Q6_K: q6_k,
}  # fmt: skip
_LARGEST = 65504.0  # of fp16, which also holds the factors of a block
_LAYER = re.compile(r"blk\.(\d+)\.(.+)")


def file_type(name: str) -> FileType:
    """A type by its name in any case. Raises ValueError that lists them."""
    if name.upper() not in FILE_TYPES:
        raise ValueError(f"no GGUF type {name!r} is written here: {', '.join(FILE_TYPES)}")
    return name.upper()  # type: ignore[return-value]


def file_type_number(type_: FileType) -> LlamaFileType:
    """The value of `general.file_type`."""
    return LlamaFileType["ALL_F32" if type_ == "F32" else f"MOSTLY_{type_}"]


def mix(tensors: Mapping[str, tuple[int, ...]], type_: FileType) -> dict[str, Block]:
    """GGUF name -> block type, from the names and shapes (rows first) of a whole network. Raises ValueError
    naming the tensor where its rows cannot be cut into blocks."""
    layers = 1 + max((int(m[1]) for t in tensors if (m := _LAYER.match(t))), default=-1)
    tied = "output.weight" not in tensors
    return {name: _one(name, shape, type_, layers, tied) for name, shape in tensors.items()}


def _one(name: str, shape: tuple[int, ...], type_: FileType, layers: int, tied: bool) -> Block:
    width = shape[-1]
    if len(shape) < 2 or name.endswith("_norm.weight") or not name.endswith(".weight"):
        return Block.F32  # llama.cpp wants norms in fp32
    block = _BASE.get(type_) or Block[type_]
    if type_ in QUANTIZED and (name == "output.weight" or (tied and name == "token_embd.weight")):
        if type_ != "Q8_0":  # the head decides every token: six bits at least
            block = Block.Q6_K if type_ != "Q4_0" or width % K_ROW == 0 else Block.Q8_0
    elif (found := _LAYER.match(name)) and type_ in ("Q4_K_M", "Q5_K_M"):
        part = found[2]
        if part == "attn_qkv.weight":
            block = Block.Q5_K if type_ == "Q4_K_M" else Block.Q6_K
        elif part in ("attn_v.weight", "ffn_down.weight") and _sensitive(int(found[1]), layers):
            block = Block.Q6_K
    size = K_ROW if block in _K_QUANTS else 32 if type_ in QUANTIZED else 1
    if width % size:
        what = "K-quants" if size == K_ROW else "blocks"
        fix = "use Q8_0 or Q4_0" if size == K_ROW and width % 32 == 0 else "use F16 or BF16"
        raise ValueError(
            f"tensor {name!r} has rows of {width} weights, and {type_} would store it as {block.name}: {what} "
            f"hold {size} weights of one row, so that rows must be multiples of {size}: {fix}"
        )
    return block


def _sensitive(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def encode(weights: np.ndarray, block: Block) -> np.ndarray:
    """fp32 weights [rows, width] as the bytes of a block type, row after row. Raises ValueError where a weight
    is not finite or beyond the range of the type."""
    weights = np.ascontiguousarray(weights, np.float32)
    most = float(np.abs(weights).max(initial=0.0))
    if not most <= (np.finfo(np.float32).max if block in (Block.F32, Block.BF16) else _LARGEST):  # nan, too
        kind = block.name.lower() if block == Block.F16 else block.name
        raise ValueError(
            f"a weight is beyond the range of {kind}: export f32 or bf16 (the largest is {most})"
        )
    if block in _K_QUANTS:
        return _K_QUANTS[block](weights.reshape(-1))
    return quants.quantize(weights, block)
