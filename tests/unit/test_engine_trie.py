"""Shared prefixes: the trie's plan, and that computing them once changes no number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from phikit.engine import prefill, prompts
from phikit.engine.base import Counter, GenRequest, ScoreRequest
from phikit.engine.network import Network
from phikit.engine.prefill import Kept, Prefill
from phikit.engine.torch_engine import TorchEngine
from phikit.engine.trie import build_trie
from phikit.model.config import ModelConfig
from phikit.model.transformer import build
from phikit.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["user system assistant: it is the best, yes! What is 3 + 4? " * 3], 290)
CONTEXT = 96


def make(seed=0, heads=4, kv_heads=2, layers=2, **more) -> TorchEngine:
    config = ModelConfig(TOKENIZER.vocab_size, 8 * heads, layers, heads, kv_heads, 48, CONTEXT, init_std=0.3)
    return TorchEngine(build(config, seed), TOKENIZER, **more)


@pytest.fixture(autouse=True, scope="module")
def small_windows():
    """So that even short sequences cross windows and blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefill, "WINDOW", 13)
        patch.setattr(prefill, "BLOCK", 5)
        patch.setattr(prompts, "ROOT", 3)
        yield


# Few letters: many shared beginnings, equal sequences, and prefixes of one another.
sequence = st.lists(st.integers(0, 2), min_size=1, max_size=30).map(tuple)
sequences = st.lists(sequence, min_size=1, max_size=14)


@st.composite
def grown(draw) -> list[tuple[int, ...]]:
    """Sequences that continue earlier ones at any place: deep tries."""
    found = [draw(sequence)]
    for _ in range(draw(st.integers(0, 12))):
        base = draw(st.sampled_from(found))
        cut = draw(st.integers(0, len(base)))
        found.append((base[:cut] + draw(sequence))[: CONTEXT - 10])
    return found


@given(st.one_of(sequences, grown()))
def test_a_trie_holds_each_prefix_once(found):
    trie = build_trie(found, [0] * len(found))
    prefixes = {s[:n] for s in found for n in range(1, len(s) + 1)}
    assert len(trie) == len(prefixes)
    spelled = {}
    for s, nodes in zip(found, trie.nodes):
        assert trie.tokens[nodes].tolist() == list(s)
        assert trie.depth[nodes].tolist() == list(range(len(s)))
        assert (np.diff(nodes) > 0).all()
        for n, node in enumerate(nodes.tolist(), 1):
            assert spelled.setdefault(node, s[:n]) == s[:n]
    for u in range(len(trie)):
        below = [t for t, path in spelled.items() if path[: len(spelled[u])] == spelled[u]]
        assert sorted(below) == list(range(u, trie.end[u]))


def test_since_leaves_the_beginning_out():
    trie = build_trie([(1, 2, 3), (1, 2, 4), (1, 2)], [1, 2, 1])
    assert [n.tolist() for n in trie.nodes] == [[1, 2], [3], [1]]


@settings(max_examples=40, deadline=None)
@given(st.one_of(sequences, grown()), st.sampled_from([(4, 2), (2, 2), (4, 1)]), st.integers(0, 50))
@torch.inference_mode()
def test_hidden_states_and_caches_equal_the_network_alone(found, heads, seed):
    model = make(seed, *heads).model
    net, counter = Network(model), Counter()
    trie = build_trie(found, [0] * len(found))
    keep = {int(nodes[-1]): Kept(int(nodes[-1]), min(1, len(nodes) - 1)) for nodes in trie.nodes}
    hidden = torch.zeros(len(trie), model.config.width)
    for first, some in Prefill(net, trie, counter, list(keep.values())):
        hidden[first : first + len(some)] = some
    assert counter.prefilled == len(trie)
    for s, nodes in zip(found, trie.nodes):
        want = model(torch.tensor([s]), torch.arange(len(s))[None], None)[0]
        assert (hidden[torch.from_numpy(nodes)] - want).abs().max() <= 1e-5
        kept, alone = keep[int(nodes[-1])], Kept(len(s) - 1, 0)
        list(Prefill(net, build_trie([s], [0]), counter, [alone]))
        for mine, other in zip(kept.keys + kept.values, alone.keys + alone.values):
            assert mine.shape[1] == len(s) - kept.since
            assert (mine - other[:, kept.since :]).abs().max() <= 1e-5


@settings(max_examples=30, deadline=None)
@given(st.one_of(sequences, grown()), st.data())
def test_scores_equal_the_naive_ones(found, data):
    engine = make(data.draw(st.integers(0, 9)))
    found = [s if len(s) > 1 else (*s, 0) for s in found]
    requests = []
    for s in found:
        cut = data.draw(st.integers(1, len(s) - 1))
        requests.append(ScoreRequest(s[:cut], s[cut:]))
    requests += [
        requests[0],
        ScoreRequest(requests[0].context[:1], (5,)),
    ]  # an equal one; a context of one token
    scores = engine.score(requests)
    assert engine.usage.prefilled == len(
        {
            (r.context + r.continuation)[:n]
            for r in requests
            for n in range(1, len(r.context + r.continuation))
        }
    )
    for r, score in zip(requests, scores):
        ids = torch.tensor([r.context + r.continuation])
        with torch.inference_mode():
            states = engine.model(ids, torch.arange(ids.shape[1])[None], None)[0, len(r.context) - 1 : -1]
            logprobs = torch.log_softmax(F.linear(states, engine.model.head_weight).double(), -1)
        each = logprobs[torch.arange(score.tokens), torch.tensor(r.continuation)]
        assert score.logprob == pytest.approx(float(each.sum()), abs=1e-5 * len(r.continuation))
        assert score.greedy == (logprobs.argmax(-1).tolist() == list(r.continuation))


@settings(max_examples=12, deadline=None)
@given(st.one_of(sequences, grown()), st.integers(0, 9), st.sampled_from([1, 3, 64]), st.integers(1, 5))
def test_samples_do_not_depend_on_what_else_is_asked(found, seed, slots, n):
    """Each request alone, with nothing to share, gives the samples of all together."""
    engine = make(seed, slots=slots)
    requests = [
        GenRequest(s[: CONTEXT - 10], 7, n=1 + (n + i) % 3, temperature=[1.0, 0.0, 0.7][i % 3], seed=i % 4,
                   stop_ids=(1, 2, 3), top_logprobs=i % 3, prompt_logprobs=i % 2 == 0)
        for i, s in enumerate(found)
    ]  # fmt: skip
    together = dict(engine.generate(requests))
    assert engine.usage.prefilled == len({s[:n] for s in found for n in range(1, len(s) + 1)})
    for i, r in enumerate(requests):
        [(_, alone)] = make(seed).generate([r])
        for a, b in zip(alone, together[i], strict=True):
            assert (a.tokens, a.text, a.finish) == (b.tokens, b.text, b.finish)
            # Sums of fp32 in another order; a temperature below 1 widens them.
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5, rel=1e-5)
            assert a.prompt_logprobs == pytest.approx(b.prompt_logprobs, abs=1e-5, rel=1e-5)
            assert len(a.top) == (len(a.tokens) if r.top_logprobs else 0)
            for x, y in zip(a.top, b.top, strict=True):
                assert [v for _, v in x] == pytest.approx([v for _, v in y], abs=1e-5)


def test_prompt_logprobs_and_alternatives_are_the_networks_own():
    engine = make(3)
    r = GenRequest((4, 9, 2, 2, 7), 6, n=3, seed=5, top_logprobs=4, prompt_logprobs=True)
    [(_, completions)] = engine.generate([r])
    score = engine.score([ScoreRequest(r.prompt[:1], r.prompt[1:])])[0]
    for c in completions:
        assert len(c.prompt_logprobs) == len(r.prompt) - 1
        assert sum(c.prompt_logprobs) == pytest.approx(score.logprob, abs=1e-5)
        for j, (token, logprob, top) in enumerate(zip(c.tokens, c.logprobs, c.top, strict=True)):
            ids = torch.tensor([r.prompt + c.tokens[:j]])
            with torch.inference_mode():
                state = engine.model(ids, torch.arange(ids.shape[1])[None], None)[0, -1]
                want = torch.log_softmax(engine.model.head_weight @ state, -1)
            assert logprob == pytest.approx(float(want[token]), abs=1e-5)
            assert [i for i, _ in top] == want.topk(4).indices.tolist()
            assert [v for _, v in top] == pytest.approx(want.topk(4).values.tolist(), abs=1e-5)


def test_a_prompt_alone_can_be_scored_without_a_token_sampled():
    engine = make()
    requests = [GenRequest((1, 2, 3), 0, n=2, prompt_logprobs=True), GenRequest((1, 2), 2)]
    results = dict(engine.generate(requests))
    assert [(c.text, c.tokens, c.finish, len(c.prompt_logprobs)) for c in results[0]] == [
        ("", (), "length", 2)
    ] * 2
    assert len(results[1][0].tokens) == 2
    assert engine.usage.generated == 2


def test_equal_texts_are_computed_once():
    """Greedy samples never part: one row, whatever n is; the work does not grow with n."""
    engine, calls = make(), []
    run = engine.network.run

    def counted(tokens, positions, attend):
        calls.append(len(tokens))
        return run(tokens, positions, attend)

    engine.network.run = counted
    [(_, completions)] = engine.generate([GenRequest((1, 2), 8, n=50, temperature=0.0)])
    assert len({c.tokens for c in completions}) == 1
    assert calls == [2] + [1] * 7


def test_memory_bounds_the_batch():
    """Room for three samples' keys and values: the others wait, and nothing changes."""
    small = make(cache_bytes=3 * Network(make().model).cache_bytes * (8 + 2 * 2 + 1))
    requests = [GenRequest((i, 2), 8, seed=i) for i in range(10)]
    assert dict(small.generate(requests)).keys() == dict(make().generate(requests)).keys()
    state = small._slots(requests, prompts.Prompts(small.network, Counter(), requests, CONTEXT))
    assert state.size == 3
    assert {i: c[0].tokens for i, c in small.generate(requests)} == {
        i: c[0].tokens for i, c in make().generate(requests)
    }


def test_bf16_weights_are_a_class_of_their_own():
    config = ModelConfig(TOKENIZER.vocab_size, 32, 2, 4, 2, 48, CONTEXT, init_std=0.1)
    exact, rounded = (TorchEngine(build(config, 1).to(t), TOKENIZER) for t in (torch.float32, torch.bfloat16))
    assert (exact.info.numerics, rounded.info.numerics) == ("exact-fp32", "bf16")
    request = ScoreRequest((1, 2, 3), (4, 5))
    a, b = (e.score([request])[0].logprob for e in (exact, rounded))
    assert a == pytest.approx(b, abs=0.05)
    assert a != b
    [(_, [c])] = rounded.generate([GenRequest((1, 2), 5)])
    assert len(c.tokens) == 5


def test_the_model_shares_its_weights_with_the_engine():
    """The joined projections are no second copy: a change of the module is a change of the engine."""
    engine = make()
    block, layer = engine.model.blocks[0], engine.network.layers[0]
    assert block.attn.k.weight.data_ptr() > layer.qkv.data_ptr()
    assert block.attn.k.weight.untyped_storage().data_ptr() == layer.qkv.untyped_storage().data_ptr()
    assert torch.equal(torch.cat([block.mlp.gate.weight, block.mlp.up.weight]), layer.gate_up)


def test_a_stretched_engine_scores_beyond_the_context_of_its_network():
    engine = make(3)
    ids = tuple(int(i) for i in np.random.default_rng(0).integers(0, 200, CONTEXT + 40))
    request = ScoreRequest(ids[:-1], ids[-1:])
    with pytest.raises(ValueError, match=str(CONTEXT)):
        engine.score([request])
    engine.stretch(CONTEXT + 40)
    with torch.inference_mode():
        hidden = engine.model(torch.tensor(ids[:-1])[None], torch.arange(len(ids) - 1)[None], None)
        dense = F.log_softmax(F.linear(hidden[0, -1], engine.model.head_weight), -1)[ids[-1]]
    assert engine.score([request])[0].logprob == pytest.approx(float(dense), abs=1e-4)
