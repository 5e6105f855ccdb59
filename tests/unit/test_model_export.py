"""Models for other tools: transformers loads the folder, llama.cpp the file, and nothing changes on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from phikit.cli.app import app
from phikit.model.config import ModelConfig
from phikit.model.gguf import save_gguf
from phikit.model.gguf_header import read_gguf_header
from phikit.model.gguf_read import load_gguf
from phikit.model.hf import save_hf
from phikit.model.hf_read import load_hf
from phikit.model.rows import of_gguf, of_gguf_network, of_hf
from phikit.model.safetensors_stream import PlannedTensor, write_shards
from phikit.model.transformer import build
from phikit.recipe import weights
from phikit.records.types import turns
from phikit.store.teacher import smollm2_path
from phikit.text import chat
from phikit.text.tokenizer import Tokenizer

TYPE_KEYS = ("general.file_type", "general.quantization_version")
CONFIG = ModelConfig(320, 64, 2, 4, 2, 160, 256, rope_base=250_000.0)
TRAINING = [
    "The user asked: 3 + 4? It's 7, isn't it. def f(x):\n    return x\n 123 456 1234 12 99\n"
    "Every good story has a beginning, a middle and an end; whoever tells it knows where he comes from.\n" * 4
]
TEXT = "It's 12345  isn't\n\n it? def f(x):\n    return x\n caf\u00e9"


@pytest.fixture(scope="module")
def parts():
    tokenizer = Tokenizer.train(TRAINING, 310, digits=3)
    model = build(CONFIG, 0)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0)
    return model, tokenizer


@pytest.fixture
def folder(parts, tmp_path) -> Path:
    save_hf(*parts, tmp_path / "hf")
    save_gguf(*parts, tmp_path / "m.gguf", ftype="f32")
    return tmp_path


def same_weights(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_transformers_runs_the_folder_and_renders_the_same_chat(parts, folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = parts
    theirs = AutoModelForCausalLM.from_pretrained(folder / "hf").eval()
    assert type(theirs).__name__ == "Phi3ForCausalLM"
    reader = AutoTokenizer.from_pretrained(folder / "hf")
    talk = turns(("system", "Be brief."), ("user", "3 + 4? <|im_end|>"))
    messages = [{"role": t.role, "content": t.content} for t in turns(("user", "3 + 4?"), ("assistant", "7"))]
    plain = chat.render(tokenizer, turns(("user", "3 + 4?"), ("assistant", "7")), open_assistant=True).tokens
    assert tuple(reader.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]) == plain
    ids = torch.tensor([chat.render(tokenizer, talk, open_assistant=True).tokens])
    with torch.no_grad():
        a = theirs(ids).logits
        b = model(ids, torch.arange(ids.shape[1])[None], None) @ model.head_weight.T
    assert b.std() > 0.5
    assert float((a - b).abs().max()) < 1e-5
    assert set(theirs.generation_config.eos_token_id) == set(chat.stop_ids(tokenizer))


def test_the_fields_that_vllm_reads(folder):
    config = json.loads((folder / "hf" / "config.json").read_text())
    for key in (
        "architectures", "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "intermediate_size", "vocab_size", "rms_norm_eps", "rope_theta", "hidden_act",
        "max_position_embeddings", "original_max_position_embeddings", "sliding_window", "dtype",
        "tie_word_embeddings", "bos_token_id", "eos_token_id",
    ):  # fmt: skip
        assert key in config, key
    tokenizer = json.loads((folder / "hf" / "tokenizer_config.json").read_text())
    assert tokenizer["chat_template"] == chat.TEMPLATE
    assert tokenizer["model_max_length"] == 256


def test_shards(parts, tmp_path):
    """Files of at most the given size and an index; a save in one file after that leaves none of them."""
    model, tokenizer = parts
    rows, _ = of_hf_of(model, tokenizer, tmp_path)
    tensors = [PlannedTensor(r.name, "F32", r.shape, lambda r=r: iter([r.read(0, r.count)])) for r in rows]
    write_shards(tmp_path / "s", tensors, shard=100_000)
    names = sorted(p.name for p in (tmp_path / "s").iterdir())
    assert names[0].startswith("model-00001-of-000")
    assert names[-1] == "model.safetensors.index.json"
    assert len(names) > 4
    index = json.loads((tmp_path / "s" / names[-1]).read_text())
    assert index["metadata"]["total_size"] == 4 * CONFIG.parameters
    assert set(index["weight_map"].values()) == set(names[:-1])
    write_shards(tmp_path / "s", tensors)
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["model.safetensors"]


def of_hf_of(model, tokenizer, tmp_path):
    save_hf(model, tokenizer, tmp_path / "hf")
    return of_hf(tmp_path / "hf")


def test_a_sharded_folder_loads(parts, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    from phikit.model import hf

    model, tokenizer = parts
    monkeypatch.setattr(hf, "write_shards", lambda f, t: write_shards(f, t, shard=100_000))
    save_hf(model, tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert same_weights(load_hf(tmp_path)[0], model)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(theirs.state_dict()["model.embed_tokens.weight"], model.embed.weight)


def test_there_and_back(parts, folder):
    """A folder to a GGUF to a folder: equal weights, equal tokens, also of text with special-token strings."""
    model, tokenizer = parts
    weights.export(str(folder / "hf"), "gguf", folder / "out.gguf", "F32")
    assert same_weights(load_gguf(folder / "out.gguf")[0], model)
    lines = weights.export(str(folder / "out.gguf"), "hf", folder / "back", "")
    assert len(lines) == 6
    assert same_weights(load_hf(folder / "back")[0], model)
    back = Tokenizer.load(folder / "back")
    for text in (TEXT, "1234567 <|im_end|> <|endoftext|>x", " \n\t a  b", "\u65e5\u672c \U0001f642"):
        assert back.encode(text) == tokenizer.encode(text)
        assert back.decode(back.encode(text)) == text
    assert back.special_ids == tokenizer.special_ids
    config = json.loads((folder / "back" / "config.json").read_text())
    assert config["dtype"] == "float32"
    weights.export(str(folder / "hf"), "gguf", folder / "bf16.gguf", "bf16")
    weights.export(str(folder / "bf16.gguf"), "hf", folder / "narrow", "")
    assert json.loads((folder / "narrow" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_llamafied_folder_becomes_phi3(parts, tmp_path):
    """q, k, v and gate, up apart, as in unsloth's copy: the same network (facts section 1.9)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    _, tokenizer = parts
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=160, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=250_000.0,
    )  # fmt: skip
    theirs = LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path / "llama")
    tokenizer.save(tmp_path / "llama" / "tokenizer.json")
    weights.export(str(tmp_path / "llama"), "gguf", tmp_path / "m.gguf", "f32")
    assert read_gguf_header(tmp_path / "m.gguf").keys["general.architecture"] == "phi3"
    model, _ = load_gguf(tmp_path / "m.gguf")
    ids = torch.tensor([tokenizer.encode(TEXT)])
    with torch.no_grad():
        a, b = theirs(ids).logits, model(ids, torch.arange(ids.shape[1])[None], None) @ model.head_weight.T
    assert float((a - b).abs().max()) < 1e-5


def test_rows_of_a_llama_gguf_are_put_in_order():
    path = smollm2_path()
    rows, config = of_gguf_network(path)
    model, _ = load_gguf(path)
    wanted = dict(model.named_parameters())
    found = {r.name: r for r in rows}
    qkv = found["blk.3.attn_qkv.weight"]
    whole = torch.cat([wanted[f"blocks.3.attn.{x}.weight"] for x in "qkv"]).detach()
    for a, b in ((0, qkv.count), (5, 70), (config.width - 3, config.width + 9)):
        assert np.array_equal(qkv.read(a, b), whole[a:b].numpy())
    assert np.array_equal(found["output_norm.weight"].read(0, 1)[0], model.norm.weight.detach().numpy())


def test_ollama(folder):
    lines = weights.export(str(folder / "hf"), "ollama", folder / "o", "Q8_0")
    assert {p.name for p in (folder / "o").iterdir()} == {"model-Q8_0.gguf", "Modelfile"}
    assert (folder / "o" / "Modelfile").read_text().startswith("FROM ./model-Q8_0.gguf\n")
    assert lines[-2:] == [f"  ollama create hf -f {folder / 'o' / 'Modelfile'}", "  ollama run hf"]
    lines = weights.export(str(folder / "m.gguf"), "ollama", folder / "copy", "")
    assert (folder / "copy" / "model-F32.gguf").read_bytes() == (folder / "m.gguf").read_bytes()


def test_what_is_not_exported(folder):
    with pytest.raises(ValueError, match="known forms are hf, gguf, ollama"):
        weights.export(str(folder / "hf"), "onnx", folder / "x", "")
    with pytest.raises(ValueError, match="not an empty folder"):
        weights.export(str(folder / "hf"), "hf", folder, "")
    with pytest.raises(ValueError, match="exists: name another file"):
        weights.export(str(folder / "hf"), "gguf", folder / "m.gguf", "")
    with pytest.raises(ValueError, match="written in fp32 or bf16"):
        weights.export(str(folder / "hf"), "hf", folder / "x", "Q8_0")
    with pytest.raises(ValueError, match=r"rows of 64 .*multiples of 256"):
        weights.export(str(folder / "hf"), "gguf", folder / "x.gguf", "Q4_K_M")
    with pytest.raises(ValueError, match="has not Phi-4's special tokens"):
        weights.export("smollm2", "ollama", folder / "x", "")
    assert not list(folder.glob("x*"))


def test_a_quantized_file_in_full_precision(tmp_path):
    """The embedded teacher's weights as they are, in f32: for tools that read no Q4_1."""
    weights.export("smollm2", "gguf", tmp_path / "wide.gguf", "F32")
    a, b = (read_gguf_header(p) for p in (smollm2_path(), tmp_path / "wide.gguf"))
    assert {t.type for t in b.tensors.values()} == {"F32"}
    assert {k: v for k, v in a.keys.items() if k not in TYPE_KEYS} == {
        k: v for k, v in b.keys.items() if k not in TYPE_KEYS
    }
    assert b.keys["general.file_type"] == 0
    one, other = ({r.name: r for r in of_gguf(p)} for p in (smollm2_path(), tmp_path / "wide.gguf"))
    assert one.keys() == other.keys()
    for name in ("token_embd.weight", "blk.5.attn_q.weight", "output_norm.weight"):
        assert np.array_equal(one[name].read(0, 1), other[name].read(0, 1))


def test_the_commands(folder):
    run = CliRunner().invoke
    done = run(app, ["export", str(folder / "hf"), str(folder / "e"), "--to", "gguf", "--type", "q8_0"])
    assert done.exit_code == 0, done.output
    assert (folder / "e" / "model-Q8_0.gguf").is_file()
    arguments = ["quantize", str(folder / "m.gguf"), "--type", "Q8_0", "--out", str(folder / "q.gguf")]
    done = run(app, [*arguments, "--tokens", "300", "--json"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.output)
    assert (row["type"], row["tokens"], row["kl"]["clusters"]) == ("Q8_0", 255, 1)
    assert row["bits_per_weight"] == pytest.approx(8 * row["bytes"] / row["parameters"])
    done = run(app, [*arguments, "--tokens", "600"])
    assert "KL(source || quantized)" in done.output
    assert "same most likely token" in done.output
    done = run(app, ["export", str(folder / "hf")])
    assert isinstance(done.exception, ValueError)
    assert "--to hf, gguf or ollama" in str(done.exception)


def test_a_model_with_its_own_template_keeps_its_form(tmp_path):
    """The embedded teacher as a Hugging Face folder: transformers sees a Llama with ChatML that says what it said."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lines = weights.export("smollm2", "hf", tmp_path / "hf", "bf16")
    assert any("model.safetensors" in line for line in lines)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert type(model).__name__ == "LlamaForCausalLM"
    talk = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        talk, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    said = model.generate(**ids, max_new_tokens=8, do_sample=False)[0][ids["input_ids"].shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True) == "The capital of France is Paris."
