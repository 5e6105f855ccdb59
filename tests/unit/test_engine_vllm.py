"""VllmEngine against a stand-in of vLLM that TorchEngine computes: the same tokens, log-probabilities and scores."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny_hf import write_tiny_hf

from phikit.engine.base import GenRequest, PromptTooLong, ScoreRequest
from phikit.engine.open import open_engine
from phikit.engine.torch_engine import TorchEngine
from phikit.engine.vllm_engine import EngineDead, VllmEngine
from phikit.model.config import ModelConfig
from phikit.records.ids import seed_of
from phikit.records.types import turns

PROMPT = (3, 1, 4, 1, 5, 9, 2, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write_tiny_hf(path, ModelConfig(320, 64, 2, 4, 2, 160, 96), gain=4.0)
    return path


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "stand_in")
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "vllm"]:
        del sys.modules[name]


@pytest.fixture
def engine(folder, stand_in) -> VllmEngine:
    engine = open_engine(f"vllm:{folder}")
    assert isinstance(engine, VllmEngine)
    return engine


def test_what_it_is(engine, folder):
    torch_engine = TorchEngine.from_folder(folder)
    assert (engine.info.name, engine.info.context, engine.info.vocab) == (str(folder), 96, 320)
    assert engine.info.numerics == "vllm:float32"
    assert engine.stop_ids == torch_engine.stop_ids
    talk = turns(("user", "the cat <|im_end|>"))
    assert engine.render(talk) == torch_engine.render(talk)
    assert engine.decode(engine.encode("the rat sat.")) == "the rat sat."
    options = engine._llm.options
    assert options["enable_prefix_caching"] is True
    assert options["logprobs_mode"] == "raw_logprobs"  # of the model, whatever is drawn
    assert options["tensor_parallel_size"] == 1


def test_samples_have_the_tokens_texts_and_logprobs_of_the_torch_engine(engine, folder):
    torch_engine = TorchEngine.from_folder(folder)
    request = GenRequest(
        PROMPT, 12, n=5, temperature=0.9, top_p=0.95, seed=7, top_logprobs=3, prompt_logprobs=True
    )
    greedy = GenRequest(PROMPT[:4], 6, temperature=0.0)
    found = dict(engine.generate([request, greedy]))
    for j, c in enumerate(found[0]):
        alone = GenRequest(
            PROMPT, 12, temperature=0.9, top_p=0.95, seed=seed_of(7, j), top_logprobs=3, prompt_logprobs=True
        )
        ((_, (expected,)),) = torch_engine.generate([alone])
        assert (c.text, c.tokens, c.finish) == (expected.text, expected.tokens, expected.finish)
        assert c.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
        assert [[t for t, _ in row] for row in c.top] == [[t for t, _ in row] for row in expected.top]
        assert c.prompt_logprobs == pytest.approx(expected.prompt_logprobs, abs=1e-4)
    assert len({c.tokens for c in found[0]}) > 3
    assert len(found[1]) == 1
    assert found[1][0].top == found[1][0].prompt_logprobs == ()
    ((_, more),) = engine.generate([GenRequest(PROMPT, 12, n=2, temperature=0.9, top_p=0.95, seed=7)])
    assert [c.tokens for c in more] == [c.tokens for c in found[0][:2]]  # a smaller n has the same samples


def test_stops(engine, folder):
    """A stop id is kept as the last token; a stop string is cut from the text."""
    ((_, (free,)),) = engine.generate([GenRequest(PROMPT, 20, seed=5)])
    at = next(i for i in range(3, 20) if free.tokens[i] not in free.tokens[:i])
    ((_, (c,)),) = engine.generate([GenRequest(PROMPT, 20, seed=5, stop_ids=(free.tokens[at],))])
    assert c.tokens == free.tokens[: at + 1]
    assert c.finish == "stop"
    assert c.text == engine.decode(c.tokens[:-1])
    ascii_at = next(
        i for i in range(2, len(free.text)) if free.text[i].isascii() and free.text[i] not in free.text[:i]
    )
    ((_, (c,)),) = engine.generate([GenRequest(PROMPT, 20, seed=5, stop=(free.text[ascii_at],))])
    assert c.text == free.text[:ascii_at]
    assert c.finish == "stop"
    assert len(c.logprobs) == len(c.tokens) < 20
    assert free.finish == "length"


def test_what_vllm_is_told(engine):
    list(engine.generate([
        GenRequest(PROMPT, 4, seed=1, stop_ids=(300,), top_k=5, min_p=0.1, presence_penalty=0.5,
                   frequency_penalty=0.25),
        GenRequest(PROMPT, 4, repeat_penalty=1.2, repeat_last=-1, presence_penalty=0.5, temperature=0.0),
        GenRequest(PROMPT, 4, presence_penalty=0.5, repeat_last=0),
    ]))  # fmt: skip
    a, b, c = engine._llm.asked
    assert (a.seed, a.top_k, a.min_p, a.presence_penalty, a.frequency_penalty) == (
        seed_of(1, 0),
        5,
        0.1,
        0.5,
        0.25,
    )
    assert a.stop_token_ids == [300]
    assert a.ignore_eos  # stop_ids alone end an answer
    assert not a.detokenize
    assert (b.repetition_penalty, b.presence_penalty) == (1.2, 0.5)
    assert c.presence_penalty == 0.0
    with pytest.raises(ValueError, match="give repeat_last=-1"):
        list(engine.generate([GenRequest(PROMPT, 4, repeat_penalty=1.2)]))


def test_forms(engine):
    """A grammar and a schema become structured outputs, which the model's own end token ends."""
    end = engine.stop_ids[-1]
    requests = [
        GenRequest(PROMPT, 50, grammar='root ::= "a"'),
        GenRequest(PROMPT, 50, json_schema="{}", stop_ids=(end,)),
    ]
    (_, (a,)), (_, (b,)) = engine.generate(requests)
    assert [c.text for c in (a, b)] == ['{"form": "grammar"}', '{"form": "json"}']
    assert a.tokens[-1] == b.tokens[-1] == end
    assert not any(s.ignore_eos for s in engine._llm.asked)
    with pytest.raises(ValueError, match="not both"):
        list(engine.generate([GenRequest(PROMPT, 5, grammar="root ::= ws", json_schema="{}")]))


def test_scores(engine, folder):
    torch_engine = TorchEngine.from_folder(folder)
    ((_, (best,)),) = torch_engine.generate([GenRequest(PROMPT, 3, temperature=0.0)])
    requests = [ScoreRequest(PROMPT, best.tokens), ScoreRequest(PROMPT[:3], PROMPT[3:])]
    for a, b in zip(engine.score(requests), torch_engine.score(requests)):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
        assert (a.greedy, a.tokens) == (b.greedy, b.tokens)
    assert engine.score(requests)[0].greedy
    assert engine.score([]) == []


def test_prompts_alone_and_usage(engine):
    ((_, (c,)),) = engine.generate([GenRequest(PROMPT, 0, prompt_logprobs=True)])
    assert c.tokens == c.logprobs == ()
    assert len(c.prompt_logprobs) == len(PROMPT) - 1
    before = engine.usage
    list(engine.generate([GenRequest(tuple(range(5, 45)), 4, n=2)]))
    assert engine.usage.generated - before.generated == 8
    assert engine.usage.prefilled - before.prefilled == 2 * (40 - 32)  # 32 of 40 tokens were cached
    assert list(engine.generate([])) == []


def test_what_does_not_fit_is_refused(engine):
    with pytest.raises(PromptTooLong, match="request 0: a prompt of 96 tokens"):
        list(engine.generate([GenRequest((5,) * 96, 4)]))
    with pytest.raises(PromptTooLong, match=r"score request 0: 95 \+ 1 tokens"):
        engine.score([ScoreRequest((5,) * 95, (6,))])
    ((_, (c,)),) = engine.generate([GenRequest((5,) * 94, 10, temperature=0.0)])
    assert len(c.tokens) == 2
    assert c.finish == "length"


def test_options_and_refusals(folder, stand_in, tmp_path):
    engine = open_engine(str(folder), kind="vllm", context=64, gpus=2)
    assert isinstance(engine, VllmEngine)
    assert engine.info.context == 64
    options = engine._llm.options
    assert (options["tensor_parallel_size"], options["distributed_executor_backend"]) == (2, "mp")
    engine.close()
    assert engine._llm is None
    (tmp_path / "m.gguf").touch()
    with pytest.raises(ValueError, match=r"m\.gguf: vLLM runs Hugging Face folders"):
        open_engine(f"vllm:{tmp_path / 'm.gguf'}")
    with pytest.raises(ValueError, match="2 GPUs for one engine are for vLLM"):
        open_engine(str(folder), gpus=2)


def test_a_vllm_that_refuses_or_ends(engine, folder, stand_in, monkeypatch):
    import vllm  # pyright: ignore[reportMissingImports]

    def raises(error: Exception):
        def ends(*_, **__):
            raise error

        return ends

    with pytest.raises(ValueError, match=r"vLLM refuses: stop cannot contain an empty string"):
        list(engine.generate([GenRequest(PROMPT, 4, stop=("",))]))
    monkeypatch.setattr(
        engine._llm, "generate", raises(vllm.EngineDeadError("EngineCore encountered an issue"))
    )
    with pytest.raises(EngineDead, match=r"vLLM ended .*EngineCore encountered an issue"):
        list(engine.generate([GenRequest(PROMPT, 4)]))
    with pytest.raises(EngineDead, match=r"vLLM ended"):
        engine.score([ScoreRequest(PROMPT, PROMPT)])
    monkeypatch.setattr(vllm.LLM, "__init__", raises(RuntimeError("Engine core initialization failed")))
    with pytest.raises(ValueError, match=r"vLLM does not start .*initialization failed"):
        open_engine(f"vllm:{folder}")


def test_without_vllm_the_install_line_is_said(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match=r"vLLM is not installed here .*pip install 'vllm"):
        open_engine(f"vllm:{folder}")


def test_a_teacher_of_vllm(folder, stand_in, tmp_path):
    """The flows' client: requests that wait together are one call; a schema is held to by its grammar."""
    from phikit.ask.budget import Budget
    from phikit.ask.teacher import open_teacher

    schema = {"type": "object", "properties": {"form": {"type": "string"}}}
    with open_teacher(f"vllm:{folder}", log=tmp_path, budget=Budget(tokens=5000)) as teacher:
        assert teacher.holds
        talk = turns(("user", "the cat"))
        answers = teacher.run(teacher.chat(talk, n=6, max_tokens=5, seed=3))
        formed = teacher.run(teacher.chat(talk, schema=schema, max_tokens=40))
    assert len({a.text for a in answers}) > 2
    assert formed[0].text == '{"form": "grammar"}'
    with open_teacher(f"vllm:{folder}", log=tmp_path, budget=Budget(tokens=5000)) as teacher:
        again = teacher.run(teacher.chat(talk, n=6, max_tokens=5, seed=3))
        assert teacher.counts()["asked"] == 0
    assert [a.text for a in again] == [a.text for a in answers]
