"""Hugging Face folders in the form of another one: its layout, its config.json, its tokenizer files.

What a recipe makes of somebody's own model stays that model for transformers, vLLM and the rest: a Llama stays
LlamaForCausalLM, with its own vocabulary and chat template.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phikit.model.assemble import DTypeName
from phikit.model.config import ModelConfig
from phikit.model.hf import TYPES, to_hf_config, write_tensors
from phikit.model.hf_config import CONFIG, SIZES, read_layout, read_object
from phikit.model.names import Layout
from phikit.model.rows import of_model
from phikit.model.transformer import Transformer
from phikit.records.io import write_json

# All that tokenizers and chat need; weights are never copied.
COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "generation_config.json", "chat_template.jinja",
)  # fmt: skip


def save_like(model: Transformer, like: Path, folder: Path, *, dtype: DTypeName = "fp32") -> None:
    """Writes `model` as `like` is written. Files are atomic or copies, config.json the last. Raises ValueError that
    names the file of `like`."""
    raw = read_object(like / CONFIG)
    folder.mkdir(parents=True, exist_ok=True)
    copy_companions(like, folder)
    write_network(model, folder, read_layout(like), raw, dtype=dtype)


def copy_companions(like: Path, folder: Path) -> None:
    for name in COMPANIONS:
        if (like / name).is_file():
            shutil.copyfile(like / name, folder / name)


def write_network(
    model: Transformer, folder: Path, layout: Layout, raw: Mapping[str, Any], *, dtype: DTypeName
) -> None:
    """The tensors, then config.json: the keys of `raw` with the network's own shape and type."""
    (folder / CONFIG).unlink(missing_ok=True)
    write_tensors(folder, of_model(model, layout), model.config, layout, dtype)
    ours = {**config_of(model.config, layout), "dtype": TYPES[dtype][1]}
    old = {
        k: v
        for k, v in raw.items()
        if k not in ("torch_dtype", "rope_theta", "rope_parameters", "rope_scaling")
    }
    write_json(folder / CONFIG, {**old, **ours})


def config_of(config: ModelConfig, layout: Layout) -> dict[str, Any]:
    """config.json of a shape in a layout."""
    if layout == "phi3":
        return to_hf_config(config)
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        **{key: getattr(config, ours) for ours, key in SIZES.items()}, "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base, "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "tie_word_embeddings": config.tied, "attention_bias": False, "mlp_bias": False,
        "initializer_range": config.init_std,
    }  # fmt: skip
