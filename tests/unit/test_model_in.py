"""Weights in: Hugging Face folders of both layouts, GGUF of both architectures, and how little memory it takes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, dequantize
from gguf import GGMLQuantizationType as Block
from gguf_network import interleaved, write

from phikit.model.config import ModelConfig
from phikit.model.gguf_read import _weights, half_rotation, load_gguf
from phikit.model.hf_config import read_config, read_layout
from phikit.model.hf_read import load_hf
from phikit.model.load import load_model
from phikit.model.names import table
from phikit.model.transformer import Transformer, build
from phikit.records.io import write_json

SMALL = ModelConfig(320, 64, 2, 4, 2, 160, 256, rope_base=250_000.0)
WIDE = ModelConfig(64, 256, 1, 4, 2, 512, 64, rope_base=500_000.0)  # rows that K-quants can cut


def network(config: ModelConfig, seed: int = 0) -> Transformer:
    model = build(config, seed)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.normal_(1.0, 0.3, generator=g)
    return model


def save_llama(model: Transformer, folder: Path, shards: int = 1, **keys) -> None:
    """A LlamaForCausalLM folder as others write them."""
    from safetensors.torch import save_file

    c = model.config
    folder.mkdir()
    parameters = dict(model.named_parameters())
    tensors = {n.hf: parameters[n.ours[0]].detach().clone() for n in table(c, "llama")}
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
    else:
        files = [f"model-{i:05}-of-{shards:05}.safetensors" for i in range(1, shards + 1)]
        for i, file in enumerate(files):
            save_file({n: tensors[n] for n in names[i::shards]}, folder / file)
        places = {n: files[i % shards] for i, n in enumerate(names)}
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": c.width, "vocab_size": c.vocab,
        "num_hidden_layers": c.layers, "intermediate_size": c.ffn, "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads, "max_position_embeddings": c.context, "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_base, "tie_word_embeddings": c.tied, "hidden_act": "silu", "rope_scaling": None,
        "attention_bias": False, "mlp_bias": False, "head_dim": c.head_dim, "pretraining_tp": 1,
    }  # fmt: skip
    write_json(folder / "config.json", {**config, **keys})


def same(a: Transformer, b: Transformer) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


# -- folders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_a_split_folder_is_the_same_network(tmp_path, tied, shards):
    config = ModelConfig(320, 64, 2, 4, 2, 160, 256, rope_base=250_000.0, tied=tied)
    model = network(config)
    save_llama(model, tmp_path / "m", shards)
    loaded, found = load_model(tmp_path / "m")
    assert found == config
    assert read_layout(tmp_path / "m") == "llama"
    assert same(loaded, model)
    assert not loaded.training
    assert all(p.dtype == torch.bfloat16 for p in load_model(tmp_path / "m", dtype="bf16")[0].parameters())


def test_defaults_of_old_llama_folders(tmp_path):
    save_llama(network(SMALL), tmp_path / "m", num_key_value_heads=4, rms_norm_eps=None)
    path = tmp_path / "m" / "config.json"
    raw = json.loads(path.read_text())
    for key in ("rms_norm_eps", "num_key_value_heads", "rope_theta", "head_dim"):
        del raw[key]
    write_json(path, raw)
    config = read_config(tmp_path / "m")
    assert (config.norm_eps, config.kv_heads, config.rope_base) == (1e-6, 4, 10_000.0)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "llama3 position scaling"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "linear position scaling"),
        ({"attention_bias": True}, "attention_bias = true: biases"),
        ({"mlp_bias": True}, "mlp_bias = true: biases"),
        ({"head_dim": 32}, "head_dim 32 is not hidden_size"),
        ({"rope_interleaved": True}, "rope_interleaved"),
        ({"sliding_window": 64}, "sliding_window"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"rope_parameters": {"rope_theta": 7.0}}, "rope_theta is 250000.0 and in rope_parameters 7.0"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps must be a number"),
        ({"model_type": "phi3"}, "tensors are missing, such as .*gate_up_proj"),
        ({"tie_word_embeddings": True}, "lm_head.weight differs from the embedding"),
        ({"num_hidden_layers": 3}, "tensors are missing, such as 'model.layers.2"),
    ],
)
def test_what_a_split_folder_may_not_ask(tmp_path, keys, words):
    save_llama(network(SMALL), tmp_path / "m", **keys)
    with pytest.raises(ValueError, match=words):
        load_hf(tmp_path / "m")


def test_biases_and_doubled_tensors_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    save_llama(network(SMALL), tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "model.layers.0.self_attn.q_proj.bias": torch.ones(64)}, path)
    with pytest.raises(ValueError, match=r"'model\.layers\.0\.self_attn\.q_proj\.bias' has no place"):
        load_hf(tmp_path / "m")
    save_file({**tensors, "model.norm.weight": torch.ones(64, dtype=torch.int64)}, path)
    with pytest.raises(ValueError, match=r"'model\.norm\.weight' is I64"):
        load_hf(tmp_path / "m")
    path.unlink()
    save_file(tensors, tmp_path / "m" / "a.safetensors")
    save_file({"model.norm.weight": tensors["model.norm.weight"]}, tmp_path / "m" / "b.safetensors")
    places = {**dict.fromkeys(tensors, "a.safetensors"), "model.norm.weight": "b.safetensors"}
    write_json(tmp_path / "m" / "model.safetensors.index.json", {"weight_map": places})
    with pytest.raises(ValueError, match=r"'model\.norm\.weight' is in two files"):
        load_hf(tmp_path / "m")


def test_large_or_deep_json_is_refused(tmp_path):
    save_llama(network(SMALL), tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text("[" * 200_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        load_hf(tmp_path / "m")
    path.write_text(" " * (1 << 24) + "{}")
    with pytest.raises(ValueError, match="bytes are too many"):
        load_hf(tmp_path / "m")


# -- GGUF --------------------------------------------------------------------------------------------------

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]


def expected(rounded: dict[str, np.ndarray], model: Transformer, layout) -> dict[str, torch.Tensor]:
    """Our parameters from the tensors of a file, computed another way than in model/."""
    found, c = {}, model.config
    sizes = {n: p.shape[0] for n, p in model.named_parameters()}
    for name in table(c, layout):
        tensor = rounded[name.gguf]
        if layout == "llama" and name.gguf.endswith((".attn_q.weight", ".attn_k.weight")):
            back = np.argsort(interleaved(np.arange(len(tensor))[:, None], c.head_dim)[:, 0])
            tensor = tensor[back]
        parts = np.split(tensor, np.cumsum([sizes[o] for o in name.ours])[:-1])
        found |= {o: torch.from_numpy(p.copy()) for o, p in zip(name.ours, parts)}
    return found


@pytest.mark.parametrize("layout", ["phi3", "llama"])
@pytest.mark.parametrize("type_", TYPES)
def test_every_type_comes_in_as_gguf_dequantizes_it(tmp_path, type_, layout):
    model = network(WIDE)
    rounded = write(tmp_path / "m.gguf", model, layout, Block[type_])
    loaded, config = load_gguf(tmp_path / "m.gguf")
    assert config.vocab == 64
    assert config.rope_base == 500_000.0
    assert config.norm_eps == pytest.approx(WIDE.norm_eps)
    weights = expected(rounded, model, layout)
    for name, p in loaded.named_parameters():
        assert torch.equal(p, weights[name]), name
    for a, b in zip(loaded.parameters(), model.parameters()):
        error = (a - b).square().mean().sqrt() / b.square().mean().sqrt()
        assert error < (0.12 if type_ in ("Q4_0", "Q4_1", "Q4_K") else 0.06)


@pytest.mark.parametrize("type_", ["Q2_K", "Q3_K"])
def test_types_that_are_only_read(type_):
    """Any bytes are blocks of these; some are not finite."""
    kind = Block[type_]
    raw = np.random.default_rng(0).integers(0, 256, (7, 3 * GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    ours = _weights(raw.reshape(-1), type_, (7, 768)).numpy()
    with np.errstate(all="ignore"):
        assert np.array_equal(ours, dequantize(raw, kind), equal_nan=True)
    assert np.isfinite(ours).mean() > 0.5


def test_tensors_of_many_pieces(tmp_path, monkeypatch):
    """Pieces that end inside a fused tensor's parts and at whole heads."""
    model = network(SMALL)
    for layout in ("phi3", "llama"):
        write(tmp_path / "m.gguf", model, layout)
        monkeypatch.setattr("phikit.model.assemble.CHUNK", 64 * 7)
        monkeypatch.setattr("phikit.model.gguf_read.PIECE", 32 * 5)
        assert same(load_gguf(tmp_path / "m.gguf")[0], model)
    assert half_rotation(torch.arange(8.0)[:, None], 4)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_a_tied_gguf_has_no_head(tmp_path):
    config = ModelConfig(320, 64, 2, 4, 2, 160, 256, tied=True)
    model = network(config)
    write(tmp_path / "m.gguf", model, "llama")
    loaded, found = load_model(tmp_path / "m.gguf")
    assert found.tied
    assert loaded.head is None
    assert same(loaded, model)


@pytest.mark.parametrize(
    "layout, keys, words",
    [
        ("phi3", {".attention.sliding_window": 2047}, "sliding_window = 2047"),
        ("phi3", {".attention.sliding_window": None}, "sliding_window is missing"),
        ("phi3", {".rope.dimension_count": 12}, "partial rotary"),
        ("phi3", {".rope.scaling.attn_factor": 1.19}, "longrope"),
        ("llama", {".rope.scaling.type": "yarn"}, "rope.scaling.type = yarn"),
        ("llama", {".rope.scaling.factor": 8.0}, "position scaling"),
        ("llama", {".expert_count": 8}, "mixtures of experts"),
        ("llama", {".attention.key_length": 32}, "another size of a head"),
        ("llama", {".attention.head_count_kv": [2, 2]}, "one whole number for all layers"),
        ("llama", {".attention.head_count_kv": 3}, "kv_heads 3"),
        ("llama", {".logit_scale": 2.0}, "llama.logit_scale: this key is not known"),
        ("llama", {".block_count": 3}, "tensors are missing, such as 'blk.2"),
        ("llama", {".block_count": 1 << 20}, "1048576 layers, but 21 tensors"),
        ("llama", {".block_count": 1}, "has no place in a network of 1 layers"),
        ("llama", {".embedding_length": 128}, "partial rotary"),
        ("llama", {".feed_forward_length": 128}, "the configuration says"),
        ("llama", {".embedding_length": "64"}, "must be a whole number"),
        ("llama", {".attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon must be"),
        ("llama", {".rope.freq_base": float("nan")}, "freq_base must be a number"),
        ("llama", {"general.architecture": "gemma"}, "'gemma': only phi3 and llama"),
    ],
)
def test_what_a_gguf_may_not_ask(tmp_path, layout, keys, words):
    write(tmp_path / "m.gguf", network(SMALL), layout, keys=keys)
    with pytest.raises(ValueError, match=words) as found:
        load_gguf(tmp_path / "m.gguf")
    assert "m.gguf" in str(found.value)


@pytest.mark.parametrize(
    "name, words",
    [
        ("rope_freqs.weight", "llama3 rope scaling"),
        ("rope_factors_long.weight", "longrope"),
        ("blk.0.attn_q.bias", "without biases"),
    ],
)
def test_tensors_that_change_the_network_are_refused(tmp_path, name, words):
    write(tmp_path / "m.gguf", network(SMALL), "llama", more={name: np.ones(32, np.float32)})
    with pytest.raises(ValueError, match=words):
        load_gguf(tmp_path / "m.gguf")


def test_flipped_bits_in_a_whole_file_are_a_network_or_a_value_error(tmp_path):
    model = network(ModelConfig(16, 32, 1, 2, 1, 32, 16))
    write(tmp_path / "good.gguf", model, "llama")
    data, rng = (tmp_path / "good.gguf").read_bytes(), random.Random(1)
    header = len(data) - 4 * sum(p.numel() for p in model.parameters())
    path, refused = tmp_path / "m.gguf", 0
    for _ in range(150):
        broken = bytearray(data)
        broken[rng.randrange(header)] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            load_gguf(path)
        except ValueError:
            refused += 1
    assert refused > 75


# -- memory ------------------------------------------------------------------------------------------------

GROWTH = """
import json, sys
from pathlib import Path
import gguf
from phikit.model.load import load_model
from phikit.model.gguf_read import load_gguf
from phikit.model.hf_read import load_hf

def memory(kind):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(kind)) * 1024

load_model(Path(sys.argv[1]))  # the first one imports and starts what it needs
before = memory("VmRSS:")
model, config = load_model(Path(sys.argv[2]))
weights = sum(p.numel() * p.element_size() for p in model.parameters())
print(json.dumps({"growth": memory("VmHWM:") - before, "weights": weights}))
"""


def save_random(path: Path, config: ModelConfig, form: str) -> None:
    model = build(config, 0)
    if form == "hf":
        save_llama(model, path)
    else:
        write(path, model, "llama", Block[form])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("form", ["hf", "Q8_0"])
def test_loading_peaks_below_1_1_times_the_weights(tmp_path, form):
    """A quarter of the 200 MB lies in one tensor."""
    config = ModelConfig(28_000, 512, 10, 8, 2, 1792, 256, tied=True)
    suffix = "" if form == "hf" else ".gguf"
    save_random(tmp_path / f"small{suffix}", SMALL, form)
    save_random(tmp_path / f"large{suffix}", config, form)
    script = [
        sys.executable,
        "-c",
        GROWTH,
        str(tmp_path / f"small{suffix}"),
        str(tmp_path / f"large{suffix}"),
    ]
    found = json.loads(subprocess.run(script, check=True, capture_output=True, text=True).stdout)
    assert found["weights"] == 4 * config.parameters > 190e6
    assert found["growth"] < 1.1 * found["weights"]
