"""Hugging Face folders out: Phi3ForCausalLM, the same files and fields as microsoft/phi-4."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType

from phikit.model.assemble import DTypeName
from phikit.model.config import ModelConfig
from phikit.model.hf_config import CONFIG, SIZES
from phikit.model.names import Layout, table
from phikit.model.quantize.types import encode
from phikit.model.rows import Rows, of_model
from phikit.model.safetensors_stream import PlannedTensor, write_shards
from phikit.model.transformer import Transformer
from phikit.records.io import write_json
from phikit.text.chat import TEMPLATE, stop_ids
from phikit.text.tokenizer import END_OF_TEXT, IM_END, PAD, Tokenizer

TYPES = {"fp32": ("F32", "float32"), "bf16": ("BF16", "bfloat16")}  # in safetensors, in config.json


def save_hf(model: Transformer, tokenizer: Tokenizer, folder: Path, *, dtype: DTypeName = "fp32") -> None:
    """Writes the folder that transformers, vLLM and `load_hf` open. Each file is atomic and config.json is
    the last, so that a killed save leaves no folder that looks whole. Raises ValueError where the tokenizer
    has more ids than the network has rows."""
    write_folder(folder, of_model(model), model.config, tokenizer, dtype=dtype)


def write_folder(
    folder: Path, rows: Sequence[Rows], config: ModelConfig, tokenizer: Tokenizer, *, dtype: DTypeName
) -> None:
    """`save_hf` of tensors that are read piece by piece (layout phi3)."""
    c = config
    if tokenizer.vocab_size > c.vocab:
        raise ValueError(
            f"model.vocab = {c.vocab} is below the tokenizer's {tokenizer.vocab_size} ids: raise it"
        )
    spelled = TYPES[dtype][1]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    tokenizer.save(folder / "tokenizer.json")
    write_tensors(folder, rows, c, "phi3", dtype)
    write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer, c.context))
    write_json(folder / "special_tokens_map.json", _SPECIAL_ROLES)
    ids = {"bos_token_id": tokenizer.end_of_text, "pad_token_id": tokenizer.pad}
    write_json(folder / "generation_config.json", {**ids, "eos_token_id": list(stop_ids(tokenizer))})
    write_json(
        folder / CONFIG, {**to_hf_config(c), **ids, "eos_token_id": tokenizer.im_end, "dtype": spelled}
    )


def write_tensors(
    folder: Path, rows: Sequence[Rows], config: ModelConfig, layout: Layout, dtype: DTypeName
) -> None:
    """The safetensors files of tensors in `layout`, in place of those that are there."""
    kind = TYPES[dtype][0]
    hf = {n.gguf: n.hf for n in table(config, layout)}
    write_shards(folder, [PlannedTensor(hf[r.name], kind, r.shape, _pieces(r, kind)) for r in rows])


def _pieces(rows: Rows, kind: str) -> Callable[[], Iterator[np.ndarray]]:
    block = GGMLQuantizationType[kind]
    return lambda: (encode(rows.read(a, b), block) for a, b in rows.ranges())


def to_hf_config(c: ModelConfig) -> dict[str, Any]:
    """config.json of the shape alone (facts section 1.2); token ids and dtype are added on saving. The RoPE
    base stands twice: transformers 5 reads rope_parameters, older ones and most servers rope_theta."""
    return {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu", "use_cache": True,
        **{key: getattr(c, ours) for ours, key in SIZES.items()},
        "original_max_position_embeddings": c.context, "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_base, "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_base, "partial_rotary_factor": 1.0},
        "sliding_window": None, "tie_word_embeddings": c.tied, "attention_bias": False,
        "attention_dropout": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "initializer_range": c.init_std,
    }  # fmt: skip


_SPECIAL_ROLES = {"bos_token": END_OF_TEXT, "eos_token": IM_END, "pad_token": PAD, "unk_token": END_OF_TEXT}


def _tokenizer_config(tokenizer: Tokenizer, context: int) -> dict[str, Any]:
    # The class microsoft/phi-4 names; llama.cpp's converter asks for it. tokenizer.json has the pre-split.
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    added = {str(i): {"content": t, **flags} for t, i in tokenizer.special_ids.items()}
    return {
        "tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": added, **_SPECIAL_ROLES,
        "add_prefix_space": False, "clean_up_tokenization_spaces": False, "model_max_length": context,
        "chat_template": TEMPLATE,
    }  # fmt: skip
