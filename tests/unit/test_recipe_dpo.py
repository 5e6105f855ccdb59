"""The DPO stages on a tiny network: all parameters or adapters, the files, and the kept reference."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from phikit.model.config import ModelConfig
from phikit.model.hf import save_hf
from phikit.model.hf_read import load_hf
from phikit.model.transformer import build
from phikit.recipe.schema import Checkpoint, Dpo, Layout
from phikit.recipe.stages import dpo1
from phikit.records import Preference, artifact, to_row, turns
from phikit.records.io import write_jsonl
from phikit.text.tokenizer import Tokenizer
from phikit.train import reference


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Runs dpo1 with recipe keys, in the folder of the stage; returns (its folder, counts)."""
    monkeypatch.setenv("PHIKIT_QUIET", "1")
    tokenizer = Tokenizer.train(["user system assistant: it is the best, yes! What is 3 + 4? " * 3], 290)
    save_hf(build(ModelConfig(290, 16, 2, 2, 1, 24, 64), 0), tokenizer, tmp_path / "sft" / "hf")
    tokenizer.save(tmp_path / "tokenizer" / "tokenizer.json")
    pairs = [
        Preference(turns(("user", f"What is {q}?")), (40, 41)[:k], (50 + q,), (60 + k,), "a", "b", "pivotal")
        for q in range(4)
        for k in range(3)
    ]
    write_jsonl(tmp_path / "pivotal" / "pairs.jsonl.zst", [to_row(p) for p in pairs])
    inputs = {
        name: artifact.seal(tmp_path / name, stage=name, fingerprint="0", config={}, inputs={}, counts={})
        for name in ("sft", "tokenizer", "pivotal")
    }

    def run(**keys):
        out = tmp_path / "dpo1"
        out.mkdir(exist_ok=True)
        ctx = SimpleNamespace(
            name="dpo1", out=out, work=out / ".work", seed=7, inputs=inputs,
            config=Dpo(**{"context": 64, "batch": 4, "lr": 1e-2, "epochs": 4.0, **keys}),
            recipe=SimpleNamespace(layout=Layout()), sinks=(), root=tmp_path,
            file=lambda stage, name: inputs[stage].file(name), checkpoint=Checkpoint(),
        )  # fmt: skip
        return out, dpo1.run(ctx)  # type: ignore[arg-type]

    return run


def test_all_parameters_are_trained_and_the_reference_is_kept(stage, monkeypatch):
    out, counts = stage()
    assert counts["pairs"] == 12
    assert counts["prompts"] == 4
    assert counts["steps"] == 12
    assert counts["trained"] == counts["parameters"]
    assert counts["loss_last"] < counts["loss_first"]
    assert {p.name for p in out.iterdir()} == {"hf", "metrics.jsonl", *dpo1.KEEP, *dpo1.VOLATILE}
    kept = (out / reference.FILE).read_bytes()
    monkeypatch.setattr(reference, "response_logprobs", None)  # another rate asks for no reference pass
    stage(lr=1e-3, beta=0.3)
    assert (out / reference.FILE).read_bytes() == kept


def test_adapters_are_written_for_peft_and_merged_into_the_checkpoint(stage):
    out, counts = stage(lora={"rank": 2})
    base, merged = load_hf(out.parent / "sft" / "hf")[0], load_hf(out / "hf")[0]
    assert counts["trained"] < counts["parameters"] / 2
    assert counts["loss_last"] < counts["loss_first"]
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (2, "sft/hf")
    assert torch.equal(merged.embed.weight, base.embed.weight)
    for name in ("attn.q", "mlp.down"):
        change = merged.get_parameter(f"blocks.1.{name}.weight") - base.get_parameter(
            f"blocks.1.{name}.weight"
        )
        assert float(change.detach().abs().max()) > 1e-4
        assert torch.linalg.matrix_rank(change.detach(), rtol=1e-3) == 2


def test_adapters_and_muon_do_not_go_together():
    with pytest.raises(ValidationError, match="lora trains with optimizer adamw"):
        Dpo(context=64, batch=4, lr=1e-2, optimizer="muon", lora={"rank": 2})  # type: ignore[arg-type]


def test_without_micro_a_forward_pass_has_all_rows_of_a_rank():
    from phikit.recipe.training import train_config

    layout = SimpleNamespace(layout=Layout(fsdp=2, replicas=2))
    ctx = SimpleNamespace(seed=7, recipe=layout, checkpoint=Checkpoint())
    ctx.config = Dpo(context=64, batch=8, lr=1e-2)
    assert train_config(ctx, 5, 8).micro == 2  # type: ignore[arg-type]
    ctx.config = Dpo(context=64, batch=8, micro=1, lr=1e-2)
    assert train_config(ctx, 5, 8).micro == 1  # type: ignore[arg-type]
