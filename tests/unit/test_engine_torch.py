"""TorchEngine against a loop without cache or batch; tiny random networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from phikit.engine.base import GenRequest, PromptTooLong, ScoreRequest
from phikit.engine.sampling import uniforms
from phikit.engine.slots import sample_key
from phikit.engine.torch_engine import TorchEngine
from phikit.model.config import ModelConfig
from phikit.model.transformer import build
from phikit.records import Completion, turns
from phikit.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["user system assistant: it is the best, yes! What is 3 + 4? " * 3], 290)
VOCAB, CONTEXT = TOKENIZER.vocab_size, 40


def make(layers=2, heads=4, kv_heads=2, tied=False, seed=0, slots=256, context=CONTEXT) -> TorchEngine:
    """`init_std` is large, so that choices are clear and neighbours in the batch would show."""
    config = ModelConfig(VOCAB, 8 * heads, layers, heads, kv_heads, 48, context, init_std=0.4, tied=tied)
    return TorchEngine(build(config, seed), TOKENIZER, slots=slots)


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return make()


@torch.inference_mode()
def logits_after(engine: TorchEngine, ids) -> torch.Tensor:
    hidden = engine.model(torch.tensor([list(ids)]), torch.arange(len(ids))[None], None)
    return F.linear(hidden[0], engine.model.head_weight)


def naive(engine: TorchEngine, r: GenRequest, j: int) -> Completion:
    """Sample j of a request: the whole text through the network for every token."""
    tokens, logprobs = [], []
    finish, text = "length", None
    while len(tokens) < r.max_tokens and len(r.prompt) + len(tokens) < engine.info.context:
        logits = logits_after(engine, (*r.prompt, *tokens))[-1]
        if r.temperature == 0:
            token = int(logits.argmax())
        else:
            p = torch.softmax(logits.double() / r.temperature, -1).numpy()
            if r.top_p < 1:
                order = np.argsort(-p, kind="stable")
                kept = order[: int(np.searchsorted(np.cumsum(p[order]), r.top_p)) + 1]
                p = np.where(np.isin(np.arange(len(p)), kept), p, 0)
            u = uniforms(np.asarray([sample_key(r.seed, j)], dtype=np.uint64), np.asarray([len(tokens)]))[0]
            token = int(np.searchsorted(np.cumsum(p) / p.sum(), u, side="right"))
        tokens.append(token)
        logprobs.append(float(torch.log_softmax(logits, -1)[token]))
        if token in r.stop_ids:
            finish = "stop"
            break
        shown = TOKENIZER.decode(tokens)
        if ends := [shown.find(s) for s in r.stop if s in shown]:
            finish, text = "stop", shown[: min(ends)]
            break
    if text is None:
        text = TOKENIZER.decode(tokens[:-1] if tokens[-1] in r.stop_ids else tokens)
    return Completion(text, tuple(tokens), tuple(logprobs), finish)


def run(engine: TorchEngine, requests) -> list[list[Completion]]:
    results = dict(engine.generate(requests))
    assert sorted(results) == list(range(len(requests)))
    return [results[i] for i in range(len(requests))]


def check(engine: TorchEngine, requests) -> list[list[Completion]]:
    """generate equals the naive loop."""
    results = run(engine, requests)
    for r, completions in zip(requests, results):
        assert len(completions) == r.n
        for j, got in enumerate(completions):
            want = naive(engine, r, j)
            assert got.tokens == want.tokens
            assert (got.text, got.finish) == (want.text, want.finish)
            assert got.logprobs == pytest.approx(want.logprobs, abs=1e-4)
    return results


def requests_of(seed: int, count: int, longest: int = 12, **more) -> list[GenRequest]:
    """Prompts of unequal length, some of them equal, with unequal limits and ways to sample."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        prompt = tuple(rng.integers(0, 256, rng.integers(1, longest)).tolist())
        if out and rng.random() < 0.2:
            prompt = out[-1].prompt
        out.append(GenRequest(**({
            "prompt": prompt, "max_tokens": int(rng.integers(1, 9)), "n": int(rng.integers(1, 4)),
            "temperature": float(rng.choice([0.0, 0.5, 1.0, 1.3])), "top_p": float(rng.choice([1.0, 0.8])),
            "stop_ids": tuple(rng.integers(0, VOCAB, 30).tolist()), "seed": i,
        } | more)))  # fmt: skip
    return out


def test_greedy_equals_the_naive_loop(engine):
    results = check(
        engine, [GenRequest((1, 2, 3), 12, temperature=0.0), GenRequest((9,), 5, temperature=0.0)]
    )
    assert [len(c[0].tokens) for c in results] == [12, 5]


def test_sampling_equals_the_naive_loop_with_the_same_uniforms(engine):
    check(
        engine, [GenRequest((5, 6), 10, n=4, temperature=t, top_p=p, seed=3) for t, p in ((1, 1), (1.2, 0.7))]
    )


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from([(2, 1), (2, 2), (4, 2), (4, 1)]), st.integers(1, 3), st.booleans(),
    st.integers(1, 5), st.integers(0, 2**20),
)  # fmt: skip
def test_any_shape_equals_the_naive_loop(heads, layers, tied, slots, seed):
    engine = make(layers, *heads, tied=tied, seed=seed % 97, slots=slots)
    check(engine, requests_of(seed, 6))


def test_neighbours_do_not_change_a_sample(engine):
    requests = requests_of(1, 24)
    together = run(engine, requests)
    rng = np.random.default_rng(2)
    for slots in (1, 3, 7):
        chosen = rng.permutation(24)[:12].tolist()
        alone = run(make(slots=slots), [requests[i] for i in chosen])
        assert [[c.tokens for c in a] for a in alone] == [[c.tokens for c in together[i]] for i in chosen]


def test_more_samples_add_to_the_first_ones(engine):
    few, many = (run(engine, [GenRequest((4, 5), 8, n=n, seed=9)])[0] for n in (2, 6))
    assert [c.tokens for c in many[:2]] == [c.tokens for c in few]
    assert len({c.tokens for c in many}) == 6
    other = run(engine, [GenRequest((4, 5), 8, n=2, seed=10)])[0]
    assert not {c.tokens for c in other} & {c.tokens for c in many}


def test_a_slot_is_refilled_many_times():
    check(make(slots=2), requests_of(3, 40, max_tokens=4, n=1))


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_long_prompt_after_many_short_ones(slots):
    """The columns of the cache have been moved down by then."""
    short = requests_of(4, 40, longest=3, max_tokens=3, n=1)
    check(make(slots=slots), [*short, *requests_of(5, 3, max_tokens=8, prompt=tuple(range(25))), *short[:6]])


def test_a_slow_sample_among_quick_ones():
    requests = [GenRequest((1, 2), 30, temperature=1.0, seed=1), *requests_of(6, 40, max_tokens=2, n=1)]
    check(make(slots=3), requests)


def test_stop_ids_end_a_completion_and_are_kept(engine):
    free = run(engine, [GenRequest((7,), 10, seed=2)])[0][0]
    stop = free.tokens[4]
    at = free.tokens.index(stop)
    done = check(engine, [GenRequest((7,), 10, seed=2, stop_ids=(stop,))])[0][0]
    assert done.tokens == free.tokens[: at + 1]
    assert done.finish == "stop"
    assert done.text == TOKENIZER.decode(free.tokens[:at])


def ascii_request(engine: TorchEngine) -> tuple[GenRequest, Completion]:
    """A request whose answer has at least 6 plain characters."""
    for seed in range(200):
        r = GenRequest((1,), 14, seed=seed, temperature=1.0)
        c = run(engine, [r])[0][0]
        if sum(x.isascii() and x.isprintable() for x in c.text) > 6 and len(set(c.text)) > 8:
            return r, c
    raise AssertionError("no such seed")


def test_stop_strings_end_a_completion_and_are_cut(engine):
    r, free = ascii_request(engine)
    plain = [i for i in range(len(free.text) - 1) if free.text[i : i + 2].isascii()]
    stop = free.text[plain[0] : plain[0] + 2]
    cut = GenRequest(r.prompt, r.max_tokens, seed=r.seed, stop=("not there", stop))
    done = check(engine, [cut])[0][0]
    assert done.finish == "stop"
    assert done.text == free.text[: free.text.index(stop)]
    assert "".join(p.text for p in engine.stream(cut)) == done.text


def test_the_context_ends_a_completion(engine):
    prompt = tuple(range(CONTEXT - 3))
    for c in check(engine, [GenRequest(prompt, 99, n=2)])[0]:
        assert (len(c.tokens), c.finish) == (3, "length")


@pytest.mark.parametrize("prompt", [(), tuple(range(CONTEXT))])
def test_prompts_that_do_not_fit_are_refused_with_numbers(engine, prompt):
    with pytest.raises(
        PromptTooLong, match=rf"request 1: a prompt of {len(prompt)} tokens.*1 to {CONTEXT - 1}"
    ):
        list(engine.generate([GenRequest((1,), 1), GenRequest(prompt, 1)]))


@pytest.mark.parametrize("more", [{"grammar": 'root ::= "a"'}, {"json_schema": "{}"}])
def test_grammars_are_refused(engine, more):
    with pytest.raises(ValueError, match="grammars"):
        list(engine.generate([GenRequest((1,), 1, **more)]))


def test_no_requests(engine):
    assert list(engine.generate([])) == []
    assert engine.score([]) == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_stream_equals_generate(engine, temperature):
    for seed in range(12):
        r = GenRequest(
            (3, seed),
            20,
            temperature=temperature,
            seed=seed,
            stop_ids=tuple(range(0, VOCAB, 9)),
            top_logprobs=2,
        )
        pieces, whole = list(engine.stream(r)), run(engine, [r])[0][0]
        assert "".join(p.text for p in pieces) == whole.text
        assert tuple(t for p in pieces for t in p.tokens) == whole.tokens
        assert tuple(x for p in pieces for x in p.logprobs) == whole.logprobs
        assert tuple(t for p in pieces for t in p.top) == whole.top
        assert [p.finish for p in pieces] == [None] * (len(pieces) - 1) + [whole.finish]


def test_characters_of_several_tokens_are_streamed_whole(engine, monkeypatch):
    said = iter([*TOKENIZER.encode("a é — 语!"), TOKENIZER.im_end])

    def scripted(logits, *_):
        return torch.tensor([next(said)]), torch.zeros(1)

    monkeypatch.setattr("phikit.engine.slots.pick", scripted)
    pieces = [p.text for p in engine.stream(GenRequest((1,), 30, stop_ids=engine.stop_ids)) if p.text]
    assert "".join(pieces) == "a é — 语!"
    assert len(pieces) >= 5
    assert "\ufffd" not in "".join(pieces)


def test_a_stream_is_one_sample(engine):
    for r in (GenRequest((1,), 3, n=2), GenRequest((1,), 3, prompt_logprobs=True)):
        with pytest.raises(ValueError, match="use generate"):
            list(engine.stream(r))


# -- score -----------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=8), st.integers(0, 99)
)
def test_scores_equal_log_softmax(lengths, seed):
    engine, rng = make(seed=seed), np.random.default_rng(seed)
    requests = [ScoreRequest(*(tuple(rng.integers(0, VOCAB, n).tolist()) for n in pair)) for pair in lengths]
    # Choices that differ in their last token alone, the most probable among them.
    context = requests[0].context
    best = int(logits_after(engine, context)[-1].argmax())
    requests += [ScoreRequest(context, (t,)) for t in (1, best, 2)]
    scores = engine.score(requests)
    for r, score in zip(requests, scores):
        logits = logits_after(engine, r.context + r.continuation)[len(r.context) - 1 : -1]
        logprobs = torch.log_softmax(logits.double(), -1)
        want = logprobs[torch.arange(score.tokens), torch.tensor(r.continuation)]
        assert score.tokens == len(r.continuation)
        assert score.logprob == pytest.approx(float(want.sum()), abs=1e-3)
        assert score.greedy == (logits.argmax(-1).tolist() == list(r.continuation))
    assert scores[-2].greedy


def test_scores_agree_with_what_was_sampled(engine):
    c = run(engine, [GenRequest((5, 6, 7), 9, seed=4)])[0][0]
    score = engine.score([ScoreRequest((5, 6, 7), c.tokens)])[0]
    assert score.logprob == pytest.approx(sum(c.logprobs), abs=1e-4)


@pytest.mark.parametrize(("a", "b"), [(0, 3), (3, 0), (CONTEXT - 1, 2)])
def test_scores_that_do_not_fit_are_refused(engine, a, b):
    with pytest.raises(PromptTooLong, match=rf"score request 1: {a} \+ {b} tokens"):
        engine.score([ScoreRequest((1,), (2,)), ScoreRequest((1,) * a, (2,) * b)])
    engine.score([ScoreRequest((1,) * (CONTEXT - 1), (2,))])


# -- the rest of the protocol ----------------------------------------------------------------------------------


def test_usage_counts_a_shared_prompt_once():
    engine = make()
    result = run(engine, [GenRequest((1, 2, 3), 5, n=4), GenRequest((1, 2, 3), 2), GenRequest((9, 9), 2)])
    assert engine.usage.prefilled == 5
    assert engine.usage.generated == sum(len(c.tokens) for r in result for c in r) == 24
    engine.score([ScoreRequest((1, 2), (3, 4))])
    assert engine.usage.generated == 24
    assert engine.usage.prefilled in (8, 9)  # the last token need not be read


def test_turns_render_with_an_open_answer(engine):
    ids = engine.render(turns(("user", "What is 3 + 4?")))
    shown = "".join(TOKENIZER.token_text(i) for i in ids)
    assert shown == "<|im_start|>user<|im_sep|>What is 3 + 4?<|im_end|><|im_start|>assistant<|im_sep|>"
    assert engine.decode(engine.encode("yes!")) == "yes!"
    assert engine.stop_ids == (TOKENIZER.im_end, TOKENIZER.end_of_text)
    assert (engine.info.context, engine.info.vocab, engine.info.numerics) == (CONTEXT, VOCAB, "exact-fp32")
    engine.close()


def test_a_checkpoint_folder_opens(tmp_path, engine):
    from phikit.model.hf import save_hf

    save_hf(engine.model, TOKENIZER, tmp_path / "hf")
    request = [GenRequest((1, 2), 6, n=2)]
    for folder in (tmp_path, tmp_path / "hf"):
        again = run(TorchEngine.from_folder(folder), request)
        assert [c.tokens for c in again[0]] == [c.tokens for c in run(engine, request)[0]]


def test_a_text_is_looked_at_only_where_a_stop_string_may_end(engine, monkeypatch):
    """Decoding every sample's text after every token would take longer than the network."""
    r, free = ascii_request(engine)
    looked: list[int] = []
    stopped = engine._stopped
    monkeypatch.setattr(engine, "_stopped", lambda s: looked.append(s.tokens[-1]) or stopped(s))
    done = run(
        engine, [GenRequest(r.prompt, r.max_tokens, seed=r.seed, stop=("never said", free.text[2:4]))]
    )[0][0]
    assert done.finish == "stop"
    ends = {b"d"[0], free.text[3].encode()[-1]}
    assert all(ends & set(TOKENIZER.token_bytes(t)) for t in looked)
    assert len(looked) <= len(done.tokens)
