"""Hugging Face folders in and out: Phi3ForCausalLM, the same files and fields as microsoft/phi-4.

Weights are safetensors only: no pickle is ever read. What this network does not compute (long-RoPE, partial
rotary, sliding windows, biases) is refused by its config key, never ignored.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from phikit.model.config import ModelConfig
from phikit.model.names import Name, fused, table
from phikit.model.transformer import Transformer
from phikit.records.io import atomic_path, read_json, write_json
from phikit.text.chat import TEMPLATE, stop_ids
from phikit.text.tokenizer import END_OF_TEXT, IM_END, PAD, Tokenizer

DTypeName = Literal["fp32", "bf16"]
WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SIZES = {  # ours <- config.json
    "vocab": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "ffn": "intermediate_size",
    "heads": "num_attention_heads", "kv_heads": "num_key_value_heads", "context": "max_position_embeddings",
}  # fmt: skip


def save_hf(model: Transformer, tokenizer: Tokenizer, folder: Path, *, dtype: DTypeName = "fp32") -> None:
    """Writes the folder that transformers, vLLM and `load_hf` open. Each file is atomic and config.json is
    the last, so that a killed save leaves no folder that looks whole. Raises ValueError where the tokenizer
    has more ids than the network has rows."""
    from safetensors.torch import save_file

    c = model.config
    if tokenizer.vocab_size > c.vocab:
        raise ValueError(
            f"model.vocab = {c.vocab} is below the tokenizer's {tokenizer.vocab_size} ids: raise it"
        )
    (folder / CONFIG).unlink(missing_ok=True)
    tensors = {n.hf: t.to("cpu", _DTYPES[dtype]).contiguous() for n, t in fused(model)}
    tokenizer.save(folder / "tokenizer.json")
    with atomic_path(folder / WEIGHTS) as tmp:
        save_file(tensors, tmp, metadata={"format": "pt"})
        shutil.copymode(
            folder / "tokenizer.json", tmp
        )  # safetensors writes files that only their owner may read
    write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer, c.context))
    write_json(folder / "special_tokens_map.json", _SPECIAL_ROLES)
    ids = {"bos_token_id": tokenizer.end_of_text, "pad_token_id": tokenizer.pad}
    write_json(folder / "generation_config.json", {**ids, "eos_token_id": list(stop_ids(tokenizer))})
    config = {**to_hf_config(c), **ids, "eos_token_id": tokenizer.im_end}
    write_json(folder / CONFIG, {**config, "dtype": str(_DTYPES[dtype]).removeprefix("torch.")})


def load_hf(folder: Path, *, dtype: DTypeName = "fp32") -> tuple[Transformer, ModelConfig]:
    """The network of a Phi3 folder, one safetensors file or several with an index, in evaluation mode and
    with parameters of `dtype`. Raises FileNotFoundError or ValueError that names the file and the key or
    tensor."""
    config = read_config(folder)
    size = sum(f.stat().st_size for f in _files(folder))
    if config.parameters > size:  # also keeps a damaged config.json from asking for all memory
        raise ValueError(
            f"{folder}: config.json means {config.parameters:,} parameters, the files are {size:,} bytes"
        )
    with torch.device("meta"):
        model = Transformer(config)
    model.to_empty(device="cpu").to(_DTYPES[dtype])
    parameters = dict(model.named_parameters())
    names = {n.hf: n for n in table(config)}
    missing = set(names)
    tied_head = None
    for file, key, tensor in _tensors(folder):
        if key.endswith("rotary_emb.inv_freq"):  # old files hold this constant
            continue
        if config.tied and key == "lm_head.weight":
            tied_head = tensor
            continue
        if key not in names:
            raise ValueError(
                f"{file}: tensor {key!r} has no place in a Phi3 network of {config.layers} layers"
            )
        if key not in missing:
            raise ValueError(f"{file}: tensor {key!r} is in two files")
        _fill(file, names[key], tensor, parameters)
        missing.remove(key)
    if missing:
        raise ValueError(f"{folder}: {len(missing)} tensors are missing, such as {sorted(missing)[0]!r}")
    if tied_head is not None and not torch.equal(tied_head.to(_DTYPES[dtype]), model.embed.weight):
        raise ValueError(
            f"{folder}: lm_head.weight differs from the embedding although tie_word_embeddings is true"
        )
    return model.eval(), config


def read_config(folder: Path) -> ModelConfig:
    """The shape that config.json states, checked. Raises FileNotFoundError or ValueError naming the key."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no config.json; give a Hugging Face folder")
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected an object")
    _refuse(path, raw)
    sizes: dict[str, Any] = {}
    for ours, key in _SIZES.items():
        value = raw.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 24:
            raise ValueError(f"{path}: {key} must be a whole number from 1 on, not {value!r}")
        sizes[ours] = value
    rope = _mapping(path, raw, "rope_parameters") | _mapping(path, raw, "rope_scaling")
    for ours, key, value in (
        ("rope_base", "rope_theta", raw.get("rope_theta", rope.get("rope_theta", 10_000.0))),
        ("norm_eps", "rms_norm_eps", raw.get("rms_norm_eps", 1e-5)),
        ("init_std", "initializer_range", raw.get("initializer_range", 0.02)),
    ):
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise ValueError(f"{path}: {key} must be a number above 0, not {value!r}")
        sizes[ours] = float(value)
    try:
        config = ModelConfig(**sizes, tied=bool(raw.get("tie_word_embeddings", False)))
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    if raw.get("head_dim") not in (None, config.head_dim):
        raise ValueError(f"{path}: head_dim {raw['head_dim']} is not hidden_size / num_attention_heads")
    return config


def to_hf_config(c: ModelConfig) -> dict[str, Any]:
    """config.json of the shape alone (facts section 1.2); token ids and dtype are added on saving. The RoPE
    base stands twice: transformers 5 reads rope_parameters, older ones and most servers rope_theta."""
    return {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu", "use_cache": True,
        **{key: getattr(c, ours) for ours, key in _SIZES.items()},
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


def _refuse(path: Path, raw: Mapping[str, Any]) -> None:
    """Raises ValueError for what config.json asks and this network does not compute."""

    def no(key: str, why: str) -> ValueError:
        return ValueError(f"{path}: {key} = {json.dumps(raw.get(key))[:80]}: {why}")

    if raw.get("model_type") != "phi3":
        raise no("model_type", "only phi3 (Phi3ForCausalLM, fused qkv_proj and gate_up_proj) is known")
    for key in ("rope_scaling", "rope_parameters"):
        value = _mapping(path, raw, key)
        kind = value.get("rope_type", value.get("type", "default"))
        if kind != "default":
            raise no(key, f"{kind} position scaling is not supported, only the default RoPE of Phi-4")
        if value.get("partial_rotary_factor", 1.0) != 1.0:
            raise no(key, "partial_rotary_factor must be 1: all dimensions of a head rotate")
    if raw.get("partial_rotary_factor", 1.0) != 1.0:
        raise no("partial_rotary_factor", "must be 1: all dimensions of a head rotate")
    if raw.get("sliding_window") is not None:
        raise no("sliding_window", "must be null: attention is full, as in Phi-4")
    if raw.get("hidden_act", "silu") != "silu":
        raise no("hidden_act", "must be silu")
    if raw.get("attention_bias") or raw.get("mlp_bias"):
        raise no("attention_bias" if raw.get("attention_bias") else "mlp_bias", "biases are not supported")
    if raw.get("quantization_config") is not None:
        raise no("quantization_config", "quantized weights are not supported: use the bf16 model or a GGUF")


def _mapping(path: Path, raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{path}: {key} must be an object or null, not {value!r}")
    return value or {}


def _tensors(folder: Path) -> Iterator[tuple[Path, str, torch.Tensor]]:
    """(file, name, tensor), one tensor in memory at a time."""
    from safetensors import SafetensorError, safe_open

    for file in _files(folder):
        try:
            with safe_open(file, framework="pt") as f:
                for key in f.keys():  # noqa: SIM118 (not a mapping)
                    yield file, key, f.get_tensor(key)
        except SafetensorError as e:
            raise ValueError(f"{file}: not a readable safetensors file ({e}); fetch it again") from e


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        raise FileNotFoundError(
            f"{folder}: neither {WEIGHTS} nor {INDEX} (pickle files such as .bin are not read)"
        )
    raw = read_json(index)
    places = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(v, str) for v in places.values()):
        raise ValueError(f"{index}: no weight_map of tensor names to files")
    names = sorted(set(places.values()))
    if wrong := [n for n in names if Path(n).name != n or not n.endswith(".safetensors")]:
        raise ValueError(f"{index}: weight_map names {wrong[0]!r}, not a .safetensors file of this folder")
    files = [folder / n for n in names]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file}: named in {INDEX} but not there; fetch it")
    return files


def _fill(file: Path, name: Name, tensor: torch.Tensor, parameters: Mapping[str, torch.Tensor]) -> None:
    targets = [parameters[o] for o in name.ours]
    rows = [t.shape[0] for t in targets]
    shape = (sum(rows), *targets[0].shape[1:])
    if tuple(tensor.shape) != shape or not tensor.is_floating_point():
        raise ValueError(
            f"{file}: tensor {name.hf!r} is {tensor.dtype} {tuple(tensor.shape)}; config.json says {shape}"
        )
    with torch.no_grad():
        for target, part in zip(targets, tensor.split(rows)):
            target.copy_(part)
