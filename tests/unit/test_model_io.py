"""Model folders and GGUF files: what is written, what is refused, and that llama.cpp reads the same model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from phikit.engine.base import ScoreRequest
from phikit.engine.gguf_meta import read_meta
from phikit.engine.llama import LlamaEngine
from phikit.model.config import ModelConfig
from phikit.model.gguf import save_gguf
from phikit.model.gguf_vocabulary import pre_split
from phikit.model.hf import save_hf
from phikit.model.hf_config import read_config
from phikit.model.hf_read import load_hf
from phikit.model.transformer import Transformer, build
from phikit.records.types import turns
from phikit.text import chat
from phikit.text.splits import SPLIT
from phikit.text.tokenizer import Tokenizer

TEXTS = [
    "The user asked: 3 + 4? It's 7, isn't it. def f(x):\n    return x\n"
    "Every good story has a beginning, a middle and an end; whoever tells it knows where he comes from.\n" * 4
]
CONFIG = ModelConfig(320, 64, 2, 4, 2, 160, 256, rope_base=250_000.0)
PIECES = (
    "a", "Zx", " ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "don't", "1", "42", "123456", "\u00e9",
    "\u65e5\u672c", "\ud55c\uad6d", "\u0939\u093f\u0928\u094d\u0926\u0940", "\U0001f642", "\u2026",
    "\u201cq\u201d",
    "def f(x):\n    return x\n", "<|im_end|>", "<|endoftext|>", "\u00df", "\u0130", "\u00a0", "\u3000",
    "\u00bd", "\u0663\u0664", "x_1", "http://a.b/c?d=1", "--", "***", "\\", "$x^2$", "\u200d", "e\u0301",
    "\u2028",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 310)


@pytest.fixture(scope="module")
def model() -> Transformer:
    model = build(CONFIG, 0)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0)  # larger than a fresh network's: its greedy answers are not all one token
    return model


@pytest.fixture
def folder(model, tokenizer, tmp_path) -> Path:
    save_hf(model, tokenizer, tmp_path / "hf")
    return tmp_path / "hf"


def edit(folder: Path, **keys) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


# -- Hugging Face ------------------------------------------------------------------------------------------


def test_the_files_of_a_folder(folder, tokenizer):
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "special_tokens_map.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Phi3ForCausalLM"]
    assert (config["rope_theta"], config["rope_parameters"]["rope_theta"]) == (250_000.0, 250_000.0)
    assert config["sliding_window"] is None
    assert config["original_max_position_embeddings"] == config["max_position_embeddings"] == 256
    assert config["eos_token_id"] == tokenizer.im_end
    assert config["bos_token_id"] == tokenizer.end_of_text
    assert config["pad_token_id"] == tokenizer.pad
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [tokenizer.im_end, tokenizer.end_of_text]
    assert json.loads((folder / "tokenizer_config.json").read_text())["chat_template"] == chat.TEMPLATE
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_equal_models_give_equal_bytes(model, tokenizer, folder, tmp_path):
    save_hf(model, tokenizer, tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_transformers_reads_the_tokenizer_and_the_template(folder, tokenizer):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    text = "It's 12345  isn't\n\n it? \u00e9"
    talk = turns(("user", "3 + 4?"), ("assistant", "7"), ("user", "12?"))
    for theirs in (AutoTokenizer.from_pretrained(folder), PreTrainedTokenizerFast.from_pretrained(folder)):
        assert theirs.encode(text) == tokenizer.encode(text)
        assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.im_end, tokenizer.pad)
        messages = [{"role": t.role, "content": t.content} for t in talk]
        ids = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert tuple(ids) == chat.render(tokenizer, talk, open_assistant=True).tokens


def test_bf16(model, tokenizer, tmp_path):
    save_hf(model, tokenizer, tmp_path, dtype="bf16")
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    wide, narrow = load_hf(tmp_path)[0], load_hf(tmp_path, dtype="bf16")[0]
    for p, w, n in zip(model.parameters(), wide.parameters(), narrow.parameters(), strict=True):
        assert w.dtype == torch.float32
        assert torch.equal(w, p.bfloat16().float())
        assert torch.equal(n, p.bfloat16())


def test_too_many_token_ids(model, tmp_path):
    big = Tokenizer.train(TEXTS, 330)
    with pytest.raises(ValueError, match=r"model\.vocab = 320 is below the tokenizer's 330"):
        save_hf(model, big, tmp_path)
    with pytest.raises(ValueError, match=r"model\.vocab = 320 is below the tokenizer's highest id 329"):
        save_gguf(model, big, tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"model_type": "mistral"}, "model_type"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "longrope position scaling"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.*yarn"),
        ({"partial_rotary_factor": 0.75}, "partial_rotary_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"sliding_window": 2047}, "sliding_window = 2047"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"head_dim": 32}, "head_dim 32"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "kv_heads 3"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"num_hidden_layers": 1 << 24}, "parameters, the files are"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object"),
        ({"num_hidden_layers": 1}, "tensor 'model.layers.1"),
        ({"intermediate_size": 150}, "the shape .*the configuration says"),
        ({"tie_word_embeddings": True}, "lm_head.weight differs"),
    ],
)  # fmt: skip
def test_what_the_network_does_not_compute_is_refused(folder, keys, words):
    edit(folder, **keys)
    with pytest.raises(ValueError, match=words):
        load_hf(folder)


def test_damaged_folders(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_hf(tmp_path)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    for broken in (data[:-7], b"\xff" * len(data), data[:4] + data):
        weights.write_bytes(broken + b"\0" * 400_000 if len(broken) < 400_000 else broken)
        with pytest.raises(ValueError, match=r"not a sound safetensors file"):
            load_hf(folder)
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(FileNotFoundError, match=r"pickle files such as \.bin are not read"):
        load_hf(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
    with pytest.raises(ValueError, match=r"not a \.safetensors file of this folder"):
        load_hf(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        load_hf(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not valid JSON"):
        load_hf(folder)


def test_missing_tensors(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    norm = tensors.pop("model.norm.weight")
    save_file({**tensors, "rotary_emb.inv_freq": torch.ones(8 + len(norm))}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 tensors are missing, such as 'model\.norm\.weight'"):
        load_hf(folder)


def test_a_killed_save_leaves_no_config(model, tokenizer, folder, monkeypatch):
    from phikit.model import hf

    left = iter(range(3))

    def fail(weights, block, encode=hf.encode):
        if next(left, None) is None:
            raise OSError("disk full")
        return encode(weights, block)

    monkeypatch.setattr(hf, "encode", fail)
    with pytest.raises(OSError, match="disk full"):
        save_hf(model, tokenizer, folder)
    assert not (folder / "config.json").exists()
    assert not [p for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_the_base_is_found_in_old_and_new_places(folder):
    edit(folder, rope_parameters=None, rope_theta=500_000)
    assert read_config(folder).rope_base == 500_000.0
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    del raw["rope_theta"]
    path.write_text(json.dumps({**raw, "rope_parameters": {"rope_type": "default", "rope_theta": 7e5}}))
    assert read_config(folder).rope_base == 7e5


# -- GGUF --------------------------------------------------------------------------------------------------


def some_texts(n: int) -> list[str]:
    rng = random.Random(1)
    return ["".join(rng.choice(PIECES) for _ in range(rng.randint(1, 20))) for _ in range(n)]


@pytest.mark.parametrize("digits, pre", [(1, "qwen2"), (3, "dbrx")])
def test_llama_cpp_tokenizes_as_we_do(model, tmp_path, digits, pre):
    """Digits one by one (nano) and in threes (Phi-4); specials in a text stay text in both."""
    ours = Tokenizer.train([*TEXTS, "123 456 1234 12 99 " * 9], 310, digits=digits)
    path = tmp_path / "m.gguf"
    save_gguf(model, ours, path, ftype="f32")
    assert pre_split(json.loads(ours.to_json())) == pre
    engine = LlamaEngine(path, threads=1)
    try:
        for text in some_texts(200):
            assert engine.encode(text) == ours.encode(text), repr(text)
        talk = turns(("system", "Be brief."), ("user", "3 + 4 = 12345? <|im_end|>"))
        assert tuple(engine.render(talk)) == chat.render(ours, talk, open_assistant=True).tokens
        assert set(engine.stop_ids) == set(chat.stop_ids(ours))
    finally:
        engine.close()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("ftype", ["f32", "f16", "bf16"])
def test_llama_cpp_gives_the_same_numbers(tokenizer, tmp_path, ftype, tied):
    config = ModelConfig(320, 64, 2, 4, 2, 160, 256, rope_base=250_000.0, tied=tied)
    model = build(config, 5)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0)
    path = tmp_path / "m.gguf"
    save_gguf(model, tokenizer, path, ftype=ftype)
    assert read_meta(path).file_type == ftype.upper()
    tokens = tokenizer.encode("The user asked: 3 + 4? It's 7, isn't it. Every good story has a beginning.")
    engine = LlamaEngine(path, threads=1)
    try:
        scores = engine.score([ScoreRequest(tuple(tokens[:i]), (tokens[i],)) for i in range(1, len(tokens))])
    finally:
        engine.close()
    with torch.no_grad():
        hidden = model(torch.tensor([tokens[:-1]]), torch.arange(len(tokens) - 1)[None], None)[0]
        logprobs = torch.log_softmax(hidden @ model.head_weight.T, -1)
    ours = logprobs[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])]
    theirs = torch.tensor([s.logprob for s in scores])
    assert ours.std() > 1
    # llama.cpp keeps keys and values in f16 whatever the type of the weights.
    mean = {"f32": 0.01, "f16": 0.02, "bf16": 0.1}[ftype]
    assert (ours - theirs).abs().mean() < mean
    assert (ours - theirs).abs().max() < 5 * mean


def test_keys_of_a_gguf(model, tokenizer, tmp_path):
    from gguf import GGUFReader

    save_gguf(model, tokenizer, tmp_path / "m.gguf", name="tiny")
    reader = GGUFReader(tmp_path / "m.gguf")
    keys = {k: f.contents() for k, f in reader.fields.items()}
    expected = {
        "general.architecture": "phi3", "general.name": "tiny", "general.file_type": 1,
        "phi3.context_length": 256, "phi3.rope.scaling.original_context_length": 256,
        "phi3.embedding_length": 64, "phi3.feed_forward_length": 160, "phi3.block_count": 2,
        "phi3.attention.head_count": 4, "phi3.attention.head_count_kv": 2, "phi3.rope.dimension_count": 16,
        "phi3.rope.freq_base": 250_000.0, "phi3.attention.sliding_window": 0, "phi3.vocab_size": 320,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2",
        "tokenizer.chat_template": chat.TEMPLATE,
        "tokenizer.ggml.bos_token_id": tokenizer.end_of_text, "tokenizer.ggml.eos_token_id": tokenizer.im_end,
        "tokenizer.ggml.eot_token_id": tokenizer.im_end, "tokenizer.ggml.padding_token_id": tokenizer.pad,
        "tokenizer.ggml.add_bos_token": False,
    }  # fmt: skip
    assert {k: keys.get(k) for k in expected} == expected
    assert keys["phi3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert keys["tokenizer.ggml.tokens"][310:] == [f"[UNUSED{i}]" for i in range(310, 320)]
    assert keys["tokenizer.ggml.token_type"][tokenizer.im_end] == 3
    assert len(keys["tokenizer.ggml.merges"]) == len(tokenizer.merges)
    tensors = {t.name: t for t in reader.tensors}
    assert len(tensors) == 2 * 6 + 3
    assert list(tensors["blk.1.ffn_up.weight"].shape) == [64, 320]
    assert tensors["blk.1.ffn_up.weight"].tensor_type.name == "F16"
    assert tensors["blk.1.ffn_norm.weight"].tensor_type.name == "F32"


def test_what_cannot_become_a_gguf(model, tokenizer, tmp_path):
    other = json.loads(tokenizer.to_json())
    other["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = SPLIT % 2
    with pytest.raises(ValueError, match="pre-split regex is not Phi-4's"):
        save_gguf(model, Tokenizer(json.dumps(other)), tmp_path / "m.gguf")
    large = build(CONFIG, 0)
    with torch.no_grad():
        large.blocks[1].mlp.down.weight[3, 3] = 1e5
    with pytest.raises(ValueError, match=r"blk\.1\.ffn_down\.weight: a weight is beyond the range of f16"):
        save_gguf(large, tokenizer, tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())
