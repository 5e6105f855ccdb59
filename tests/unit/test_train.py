"""The trainer: accumulation, DPO against its formula, exact resume, and what stops a run."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from phikit.mixture.loader import Loader, PackedSource
from phikit.mixture.order import Phase
from phikit.mixture.shards import TokenShard, make_shard
from phikit.model.config import ModelConfig
from phikit.model.layout import Layout
from phikit.model.transformer import build
from phikit.records import Preference, turns
from phikit.text.tokenizer import Tokenizer
from phikit.train.metrics import write_log
from phikit.train.objectives import DirectPreference, DPOConfig, LanguageModeling
from phikit.train.optim import OptimConfig, Optimizers
from phikit.train.pairs import PairRows
from phikit.train.reference import add_reference
from phikit.train.trainer import Interrupted, NonFinite, TrainConfig, Trainer

TOKENIZER = Tokenizer.train(["user system assistant: it is the best, yes! What is 3 + 4? " * 3], 290)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")


def network(seed: int = 0):
    return build(ModelConfig(TOKENIZER.vocab_size, 16, 2, 2, 1, 24, 32, init_std=0.1), seed)


def language_rows() -> Loader:
    """Documents of unequal length and weights, two sources."""
    rng = np.random.default_rng(0)
    sources = {}
    for k, name in enumerate(("a", "b")):
        lengths = rng.integers(2, 40, 30)
        shard = make_shard((rng.integers(0, 256, n).tolist(), [100] * n) for n in lengths)
        weights = rng.choice([0, 30, 100], len(shard.tokens)).astype(np.uint8)
        sources[name] = PackedSource(TokenShard(shard.tokens, weights, shard.offsets), 32, k)
    return Loader(sources, [Phase(10_000, {"a": 0.6, "b": 0.4})], 5, TOKENIZER.pad)


def preferences(count: int = 6) -> list[Preference]:
    """Single-token pairs and whole answers, by turns."""
    rng = np.random.default_rng(1)
    out = []
    for i in range(count):
        n = 1 if i % 2 == 0 else int(rng.integers(2, 8))
        end = [TOKENIZER.im_end] if n > 1 else []
        sides = [
            tuple([*rng.integers(0, 256, n + k).tolist(), *end][: n + k if n > 1 else 1]) for k in (0, 2)
        ]
        prefix = tuple(rng.integers(0, 256, rng.integers(0, 6)).tolist())
        prompt = turns(("user", f"What is {i}?"))
        out.append(Preference(prompt, prefix, *sides, "a", "b", "pivotal" if n == 1 else "judged"))
    return out


def pair_rows(reference: bool = True) -> PairRows:
    rows = PairRows(preferences(), TOKENIZER, 64, seed=3)
    if reference:
        add_reference(rows, network(9))
    return rows


def trainer(
    work,
    rows=None,
    objective=None,
    steps=8,
    micro=4,
    model=None,
    optim="adamw",
    config=None,
    moments=None,
    **more,
) -> Trainer:
    settings = TrainConfig(
        steps,
        4,
        micro,
        config or OptimConfig(optim, lr=3e-3),
        layout=Layout(precision=more.pop("precision", "fp32")),
        **more,
    )
    return Trainer(
        model or network(), objective or LanguageModeling(), rows or language_rows(), settings, work, moments
    )


def state_of(t: Trainer):
    return {k: v.clone() for k, v in t.model.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# -- objectives ------------------------------------------------------------------------------------------------


def gradients(model, objective, batch, micro: int):
    """Loss and gradients of one step in micro-batches, as the trainer sums them."""
    model.zero_grad()
    count, total = objective.count(batch), 0.0
    for part in batch.parts(micro):
        sums = objective(model, part)
        (sums.total / count).backward()
        total += float(sums.total.detach())
    return total / count, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", ["language", "pairs"])
def test_micro_batches_do_not_change_loss_or_gradients(kind):
    if kind == "language":
        objective, batch, micros = LanguageModeling(), language_rows().batch(0, 12), (12, 4, 1, 5)
    else:
        objective, batch = DirectPreference(DPOConfig(nll_weight=0.2)), pair_rows().batch(0, 6)
        micros = (12, 1, 2, 3)
        assert len(list(batch.parts(12))) == 1 < len(list(batch.parts(1)))
    model = network()
    loss, gradient = gradients(model, objective, batch, micros[0])
    assert float(gradient.abs().max()) > 1e-3
    for micro in micros[1:]:
        other, again = gradients(model, objective, batch, micro)
        assert other == pytest.approx(loss, abs=1e-6)
        assert torch.allclose(again, gradient, atol=1e-6)


def test_language_loss_is_the_weighted_mean_over_documents_alone():
    """Each document of a packed row gives the loss it has alone: no attention across, weights of the targets."""
    model, batch = network(), language_rows().batch(0, 4)
    total = weight = 0.0
    for b in range(4):
        for s in set(batch.segment[b].tolist()) - {-1}:
            at = np.flatnonzero(batch.segment[b] == s)
            ids = torch.from_numpy(batch.tokens[b, at])[None]
            hidden = model(ids, torch.arange(len(at))[None], None)
            logprobs = torch.log_softmax(F.linear(hidden[0], model.head_weight), -1)
            for j in range(len(at) - 1):
                w = float(batch.weight[b, at[j]])
                total -= w * float(logprobs[j, ids[0, j + 1]].detach())
                weight += w
    objective = LanguageModeling()
    assert objective.count(batch) == pytest.approx(weight)
    assert float(objective(model, batch).total.detach()) == pytest.approx(total, rel=1e-5)


# -- training and resume ---------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_logs_every_step(tmp_path):
    t = trainer(tmp_path, steps=30, micro=2)
    log = t.run("x")
    assert [r["step"] for r in log] == list(range(1, 31))
    assert log[-1]["loss"] < log[0]["loss"] - 0.3
    assert log[-1]["tokens"] == t.tokens == int((language_rows().batch(0, 120).segment >= 0).sum())
    write_log(tmp_path / "metrics.jsonl", log)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 30
    assert rows[3]["loss"] == pytest.approx(log[3]["loss"], rel=1e-5)
    assert not list(tmp_path.glob("step-*"))  # short runs need no checkpoint


class StopAt:
    """Rows that send SIGTERM to the process when step `at` takes them."""

    def __init__(self, rows, at: int) -> None:
        self.rows, self.at = rows, at

    def batch(self, first: int, count: int):
        if first == self.at * count:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.rows.batch(first, count)


@pytest.mark.parametrize("optim", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["language", "pairs"])
def test_a_stopped_run_goes_on_to_the_last_bit(tmp_path, optim, precision, kind):
    rows = language_rows() if kind == "language" else pair_rows()
    objective = LanguageModeling() if kind == "language" else DirectPreference(DPOConfig())
    quiet = trainer(tmp_path / "q", rows, objective, optim=optim, precision=precision)
    log = quiet.run("x")
    before = signal.getsignal(signal.SIGTERM)
    for at in (2, 5):
        stopped = trainer(tmp_path / "s", StopAt(rows, at), objective, optim=optim, precision=precision)
        with pytest.raises(Interrupted, match=rf"stopped at step {at + 1} of 8; its state is saved"):
            stopped.run("x")
    assert signal.getsignal(signal.SIGTERM) is before
    # Another start from other weights: everything comes from the checkpoint.
    again = trainer(tmp_path / "s", rows, objective, optim=optim, precision=precision, model=network(77))
    assert again.step == 6
    assert again.run("x") == log
    assert same(state_of(again), state_of(quiet))
    assert same(again.optimizers.state(), quiet.optimizers.state())


def test_a_damaged_newest_checkpoint_falls_back(tmp_path, capsys):
    quiet = trainer(tmp_path / "q")
    log = quiet.run("x")
    t = trainer(tmp_path / "s", checkpoint_seconds=0.0)  # one after every step
    t.run("x")
    places = sorted((tmp_path / "s").glob("step-*"))
    assert [p.name for p in places] == ["step-00000006", "step-00000007"]
    (file,) = places[1].glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    again = trainer(tmp_path / "s")
    assert again.step == 6
    assert "step-00000007 is damaged" in capsys.readouterr().err
    assert not places[1].exists()
    assert again.run("x") == log
    assert same(state_of(again), state_of(quiet))
    (places[0] / "meta.json").write_text('{"step": 6', encoding="utf-8")
    (tmp_path / "s" / "step-00000009").mkdir()  # a killed run did not end it
    assert trainer(tmp_path / "s").step == 0
    assert not list((tmp_path / "s").glob("step-*"))


def test_so_many_checkpoints_are_kept(tmp_path):
    t = trainer(tmp_path, checkpoint_seconds=0.0, keep=3)
    t.run("x", until=6)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == [f"step-0000000{n}" for n in (3, 4, 5)]


def test_kept_moments_need_the_same_optimizer(tmp_path):
    muon = trainer(tmp_path / "m", optim="muon", steps=2)
    muon.run("x")
    muon.save_moments(tmp_path / "moments")
    with pytest.raises(ValueError, match="written with another network, optimizer or `lora`"):
        trainer(tmp_path / "a", moments=tmp_path / "moments")


def test_kept_moments_do_not_bring_the_settings_of_the_earlier_stage(tmp_path):
    first = trainer(tmp_path / "a", steps=2)
    first.run("x")
    first.save_moments(tmp_path / "moments")
    optim = OptimConfig("adamw", lr=7e-4, weight_decay=0.0, betas=(0.8, 0.9), eps=1e-6)
    second = trainer(tmp_path / "b", config=optim, moments=tmp_path / "moments")
    for group in second.optimizers.members[0].param_groups:
        assert (group["lr"], group["weight_decay"]) == (7e-4, 0.0)
        assert (tuple(group["betas"]), group["eps"]) == ((0.8, 0.9), 1e-6)
    assert same(second.optimizers.state(), first.optimizers.state())
    assert all(float(v) == 2 for k, v in second.optimizers.state().items() if k.endswith("/step"))


def test_norms_are_not_decayed_and_muon_has_the_hidden_matrices():
    model = network()
    o = Optimizers(model, OptimConfig("muon", weight_decay=0.1))
    names = {id(p): n for n, p in model.named_parameters()}
    adam, muon = o.members
    plain = {names[id(p)] for g in adam.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    hidden = {names[id(p)] for g in muon.param_groups for p in g["params"]}
    assert plain == {n for n in names.values() if "norm" in n}
    assert hidden == {n for n in names.values() if n.startswith("blocks.") and "norm" not in n}
    held = [id(p) for m in o.members for g in m.param_groups for p in g["params"]]
    assert sorted(held) == sorted(names)


@pytest.mark.parametrize("where", ["weights", "gradient"])
def test_a_loss_that_is_no_number_names_step_and_sources(tmp_path, where):
    t = trainer(tmp_path)
    if where == "weights":
        with torch.no_grad():
            t.model.embed.weight.fill_(float("nan"))
    else:
        t.model.norm.weight.register_hook(lambda g: g * float("inf"))
    before = state_of(t)
    with pytest.raises(
        NonFinite, match=r"step 0: loss .*gradient norm .*rows from \['a', 'b'\].*skipped-0.jsonl"
    ):
        t.run("x")
    (line,) = [json.loads(x) for x in (tmp_path / "skipped-0.jsonl").read_text().splitlines()]
    assert line["rows"] == [f"{n} {k}" for n, k in map(language_rows().order.row, range(4))]
    assert t.step == 0
    assert where == "weights" or same(state_of(t), before)


def test_gradients_are_clipped(tmp_path):
    loose, tight = trainer(tmp_path / "a", steps=1), trainer(tmp_path / "b", steps=1, clip=1e-6)
    a, b = loose.run("x")[0], tight.run("x")[0]
    assert a["grad_norm"] == b["grad_norm"] > 1e-3  # the norm before clipping is what is logged
