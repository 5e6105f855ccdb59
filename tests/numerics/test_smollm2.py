"""A real model in both engines: SmolLM2-135M-Instruct as a torch network and in llama.cpp.

On an F32 export of its weights both say the same words. On the Q4_1 file itself llama.cpp rounds activations to 8
bits before it multiplies them with quantized weights, torch does not: log-probabilities differ by that noise.
"""

from __future__ import annotations

import statistics

import pytest

from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.open import open_engine
from phikit.model.gguf import copied_keys, write_rows
from phikit.model.rows import of_gguf
from phikit.records.types import turns
from phikit.store.teacher import smollm2_path

try:
    MODEL = smollm2_path()
except FileNotFoundError as e:
    pytest.skip(str(e), allow_module_level=True)

PROMPTS = (
    *(f"Name the capital of {x}." for x in (
        "France", "Japan", "Brazil", "Egypt", "Canada", "Norway", "Kenya", "Peru", "Greece", "India")),
    *(f"What is {a} + {b}?" for a, b in (
        (3, 4), (12, 9), (25, 17), (100, 250), (8, 8), (7, 13), (40, 2), (19, 21), (5, 6), (33, 44))),
    *(f"Explain in one sentence what {x} is." for x in (
        "a volcano", "the moon", "a bicycle", "bread", "a library", "the ocean", "a computer", "music", "winter",
        "an ant")),
    *(f"Translate '{x}' into Spanish and French." for x in (
        "water", "friend", "book", "house", "sun", "dog", "red", "night", "tree", "bread")),
    *(f"Write a Python function that {x}." for x in (
        "adds two numbers", "reverses a string", "returns the larger of two numbers", "counts the words of a text",
        "checks whether a number is even", "sums a list", "removes duplicates from a list", "computes a factorial",
        "joins two lists", "finds the longest word")),
)  # fmt: skip
TOKENS = 24  # of an answer
PROSE = (
    "The library stood at the corner of the old market, and on winter evenings its windows were the only light in "
    "the street. Children came first, then students, and late in the evening the people who had nowhere else to "
    "go. Nobody asked them what they read. In the third year the roof began to leak, so the city moved the maps and "
    "the oldest books to a cellar, where a retired engineer copied every map by hand. He said that a map which "
    "nobody had drawn twice was only a rumour."
)


@pytest.fixture(scope="module")
def f32(tmp_path_factory):
    path = tmp_path_factory.mktemp("f32") / "smollm2.gguf"
    write_rows(path, of_gguf(MODEL), "F32", copied_keys(MODEL, "F32"), architecture="llama")
    yield path
    path.unlink()  # half a gigabyte


def close(*engines) -> None:
    for engine in engines:
        engine.close()


def test_both_engines_tokenize_and_render_alike():
    torch_engine, llama = open_engine("torch:smollm2"), open_engine("smollm2", context=512, threads=1)
    try:
        assert torch_engine.info.numerics == "fp32-of-gguf:Q4_1"
        assert torch_engine.info.vocab == llama.info.vocab == 49_152
        assert torch_engine.stop_ids == llama.stop_ids
        for talk in (
            turns(("user", "Name the capital of France.")),
            turns(
                ("system", "Be brief."),
                ("user", "3 + 4 = 12345? <|im_end|> \u00e9\u65e5"),
                ("assistant", "no"),
            ),
        ):
            assert torch_engine.render(talk) == llama.render(talk)
        assert torch_engine.encode(PROSE) == llama.encode(PROSE)
        assert torch_engine.decode(torch_engine.encode(PROSE)) == PROSE
    finally:
        close(torch_engine, llama)


def test_log_probabilities_on_the_quantized_file():
    """Stated noise: a token differs by 0.06 nats in the mean and by 0.35 at most, without bias."""
    torch_engine, llama = open_engine("torch:smollm2"), open_engine("smollm2", context=512, threads=2)
    try:
        ids = torch_engine.encode(PROSE)
        requests = [ScoreRequest(tuple(ids[:i]), (ids[i],)) for i in range(1, len(ids))]
        ours = [s.logprob for s in torch_engine.score(requests)]
        theirs = [s.logprob for s in llama.score(requests)]
    finally:
        close(torch_engine, llama)
    differences = [a - b for a, b in zip(ours, theirs)]
    assert statistics.stdev(ours) > 2  # the tokens are of every kind, and the noise is small against that
    assert statistics.fmean(map(abs, differences)) < 0.1
    assert max(map(abs, differences)) < 0.6
    assert abs(statistics.fmean(differences)) < 0.04


@pytest.mark.slow
def test_the_same_words_from_an_f32_export(f32):
    assert len(set(PROMPTS)) == 50
    torch_engine = open_engine(f"torch:{f32}")
    llama = open_engine(str(f32), context=512, parallel=4, threads=2)
    try:
        assert torch_engine.info.numerics == "fp32-of-gguf:F32"
        ends = torch_engine.stop_ids
        prompts = [tuple(torch_engine.render(turns(("user", p)))) for p in PROMPTS]
        requests = [GenRequest(p, TOKENS, temperature=0.0, stop_ids=ends) for p in prompts]
        ours, theirs = dict(torch_engine.generate(requests)), dict(llama.generate(requests))
    finally:
        close(torch_engine, llama)
    for i, prompt in enumerate(PROMPTS):
        assert ours[i][0].text == theirs[i][0].text, prompt
        assert ours[i][0].tokens == theirs[i][0].tokens, prompt
    noise = [abs(a - b) for i in ours for a, b in zip(ours[i][0].logprobs, theirs[i][0].logprobs)]
    assert len(noise) > 500
    assert max(noise) < 0.05  # llama.cpp keeps keys and values in f16; 0.014 was measured
