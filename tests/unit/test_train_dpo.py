"""DPO on trees of shared tokens against the dense formulation, the order of pairs, and the reference cache."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from phikit.model import attention, forest
from phikit.model.attention import Ragged, attend
from phikit.model.config import ModelConfig
from phikit.model.logprob import branch_logprobs, token_logprobs
from phikit.model.transformer import build
from phikit.records import Preference, turns
from phikit.text import chat
from phikit.text.tokenizer import Tokenizer
from phikit.train.objectives import DirectPreference, DPOConfig, response_logprobs
from phikit.train.optim import OptimConfig
from phikit.train.pairs import PairRows
from phikit.train.reference import add_reference
from phikit.train.trainer import TrainConfig, Trainer
from phikit.train.trees import grow, lay_queries, lay_rows, plan_rows, tree_mask

TOKENIZER = Tokenizer.train(["user system assistant: it is the best, yes! What is 3 + 4? " * 3], 290)
END = TOKENIZER.im_end


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")


def network(seed: int = 0):
    return build(ModelConfig(TOKENIZER.vocab_size, 16, 2, 2, 1, 24, 64, init_std=0.1), seed)


def pivotal(questions: int = 4, each: int = 5) -> list[Preference]:
    """Single-token pairs along one or two answers of a question, in a mixed order, one prefix with two pairs."""
    rng, out = np.random.default_rng(1), []
    for q in range(questions):
        prompt = turns(("user", f"What is {q} + 4?"))
        answers = [rng.integers(0, 256, 12).tolist() for _ in range(2)]
        answers[1][:4] = answers[0][:4]
        for k in range(each):
            prefix = tuple(answers[k % 2][: int(rng.integers(0, 10)) if k != 3 else 7])
            chosen, rejected = rng.choice(256, 2, replace=False)
            out.append(Preference(prompt, prefix, (int(chosen),), (int(rejected),), "a", "b", "pivotal"))
        out.append(Preference(prompt, prefix, (int(rejected),), (int(chosen) ^ 1,), "b", "c", "pivotal"))
    return [out[i] for i in rng.permutation(len(out))]


def judged(questions: int = 3) -> list[Preference]:
    """Whole answers, each in several pairs; one is the beginning of another, and some begin alike."""
    rng, out = np.random.default_rng(2), []
    for q in range(questions):
        prompt = turns(("system", "yes!"), ("user", f"What is {q}?"))
        first = rng.integers(0, 256, 6).tolist()
        answers = [[*first, END], [*first[:3], *rng.integers(0, 256, 5).tolist(), END], [*first[:4]], [END]]
        for a, b in ((0, 1), (0, 2), (1, 3), (3, 2)):
            sides = tuple(answers[a]), tuple(answers[b])
            out.append(Preference(prompt, (), *sides, "a", "b", "judged"))
    return out


PAIRS = {"pivotal": pivotal(), "judged": judged(), "mixed": pivotal(2) + judged(2)}


def rows_of(kind: str, context: int = 64) -> PairRows:
    rows = PairRows(PAIRS[kind], TOKENIZER, context, seed=3)
    add_reference(rows, network(9))
    return rows


def dense_dpo(model, reference, pairs, c: DPOConfig):
    """DPO pair by pair and sequence by sequence, straight from the formula."""
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


CONFIGS = [
    DPOConfig(0.1), DPOConfig(0.7, 0.3), DPOConfig(0.5, length_normalize=True),
    DPOConfig(0.5, label_smoothing=0.1), DPOConfig(0.5, 0.2, True, 0.2),
]  # fmt: skip


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("config", CONFIGS)
def test_loss_and_gradients_are_those_of_the_dense_formulation(kind, config):
    model, reference = network(0), network(9)
    batch, objective = rows_of(kind).all(), DirectPreference(config)
    assert objective.count(batch) == len(PAIRS[kind])
    got = sum(objective(model, part).total for part in batch.parts(1))
    want = dense_dpo(model, reference, PAIRS[kind], config)
    assert float(got.detach()) == pytest.approx(float(want.detach()), rel=1e-6)
    a = torch.autograd.grad(got, list(model.parameters()))
    b = torch.autograd.grad(want, list(model.parameters()))
    assert max(float(x.abs().max()) for x in b) > 0.1
    for x, y in zip(a, b):
        assert torch.allclose(x, y, atol=1e-5)


def sequences(pairs) -> list[tuple[int, ...]]:
    out = []
    for p in pairs:
        prompt = (*chat.render(TOKENIZER, p.prompt, open_assistant=True).tokens, *p.prefix_ids)
        out += [(*prompt, *p.chosen_ids), (*prompt, *p.rejected_ids)]
    return out


@pytest.mark.parametrize(("kind", "least"), [("pivotal", 5), ("judged", 3)])
def test_shared_tokens_are_computed_once(kind, least):
    """Whatever pairs, answers and prompts of a forward pass begin with alike, though attention has several rows."""
    (part,) = rows_of(kind).all().parts(8)
    dense = sequences(PAIRS[kind])
    assert part.size == len({s[:n] for s in dense for n in range(1, len(s))})
    assert len(part.rows.token) > 1
    assert len(part.rows.again) > 0
    assert sum(len(s) for s in dense) > least * part.size


def test_both_tokens_of_a_pivot_are_read_from_one_row_of_logits():
    pair = Preference(turns(("user", "Hi")), (40, 41), (50,), (51,), "a", "b", "pivotal")
    (part,) = PairRows([pair], TOKENIZER, 64, 0).all().parts(8)
    ids = [*chat.render(TOKENIZER, pair.prompt, open_assistant=True).tokens, 40, 41]
    assert part.size == len(ids)
    assert part.tokens.tolist() == [ids]  # neither token, no end of turn
    assert part.position.tolist() == [list(range(len(ids)))]
    assert part.nodes.tolist() == [len(ids) - 1]
    assert part.at.tolist() == [0, 0]
    chosen, rejected = part.sides[0].tolist()
    assert dict(zip(part.response.tolist(), part.targets.tolist())) == {chosen: 50, rejected: 51}
    assert part.lengths.tolist() == [[1, 1]]


def test_branches_go_on_at_the_position_after_the_prefix():
    pair = Preference(turns(("user", "Hi")), (), (50, 52, END), (51, END), "a", "b", "judged")
    (part,) = PairRows([pair], TOKENIZER, 64, 0).all().parts(8)
    n = len(chat.render(TOKENIZER, pair.prompt, open_assistant=True).tokens)
    assert part.tokens[0, n:].tolist() == [50, 52, 51]
    assert part.position[0, n:].tolist() == [n, n + 1, n]
    assert (part.rows.bias[0, 0, n + 2] == 0).tolist() == [True] * n + [False, False, True]
    assert part.asked.bias.shape[2] == len(part.nodes)
    assert part.lengths.tolist() == [[3, 2]]  # the end of turn is trained
    assert part.size == n + 3


# -- trees -----------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8))
def test_a_tree_holds_each_distinct_beginning_once(sequences):
    tree, paths = grow([np.asarray(s, dtype=np.int64) for s in sequences])
    assert len(tree) == len({tuple(s[:n]) for s in sequences for n in range(1, len(s) + 1)})
    mask = tree_mask(tree.until[None])[0]
    for ids, path in zip(sequences, paths):
        assert tree.tokens[path].tolist() == ids
        assert tree.position[path].tolist() == list(range(len(ids)))
        for k, node in enumerate(path):  # it sees what is before it, and nothing else
            assert np.flatnonzero(mask[node]).tolist() == path[: k + 1].tolist()


def test_rows_hold_every_tree_once():
    sizes = [50, 3, 40, 70, 20, 64, 9, 2]
    rows = plan_rows(sizes, 128)
    assert sorted(k for row in rows for k in row) == list(range(8))
    assert max(sum(sizes[k] for k in row) for row in rows) <= 128
    assert len(plan_rows([300, 5], 128)) == 2  # never cut, never widened for a second tree


def laid(sequences):
    """A forest of pairs of sequences, one row for each pair."""
    forest, paths = grow([s for row in sequences for s in row])
    ends = np.cumsum([len(row) for row in sequences])
    return forest, lay_rows(
        forest, [np.unique(np.concatenate(paths[b - len(r) : b])) for r, b in zip(sequences, ends)]
    )


def test_rows_show_a_common_beginning_each_but_its_output_is_taken_once():
    forest, rows = laid([[np.asarray([5, 6])], [np.asarray([5, 7, 8, 9])]])
    assert forest.tokens.tolist() == [5, 6, 7, 8, 9]
    assert rows.token.tolist() == [[0, 1, 0, 0], [0, 2, 3, 4]]
    assert rows.slot.tolist() == [0, 1, 5, 6, 7]
    assert rows.again.tolist() == [4]
    seen = [[np.flatnonzero(m).tolist() for m in row] for row in rows.mask]
    assert seen == [[[0], [0, 1], [2], [3]], [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]]
    query, place, mask = lay_queries(rows, np.asarray([1, 3, 4]))
    assert query.tolist() == [[0, 0], [1, 2]]
    assert place.tolist() == [0, 2, 3]
    assert [np.flatnonzero(m).tolist() for m in mask[1]] == [[0, 1, 2], [0, 1, 2, 3]]
    assert np.flatnonzero(mask[0, 0]).tolist() == [0, 1]
    assert mask.any(-1).all()  # padding too, or its softmax is no number


def bias(mask: np.ndarray) -> torch.Tensor:
    return torch.zeros(mask[:, None].shape).masked_fill(~torch.from_numpy(mask)[:, None], float("-inf"))


@pytest.mark.parametrize("asking", ["all", "some"])
@pytest.mark.parametrize("short", [128, 0])
def test_ragged_rows_give_what_one_wide_row_gives(asking, short, monkeypatch):
    """Values and gradients of attention, with fewer key heads than query heads, scores written out and not."""
    monkeypatch.setattr(attention, "SHORT", short)
    g = torch.Generator().manual_seed(0)
    ids = [[torch.randint(0, 2, (n,), generator=g).numpy() for _ in range(2)] for n in (3, 7, 1, 7)]
    forest, rows = laid(ids)
    assert len(rows.again) > 2
    n, t = len(forest), torch.from_numpy
    q, k, v = (torch.randn(1, h, n, 4, generator=g, requires_grad=True) for h in (4, 2, 2))
    want = attend(q, k, v, t(tree_mask(forest.until[None]))[:, None])
    keys = t(rows.token), t(rows.slot), t(rows.again)
    if asking == "all":
        got = attend(q, k, v, Ragged(*keys, keys[0], keys[1], bias(rows.mask)))
    else:
        nodes = np.sort(np.random.default_rng(0).choice(n, 5, replace=False))
        query, place, mask = lay_queries(rows, nodes)
        got = attend(q[:, :, nodes], k, v, Ragged(*keys, t(query), t(place), bias(mask)))
        want = want[:, :, nodes]
    assert torch.allclose(got, want, atol=1e-6)
    weight = torch.randn(got.shape, generator=g)
    for x, y in zip(
        torch.autograd.grad((got * weight).sum(), (q, k, v)),
        torch.autograd.grad((want * weight).sum(), (q, k, v)),
    ):
        assert float(y.abs().max()) > 0.1
        assert torch.allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("asking", ["all", "some"])
def test_attention_of_trees_by_hand_gives_what_attend_gives(asking):
    g = torch.Generator().manual_seed(0)
    ids = [[torch.randint(0, 2, (n,), generator=g).numpy() for _ in range(2)] for n in (3, 7, 1, 7)]
    tree, rows = laid(ids)
    n, t = len(tree), torch.from_numpy
    keys = t(rows.token), t(rows.slot), t(rows.again)
    heads, kv, h = 6, 2, 4
    q, k, v = (torch.randn(n, x, h, generator=g, requires_grad=True) for x in (heads, kv, kv))
    if asking == "all":
        ragged, nodes = Ragged(*keys, keys[0], keys[1], bias(rows.mask)), torch.arange(n)
        y = torch.cat((q, k, v), 1).flatten(0, 1)
    else:
        some = np.asarray([0, 2, 3, n - 1])
        query, place, mask = lay_queries(rows, some)
        ragged, nodes = Ragged(*keys, t(query), t(place), bias(mask)), t(some)
        y = torch.cat((torch.cat((k, v), 1).flatten(0, 1), q[nodes].flatten(0, 1)))
    wide = (x.transpose(0, 1)[None] for x in (q[nodes], k, v))
    want = attend(*wide, ragged)[0].transpose(0, 1).flatten(0, 1)
    where = forest.slots(ragged, heads, kv)
    assert where is not None
    got, kept = forest.attend(y.detach(), where)
    assert torch.allclose(got, want, atol=1e-6)
    weight = torch.randn(got.shape, generator=g)
    wanted = torch.autograd.grad((want * weight).sum(), (q, k, v))
    back = forest.attend_backward(weight, kept, where)
    found = torch.autograd.grad(y, (q, k, v), back)
    for a, b in zip(found, wanted):
        assert float(b.abs().max()) > 0.1
        assert torch.allclose(a, b, atol=1e-5)


def test_branch_logprobs_are_token_logprobs_in_any_chunks():
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(9, 8, generator=g, requires_grad=True)
    head = torch.randn(31, 8, generator=g, requires_grad=True)
    at = torch.tensor([0, 0, 1, 3, 3, 3, 4, 7, 8, 8])
    targets = torch.randint(0, 31, (10,), generator=g)
    want = token_logprobs(hidden[at], head, targets)
    wanted = torch.autograd.grad(want.square().sum(), (hidden, head))
    for chunk in (1, 2, 4, 9, 100):
        got = branch_logprobs(hidden, head, at, targets, chunk)
        assert torch.allclose(got, want, atol=1e-5)
        for x, y in zip(torch.autograd.grad(got.square().sum(), (hidden, head)), wanted):
            assert torch.allclose(x, y, atol=1e-4)
    with torch.no_grad():
        assert torch.allclose(branch_logprobs(hidden, head, at, targets, 2), want, atol=1e-5)


# -- order -----------------------------------------------------------------------------------------------------


def test_every_epoch_shows_every_pair_once_with_prompts_together():
    rows = rows_of("pivotal")
    n = len(rows)
    epochs = [rows.batch(e * n, n).which.tolist() for e in range(3)]
    assert all(sorted(e) == list(range(n)) for e in epochs)
    assert len({tuple(e) for e in epochs}) == 3
    for epoch in epochs:
        groups = rows.group_of[epoch].tolist()
        assert len([g for g, h in zip(groups, [-1, *groups]) if g != h]) == len(rows.groups) == 4
    assert rows.batch(n - 3, 7).which.tolist() == [*epochs[0][-3:], *epochs[1][:4]]
    again = rows_of("pivotal")
    assert again.batch(2 * n, n).which.tolist() == epochs[2]
    assert PairRows(PAIRS["pivotal"], TOKENIZER, 64, seed=4).batch(0, n).which.tolist() != epochs[0]


def test_pairs_that_cannot_be_trained_are_refused():
    with pytest.raises(ValueError, match="no preference pairs"):
        PairRows([], TOKENIZER, 64, 0)
    pair = PAIRS["pivotal"][0]
    with pytest.raises(ValueError, match=rf"pair {pair.id}: \d+ tokens do not fit the context of 8"):
        PairRows([pair], TOKENIZER, 8, 0)
    with pytest.raises(ValueError, match="a side has no tokens"):
        PairRows([Preference(pair.prompt, (), (), (1,), "", "a", "judged")], TOKENIZER, 64, 0)


# -- reference and training ------------------------------------------------------------------------------------


def test_the_reference_is_what_the_entering_model_says():
    rows, model = PairRows(PAIRS["mixed"], TOKENIZER, 64, seed=3), network(9)
    assert add_reference(rows, model) is False
    with torch.no_grad():
        for part in rows.all().parts(100):
            assert torch.allclose(part.reference, response_logprobs(model, part), atol=1e-5)
    assert (rows.reference < 0).all()
    assert not any(p.grad is not None for p in model.parameters())


def test_the_reference_is_read_again_for_the_same_weights_and_pairs_only(tmp_path, monkeypatch):
    file = tmp_path / "reference.safetensors"

    def add(pairs, seed=3, model=9) -> tuple[bool, np.ndarray]:
        rows = PairRows(pairs, TOKENIZER, 64, seed)
        return add_reference(rows, network(model), file), rows.reference

    hit, first = add(PAIRS["mixed"])
    assert not hit
    hit, again = add(PAIRS["mixed"], seed=8)  # another order of training
    assert hit
    assert np.array_equal(again, first)
    assert not add(PAIRS["mixed"], model=10)[0]
    assert not add(PAIRS["mixed"])[0]
    assert not add(PAIRS["mixed"][1:])[0]
    file.write_bytes(file.read_bytes()[:40])
    assert not add(PAIRS["mixed"])[0]
    assert add(PAIRS["mixed"])[0]


def test_dpo_starts_at_log_2_and_learns_the_pairs(tmp_path):
    rows = PairRows(PAIRS["judged"][:4], TOKENIZER, 64, seed=3)
    add_reference(rows, network(0))
    config = TrainConfig(40, 4, 4, OptimConfig("adamw", lr=3e-3))
    log = Trainer(network(), DirectPreference(DPOConfig(0.5)), rows, config, tmp_path).run("dpo")
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert log[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert log[-1]["loss"] < 0.5
    assert log[-1]["accuracy"] == 1
    assert log[-1]["margin"] > 0.3
    assert log[0]["tokens"] == sum(part.size for part in rows.batch(0, 4).parts(4))


def test_long_trees_in_bf16_give_the_loss_of_fp32():
    """Rows above `SHORT` slots go to torch's kernel, which wants mask and query in one type."""
    rng = np.random.default_rng(5)
    answers = [tuple(rng.integers(0, 256, 30).tolist()) for _ in range(6)]
    prompt = turns(("user", "What is it?"))
    pairs = [Preference(prompt, (), a, b, "a", "b", "judged") for a in answers for b in answers if a < b]
    rows = PairRows(pairs, TOKENIZER, 64, seed=3)
    (part,) = rows.all().parts(99)
    assert part.rows.token.shape[1] > attention.SHORT
    objective, losses = DirectPreference(DPOConfig(nll_weight=1.0)), []
    for low in (False, True):
        model = network(4)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = objective(model, part).total
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
