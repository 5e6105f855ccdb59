"""TorchEngine in a process of its own: the same answers, several requests in turns, cancelled ones gone."""

from __future__ import annotations

from queue import SimpleQueue

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from phikit.engine import wire
from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.child import Child, EngineCrashed
from phikit.engine.draw import shaped
from phikit.engine.torch_engine import TorchEngine
from phikit.model.config import ModelConfig
from phikit.model.hf import save_hf
from phikit.model.transformer import build
from phikit.text.tokenizer import Tokenizer

PROMPT = (5, 6, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("torch") / "hf"
    tokenizer = Tokenizer.train(["user system assistant: it is the best, yes! What is 3 + 4? " * 3], 290)
    save_hf(build(ModelConfig(300, 32, 2, 4, 2, 48, 64, init_std=0.4), 0), tokenizer, path)
    return path


@pytest.fixture(scope="module")
def engine(folder):
    return TorchEngine.from_folder(folder, device="cpu")


@pytest.fixture(scope="module")
def child(folder):
    found = Child(folder, 64, 2, 1, "torch_worker")
    yield found
    found.close()


def replies(child: Child, *requests: GenRequest, stream: bool = True) -> dict[int, list]:
    inbox: SimpleQueue = SimpleQueue()
    ids = child.send([lambda i, r=r: wire.Generate(i, r, stream) for r in requests], inbox)
    left, found = {i: r.n for i, r in zip(ids, requests)}, {i: [] for i in ids}
    while any(left.values()):
        reply = inbox.get(timeout=60)
        child.check(reply)
        found[reply.id].append(reply)
        left[reply.id] -= isinstance(reply, wire.Done)
    child.forget(ids)
    return dict(zip(range(len(ids)), found.values()))


def texts(rows: list, n: int) -> list[str]:
    return ["".join(r.text for r in rows if r.sample == k) for k in range(n)]


def said(reply: wire.Token | wire.Done) -> list[int]:
    return reply.tokens if isinstance(reply, wire.Done) else [reply.token]


def test_streamed_and_whole_answers_are_the_engines_own(engine, child):
    asked = [
        GenRequest(PROMPT, 8, n=3, seed=4, top_logprobs=2),
        GenRequest((9, 10), 5, temperature=0.0, stop_ids=(3,)),
    ]
    own = dict(engine.generate(asked))
    for stream in (True, False):
        rows = replies(child, *asked, stream=stream)
        for i, request in enumerate(asked):
            assert texts(rows[i], request.n) == [c.text for c in own[i]]
            tokens = [[t for r in rows[i] if r.sample == k for t in said(r)] for k in range(request.n)]
            assert tokens == [list(c.tokens) for c in own[i]]
    done = [r for r in rows[0] if r.sample == 0][-1]
    assert len(done.top[0]) == 2


def test_requests_take_turns(child):
    inbox: SimpleQueue = SimpleQueue()
    makes = [lambda i: wire.Generate(i, GenRequest(PROMPT, 30, seed=1), True) for _ in range(2)]
    ids = child.send(makes, inbox)
    order = []
    while sum(x is None for x in order) < 2:
        reply = inbox.get(timeout=60)
        order.append(None if isinstance(reply, wire.Done) else reply.id)
    child.forget(ids)
    first_half = [x for x in order if x is not None][:20]
    assert set(first_half) == set(ids)


def test_a_cancelled_request_says_nothing_more_and_others_go_on(child):
    inbox: SimpleQueue = SimpleQueue()
    [number] = child.send([lambda i: wire.Generate(i, GenRequest(PROMPT, 55, seed=1), True)], inbox)
    assert inbox.get(timeout=60).id == number
    child.cancel([number])
    assert replies(child, GenRequest(PROMPT, 4))[0]
    assert not any(isinstance(inbox.get(), wire.Done) for _ in range(inbox.qsize()))


def test_scores_pieces_and_spellings(engine, child):
    asked = [ScoreRequest(PROMPT, (8, 9)), ScoreRequest(PROMPT, (10,))]
    rows = child.ask(lambda i: wire.Scoring(i, asked)).value
    assert [sum(values) for values, _ in rows] == pytest.approx(
        [s.logprob for s in engine.score(asked)], abs=1e-5
    )
    assert [all(greedy) for _, greedy in rows] == [s.greedy for s in engine.score(asked)]
    pieces = [("<|im_start|>user", True), ("<|im_sep|>", False)]
    ids = child.ask(lambda i: wire.Encode(i, pieces)).value
    assert ids[0] == engine.tokenizer.special_ids["<|im_start|>"]
    assert engine.tokenizer.special_ids["<|im_sep|>"] not in ids
    assert b"".join(child.ask(lambda i: wire.Spell(i, ids)).value) == b"user<|im_sep|>"


def test_what_it_cannot_do_is_a_fault_in_words(child):
    with pytest.raises(ValueError, match="phikit export --to gguf"):
        child.ask(lambda i: wire.Embed(i, ["x"]))
    with pytest.raises(ValueError, match="a token id is not in 0 to 299"):
        child.ask(lambda i: wire.Decode(i, [300]))
    with pytest.raises(ValueError, match="JSON schemas"):
        replies(child, GenRequest(PROMPT, 4, json_schema="{}"))
    with pytest.raises(ValueError, match="torch cannot load this model"):
        Child(child.model / "none", 64, 1, 1, "torch_worker")


def test_shaped_draws_are_those_of_a_loop_without_cache(engine):
    request = GenRequest(PROMPT, 10, temperature=0.0, repeat_penalty=1.5, top_k=7, presence_penalty=0.3, n=2)
    [(_, [found, same])] = engine.generate([request])
    tokens: list[int] = []
    with torch.inference_mode():
        for _ in range(10):
            ids = torch.tensor([[*PROMPT, *tokens]])
            hidden = engine.model(ids, torch.arange(ids.shape[1])[None], None)
            logits = F.linear(hidden[0, -1], engine.model.head_weight)
            token = int(np.argmax(shaped(logits.numpy(), request, ids[0].tolist())))
            tokens.append(token)
            logprob = float(torch.log_softmax(logits, -1)[token])
            assert found.logprobs[len(tokens) - 1] == pytest.approx(logprob, abs=1e-4)  # the model's own
    assert list(found.tokens) == tokens == list(same.tokens)
    plain = next(engine.generate([GenRequest(PROMPT, 10, temperature=0.0)]))[1][0]
    assert plain.tokens != found.tokens


def test_a_process_that_is_killed_is_an_error(folder):
    child = Child(folder, 64, 1, 1, "torch_worker")
    child.process.kill()
    child.reader.join(20)
    with pytest.raises(EngineCrashed, match="the torch process ended: signal 9"):
        child.ask(lambda i: wire.Encode(i, [("x", False)]))
    child.close()
