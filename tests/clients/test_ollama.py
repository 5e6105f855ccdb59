"""The real `ollama` package against the server: every method, every error."""

from __future__ import annotations

import asyncio
import hashlib
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ollama = pytest.importorskip("ollama", reason="pip install ollama: the real client")

MODEL = "smollm2"
FEW = {"num_predict": 8, "temperature": 0}
HI = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(server):
    found = ollama.Client(server.url)
    yield found
    found._client.close()


def test_generate_whole_and_streamed_say_the_same(client):
    whole = client.generate(MODEL, "What is the capital of France?", options=FEW)
    parts = list(client.generate(MODEL, "What is the capital of France?", options=FEW, stream=True))
    assert whole.response == "".join(p.response for p in parts)
    assert whole.response
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True]
    last = parts[-1]
    assert last.done_reason == whole.done_reason
    assert last.eval_count == whole.eval_count <= 8
    assert min(last.total_duration, last.prompt_eval_duration, last.eval_duration, last.prompt_eval_count) > 0
    assert last.total_duration >= last.eval_duration
    assert whole.context == last.context
    assert whole.created_at.endswith("Z")


def test_a_context_goes_on_where_the_answer_ended(client):
    first = client.generate(MODEL, "My name is Ada.", options=FEW)
    again = client.generate(MODEL, "What is my name?", context=first.context, options=FEW)
    assert again.prompt_eval_count > first.prompt_eval_count
    assert again.context[: len(first.context)] == first.context


def test_raw_text_is_continued_without_a_template(client):
    raw = client.generate(MODEL, "The capital of France is", raw=True, options=FEW)
    assert "Paris" in raw.response
    assert raw.context is None
    assert raw.prompt_eval_count < 10


def test_chat_with_history_and_system(client):
    messages = [
        {"role": "system", "content": "You answer in one word."},
        {"role": "user", "content": "My cat is called Tom."},
        {"role": "assistant", "content": "Nice!"},
        {"role": "user", "content": "What is the name of my cat?"},
    ]
    answer = client.chat(MODEL, messages, options={"num_predict": 24, "temperature": 0})
    assert answer.message.role == "assistant"
    assert "Tom" in answer.message.content
    assert answer.message.tool_calls is None


def test_chat_streams_and_ends_with_the_counts(client):
    parts = list(client.chat(MODEL, HI, options=FEW, stream=True))
    assert "".join(p.message.content for p in parts)
    assert parts[-1].done
    assert parts[-1].done_reason == "length"
    assert parts[-1].eval_count == 8


def test_the_same_seed_says_the_same_and_another_something_else(client):
    def said(seed):
        return client.generate(
            MODEL, "Tell me a story.", options={"num_predict": 12, "temperature": 1.5, "seed": seed}
        )

    assert said(7).response == said(7).response
    assert len({said(i).response for i in range(4)}) > 1


def test_stop_strings_are_cut(client):
    options = {"num_predict": 40, "temperature": 0}
    whole = client.generate(MODEL, "Count: one, two, three,", raw=True, options=options).response
    cut = client.generate(MODEL, "Count: one, two, three,", raw=True, options=options | {"stop": ["five"]})
    assert "five" in whole
    assert cut.response == whole[: whole.index("five")]
    assert cut.done_reason == "stop"


def test_options_reach_the_sampler(client):
    hot = {"num_predict": 12, "temperature": 5.0, "seed": 3}
    greedy = client.generate(MODEL, "Hello", options={"num_predict": 12, "temperature": 0}).response
    assert client.generate(MODEL, "Hello", options=hot | {"top_k": 1}).response == greedy
    assert client.generate(MODEL, "Hello", options=hot | {"min_p": 1.0}).response == greedy
    assert client.generate(MODEL, "Hello", options=hot | {"top_p": 0.0}).response == greedy
    loop = {"num_predict": 30, "temperature": 0}
    plain = client.generate(MODEL, "a a a a a a a a", raw=True, options=loop).response
    other = client.generate(
        MODEL, "a a a a a a a a", raw=True, options=loop | {"repeat_penalty": 1.8}
    ).response
    assert len(set(other.split())) > len(set(plain.split()))


def test_logprobs(client):
    answer = client.chat(MODEL, HI, options=FEW, logprobs=True, top_logprobs=3)
    assert len(answer.logprobs) == answer.eval_count
    for entry in answer.logprobs:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob
        assert entry.token == entry.top_logprobs[0].token  # greedy
    assert "".join(e.token for e in answer.logprobs) == answer.message.content


def test_a_json_schema_is_obeyed(client):
    import json

    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer"}},
        "required": ["city", "people"],
    }
    options = {"num_predict": 60, "temperature": 0}
    value = json.loads(client.chat(MODEL, HI, format=schema, options=options).message.content)
    assert isinstance(value["city"], str)
    assert isinstance(value["people"], int)


def test_json_mode_is_an_object(client):
    import json

    said = client.generate(
        MODEL, 'Answer with {"ok": true}', format="json", options={"num_predict": 120, "temperature": 0}
    )
    if said.done_reason == "stop":
        assert isinstance(json.loads(said.response), dict)
    assert said.response.lstrip().startswith("{")


def weather(city: str) -> str:
    """The weather of a city.

    Args:
      city: its name
    """
    return f"sunny in {city}"


def test_tools_are_called_or_answered(client):
    """SmolLM2 knows no tools: the prompt and grammar shim makes its answer one of the two forms."""
    answer = client.chat(
        MODEL,
        [{"role": "user", "content": "Call weather for Paris."}],
        tools=[weather],
        options={"num_predict": 80, "temperature": 0},
    )
    if answer.message.tool_calls:
        call = answer.message.tool_calls[0].function
        assert call.name == "weather"
        assert set(call.arguments) == {"city"}
    else:
        assert answer.message.content
        assert "tool_calls" not in answer.message.content
    results = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}],
        },
        {"role": "tool", "tool_name": "weather", "content": "It is sunny in Paris."},
    ]
    assert client.chat(MODEL, results, options=FEW).message.content


def test_embeddings_new_and_old(client):
    many = client.embed(MODEL, ["a cat", "a kitten", "tax law"]).embeddings
    one = client.embed(MODEL, "a cat")
    assert len(many) == 3
    assert one.embeddings[0] == pytest.approx(many[0], abs=1e-6)
    assert one.prompt_eval_count > 0
    assert sum(x * x for x in many[0]) == pytest.approx(1.0, abs=1e-5)
    assert list(client.embeddings(MODEL, "a cat").embedding) == pytest.approx(list(many[0]), abs=1e-6)
    short = client.embed(MODEL, "a cat", dimensions=16).embeddings[0]
    assert len(short) == 16
    assert sum(x * x for x in short) == pytest.approx(1.0, abs=1e-5)


def test_load_ps_unload(client, server):
    assert client.generate(MODEL).done_reason == "load"
    assert MODEL in {m.model.split(":")[0] for m in client.ps().models} | {"smollm2"}
    loaded = client.ps().models[0]
    assert loaded.context_length == 1024
    assert loaded.size > 90_000_000
    assert client.generate(MODEL, keep_alive=0).done_reason == "unload"
    assert client.ps().models == []
    assert client.chat(MODEL, keep_alive="10m").done_reason == "load"
    assert len(client.ps().models) == 1


def test_list_and_show(client):
    names = {m.model for m in client.list().models}
    assert {"smollm2:latest", "vanilj/Phi-4:latest"} <= names
    shown = client.show(MODEL)
    assert shown.details.family == "llama"
    assert shown.details.parameter_size == "134.52M"
    assert "completion" in shown.capabilities
    assert shown.modelinfo["llama.context_length"] == 8192
    assert "<|im_start|>" in shown.template
    assert shown.modelfile.startswith("# Modelfile")


def test_create_copy_delete(client):
    steps = list(
        client.create(
            "pirate", from_=MODEL, system="You are a pirate.", parameters={"temperature": 0}, stream=True
        )
    )
    assert steps[-1].status == "success"
    assert client.show("pirate").parameters == "temperature          0"
    answer = client.chat("pirate", HI, options={"num_predict": 4})
    plain = client.chat(MODEL, HI, options={"num_predict": 4})
    assert answer.prompt_eval_count != plain.prompt_eval_count
    client.copy("pirate", "team/Pirate:v2")
    assert "team/Pirate:v2" in {m.model for m in client.list().models}
    assert client.delete("pirate").status == "success"
    assert client.delete("TEAM/pirate:V2").status == "success"
    with pytest.raises(ollama.ResponseError) as e:
        client.show("pirate")
    assert e.value.status_code == 404


def test_create_from_an_uploaded_file(client, tmp_path):
    from tiny_gguf import write_tiny

    path = tmp_path / "tiny.gguf"
    write_tiny(path)
    digest = client.create_blob(path)
    assert digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    client.create("uploaded", files={"tiny.gguf": digest}, template="{{ .Prompt }}")
    assert client.generate("uploaded", "The user", options=FEW).eval_count > 0
    client.create("smaller", files={"tiny.gguf": digest}, quantize="q8_0")
    assert client.show("smaller").details.quantization_level == "Q8_0"
    assert client.generate("smaller", "The user", options=FEW).eval_count > 0
    client.delete("uploaded")
    client.delete("smaller")


def test_a_model_of_ours_by_torch(client, tiny):
    shown = client.show(tiny)
    assert shown.details.format == "safetensors"
    assert shown.capabilities == ["completion"]
    said = client.chat(
        tiny, [{"role": "user", "content": "3 + 4?"}], options={"num_predict": 5, "temperature": 0}
    )
    again = list(
        client.chat(
            tiny,
            [{"role": "user", "content": "3 + 4?"}],
            options={"num_predict": 5, "temperature": 0},
            stream=True,
            logprobs=True,
        )
    )
    assert said.eval_count >= 1
    assert "".join(p.message.content for p in again) == said.message.content
    with pytest.raises(ollama.ResponseError, match="does not support structured output"):
        client.chat(tiny, HI, format="json")
    with pytest.raises(ollama.ResponseError, match="does not support tools"):
        client.chat(tiny, HI, tools=[weather])
    with pytest.raises(ollama.ResponseError, match="does not support embeddings"):
        client.embed(tiny, "x")


def test_pull_of_a_bare_name_and_chat(client, tmp_path, monkeypatch):
    """`ollama pull team/tiny` against a registry of that protocol on loopback, then a chat with what came."""
    from test_store_pull import Site, registry
    from tiny_gguf import write_tiny

    write_tiny(tmp_path / "t.gguf")
    site = Site()
    try:
        monkeypatch.setenv("PHIKIT_REGISTRY", f"http://{site.host}")
        registry(site, (tmp_path / "t.gguf").read_bytes(), "team/tiny", template="{{ .Prompt }}")
        steps = [p.status for p in client.pull("team/tiny", stream=True)]
    finally:
        site.close()
    assert steps[0] == "pulling manifest"
    assert steps[-1] == "success"
    assert client.chat("team/tiny", HI, options=FEW).done
    with pytest.raises(ollama.ResponseError, match=r"127\.0\.0\.1:1"):
        client.pull("127.0.0.1:1/a/b", insecure=True)
    client.delete("team/tiny")


@pytest.mark.parametrize(
    ("call", "status", "words"),
    [
        (lambda c: c.generate("nothing", "x"), 404, "model 'nothing' not found"),
        (lambda c: c.chat("nothing", HI), 404, "model 'nothing' not found"),
        (lambda c: c.embed("nothing", "x"), 404, "not found"),
        (lambda c: c.show("nothing"), 404, "not found"),
        (lambda c: c.copy("nothing", "x"), 404, "not found"),
        (lambda c: c.delete("nothing"), 404, "not found"),
        (lambda c: c.show("../../etc/passwd"), 400, "invalid model name"),
        (
            lambda c: c.generate(MODEL, "x", options={"temperature": "hot"}),
            400,
            'option "temperature" must be of type float32',
        ),
        (lambda c: c.generate(MODEL, "x", options={"num_ctx": -5}), 400, "num_ctx"),
        (lambda c: c.generate(MODEL, "x", options={"num_ctx": 1 << 20}), 400, "8192 tokens"),
        (lambda c: c.generate(MODEL, "x", raw=True, system="y"), 400, "raw mode does not support"),
        (lambda c: c.generate(MODEL, "x", suffix="y"), 400, "does not support insert"),
        (lambda c: c.generate(MODEL, "x", images=["aGk="]), 400, "no model that sees images"),
        (
            lambda c: c.chat(MODEL, [{"role": "user", "content": "x", "images": ["aGk="]}]),
            400,
            "no model that sees images",
        ),
        (lambda c: c.chat(MODEL, HI, think=True), 400, '"smollm2" does not support thinking'),
        (
            lambda c: c.chat(MODEL, HI, logprobs=True, top_logprobs=21),
            400,
            "top_logprobs must be between 0 and 20",
        ),
        (
            lambda c: c.chat(MODEL, [{"role": "user", "content": "word " * 2000}]),
            400,
            "does not fit the context of 1024 tokens",
        ),
        (lambda c: c.generate(MODEL, "x", keep_alive="soon"), 400, "invalid duration"),
        (lambda c: c.generate(MODEL, "x", template="{{ if }}"), 400, "if needs a value"),
        (lambda c: c.chat(MODEL, HI, format={"type": "nonsense"}), 400, "schema"),
        (lambda c: c.create("a", from_="nothing"), 404, "not found"),
        (lambda c: c.create("a", from_=MODEL, quantize="q3_x"), 400, "unsupported quantization"),
        (lambda c: c.create("a", from_=MODEL, quantize="q4_0"), 400, "already"),
        (
            lambda c: c.create("a", from_=MODEL, adapters={"a": "sha256:" + "0" * 64}),
            400,
            "adapters are not supported",
        ),
        (lambda c: c.push("smollm2"), 501, "uploads nothing"),
    ],
)
def test_errors_have_ollamas_status_and_form(client, call, status, words):
    with pytest.raises(ollama.ResponseError) as e:
        call(client)
    assert e.value.status_code == status
    assert words in e.value.error


def test_a_stream_of_an_unknown_model_raises_at_its_first_part(client):
    with pytest.raises(ollama.ResponseError) as e:
        next(client.generate("nothing", "x", stream=True))
    assert e.value.status_code == 404


def test_async_and_many_at_once(server):
    async def ask():
        client = ollama.AsyncClient(server.url)
        asks = [client.chat(MODEL, HI, options={"num_predict": 4, "temperature": 0}) for _ in range(12)]
        said = await asyncio.gather(*asks)
        parts = [
            p
            async for p in await client.chat(
                MODEL, HI, options={"num_predict": 4, "temperature": 0}, stream=True
            )
        ]
        return [s.message.content for s in said], "".join(p.message.content for p in parts)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        said, streamed = asyncio.run(ask())
    assert set(said) == {streamed}
