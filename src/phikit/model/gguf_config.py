"""The shape of a network from the keys of a GGUF, architectures phi3 and llama (facts section 1.8).

Every key below the architecture's name is either understood here or refused by name: a key that changes what the
network computes is never ignored.
"""

from __future__ import annotations

from typing import Any

from phikit.model.config import ModelConfig
from phikit.model.gguf_header import GgufHeader
from phikit.model.names import Layout

_SIZES = {  # ours <- key below the architecture
    "width": "embedding_length", "layers": "block_count", "ffn": "feed_forward_length", "context": "context_length",
    "heads": "attention.head_count",
}  # fmt: skip
_UNUSED = {  # facts about the file that do not change the network
    "vocab_size", "rope.scaling.original_context_length", "tensor_data_layout", "attention.layer_norm_epsilon",
    "expert_used_count", "rope.scaling.finetuned", "use_parallel_residual",
}  # fmt: skip
_WORDS = {  # key -> (what it must be where it is there, why)
    "attention.sliding_window": (
        (0,),
        "attention with a sliding window is not supported, only Phi-4's full one",
    ),
    "expert_count": ((0,), "mixtures of experts are not supported"),
    "rope.scaling.type": (("none",), "position scaling (linear, yarn, longrope, llama3) is not supported"),
    "rope.scaling.factor": ((0, 1), "position scaling is not supported"),
    "rope.scaling.attn_factor": ((1,), "scaling of attention with the length (longrope) is not supported"),
    "rope.scale_linear": ((1,), "position scaling is not supported"),
    "attention.causal": ((True,), "attention must be causal"),
}


def config_of(header: GgufHeader) -> tuple[ModelConfig, Layout]:
    """Shape and tensor layout of the model in a checked GGUF. Raises ValueError that names the key."""
    architecture = header.keys.get("general.architecture")
    if architecture not in ("phi3", "llama"):
        raise ValueError(
            f"general.architecture {str(architecture)[:40]!r}: only phi3 and llama become a torch network; "
            "llama.cpp may run it"
        )
    layout: Layout = architecture
    keys = {
        k.removeprefix(f"{architecture}."): v
        for k, v in header.keys.items()
        if k.startswith(f"{architecture}.")
    }
    sizes: dict[str, Any] = {ours: _whole(keys, key, architecture) for ours, key in _SIZES.items()}
    kv = keys.pop("attention.head_count_kv", sizes["heads"])
    if not _is_whole(kv):
        raise ValueError(f"{architecture}.attention.head_count_kv must be one whole number for all layers")
    sizes["norm_eps"] = _number(keys, "attention.layer_norm_rms_epsilon", None, architecture)
    sizes["rope_base"] = _number(keys, "rope.freq_base", 10_000.0, architecture)
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ValueError("the GGUF has no tensor token_embd.weight: it holds no whole model")
    tied = "output.weight" not in header.tensors
    config = ModelConfig(vocab=embedding.shape[0], kv_heads=kv, tied=tied, **sizes)
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        if keys.pop(key, config.head_dim) != config.head_dim:
            what = "partial rotary embeddings are" if key.startswith("rope") else "another size of a head is"
            raise ValueError(
                f"{architecture}.{key} is not {config.head_dim}, width / heads: {what} not supported"
            )
    if layout == "phi3" and "attention.sliding_window" not in keys:
        raise ValueError(
            "phi3.attention.sliding_window is missing: this may be a Phi-3 with a window; Phi-4 files say 0"
        )
    for key, (allowed, why) in _WORDS.items():
        if key in keys and (value := keys.pop(key)) not in allowed:
            raise ValueError(f"{architecture}.{key} = {str(value)[:40]}: {why}")
    if unknown := sorted(set(keys) - _UNUSED):
        raise ValueError(f"{architecture}.{unknown[0]}: this key is not known; the network may need it")
    for name, why in (("rope_factors_long.weight", "longrope"), ("rope_freqs.weight", "llama3 rope scaling")):
        if name in header.tensors:
            raise ValueError(f"tensor {name!r}: {why} is not supported, only the default RoPE")
    return config, layout


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 24


def _whole(keys: dict[str, Any], key: str, architecture: str) -> int:
    value = keys.pop(key, None)
    if not _is_whole(value):
        raise ValueError(f"{architecture}.{key} must be a whole number from 1 on, not {str(value)[:40]}")
    return value


def _number(keys: dict[str, Any], key: str, default: float | None, architecture: str) -> float:
    value = keys.pop(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e30:
        raise ValueError(f"{architecture}.{key} must be a number above 0, not {str(value)[:40]}")
    return float(value)
