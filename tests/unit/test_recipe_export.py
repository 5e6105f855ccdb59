"""The export stage on a tiny network: files, counts, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from phikit.model.config import ModelConfig
from phikit.model.gguf_header import read_gguf_header
from phikit.model.hf import save_hf
from phikit.model.hf_read import load_hf
from phikit.model.transformer import build
from phikit.recipe.stages import export
from phikit.records import artifact
from phikit.records.io import write_jsonl
from phikit.text.tokenizer import Tokenizer


@pytest.fixture
def ctx(tmp_path):
    """What the runner hands over, with an untrained network that can say a few plain characters only."""
    tokenizer = Tokenizer.train(["How many apples does Ann have? 1 2 3 4 5 6 7 8 9"], 270)
    model = build(ModelConfig(270, 32, 2, 2, 1, 64, 256), 0)
    with torch.no_grad():
        allowed = torch.zeros(270, 1)
        allowed[tokenizer.encode("ab 12")] = 40.0
        model.head.weight.mul_(allowed)
    save_hf(model, tokenizer, tmp_path / "dpo2" / "hf")
    rows = [
        {"id": str(i), "question": f"How many apples are {i} and {i + 3}?", "answer": "1"} for i in range(6)
    ]
    write_jsonl(tmp_path / "synth" / "heldout" / "arithmetic.jsonl", rows)
    tokenizer.save(tmp_path / "tokenizer" / "tokenizer.json")
    inputs = {
        name: artifact.seal(tmp_path / name, stage=name, fingerprint="0", config={}, inputs={}, counts={})
        for name in ("dpo2", "synth", "tokenizer")
    }
    (tmp_path / "export").mkdir()
    return SimpleNamespace(
        out=tmp_path / "export",
        recipe=SimpleNamespace(name="phi4", scale="nano"),
        config=SimpleNamespace(hf="fp32", gguf=("f32", "f16"), prompts=5),
        inputs=inputs,
        file=lambda stage, name: inputs[stage].file(name),
        one=lambda *stages: next(s for s in stages if s in inputs),
    )


def test_the_stage(ctx):
    counts = export.run(ctx)
    assert counts == {
        "parameters": load_hf(ctx.out / "hf")[1].parameters,
        "prompts": 5,
        "same_f32": 5,
        "same_f16": 5,
    }
    assert {p.name for p in ctx.out.iterdir()} == {"hf", "model-f32.gguf", "model-f16.gguf", "Modelfile"}
    for path in (ctx.out.parent / "dpo2" / "hf").iterdir():
        assert (ctx.out / "hf" / path.name).read_bytes() == path.read_bytes()


def test_a_folder_in_bf16(ctx):
    ctx.config = SimpleNamespace(hf="bf16", gguf=("bf16",), prompts=2)
    counts = export.run(ctx)
    assert counts["same_bf16"] <= counts["prompts"] == 2
    before, after = load_hf(ctx.out.parent / "dpo2" / "hf")[0], load_hf(ctx.out / "hf", dtype="bf16")[0]
    for a, b in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(a.bfloat16(), b)
    assert "FROM ./model-bf16.gguf" in (ctx.out / "Modelfile").read_text()


def test_quantized_files_are_counted_but_need_not_agree(ctx):
    ctx.config = SimpleNamespace(hf="fp32", gguf=("f16", "Q8_0", "Q4_0"), prompts=3)
    counts = export.run(ctx)
    assert counts["same_f16"] == counts["prompts"] == 3
    assert 0 <= counts["same_Q4_0"] <= 3
    assert 0 <= counts["same_Q8_0"] <= 3
    keys, tensors = (getattr(read_gguf_header(ctx.out / "model-Q8_0.gguf"), k) for k in ("keys", "tensors"))
    assert keys["general.file_type"] == 7
    assert tensors["blk.0.attn_qkv.weight"].type == "Q8_0"
    assert read_gguf_header(ctx.out / "model-Q4_0.gguf").tensors["blk.0.ffn_down.weight"].type == "Q4_0"
    assert "FROM ./model-f16.gguf" in (ctx.out / "Modelfile").read_text()


def test_rows_that_k_quants_cannot_hold_are_an_error_in_words(ctx):
    ctx.config = SimpleNamespace(hf="fp32", gguf=("Q4_K_M",), prompts=3)
    with pytest.raises(ValueError, match="multiples of 256: use Q8_0 or Q4_0"):
        export.run(ctx)
    assert not (ctx.out / "model-Q4_K_M.gguf").exists()


def test_disagreement_is_an_error(tmp_path):
    path = tmp_path / "model.gguf"
    good = [([1, 2], (3, 4))] * 4
    assert export.agreement(path, good, good) == 4
    assert export.agreement(path, good, [*good[:2], *[([1, 2], (3, 5))] * 2]) == 2
    assert export.agreement(path, good, [([1, 2], (3, 5))] * 4, least=0.0) == 0
    with pytest.raises(ValueError, match="only 1 of 4 greedy answers"):
        export.agreement(path, good, [good[0], *[([1, 2], (3, 5))] * 3])
    with pytest.raises(ValueError, match="tokenizes 1 of 4 prompts otherwise"):
        export.agreement(path, good, [*good[:3], ([1, 9], (3, 4))])
