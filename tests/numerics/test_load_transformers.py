"""Folders that transformers itself writes, random shapes of both classes, give its logits to 1e-5."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from phikit.model.load import load_model

CLASSES = {"phi3": (Phi3Config, Phi3ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}


def shape(seed: int) -> dict:
    """A random small shape: head counts with and without groups, odd vocabularies and widths, both ties."""
    rng = random.Random(seed)
    kv = rng.choice((1, 2, 3))
    heads = kv * rng.choice((1, 2, 4))
    return {
        "vocab_size": rng.randint(40, 400), "hidden_size": heads * rng.choice((8, 16, 24)),
        "intermediate_size": rng.randint(16, 200), "num_hidden_layers": rng.randint(1, 4),
        "num_attention_heads": heads, "num_key_value_heads": kv, "max_position_embeddings": 128,
        "original_max_position_embeddings": 128, "rms_norm_eps": rng.choice((1e-6, 1e-5)),
        "rope_theta": rng.choice((10_000.0, 250_000.0)), "tie_word_embeddings": rng.random() < 0.5,
        "sliding_window": None, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def save(folder: Path, kind: str, seed: int, dtype=torch.float32) -> torch.nn.Module:
    config_class, model_class = CLASSES[kind]
    torch.manual_seed(seed)
    reference = model_class(config_class(**shape(seed))).eval()
    with torch.no_grad():
        for p in reference.parameters():
            # Larger than a fresh network's, norms uneven: an error in any of them shows.
            p.mul_(4.0) if p.ndim == 2 else p.normal_(1.0, 0.3)
    reference = reference.to(dtype)
    reference.save_pretrained(folder, max_shard_size="60KB" if seed % 2 else "1GB")
    return reference


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", CLASSES)
def test_logits_equal_transformers(tmp_path, kind, seed):
    reference = save(tmp_path, kind, seed)
    model, config = load_model(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) >= 1
    tokens = torch.randint(0, config.vocab, (2, 100), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        theirs = reference(tokens).logits
        ours = model(tokens, torch.arange(100).expand(2, 100), None) @ model.head_weight.T
    assert theirs.abs().max() > 0.5
    assert (ours - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_are_the_same_weights_in_fp32(tmp_path, dtype):
    save(tmp_path, "llama", 3, dtype)
    reference = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    model, config = load_model(tmp_path)
    tokens = torch.randint(0, config.vocab, (1, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = reference(tokens).logits
        ours = model(tokens, torch.arange(64)[None], None) @ model.head_weight.T
    assert (ours - theirs).abs().max() <= 1e-5


def test_shapes_cover_what_they_should():
    shapes = [shape(seed) for seed in range(8)]
    assert {s["tie_word_embeddings"] for s in shapes} == {True, False}
    groups = {s["num_attention_heads"] // s["num_key_value_heads"] for s in shapes}
    assert groups == {1, 2, 4}
    assert {s["rope_theta"] for s in shapes} == {10_000.0, 250_000.0}
