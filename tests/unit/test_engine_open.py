"""TorchEngine opens what others wrote: a GGUF, and a folder whose tokenizer has not Phi-4's special tokens."""

from __future__ import annotations

import json

import pytest
import torch
from gguf_network import write

from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.llama import LlamaEngine
from phikit.engine.open import open_engine, split_kind
from phikit.engine.torch_engine import TorchEngine
from phikit.model.config import ModelConfig
from phikit.model.gguf import save_gguf
from phikit.model.hf import save_hf
from phikit.model.transformer import Transformer, build
from phikit.records.io import write_json
from phikit.records.types import turns
from phikit.text import chat
from phikit.text.tokenizer import Tokenizer

CONFIG = ModelConfig(320, 64, 2, 4, 2, 160, 512)
TALK = turns(("user", "the cat <|im_end|>"))
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the cat sat on the mat, the rat on the hat. It's 3 + 4? " * 3], 280)


@pytest.fixture(scope="module")
def model() -> Transformer:
    model = build(CONFIG, 0)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0)
    return model


def test_our_own_gguf_is_the_same_engine(model, tokenizer, tmp_path):
    path = tmp_path / "m.gguf"
    save_gguf(model, tokenizer, path, ftype="f32")
    here = TorchEngine(model, tokenizer)
    engine = open_engine(f"torch:{path}")
    assert isinstance(engine, TorchEngine)
    assert engine.info.numerics == "fp32-of-gguf:F32"
    assert engine.info.name.startswith("m@")
    assert (engine.info.context, engine.info.vocab) == (512, 320)
    assert engine.stop_ids == tuple(sorted(chat.stop_ids(tokenizer)))
    assert engine.render(TALK) == here.render(TALK)
    requests = [ScoreRequest(tuple(tokenizer.encode("the cat")), tuple(tokenizer.encode(" sat on")))]
    assert engine.score(requests) == here.score(requests)
    assert open_engine(str(path), kind="torch").info == engine.info


def test_half_precision_weights_of_a_gguf(model, tokenizer, tmp_path):
    save_gguf(model, tokenizer, tmp_path / "m.gguf", ftype="f16")
    engine = TorchEngine.from_gguf(tmp_path / "m.gguf", bf16=True)
    assert engine.info.numerics == "bf16-of-gguf:F16"


def test_a_folder_with_another_chat_format(model, tokenizer, tmp_path):
    save_hf(model, tokenizer, tmp_path)
    spec = json.loads(tokenizer.to_json())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] != "<|im_sep|>"]
    write_json(tmp_path / "tokenizer.json", spec)
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": CHATML, "eos_token": "<|im_end|>"})
    engine = open_engine(str(tmp_path))
    ids, start, end = engine.render(TALK), tokenizer.im_start, tokenizer.im_end
    assert ids[0] == start
    assert ids.count(end) == 1
    assert end in engine.stop_ids
    ((_, (answer,)),) = engine.generate([GenRequest(tuple(ids), 4, temperature=0.0)])
    assert len(answer.tokens) == 4


def test_what_a_gguf_lacks_is_said(model, tokenizer, tmp_path):
    path = tmp_path / "m.gguf"
    lists = {"tokenizer.ggml.tokens": ["a"] * 320, "tokenizer.ggml.token_type": [1] * 320}
    write(
        path,
        model,
        "llama",
        keys={**lists, "tokenizer.ggml.model": "llama", "tokenizer.ggml.merges": ["a a"]},
    )
    with pytest.raises(ValueError, match=r"m\.gguf: its tokenizer is 'llama'.*only gpt2"):
        open_engine(f"torch:{path}")
    write(path, model, "llama")
    with pytest.raises(ValueError, match=r"m\.gguf: the GGUF has no key 'tokenizer\.ggml\.tokens'"):
        open_engine(f"torch:{path}")
    save_gguf(model, tokenizer, path)
    broken = path.read_bytes()[:-1]
    path.write_bytes(broken)
    for opens in (lambda: open_engine(f"torch:{path}"), lambda: LlamaEngine(path)):
        with pytest.raises(ValueError, match=r"m\.gguf: tensor .* the file is cut"):
            opens()


def test_kinds_that_do_not_fit(model, tokenizer, tmp_path):
    save_hf(model, tokenizer, tmp_path)
    with pytest.raises(ValueError, match=r"llama\.cpp runs GGUF files"):
        open_engine(str(tmp_path), kind="llama")
    with pytest.raises(ValueError, match="asks for the engine torch, the caller for llama"):
        open_engine("torch:m.gguf", kind="llama")
    with pytest.raises(ValueError, match="an endpoint is no torch engine"):
        open_engine("http://localhost:1/v1#m", kind="torch")
    with pytest.raises(FileNotFoundError, match=r"none\.gguf"):
        open_engine("torch:none.gguf")


def test_the_engine_before_a_name():
    """Of the three engines alone: a colon in a name of the store, an endpoint or a path is no engine."""
    assert split_kind("torch:m.gguf") == ("torch", "m.gguf")
    assert split_kind("llama:me/mine:v1") == ("llama", "me/mine:v1")
    assert split_kind("vllm:runs/sft") == ("vllm", "runs/sft")
    for spec in ("me/mine:v1", "http://host:8000/v1#m", "smollm2", "torch:", "TORCH:m.gguf"):
        assert split_kind(spec) == (None, spec)


def test_a_search_knows_the_weights_of_a_model_whatever_runs_them(model, tokenizer, tmp_path):
    from phikit.preference.pts import identity

    save_gguf(model, tokenizer, tmp_path / "m.gguf")
    save_hf(model, tokenizer, tmp_path / "hf")
    for path in (tmp_path / "m.gguf", tmp_path / "hf"):
        files = identity(str(path)).removeprefix(str(path))
        assert files.count("; ") == 1
        for kind in ("torch", "llama", "vllm"):
            assert identity(f"{kind}:{path}") == f"{kind}:{path}{files}"


def test_a_name_of_the_store_is_a_model_everywhere(model, tokenizer, tmp_path, monkeypatch):
    """What `phikit serve` knows by name, `eval` and `pts` open by that name."""
    from phikit.evals.identity import identity
    from phikit.store import local
    from phikit.store.names import parse
    from phikit.store.store import user_store

    monkeypatch.setenv("PHIKIT_MODELS", str(tmp_path / "models"))
    save_hf(model, tokenizer, tmp_path / "hf")
    store = user_store()
    store.save(parse("me/mine:v1"), local.manifest_of(store, tmp_path / "hf", copy=False))
    named, direct = open_engine("me/mine:v1"), open_engine(str(tmp_path / "hf"))
    ask = [ScoreRequest((5, 6), (7, 8))]
    assert named.score(ask) == direct.score(ask)
    assert identity(named) == identity(direct)
    with pytest.raises(FileNotFoundError, match="known: smollm2, me/mine:v1"):
        open_engine("me/other")
