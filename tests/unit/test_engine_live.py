"""Continuous batching: what a request is answered is what it is answered alone, whoever comes and goes."""

from __future__ import annotations

import pytest

from phikit.engine import live
from phikit.engine.base import GenRequest
from phikit.engine.live import Live
from phikit.engine.torch_engine import TorchEngine
from phikit.model.config import ModelConfig
from phikit.model.transformer import build
from phikit.text.tokenizer import Tokenizer

LONG = tuple(range(5, 45))


@pytest.fixture(scope="module")
def engine():
    tokenizer = Tokenizer.train(["user system assistant: it is the best, yes! What is 3 + 4? " * 3], 290)
    return TorchEngine(build(ModelConfig(300, 32, 2, 4, 2, 48, 128, init_std=0.4), 0), tokenizer)


@pytest.fixture(autouse=True)
def chunks(monkeypatch):
    monkeypatch.setattr(live, "CHUNK", 16)


class Batch:
    """Runs a Live batch; `tokens[number][sample]` and so on are what came of each request."""

    def __init__(self, engine: TorchEngine, most: int) -> None:
        self.live, self.engine = Live(engine, most), engine
        self.tokens: dict[int, dict[int, list[int]]] = {}
        self.text: dict[int, dict[int, str]] = {}
        self.finish: dict[tuple[int, int], str] = {}
        self.most = 0

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            pieces = self.live.step()
            self.most = max(self.most, len(pieces))
            for number, k, piece in pieces:
                assert (number, k) not in self.finish
                self.tokens.setdefault(number, {}).setdefault(k, []).extend(piece.tokens)
                self.text.setdefault(number, {}).setdefault(k, "")
                self.text[number][k] += piece.text
                if piece.finish:
                    self.finish[number, k] = piece.finish

    def end(self) -> None:
        while not self.live.is_idle:
            self.step()

    def check(self, number: int, request: GenRequest) -> None:
        alone = next(self.engine.generate([request]))[1]
        for k, c in enumerate(alone):
            assert self.tokens[number][k] == list(c.tokens), (number, k)
            assert (self.text[number][k], self.finish[number, k]) == (c.text, c.finish)


REQUESTS = [
    GenRequest((5, 6, 7), 30, temperature=0.0),
    GenRequest((5, 6, 7), 12, n=3, seed=4, top_logprobs=2),
    GenRequest(LONG, 20, seed=2, temperature=0.7, top_p=0.9),
    GenRequest((9,), 25, seed=9, stop=("e", "zz")),
    GenRequest(LONG[:20], 40, temperature=0.0, stop_ids=(3,), repeat_penalty=1.3),
    GenRequest((8, 8), 0),
]


@pytest.mark.parametrize("most", [1, 3, 16])
@pytest.mark.parametrize("apart", [0, 1, 7])
def test_each_request_is_answered_as_alone(engine, most, apart):
    batch = Batch(engine, most)
    for i, request in enumerate(REQUESTS):
        batch.live.add(i, request)
        batch.step(apart)
    batch.end()
    assert batch.most <= most
    for i, request in enumerate(REQUESTS[:-1]):
        batch.check(i, request)
    assert (batch.tokens[5], batch.finish[5, 0]) == ({0: []}, "length")


def test_samples_share_decode_steps(engine, monkeypatch):
    runs = []
    run = engine.network.run
    monkeypatch.setattr(engine.network, "run", lambda t, p, a: runs.append(len(t)) or run(t, p, a))
    batch = Batch(engine, 8)
    for i in range(8):
        batch.live.add(i, GenRequest((5 + i, 6), 20, temperature=0.0))
    batch.end()
    assert len(runs) <= 8 + 20  # a prefill each, then one step for all
    assert max(runs) == 8


def test_a_long_prompt_does_not_hold_up_the_others(engine):
    batch = Batch(engine, 4)
    batch.live.add(0, GenRequest((5, 6), 30, temperature=0.0))
    batch.step(3)
    batch.live.add(1, GenRequest(tuple(range(5, 105)), 5, temperature=0.0))  # seven chunks
    before = len(batch.tokens[0][0])
    while 1 not in batch.tokens:
        batch.step()
    assert len(batch.tokens[0][0]) - before >= 6
    batch.end()
    batch.check(1, GenRequest(tuple(range(5, 105)), 5, temperature=0.0))


def test_a_cancelled_request_says_nothing_more_and_leaves_its_place(engine):
    batch = Batch(engine, 2)
    for i in range(4):
        batch.live.add(i, GenRequest((5, 6 + i), 30, temperature=0.0))
    batch.step(4)
    said = {i: len(batch.tokens[i][0]) for i in (0, 1)}
    batch.live.cancel([0, 3])  # one at work, one that waits
    batch.end()
    assert len(batch.tokens[0][0]) == said[0]
    assert 3 not in batch.tokens
    for i in (1, 2):
        batch.check(i, GenRequest((5, 6 + i), 30, temperature=0.0))


def test_memory_bounds_the_batch_and_is_given_back(engine, monkeypatch):
    monkeypatch.setattr(engine, "cache_bytes", 2 * 100 * engine.network.cache_bytes)
    batch = Batch(engine, 8)
    for i in range(3):
        batch.live.add(i, GenRequest((5, 6 + i), 98, temperature=0.0))
    batch.end()
    assert batch.most == 2
    assert batch.live._slots is None


def test_what_it_cannot_do_is_refused(engine):
    batch = Live(engine, 1)
    with pytest.raises(ValueError, match="1 to 127"):
        batch.add(0, GenRequest((5,) * 200, 4))
    with pytest.raises(ValueError, match="prompt_logprobs"):
        batch.add(0, GenRequest((5,), 4, prompt_logprobs=True))
    assert batch.is_idle
