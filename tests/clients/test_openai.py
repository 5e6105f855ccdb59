"""The real `openai` package against the server."""

from __future__ import annotations

import json
import math
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    openai = pytest.importorskip("openai", reason="pip install openai: the real client")
    from pydantic import BaseModel, Field

MODEL = "smollm2"
HI = [{"role": "user", "content": "What is the capital of France?"}]
FEW = {"max_tokens": 8, "temperature": 0}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_chat_whole_and_streamed_say_the_same(client):
    whole = client.chat.completions.create(model=MODEL, messages=HI, **FEW)
    options = {"include_usage": True}
    parts = list(
        client.chat.completions.create(model=MODEL, messages=HI, stream=True, stream_options=options, **FEW)
    )
    text = "".join(p.choices[0].delta.content or "" for p in parts if p.choices)
    assert text == whole.choices[0].message.content
    assert parts[0].choices[0].delta.role == "assistant"
    assert (
        [p.choices[0].finish_reason for p in parts if p.choices][-1]
        == whole.choices[0].finish_reason
        == "length"
    )
    assert parts[-1].choices == []
    assert parts[-1].usage == whole.usage
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 8


def test_n_samples_streamed_and_whole(client):
    sampled = {"model": MODEL, "messages": HI, "max_tokens": 6, "n": 3, "seed": 11, "temperature": 1.2}
    whole = client.chat.completions.create(**sampled)
    texts = [c.message.content for c in whole.choices]
    assert [c.index for c in whole.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    streamed = ["", "", ""]
    for part in client.chat.completions.create(**sampled, stream=True):
        for choice in part.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts
    assert whole.usage.completion_tokens <= 18


def test_logprobs(client):
    said = client.chat.completions.create(model=MODEL, messages=HI, logprobs=True, top_logprobs=2, **FEW)
    rows = said.choices[0].logprobs.content
    assert bytes(b for r in rows for b in r.bytes).decode() == said.choices[0].message.content
    assert all(r.top_logprobs[0].logprob == r.logprob for r in rows)


def test_parts_developer_role_and_stops(client):
    parts = [{"type": "text", "text": "What is the "}, {"type": "text", "text": "capital of France?"}]
    asked = [{"role": "user", "content": parts}]
    same = client.chat.completions.create(model=MODEL, messages=HI, **FEW)
    assert client.chat.completions.create(model=MODEL, messages=asked, **FEW).choices == same.choices
    text = same.choices[0].message.content
    cut = client.chat.completions.create(model=MODEL, messages=HI, stop=[text[4:7]], **FEW)
    assert cut.choices[0].message.content == text[: text.index(text[4:7])]
    assert cut.choices[0].finish_reason == "stop"
    told = [{"role": "developer", "content": "Be brief."}, *HI]
    assert client.chat.completions.create(model=MODEL, messages=told, **FEW).usage.prompt_tokens > 5


class City(BaseModel):
    name: str = Field(max_length=12)
    people: int = Field(ge=0, le=99)


def test_response_format_schema_parse_and_json_object(client):
    asked = [{"role": "user", "content": "Give a city."}]
    said = client.chat.completions.parse(
        model=MODEL, messages=asked, response_format=City, max_tokens=60, temperature=0
    )
    assert isinstance(said.choices[0].message.parsed, City)
    said = client.chat.completions.create(
        model=MODEL, messages=asked, response_format={"type": "json_object"}, max_tokens=12, temperature=0
    )
    assert said.choices[0].message.content.lstrip().startswith("{")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_forced_tool_is_called(client, choice):
    asked = {
        "model": MODEL,
        "messages": HI,
        "tools": [TOOL],
        "tool_choice": choice,
        "max_tokens": 80,
        "temperature": 0,
    }
    said = client.chat.completions.create(**asked).choices[0]
    assert said.finish_reason == "tool_calls"
    [call] = said.message.tool_calls[:1]
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city"}
    parts = list(client.chat.completions.create(**asked, stream=True))
    deltas = [p.choices[0].delta.tool_calls for p in parts if p.choices and p.choices[0].delta.tool_calls]
    assert deltas[0][0].function.arguments == call.function.arguments
    assert deltas[0][0].index == 0
    assert parts[-1].choices[0].finish_reason == "tool_calls"
    back = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    assert client.chat.completions.create(model=MODEL, messages=back, **FEW).choices[0].message.content


def test_no_tool_where_none_may_be_called(client):
    said = client.chat.completions.create(model=MODEL, messages=HI, tools=[TOOL], tool_choice="none", **FEW)
    assert said.choices[0].message.tool_calls is None


def test_completions_with_n_echo_and_logprobs(client):
    said = client.completions.create(
        model=MODEL,
        prompt="The capital of France is",
        max_tokens=3,
        temperature=0,
        echo=True,
        logprobs=2,
        n=2,
    )
    assert len(said.choices) == 2
    first = said.choices[0]
    assert first.text.startswith("The capital of France is")
    assert "Paris" in first.text
    rows = first.logprobs
    assert rows.token_logprobs[0] is None
    assert all(x <= 0 for x in rows.token_logprobs[1:])
    assert "".join(rows.tokens) == first.text
    assert rows.text_offset[1] == len(rows.tokens[0])
    several = client.completions.create(model=MODEL, prompt=["one", "two"], max_tokens=2, temperature=0)
    assert [c.index for c in several.choices] == [0, 1]
    ids = client.completions.create(model=MODEL, prompt=[504, 3575, 282], max_tokens=2, temperature=0)
    assert ids.usage.prompt_tokens == 3
    parts = list(
        client.completions.create(model=MODEL, prompt="one", max_tokens=2, temperature=0, stream=True)
    )
    assert "".join(p.choices[0].text for p in parts) == several.choices[0].text


def test_echo_alone_scores_a_text(client):
    """max_tokens 0 with echo and logprobs: how a log-likelihood is asked for in this API."""
    said = client.completions.create(
        model=MODEL, prompt="Paris is in France", max_tokens=0, echo=True, logprobs=0
    )
    values = said.choices[0].logprobs.token_logprobs
    assert said.choices[0].text == "Paris is in France"
    scored = client.post(
        "/score",
        cast_to=object,
        body={"model": MODEL, "context": "Paris", "continuations": [" is in France"]},
    )
    assert math.fsum(values[1:]) == pytest.approx(scored["data"][0]["logprob"], abs=1e-4)


def test_score_tells_which_continuation_fits(client):
    body = {
        "model": MODEL,
        "context": "The capital of France is",
        "continuations": [" Paris", " Berlin", " purple"],
    }
    found = client.post("/score", cast_to=object, body={**body, "token_logprobs": True})
    values = [row["logprob"] for row in found["data"]]
    assert values[0] > values[1] > values[2]
    assert found["numerics"] == "gguf:Q4_1"
    assert sum(found["data"][0]["token_logprobs"]) == pytest.approx(values[0])
    asked = {"model": MODEL, "messages": HI, "continuations": ["Paris"]}
    assert client.post("/score", cast_to=object, body=asked)["data"][0]["tokens"] >= 1


def test_served_score_is_the_engines_score(client, tiny, store):
    """The same numbers through /v1/score and in this process, for a model of ours."""
    from phikit.engine.base import ScoreRequest
    from phikit.engine.torch_engine import TorchEngine

    engine = TorchEngine.from_folder(store.parts(store.find(tiny)).weights)
    context, ends = engine.encode("The user"), [engine.encode(x) for x in (" asked", " knows")]
    own = engine.score([ScoreRequest(tuple(context), tuple(e)) for e in ends])
    body = {"model": tiny, "context": "The user", "continuations": [" asked", " knows"]}
    served = client.post("/score", cast_to=object, body=body)
    assert [r["logprob"] for r in served["data"]] == pytest.approx([s.logprob for s in own], abs=1e-5)
    assert served["numerics"] == "exact-fp32"


def test_embeddings_float_and_base64(client):
    plain = client.embeddings.create(model=MODEL, input=["a cat", "a dog"], encoding_format="float").data
    packed = client.embeddings.create(
        model=MODEL, input=["a cat", "a dog"]
    ).data  # the client asks for base64
    assert packed[1].embedding == pytest.approx(plain[1].embedding, abs=1e-6)
    assert len(client.embeddings.create(model=MODEL, input="x", dimensions=8).data[0].embedding) == 8


def test_models(client):
    ids = {m.id for m in client.models.list()}
    assert {"smollm2:latest", "vanilj/Phi-4:latest"} <= ids
    assert client.models.retrieve("vanilj/Phi-4").owned_by == "vanilj"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_responses_whole_streamed_and_with_a_tool(client):
    said = client.responses.create(
        model=MODEL, input="What is the capital of France?", temperature=0, max_output_tokens=8
    )
    assert said.status == "incomplete"
    assert said.incomplete_details.reason == "max_output_tokens"
    assert said.output_text
    events = list(
        client.responses.create(
            model=MODEL,
            input=[{"role": "user", "content": "What is the capital of France?"}],
            temperature=0,
            max_output_tokens=8,
            stream=True,
        )
    )
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == said.output_text
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert events[-1].response.output_text == said.output_text
    flat = {"type": "function", **TOOL["function"]}
    called = client.responses.create(
        model=MODEL,
        input="Weather?",
        tools=[flat],
        tool_choice="required",
        temperature=0,
        max_output_tokens=80,
    )
    calls = [x for x in called.output if x.type == "function_call"]
    assert calls
    assert calls[0].name == "weather"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda c: c.chat.completions.create(model="nothing", messages=HI),
            "NotFoundError",
            "model 'nothing' not found",
        ),
        (
            lambda c: c.chat.completions.create(model=MODEL, messages=[]),
            "BadRequestError",
            "at least one message",
        ),
        (
            lambda c: c.chat.completions.create(model=MODEL, messages=[{"role": "wizard", "content": "x"}]),
            "BadRequestError",
            "unknown role",
        ),
        (
            lambda c: c.chat.completions.create(model=MODEL, messages=HI, temperature=-1),
            "BadRequestError",
            "temperature",
        ),
        (
            lambda c: c.chat.completions.create(model=MODEL, messages=HI, n=100),
            "BadRequestError",
            "n must be",
        ),
        (
            lambda c: c.chat.completions.create(model=MODEL, messages=HI, top_logprobs=30, logprobs=True),
            "BadRequestError",
            "between 0 and 20",
        ),
        (
            lambda c: c.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "w " * 3000}]
            ),
            "BadRequestError",
            "does not fit the context",
        ),
        (
            lambda c: c.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            ),
            "BadRequestError",
            "sees images",
        ),
        (
            lambda c: c.chat.completions.create(
                model=MODEL,
                messages=HI,
                tools=[TOOL],
                tool_choice={"type": "function", "function": {"name": "x"}},
            ),
            "BadRequestError",
            "none of the tools",
        ),
        (
            lambda c: c.chat.completions.create(model=MODEL, messages=HI, response_format={"type": "xml"}),
            "BadRequestError",
            "response_format.type",
        ),
        (
            lambda c: c.completions.create(model=MODEL, prompt="x", suffix="y"),
            "BadRequestError",
            "does not support insert",
        ),
        (lambda c: c.completions.create(model=MODEL, prompt="x", best_of=5), "BadRequestError", "best_of"),
        (lambda c: c.completions.create(model=MODEL, prompt=[10**9]), "BadRequestError", "token ids go from"),
        (lambda c: c.embeddings.create(model=MODEL, input=[]), "BadRequestError", "input is required"),
        (lambda c: c.embeddings.create(model="nothing", input="x"), "NotFoundError", "not found"),
        (
            lambda c: c.responses.create(model=MODEL, input="x", previous_response_id="resp_1"),
            "BadRequestError",
            "previous_response_id",
        ),
        (
            lambda c: c.responses.create(model=MODEL, input="x", tools=[{"type": "web_search"}]),
            "BadRequestError",
            "only functions",
        ),
        (
            lambda c: c.post("/score", cast_to=object, body={"model": MODEL, "continuations": ["x"]}),
            "BadRequestError",
            "context or messages",
        ),
    ],
)
def test_errors_have_openais_form(client, call, error, words):
    with pytest.raises(openai.APIStatusError) as e:
        call(client)
    assert type(e.value).__name__ == error
    assert words in e.value.body["message"]
    assert {"message", "type", "param", "code"} <= set(e.value.body)
