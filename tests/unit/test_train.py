"""The trainer: accumulation, DPO against its formula, exact resume, and what stops a run."""

from __future__ import annotations

import json
import math
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
from phikit.model.transformer import build
from phikit.records import Preference, turns
from phikit.text import chat
from phikit.text.tokenizer import Tokenizer
from phikit.train import checkpoint
from phikit.train.objectives import DirectPreference, DPOConfig, LanguageModeling, response_logprobs
from phikit.train.optim import OptimConfig, Optimizers
from phikit.train.pairs import PairRows
from phikit.train.trainer import Interrupted, NonFinite, TrainConfig, Trainer, write_log

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
        rows.add_reference(network(9))
    return rows


def trainer(work, rows=None, objective=None, steps=8, micro=4, model=None, optim="adamw", **more) -> Trainer:
    config = TrainConfig(
        steps, 4, micro, OptimConfig(optim, lr=3e-3), precision=more.pop("precision", "fp32"), **more
    )
    return Trainer(model or network(), objective or LanguageModeling(), rows or language_rows(), config, work)


def state_of(t: Trainer):
    return {k: v.clone() for k, v in t.model.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# -- objectives ------------------------------------------------------------------------------------------------


def gradients(model, objective, batch, micro: int):
    """Loss and gradients of one step in micro-batches, as the trainer sums them."""
    model.zero_grad()
    count, total = objective.count(batch), 0.0
    for a in range(0, len(batch.tokens), micro):
        part = objective(model, batch.slice(a, a + micro))
        (part.total / count).backward()
        total += float(part.total.detach())
    return total / count, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", ["language", "pairs"])
def test_micro_batches_do_not_change_loss_or_gradients(kind):
    if kind == "language":
        objective, batch, micros = LanguageModeling(), language_rows().batch(0, 12), (12, 4, 1, 5)
    else:
        objective, batch = DirectPreference(DPOConfig(nll_weight=0.2)), pair_rows().batch(0, 12)
        micros = (12, 4, 2, 8)
    model = network()
    loss, gradient = gradients(model, objective, batch, micros[0])
    assert float(gradient.abs().max()) > 1e-3
    for micro in micros[1:]:
        other, again = gradients(model, objective, batch, micro)
        assert other == pytest.approx(loss, abs=1e-6)
        assert torch.allclose(again, gradient, atol=1e-6)


def test_a_pair_is_never_split():
    with pytest.raises(ValueError, match="must be even"):
        pair_rows().batch(0, 4).slice(0, 3)


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


def dense_dpo(model, reference, pairs, c: DPOConfig):
    """DPO pair by pair, straight from the formula."""
    total = 0.0
    for pair in pairs:
        prompt = [*chat.render(TOKENIZER, pair.prompt, open_assistant=True).tokens, *pair.prefix_ids]
        logp = []
        for m in (model, reference):
            for response in (pair.chosen_ids, pair.rejected_ids):
                ids = torch.tensor([[*prompt, *response]])
                hidden = m(ids, torch.arange(ids.shape[1])[None], None)
                all_ = torch.log_softmax(F.linear(hidden[0], m.head_weight), -1)
                at = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
                logp.append(all_[at, ids[0, at + 1]].sum())
        n = [len(pair.chosen_ids), len(pair.rejected_ids)] if c.length_normalize else [1, 1]
        chosen, rejected = ((logp[k] - logp[2 + k].detach()) / n[k] for k in (0, 1))
        margin = c.beta * (chosen - rejected)
        p = torch.sigmoid(margin)
        loss = -(1 - c.label_smoothing) * torch.log(p) - c.label_smoothing * torch.log(1 - p)
        total = total + loss - c.nll_weight * logp[0] / len(pair.chosen_ids)
    return total


@pytest.mark.parametrize(
    "config",
    [
        DPOConfig(0.1),
        DPOConfig(0.7, 0.3),
        DPOConfig(0.5, length_normalize=True),
        DPOConfig(0.5, 0.0, False, 0.1),
    ],
)
def test_dpo_equals_its_formula(config):
    model, reference = network(0), network(9)
    rows = pair_rows()
    batch, objective = rows.batch(0, 12), DirectPreference(config)
    assert objective.count(batch) == 6
    got = objective(model, batch)
    want = dense_dpo(model, reference, preferences(), config)
    assert float(got.total.detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    a = torch.autograd.grad(got.total, list(model.parameters()))
    b = torch.autograd.grad(want, list(model.parameters()))
    for x, y in zip(a, b):
        assert torch.allclose(x, y, atol=1e-5)


def test_dpo_starts_at_log_2_and_learns_the_pairs(tmp_path):
    rows = pair_rows(reference=False)
    rows.add_reference(network(0))
    t = trainer(tmp_path, rows, DirectPreference(DPOConfig(0.5)), steps=40)
    log = t.run("dpo")
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert log[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert log[-1]["loss"] < 0.5
    assert log[-1]["accuracy"] == 1
    assert log[-1]["margin"] > 0.3


# -- rows of pairs ---------------------------------------------------------------------------------------------


def test_a_pivotal_pair_is_one_target_after_the_prefix():
    pair = Preference(turns(("user", "Hi")), (40, 41), (50,), (51,), "a", "b", "pivotal")
    batch = PairRows([pair], TOKENIZER, 64, 0).batch(0, 2)
    prompt = [*chat.render(TOKENIZER, pair.prompt, open_assistant=True).tokens, 40, 41]
    for row, token in ((0, 50), (1, 51)):
        assert np.flatnonzero(batch.weight[row]).tolist() == [len(prompt) - 1]
        assert batch.targets[row, len(prompt) - 1] == token
        own = batch.segment[row] >= 0
        assert batch.tokens[row, own].tolist() == [*prompt, token]  # no end of turn
        assert batch.position[row, own].tolist() == list(range(len(prompt) + 1))
        assert set(batch.tokens[row, ~own].tolist()) <= {TOKENIZER.pad}
    assert batch.weight.max() == 1


def test_whole_answers_train_their_end_of_turn():
    end = TOKENIZER.im_end
    pair = Preference(turns(("user", "Hi")), (), (50, 52, end), (51, end), "a", "b", "judged")
    batch = PairRows([pair], TOKENIZER, 64, 0).batch(0, 2)
    assert batch.targets[0][batch.weight[0] > 0].tolist() == [50, 52, end]
    assert batch.targets[1][batch.weight[1] > 0].tolist() == [51, end]


def test_every_epoch_shows_every_pair_once_in_its_own_order():
    rows = pair_rows()
    whole = rows.batch(0, 36)
    epochs = [[whole.tokens[i].tobytes() for i in range(e, e + 12, 2)] for e in (0, 12, 24)]
    assert [len(set(e)) for e in epochs] == [6, 6, 6]
    assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
    assert len({tuple(e) for e in epochs}) > 1
    part = rows.batch(14, 4)
    width = part.tokens.shape[1]
    assert np.array_equal(part.tokens, whole.tokens[14:18, :width])
    assert torch.equal(part.reference, whole.reference[14:18])


def test_the_reference_is_what_the_entering_model_says():
    rows, model = pair_rows(reference=False), network(9)
    rows.add_reference(model, at_once=5)
    in_one = PairRows(preferences(), TOKENIZER, 64, seed=3)
    in_one.add_reference(model)
    assert rows.reference == pytest.approx(in_one.reference, abs=1e-5)
    batch = rows.batch(0, 12)
    with torch.no_grad():
        logp, length = response_logprobs(model, batch)
    assert batch.reference.numpy() == pytest.approx(logp.numpy(), abs=1e-5)
    assert length.tolist() == [float((w > 0).sum()) for w in batch.weight]
    assert not any(p.grad is not None for p in model.parameters())


def test_pairs_that_cannot_be_trained_are_refused():
    with pytest.raises(ValueError, match="no preference pairs"):
        PairRows([], TOKENIZER, 64, 0)
    pair = preferences()[0]
    with pytest.raises(ValueError, match=rf"pair {pair.id}: \d+ tokens do not fit the context of 8"):
        PairRows([pair], TOKENIZER, 8, 0)


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
    assert not list(tmp_path.glob("*.pt"))  # short runs need no checkpoint


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
    assert repr(again.optimizers.state_dict()) == repr(quiet.optimizers.state_dict())


def test_a_damaged_newest_checkpoint_falls_back(tmp_path, capsys):
    quiet = trainer(tmp_path / "q")
    log = quiet.run("x")
    t = trainer(tmp_path / "s", checkpoint_seconds=0.0)  # one after every step
    t.run("x")
    files = sorted((tmp_path / "s").glob("*.pt"))
    assert [f.name for f in files] == ["step-00000006.pt", "step-00000007.pt"]
    data = files[1].read_bytes()
    files[1].write_bytes(data[: len(data) // 2])
    again = trainer(tmp_path / "s")
    assert again.step == 6
    assert "step-00000007.pt is damaged" in capsys.readouterr().err
    assert again.run("x") == log
    assert same(state_of(again), state_of(quiet))
    files[0].write_bytes(b"nothing of use")
    assert checkpoint.load(tmp_path / "s") is None


def test_kept_moments_need_the_same_optimizer(tmp_path):
    muon = trainer(tmp_path / "m", optim="muon", steps=2)
    muon.run("x")
    with pytest.raises(ValueError, match="another optimizer"):
        Optimizers(network(), OptimConfig("adamw")).load_state_dict(muon.optimizers.state_dict())


def test_kept_moments_do_not_bring_the_settings_of_the_earlier_stage(tmp_path):
    first = trainer(tmp_path, steps=2)
    first.run("x")
    o = Optimizers(network(), OptimConfig("adamw", lr=7e-4, weight_decay=0.0, betas=(0.8, 0.9), eps=1e-6))
    o.load_state_dict(first.optimizers.state_dict())
    for group in o.members[0].param_groups:
        assert (group["lr"], group["weight_decay"]) == (7e-4, 0.0)
        assert (tuple(group["betas"]), group["eps"]) == ((0.8, 0.9), 1e-6)
    assert len(o.members[0].state) == len(first.optimizers.members[0].state) > 0


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
    with pytest.raises(NonFinite, match=r"step 0: loss .*gradient norm .*rows from \['a', 'b'\]"):
        t.run("x")
    assert t.step == 0
    assert where == "weights" or same(state_of(t), before)


def test_gradients_are_clipped(tmp_path):
    loose, tight = trainer(tmp_path / "a", steps=1), trainer(tmp_path / "b", steps=1, clip=1e-6)
    a, b = loose.run("x")[0], tight.run("x")[0]
    assert a["grad_norm"] == b["grad_norm"] > 1e-3  # the norm before clipping is what is logged
