"""config.json of a Hugging Face folder in: the shape, checked, for model types phi3 and llama. What this network
does not compute (long-RoPE, partial rotary, sliding windows, biases) is refused by its key, never ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phikit.model.config import ModelConfig
from phikit.model.names import Layout
from phikit.records.io import read_json

CONFIG = "config.json"
MAX_JSON = 1 << 24  # bytes; an index of Phi-4 takes 20 kB
SIZES = {  # ours <- config.json
    "vocab": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "ffn": "intermediate_size",
    "heads": "num_attention_heads", "kv_heads": "num_key_value_heads", "context": "max_position_embeddings",
}  # fmt: skip


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of bounded size. Raises ValueError that names the file."""
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path}: {path.stat().st_size:,} bytes are too many; {MAX_JSON:,} are the most")
    try:
        raw = read_json(path)
    except RecursionError as e:
        raise ValueError(f"{path}: nested too deeply") from e
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected an object")
    return raw


def read_layout(folder: Path) -> Layout:
    """How the folder names its tensors. Raises as `read_config` does."""
    return _read(folder)["model_type"]


def read_config(folder: Path) -> ModelConfig:
    """The shape that config.json states, checked. Raises FileNotFoundError or ValueError naming the key."""
    path, raw = folder / CONFIG, _read(folder)
    llama = raw["model_type"] == "llama"
    if llama and raw.get("num_key_value_heads") is None:
        raw["num_key_value_heads"] = raw.get("num_attention_heads")  # old files: one for each query head
    sizes: dict[str, Any] = {}
    for ours, key in SIZES.items():
        value = raw.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 24:
            raise ValueError(f"{path}: {key} must be a whole number from 1 on, not {str(value)[:40]!r}")
        sizes[ours] = value
    for ours, key, value in (
        ("rope_base", "rope_theta", _rope_base(path, raw)),
        ("norm_eps", "rms_norm_eps", raw.get("rms_norm_eps", 1e-6 if llama else 1e-5)),
        ("init_std", "initializer_range", raw.get("initializer_range", 0.02)),
    ):
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e30:
            raise ValueError(f"{path}: {key} must be a number above 0, not {str(value)[:40]!r}")
        sizes[ours] = float(value)
    try:
        config = ModelConfig(**sizes, tied=bool(raw.get("tie_word_embeddings", False)))
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    if raw.get("head_dim") not in (None, config.head_dim):
        raise ValueError(
            f"{path}: head_dim {str(raw['head_dim'])[:40]} is not hidden_size / num_attention_heads"
        )
    return config


def _rope_base(path: Path, raw: Mapping[str, Any]) -> Any:
    """The base stands in one place or, equal, in two: transformers 5 writes rope_parameters."""
    rope = _mapping(path, raw, "rope_scaling") | _mapping(path, raw, "rope_parameters")
    bases = [m["rope_theta"] for m in (raw, rope) if m.get("rope_theta") is not None]
    if len(bases) == 2 and bases[0] != bases[1]:
        raise ValueError(
            f"{path}: rope_theta is {str(bases[0])[:40]} and in rope_parameters {str(bases[1])[:40]}"
        )
    return bases[0] if bases else 10_000.0


def _read(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no config.json; give a Hugging Face folder")
    raw = read_object(path)
    _refuse(path, raw)
    return raw


def _refuse(path: Path, raw: Mapping[str, Any]) -> None:
    """Raises ValueError for what config.json asks and this network does not compute."""

    def no(key: str, why: str) -> ValueError:
        return ValueError(f"{path}: {key} = {json.dumps(raw.get(key))[:80]}: {why}")

    if raw.get("model_type") not in ("phi3", "llama"):
        raise no("model_type", "only phi3 (Phi3ForCausalLM) and llama (LlamaForCausalLM) are known")
    for key in ("rope_scaling", "rope_parameters"):
        value = _mapping(path, raw, key)
        kind = value.get("rope_type", value.get("type", "default"))
        if kind != "default":
            raise no(
                key, f"{str(kind)[:40]} position scaling is not supported, only the default RoPE of Phi-4"
            )
        if value.get("partial_rotary_factor", 1.0) != 1.0:
            raise no(key, "partial_rotary_factor must be 1: all dimensions of a head rotate")
    if raw.get("partial_rotary_factor", 1.0) != 1.0:
        raise no("partial_rotary_factor", "must be 1: all dimensions of a head rotate")
    if raw.get("sliding_window") is not None:
        raise no("sliding_window", "must be null: attention is full, as in Phi-4")
    if raw.get("hidden_act", "silu") != "silu":
        raise no("hidden_act", "must be silu")
    if raw.get("rope_interleaved"):
        raise no("rope_interleaved", "must be false: the halves of a head rotate together")
    for key in ("attention_bias", "mlp_bias"):
        if raw.get(key):
            raise no(key, "biases are not supported")
    if raw.get("quantization_config") is not None:
        raise no("quantization_config", "quantized weights are not supported: use the bf16 model or a GGUF")


def _mapping(path: Path, raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{path}: {key} must be an object or null, not {value!r}")
    return value or {}
