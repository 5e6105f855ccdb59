"""LlamaEngine on tiny random networks: its numbers, batching and streams."""

import random
import time
from pathlib import Path

import pytest
import torch
from tiny_gguf import TEXT, network, write_tiny

from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.llama import LlamaEngine
from phikit.engine.torch_engine import TorchEngine
from phikit.model.config import ModelConfig
from phikit.model.gguf import phi3_keys, write_rows
from phikit.model.gguf_read import load_gguf
from phikit.model.quantize.types import file_type
from phikit.model.rows import of_model
from phikit.model.transformer import Transformer
from phikit.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return path, *write_tiny(path)


@pytest.fixture(scope="module")
def path(tiny) -> Path:
    return tiny[0]


@pytest.fixture(scope="module")
def model(tiny) -> Transformer:
    return tiny[1]


@pytest.fixture(scope="module")
def tokenizer(tiny) -> Tokenizer:
    return tiny[2]


@pytest.fixture(scope="module")
def engine(path):
    engine = LlamaEngine(path, parallel=4, threads=1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def exact(model, tokenizer) -> TorchEngine:
    return TorchEngine(model, tokenizer)


def ids(rng: random.Random, n: int) -> tuple[int, ...]:
    return tuple(rng.randrange(300) for _ in range(n))


def some_requests(seed: int = 0) -> list[ScoreRequest]:
    """Shared contexts, contexts that begin alike, lone tokens, one that fills the context, an empty one."""
    rng = random.Random(seed)
    long, other = ids(rng, 120), ids(rng, 30)
    contexts = [long, long[:50], long[:49] + ids(rng, 9), other, long[:1]]
    found = [ScoreRequest(c, ids(rng, n)) for c in contexts for n in (1, 1, 2, 7)]
    found += [ScoreRequest(other, ids(rng, 256 - 30)), ScoreRequest(other, ()), found[0]]
    rng.shuffle(found)
    return found


def test_scores_of_an_f32_file_equal_torch(engine, exact):
    requests = some_requests()
    ours = exact.score([r for r in requests if r.continuation])
    theirs = engine.score(requests)
    assert [s.logprob for s, r in zip(theirs, requests) if not r.continuation] == [0.0]
    theirs = [s for s, r in zip(theirs, requests) if r.continuation]
    for a, b in zip(ours, theirs, strict=True):
        assert b.logprob == pytest.approx(a.logprob, abs=2e-5 * a.tokens + 1e-5)
        assert (a.greedy, a.tokens) == (b.greedy, b.tokens)


@pytest.mark.parametrize("type_", ["F16", "Q8_0", "Q4_0", "Q6_K", "Q4_K_M"])
def test_a_score_is_the_same_bits_whatever_was_computed_before(tokenizer, tmp_path, type_):
    config = ModelConfig(320, 256, 2, 4, 2, 512, 256, rope_base=250_000.0)
    model, kind = network(config, 3.0), file_type(type_)
    path = tmp_path / "m.gguf"
    write_rows(path, of_model(model), kind, phi3_keys(config, tokenizer, kind, "m"))
    engine = LlamaEngine(path, threads=1)
    try:
        requests = some_requests()
        together = engine.score(requests)
        order = list(range(len(requests)))
        random.Random(1).shuffle(order)
        for i in order:
            assert engine.score([requests[i]]) == [together[i]]
    finally:
        engine.close()
    # The weights as the file holds them, in torch: what is left is llama.cpp's rounding of activations.
    weights, _ = load_gguf(path)
    ours = TorchEngine(weights, tokenizer).score([r for r in requests if r.continuation])
    apart = [
        (a.logprob - b.logprob) / a.tokens
        for a, b in zip(ours, [s for s in together if s.tokens], strict=True)
    ]
    assert max(map(abs, apart)) < (0.05 if type_ == "F16" else 1.5)


def test_greedy_texts_equal_torch(engine, exact, tokenizer):
    prompts = [tuple(tokenizer.encode(TEXT[:n])) for n in (4, 30, 70, 99)]
    requests = [GenRequest(p, 40, temperature=0.0) for p in prompts]
    ours, theirs = dict(exact.generate(requests)), dict(engine.generate(requests))
    for i in range(len(requests)):
        a, b = ours[i][0], theirs[i][0]
        same = next((t for t, (x, y) in enumerate(zip(a.tokens, b.tokens)) if x != y), 40)
        # f16 attention may turn a near tie; up to there all is equal
        assert same >= 10
        assert b.logprobs[:same] == pytest.approx(a.logprobs[:same], abs=0.1)
        assert b.finish == "length"


def test_ids_are_complete_where_characters_are_not(engine, tokenizer):
    """Tokens of single bytes: most of them are no character of their own."""
    prompt = tuple(tokenizer.encode(TEXT[:20]))
    ((_, found),) = engine.generate([GenRequest(prompt, 60, n=8, temperature=3.0, seed=4)])
    for c in found:
        assert len(c.tokens) == len(c.logprobs) == 60
        assert engine.decode(c.tokens) == c.text
        assert all(v <= 0 for v in c.logprobs)
    assert any("\ufffd" in c.text for c in found)


def test_samples_follow_their_seed_and_not_their_neighbours(engine, tokenizer):
    prompt = tuple(tokenizer.encode(TEXT[:60]))
    ((_, many),) = engine.generate([GenRequest(prompt, 12, n=6, seed=9)])
    ((_, few),) = engine.generate([GenRequest(prompt, 12, n=2, seed=9)])
    ((_, other),) = engine.generate([GenRequest(prompt, 12, n=6, seed=10)])
    # An f32 network: rounding moves a draw across a boundary once in thousands of tokens.
    assert sum(a.tokens == b.tokens for a, b in zip(many, few)) == 2
    assert len({c.tokens for c in many}) == 6
    assert {c.tokens for c in many}.isdisjoint({c.tokens for c in other})


def test_the_samples_of_a_request_share_its_prompt(engine, tokenizer):
    prompt = tuple(tokenizer.encode("zebra " + TEXT[:90]))
    before = engine.usage
    list(engine.generate([GenRequest(prompt, 5, n=11, seed=2)]))
    after = engine.usage
    assert after.prefilled - before.prefilled == len(prompt)
    assert after.generated - before.generated == 55
    longer = (*prompt, *tokenizer.encode(" end"))
    list(engine.generate([GenRequest(longer, 5), GenRequest((*longer, 5), 5)]))
    assert engine.usage.prefilled - after.prefilled <= 2 * (len(longer) - len(prompt)) + 3


def test_requests_that_begin_alike_compute_the_beginning_once(engine, tokenizer):
    shared = tuple(tokenizer.encode("quagga " + TEXT))
    requests = [GenRequest((*shared, 10 + i), 6, temperature=0.0) for i in range(9)]
    before = engine.usage.prefilled
    together = dict(engine.generate(requests))
    assert engine.usage.prefilled - before <= len(shared) + 9 + 4
    for i in (0, 4, 8):
        ((_, (alone,)),) = engine.generate([requests[i]])
        assert alone.tokens == together[i][0].tokens


def test_top_and_prompt_logprobs(engine, exact, tokenizer):
    prompt = tuple(tokenizer.encode(TEXT[:40]))
    request = GenRequest(prompt, 6, temperature=0.0, top_logprobs=4, prompt_logprobs=True)
    ((_, (found,)),) = engine.generate([request])
    ((_, (ours,)),) = exact.generate([request])
    assert found.prompt_logprobs == pytest.approx(ours.prompt_logprobs, abs=1e-4)
    assert len(found.prompt_logprobs) == len(prompt) - 1
    assert [len(t) for t in found.top] == [4] * 6
    for token, logprob, top in zip(found.tokens, found.logprobs, found.top):
        assert top[0] == (token, logprob)
        assert [v for _, v in top] == sorted((v for _, v in top), reverse=True)
    # The second token is computed with f16 attention: close, not equal.
    assert [i for i, _ in found.top[0]] == [i for i, _ in ours.top[0]]
    assert [v for _, v in found.top[0]] == pytest.approx([v for _, v in ours.top[0]], abs=0.1)


def test_a_sample_goes_on_when_it_moves_to_a_free_slot(engine, tokenizer):
    """Slots 0 and 2 end first; llama.cpp computes neighbours together, so the last one moves into the gap."""
    prompts = [tuple(tokenizer.encode(TEXT[i:] + TEXT[:i])[:25]) for i in (0, 31, 62, 93)]
    requests = [GenRequest(p, n, temperature=0.0) for p, n in zip(prompts, (3, 30, 6, 40))]
    together = dict(engine.generate(requests))
    for i, request in enumerate(requests):
        ((_, (alone,)),) = engine.generate([request])
        assert alone.tokens == together[i][0].tokens


def test_no_tokens_asked_for_is_the_prompt_alone(engine, exact, tokenizer):
    prompt = tuple(tokenizer.encode(TEXT[:40]))
    request = GenRequest(prompt, 0, n=2, prompt_logprobs=True)
    ((_, (one, two)), (_, (said,))) = sorted(engine.generate([request, GenRequest(prompt, 2)]))
    assert (one.text, one.tokens, one.finish) == ("", (), "length")
    assert one == two
    ((_, (ours, _)),) = exact.generate([request])
    assert one.prompt_logprobs == pytest.approx(ours.prompt_logprobs, abs=1e-4)
    assert len(said.tokens) == 2


# -- streams ----------------------------------------------------------------------------------------------------


def test_a_stream_is_the_completion_piece_by_piece(engine, tokenizer):
    prompt = tuple(tokenizer.encode(TEXT[:25]))
    request = GenRequest(prompt, 40, temperature=2.0, seed=3, top_logprobs=2)
    ((_, (whole,)),) = engine.generate([request])
    pieces = list(engine.stream(request))
    assert "".join(p.text for p in pieces) == whole.text
    assert tuple(t for p in pieces for t in p.tokens) == whole.tokens
    assert tuple(v for p in pieces for v in p.logprobs) == whole.logprobs
    assert tuple(t for p in pieces for t in p.top) == whole.top
    assert [p.finish for p in pieces] == [None] * 39 + ["length"]
    stop = whole.text[10:13]
    cut = list(engine.stream(GenRequest(prompt, 40, temperature=2.0, seed=3, stop=(stop,))))
    assert "".join(p.text for p in cut) == whole.text[: whole.text.index(stop)]
    assert cut[-1].finish == "stop"
    with pytest.raises(ValueError, match="one sample"):
        next(engine.stream(GenRequest(prompt, 4, n=2)))


def test_closing_a_stream_stops_the_work(path, tokenizer):
    engine = LlamaEngine(path, threads=1)
    try:
        prompt = tuple(tokenizer.encode(TEXT[:25]))
        stream = engine.stream(GenRequest(prompt, 200, temperature=0.0))
        first = [next(stream) for _ in range(3)]
        stream.close()
        assert all(len(p.tokens) == 1 for p in first)
        # The one slot is free again, long before 200 tokens: cancelling is what made it so.
        begin = time.monotonic()
        ((_, (found,)),) = engine.generate([GenRequest(prompt, 1, temperature=0.0)])
        assert found.tokens == first[0].tokens
        assert time.monotonic() - begin < 5
        assert not engine._child.waiting
        work = engine.generate([GenRequest(prompt, 200, n=3), GenRequest(prompt, 1)])
        assert next(work)[0] in (0, 1)
        work.close()
        assert not engine._child.waiting
    finally:
        engine.close()


def test_embeddings_are_means_of_the_hidden_states(engine, model, tokenizer):
    texts = ["The user asked", "Every good story has a beginning", "x"]
    vectors = engine.embed(texts)
    for text, vector in zip(texts, vectors, strict=True):
        tokens = torch.tensor([tokenizer.encode(text)])
        with torch.no_grad():
            hidden = model(tokens, torch.arange(tokens.shape[1])[None], None)[0].mean(0)
        ours = torch.nn.functional.normalize(hidden, dim=0)
        assert torch.allclose(torch.tensor(vector), ours, atol=5e-3)
        assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-6)
    assert engine.embed(["x"]) == [vectors[2]]
    assert engine.embed([]) == []
    with pytest.raises(ValueError, match="text 1 has"):
        engine.embed(["a", TEXT * 9])
