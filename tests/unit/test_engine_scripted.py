import pytest

from phikit.engine.base import GenRequest, PromptTooLong, ScoreRequest
from phikit.engine.scripted import ScriptedEngine
from phikit.records.types import turns


def one(engine, request):
    ((_, (completion,)),) = engine.generate([request])
    return completion


def test_the_script_sees_the_rendered_prompt():
    engine = ScriptedEngine(lambda prompt: prompt[-40:])
    prompt = tuple(engine.render(turns(("user", "h\u00e9"))))
    said = one(engine, GenRequest(prompt, 100, stop_ids=engine.stop_ids))
    assert engine.prompts == ["<|im_start|>user<|im_sep|>h\u00e9<|im_end|><|im_start|>assistant<|im_sep|>"]
    assert said.text == engine.prompts[0][-40:]
    assert said.tokens[-1] == engine.stop_ids[0]
    assert said.finish == "stop"
    assert len(said.tokens) == len(said.logprobs)


def test_max_tokens_stop_ids_and_stop_strings():
    engine = ScriptedEngine(lambda prompt: "one two three")
    cut = one(engine, GenRequest((65,), 5))
    assert (cut.text, cut.finish, len(cut.tokens)) == ("one t", "length", 5)
    ended = one(engine, GenRequest((65,), 50, stop_ids=(ord(" "),)))
    assert (ended.text, ended.finish) == ("one", "stop")
    assert ended.tokens[-1] == ord(" ")
    stopped = one(engine, GenRequest((65,), 50, stop=("two",)))
    assert (stopped.text, stopped.finish) == ("one ", "stop")


def test_seeds_decide_samples_alone():
    engine = ScriptedEngine(lambda prompt, seed: str(seed), seeded=True)
    alone = dict(engine.generate([GenRequest((65,), 50, n=3, seed=4)]))[0]
    both = dict(engine.generate([GenRequest((66,), 50, seed=9), GenRequest((65,), 50, n=3, seed=4)]))
    assert both[1] == alone
    assert len({c.text for c in alone}) == 3


def test_score_prefers_what_the_script_says():
    engine = ScriptedEngine(lambda prompt: "yes")
    yes, no = engine.score([ScoreRequest((65,), tuple(b"yes")), ScoreRequest((65,), tuple(b"no"))])
    assert yes.greedy
    assert not no.greedy
    assert yes.logprob > -0.1 > -10 > no.logprob
    assert (yes.tokens, no.tokens) == (3, 2)


def test_too_long_a_prompt_is_refused():
    with pytest.raises(PromptTooLong, match="9 tokens, context 8"):
        list(ScriptedEngine(lambda p: "", context=8).generate([GenRequest((65,) * 9, 1)]))
