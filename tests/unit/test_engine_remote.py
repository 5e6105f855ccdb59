from dataclasses import replace

import pytest
from ask_endpoint import FaultyEndpoint

from phikit.engine.base import GenRequest, PromptTooLong, ScoreRequest
from phikit.engine.endpoint import BadReply, Endpoint, RateLimited, Refused, Unavailable
from phikit.engine.remote import NotOffered, RemoteEngine
from phikit.records.types import turns


@pytest.fixture
def opened():
    made = []

    def start(**arguments):
        server = FaultyEndpoint(**arguments).__enter__()
        engine = RemoteEngine.from_spec(f"{server.url}#m")
        made.append((server, engine))
        return server, engine

    yield start
    for server, engine in made:
        engine.close()
        server.__exit__()


def complete(path, body):
    """Like llama.cpp: token ids in logprobs.content; no scores, no tokenizer."""
    if path != "/v1/completions":
        return None
    ids = [sum(body["prompt"]), 7][: body["max_tokens"]]
    content = [{"id": i, "logprob": -0.5} for i in ids]
    choice = {"text": "ab", "finish_reason": "length", "logprobs": {"content": content}}
    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(ids) * body["n"]}
    return {"choices": [{**choice, "index": k} for k in range(body.get("n", 1))], "usage": usage}


def test_token_id_prompts_go_to_completions(opened):
    server, engine = opened(reply=complete)
    requests = [GenRequest((1, 2), 2, n=2, stop=("x",), stop_ids=(9,)), GenRequest((3, 4), 2)]
    found = dict(engine.generate(requests))
    assert [c.tokens for c in found[0]] == [(3, 7), (3, 7)]
    assert found[1][0].tokens == (7, 7)
    assert found[1][0].logprobs == (-0.5, -0.5)
    assert found[1][0].finish == "length"
    body = next(b for _, b in server.bodies if b["n"] == 2)
    assert (body["prompt"], body["stop"], body["stop_token_ids"]) == ([1, 2], ["x"], [9])
    assert engine.usage.generated == 6


def test_what_the_endpoint_cannot_do_is_a_clear_error(opened):
    _, engine = opened(reply=lambda path, body: complete(path, {**body, "n": 1}))
    with pytest.raises(NotOffered, match="/tokenize"):
        engine.encode("a")
    with pytest.raises(NotOffered, match="/detokenize"):
        engine.decode([1])
    with pytest.raises(NotOffered, match="prompt_logprobs"):
        engine.score([ScoreRequest((1,), (2,))])
    with pytest.raises(ValueError, match="grammar"):
        list(engine.generate([GenRequest((1,), 1, grammar="root ::= x")]))
    with pytest.raises(NotOffered, match="alternatives"):
        list(engine.generate([GenRequest((1,), 1, top_logprobs=2)]))
    with pytest.raises(NotOffered, match="prompt_logprobs"):
        list(engine.generate([GenRequest((1,), 1, prompt_logprobs=True)]))


def only(engine, request):
    ((_, (completion,)),) = engine.generate([request])
    return completion


def test_a_chat_only_endpoint_and_one_without_ids_are_refused_in_words(opened):
    _, engine = opened(reply=lambda path, body: None)
    with pytest.raises(NotOffered, match=r"no /completions.*by chat"):
        only(engine, GenRequest((1, 2), 2))
    _, engine = opened(reply=lambda path, body: {"choices": [{"text": "hi", "finish_reason": "stop"}]})
    with pytest.raises(NotOffered, match="names no token ids"):
        only(engine, GenRequest((1, 2), 2))


def test_a_cut_prompt_and_missing_tokens_are_never_silent(opened):
    def cut(path, body):
        value = complete(path, body)
        return {**value, "usage": {"prompt_tokens": 2, "completion_tokens": 2}}

    _, engine = opened(reply=cut)
    assert only(engine, GenRequest((1, 2), 2)).tokens == (3, 7)
    with pytest.raises(NotOffered, match="prompt of 3 tokens was sent and the endpoint counts 2"):
        only(engine, GenRequest((1, 2, 3), 2))
    _, engine = opened(
        reply=lambda path, body: {
            **complete(path, body),
            "usage": {"prompt_tokens": 2, "completion_tokens": 9},
        }
    )
    with pytest.raises(NotOffered, match="generated 9 tokens and named the ids of 2"):
        only(engine, GenRequest((1, 2), 9))
    engine.info = replace(engine.info, context=2)
    with pytest.raises(PromptTooLong, match="2 tokens, the context is 2"):
        only(engine, GenRequest((1, 2), 2))


def test_stop_ids_hold_where_the_endpoint_knows_none(opened):
    def reply(path, body):
        return {"content": f"<{body['tokens']}>"} if path == "/detokenize" else complete(path, body)

    _, engine = opened(reply=reply)
    found = only(engine, GenRequest((1, 2), 2, stop_ids=(3,)))
    assert (found.tokens, found.text, found.finish) == ((3,), "<[]>", "stop")
    assert only(engine, GenRequest((1, 2), 2, stop_ids=(7,))).finish == "stop"


def test_alternatives_and_prompt_logprobs_of_vllm(opened):
    def vllm(path, body):
        assert body["return_tokens_as_token_ids"]
        steps = {"token_id:5": -0.25, "token_id:8": -0.1, "token_id:2": -9.0}
        rows = [None, {"2": {"logprob": -1.5, "rank": 1}, "9": {"logprob": -0.5, "rank": 2}}]
        logprobs = {"token_logprobs": [-0.25], "top_logprobs": [steps], "tokens": ["token_id:5"]}
        choice = {"text": "x", "token_ids": [5], "logprobs": logprobs, "prompt_logprobs": rows}
        return {"choices": [choice]}

    _, engine = opened(reply=vllm)
    found = only(engine, GenRequest((1, 2), 1, top_logprobs=2, prompt_logprobs=True))
    assert found.tokens == (5,)
    assert found.top == (((8, -0.1), (5, -0.25)),)
    assert found.prompt_logprobs == (-1.5,)


def test_scores_and_tokens_where_the_endpoint_offers_them(opened):
    def vllm(path, body):
        if path == "/tokenize":
            return {"tokens": [5, 6] if "messages" in body else list(body["prompt"].encode())}
        if path == "/detokenize":
            return {"prompt": bytes(body["tokens"]).decode()}
        rows = [None] + [
            {str(t): {"logprob": -float(t), "rank": 1 if t != 3 else 2}} for t in body["prompt"][1:]
        ]
        return {"choices": [{"text": "", "prompt_logprobs": rows}]}

    _, engine = opened(reply=vllm)
    assert engine.encode("ab") == [97, 98]
    assert engine.decode([97, 98]) == "ab"
    assert engine.render(turns(("user", "x"))) == [5, 6]
    one, two = engine.score([ScoreRequest((1, 2), (4, 5)), ScoreRequest((1,), (3,))])
    assert (one.logprob, one.greedy, one.tokens) == (-9.0, True, 2)
    assert (two.logprob, two.greedy) == (-3.0, False)


@pytest.mark.parametrize(
    "fault, kind, billed",
    [(429, RateLimited, False), (500, Unavailable, False), (400, Refused, False), (401, Refused, False)]
    + [("cut", BadReply, True), ("junk", BadReply, True), ("empty", BadReply, True)],
)
def test_faults_are_typed(opened, fault, kind, billed):
    _, engine = opened(plan=lambda number: fault)
    with pytest.raises(kind) as caught:
        engine.chat(turns(("user", "hi")), max_tokens=4)
    assert caught.value.billed is billed
    if kind is RateLimited:
        assert caught.value.retry_after == 0.01
    if kind is Refused:
        assert caught.value.configuration is (fault == 401)


def test_no_server_and_time_outs_are_unavailable():
    engine = RemoteEngine(Endpoint("http://127.0.0.1:9/v1", "m"))
    with pytest.raises(Unavailable) as caught:
        engine.chat(turns(("user", "hi")))
    assert not caught.value.billed
    engine.close()
    with FaultyEndpoint(plan=lambda number: "slow") as server:
        engine = RemoteEngine(Endpoint(server.url, "m", timeout=0.2))
        with pytest.raises(Unavailable) as caught:
            engine.chat(turns(("user", "hi")))
        assert caught.value.billed
        engine.close()
