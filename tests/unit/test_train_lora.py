"""LoRA: what it trains, what it leaves alone, merging, exact resume, and PEFT reading its files."""

from __future__ import annotations

import json
import os
import signal
import warnings

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from phikit.model.config import ModelConfig
from phikit.model.hf import save_hf
from phikit.model.hf_read import load_hf
from phikit.model.transformer import build
from phikit.records import Preference, turns
from phikit.text.tokenizer import Tokenizer
from phikit.train.lora import TARGETS, LoRAConfig, LoRALinear, merge, save_adapter, wrap
from phikit.train.objectives import DirectPreference, DPOConfig
from phikit.train.optim import OptimConfig
from phikit.train.pairs import PairRows
from phikit.train.reference import add_reference
from phikit.train.trainer import Interrupted, TrainConfig, Trainer

TOKENIZER = Tokenizer.train(["user system assistant: it is the best, yes! What is 3 + 4? " * 3], 290)
IDS = torch.arange(20)[None] * 13 % 256


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")


def network(seed: int = 0):
    return build(ModelConfig(TOKENIZER.vocab_size, 16, 2, 4, 2, 24, 64, init_std=0.2), seed)


def logits(model) -> torch.Tensor:
    return F.linear(model(IDS, torch.arange(IDS.shape[1])[None], None), model.head_weight)


def randomized(model) -> None:
    """Adapters as training leaves them: B is not 0."""
    g = torch.Generator().manual_seed(1)
    for m in model.modules():
        if isinstance(m, LoRALinear):
            with torch.no_grad():
                m.lora_b.normal_(0, 0.3, generator=g)


def rows() -> PairRows:
    pairs = [
        Preference(turns(("user", f"What is {i}?")), (40,), (50 + i,), (60 + i,), "a", "b", "pivotal")
        for i in range(8)
    ]
    out = PairRows(pairs, TOKENIZER, 64, seed=3)
    add_reference(out, network())
    return out


def trainer(work, model, data=None, steps: int = 6) -> Trainer:
    config = TrainConfig(steps, 4, 4, OptimConfig(lr=1e-2), seed=5)
    return Trainer(model, DirectPreference(DPOConfig(0.5)), data or rows(), config, work)


def test_at_the_start_it_is_its_own_reference_and_only_adapters_train(tmp_path):
    model, plain = network(), network()
    wrap(model, LoRAConfig(rank=3), seed=0)
    assert torch.equal(logits(model), logits(plain))
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert {n.rpartition(".")[2] for n in trained} == {"lora_a", "lora_b"}
    # A for qkv, o, gate+up and down; B for each of the seven.
    assert len(trained) == 2 * (4 + 7)
    t = trainer(tmp_path, model)
    log = t.run("x")
    assert log[-1]["loss"] < log[0]["loss"]
    weights = dict(plain.named_parameters())
    for name, p in model.named_parameters():
        assert (name in weights) == (name not in trained)
        assert name in trained or torch.equal(p, weights[name])
    held = [p for o in t.optimizers.members for g in o.param_groups for p in g["params"]]
    assert len(held) == len(trained)


def test_merging_gives_the_plain_network_with_the_same_outputs():
    model = network()
    names = set(model.state_dict())
    wrap(model, LoRAConfig(rank=3, alpha=4.0), seed=0)
    randomized(model)
    want = logits(model)
    assert not torch.allclose(want, logits(network()), atol=1e-2)
    merge(model)
    assert set(model.state_dict()) == names
    assert not any(isinstance(m, LoRALinear) for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert torch.allclose(logits(model), want, atol=1e-4)


def test_targets_choose_the_maps_and_the_seed_names_the_start():
    model = network()
    wrap(model, LoRAConfig(rank=2, targets=("q", "v")), seed=0)
    found = {n for n, m in model.named_modules() if isinstance(m, LoRALinear)}
    assert found == {f"blocks.{i}.attn.{t}" for i in range(2) for t in "qv"}
    a = model.blocks[0].attn.q.lora_a
    assert a is model.blocks[0].attn.v.lora_a
    assert 0.2 < float(a.detach().abs().max()) <= 0.25  # uniform within 1 / sqrt(16)
    other = network()
    wrap(other, LoRAConfig(rank=2, targets=("v", "q")), seed=0)
    assert torch.equal(other.blocks[0].attn.q.lora_a, a)
    with pytest.raises(ValueError, match=r"lora.targets: \['x'\] are not among"):
        wrap(network(), LoRAConfig(targets=("q", "x")), seed=0)


class StopAt:
    def __init__(self, data, at: int) -> None:
        self.data, self.at = data, at

    def batch(self, first: int, count: int):
        if first == self.at * count:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.data.batch(first, count)


def test_a_stopped_run_with_dropout_goes_on_to_the_last_bit(tmp_path):
    def wrapped():
        model = network()
        wrap(model, LoRAConfig(rank=3, dropout=0.3), seed=0)
        return model

    quiet = trainer(tmp_path / "q", wrapped())
    log = quiet.run("x")
    with pytest.raises(Interrupted):
        trainer(tmp_path / "s", wrapped(), StopAt(rows(), 2)).run("x")
    (file,) = (tmp_path / "s").glob("step-*/*.safetensors")
    assert all("lora" in n for n in load_file(file))  # the frozen weights are not written
    again = trainer(tmp_path / "s", wrapped())
    assert again.step == 3
    assert again.run("x") == log
    for x, y in zip(again.model.parameters(), quiet.model.parameters()):
        assert torch.equal(x, y)
    with pytest.raises(ValueError, match="written with another network, optimizer or `lora`"):
        trainer(tmp_path / "s", network())


def test_files_are_those_of_peft(tmp_path):
    from safetensors.torch import load_file

    model = network()
    config = LoRAConfig(rank=3, targets=("q", "v", "down"))
    wrap(model, config, seed=0)
    randomized(model)
    save_adapter(model, config, tmp_path, "sft/hf")
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["target_modules"] == ["down_proj", "qkv_proj"]
    assert (written["r"], written["lora_alpha"], written["peft_type"]) == (3, 6.0, "LORA")
    assert written["base_model_name_or_path"] == "sft/hf"
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * 2
    b = tensors["base_model.model.model.layers.1.self_attn.qkv_proj.lora_B.weight"]
    attn = model.blocks[1].attn
    assert torch.equal(b[:16], attn.q.lora_b)
    assert not b[16:24].any()  # k has no adapter
    assert torch.equal(b[24:], attn.v.lora_b)


@pytest.mark.parametrize("layout", ["phi3", "llama"])
def test_peft_computes_the_same_outputs_and_gradients(tmp_path, layout):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    transformers = pytest.importorskip("transformers")
    if layout == "phi3":
        model = network()
        save_hf(model, TOKENIZER, tmp_path / "base")
    else:
        shape = transformers.LlamaConfig(
            vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2,
        )  # fmt: skip
        transformers.LlamaForCausalLM(shape).save_pretrained(tmp_path / "base")
        model, _ = load_hf(tmp_path / "base")
    config = LoRAConfig(rank=3, alpha=5.0, targets=TARGETS)
    wrap(model, config, seed=0)
    randomized(model)
    save_adapter(model, config, tmp_path / "adapter", str(tmp_path / "base"), layout)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True).eval()
        got = theirs(IDS).logits
    want = logits(model)
    assert torch.allclose(got, want, atol=1e-4)
    weight = torch.randn(want.shape, generator=torch.Generator().manual_seed(2))
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    named = dict(theirs.named_parameters())
    prefix = "base_model.model.model.layers.1"
    if layout == "phi3":
        a = named[f"{prefix}.self_attn.qkv_proj.lora_A.default.weight"].grad
        b = named[f"{prefix}.mlp.gate_up_proj.lora_B.default.weight"].grad
        mlp = model.blocks[1].mlp
        assert torch.allclose(a, model.blocks[1].attn.q.lora_a.grad, atol=1e-3)
        assert torch.allclose(b, torch.cat((mlp.gate.lora_b.grad, mlp.up.lora_b.grad)), atol=1e-3)
    else:  # PEFT trains an A for each of q, k, v here; ours is the sum of their gradients
        parts = [named[f"{prefix}.self_attn.{x}_proj.lora_A.default.weight"].grad for x in "qkv"]
        assert torch.allclose(sum(parts), model.blocks[1].attn.q.lora_a.grad, atol=1e-3)
