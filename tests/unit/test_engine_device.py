"""TorchEngine on another device than the host's: the same answers, and no tensor on the wrong side."""

from __future__ import annotations

import pytest
import torch
from fake_device import DEVICE, OnDevice, fake_device, moved
from test_engine_torch import TOKENIZER, VOCAB, requests_of

from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.torch_engine import TorchEngine
from phikit.model.config import ModelConfig
from phikit.model.device import VARIABLE, choose_device
from phikit.model.transformer import build

CONFIG = ModelConfig(VOCAB, 32, 2, 4, 2, 48, 96, init_std=0.4)


def engines(**more) -> tuple[TorchEngine, TorchEngine]:
    """Equal networks, on the host and on the device."""
    model = build(CONFIG, 3)
    moved(model)
    with fake_device():
        there = TorchEngine(model, TOKENIZER, slots=16, cache_bytes=1 << 30, **more)
    return TorchEngine(build(CONFIG, 3), TOKENIZER, slots=16, **more), there


def test_the_fake_device_refuses_what_cuda_refuses():
    with fake_device():
        x = torch.ones(2, device=DEVICE)
        assert isinstance(x, OnDevice)
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(2)
        with pytest.raises(RuntimeError, match="same device"):
            x[torch.tensor([0])]
        with pytest.raises(TypeError, match=r"\.cpu\(\)"):
            x.numpy()
        assert (x + 1).cpu().numpy().tolist() == [2, 2]
        x[1:].add_(1)
        assert x.tolist() == [1, 2]


def test_all_that_the_engine_computes_is_on_the_device_and_equal():
    here, there = engines()
    requests = requests_of(5, 24, longest=60)
    requests += [
        GenRequest((7, 8, 9), 50, n=3, seed=4, top_logprobs=2),
        GenRequest((7, 8, 9), 4, prompt_logprobs=True),
        GenRequest((7, 8), 6, seed=5, top_k=5, repeat_penalty=1.2),
    ]
    with fake_device():
        got = dict(there.generate(requests))
    want = dict(here.generate(requests))
    for i in want:
        assert [c.tokens for c in got[i]] == [c.tokens for c in want[i]]
        for a, b in zip(got[i], want[i]):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
            assert a.prompt_logprobs == pytest.approx(b.prompt_logprobs, abs=1e-5)
    for x in (*there.network.layers[0].__dict__.values(), there.network.cos, there.network.embed):
        assert not isinstance(x, torch.Tensor) or isinstance(x, OnDevice)


def test_a_common_beginning_of_many_prompts_is_on_the_device():
    here, there = engines()
    root = tuple(range(40))
    requests = [GenRequest((*root, i, i + 1), 12, n=2, seed=i) for i in range(9)]
    with fake_device():
        got = dict(there.generate(requests))
    want = dict(here.generate(requests))
    assert [[c.tokens for c in got[i]] for i in range(9)] == [[c.tokens for c in want[i]] for i in range(9)]


def test_scores_are_equal():
    here, there = engines()
    requests = [ScoreRequest((1, 2, 3, i), (4, 5, i)) for i in range(20)]
    with fake_device():
        got = there.score(requests)
    assert [s.logprob for s in got] == pytest.approx([s.logprob for s in here.score(requests)], abs=1e-5)


def test_one_step_waits_for_the_device_a_few_times_only():
    """Copies between host and device do not grow with the number of samples."""
    _, there = engines()

    def crossings(n: int) -> int:
        requests = [GenRequest((1, 2), 12, n=n, seed=1)]
        with fake_device() as mode:
            assert len(dict(there.generate(requests))[0]) == n
        return mode.crossed

    assert crossings(16) <= crossings(2) + 40


def test_the_device_is_chosen_by_name_variable_and_machine(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    with pytest.raises(ValueError, match="finds 0 CUDA devices"):
        choose_device("cuda")
    with pytest.raises(ValueError, match="write cpu, cuda"):
        choose_device("gpu7")
    with pytest.raises(ValueError, match="cpu or cuda"):
        choose_device("meta")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device() == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setenv(VARIABLE, "cpu")
    assert choose_device() == torch.device("cpu")
    assert choose_device("cuda") == torch.device("cuda")


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


@needs_cuda
def test_cuda_gives_what_the_cpu_gives():
    """In fp32 the numbers differ by the order of sums; samples that differ would need a draw at the very edge."""
    here = TorchEngine(build(CONFIG, 3), TOKENIZER)
    there = TorchEngine(build(CONFIG, 3).to("cuda"), TOKENIZER)
    requests = [*requests_of(5, 200, longest=60), GenRequest((7, 8), 6, seed=5, top_k=5, repeat_penalty=1.2)]
    got, want = dict(there.generate(requests)), dict(here.generate(requests))
    same = [[c.tokens for c in got[i]] == [c.tokens for c in want[i]] for i in want]
    assert sum(same) >= len(same) - 1
    scored = [ScoreRequest((1, 2, 3, i), (4, 5, i)) for i in range(50)]
    assert [s.logprob for s in there.score(scored)] == pytest.approx(
        [s.logprob for s in here.score(scored)], abs=1e-3
    )


@needs_cuda
def test_cuda_has_room_for_many_samples():
    engine = TorchEngine(build(CONFIG, 3).to("cuda", torch.bfloat16), TOKENIZER)
    assert engine.info.numerics == "bf16"
    [(_, completions)] = engine.generate([GenRequest((1, 2, 3), 40, n=3000, seed=1)])
    assert len(completions) == 3000
    assert engine.room(80) > 4096
