"""The real `langchain-ollama` package: OllamaLLM, ChatOllama, OllamaEmbeddings, and the chain that started it all."""

from __future__ import annotations

import asyncio
import json
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lc = pytest.importorskip("langchain_ollama", reason="pip install langchain-ollama: the real client")
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.tools import tool
    from pydantic import BaseModel, Field

MODEL = "smollm2"
FEW = {"num_predict": 8, "temperature": 0}


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    people: int


def test_the_chain_of_the_article(server):
    """`prompt | OllamaLLM(model="vanilj/Phi-4")`, where that name is an alias."""
    prompt = ChatPromptTemplate.from_template("Question: {question}\nAnswer: Let's think step by step.")
    model = lc.OllamaLLM(model="vanilj/Phi-4", base_url=server.url, num_predict=16)
    assert (prompt | model).invoke({"question": "What is 2 + 3?"}).strip()


def test_llm_invoke_stream_batch_and_async_agree(server):
    model = lc.OllamaLLM(model=MODEL, base_url=server.url, validate_model_on_init=True, **FEW)
    said = model.invoke("What is the capital of France?")
    assert said
    assert "".join(model.stream("What is the capital of France?")) == said
    assert model.batch(["What is the capital of France?"] * 3) == [said] * 3

    async def ask():
        return await model.ainvoke("What is the capital of France?")

    assert asyncio.run(ask()) == said


def test_a_model_that_is_not_there_is_found_out_at_once(server):
    with pytest.raises(Exception, match=r"not found|pull"):
        lc.ChatOllama(model="nothing", base_url=server.url, validate_model_on_init=True)
    assert lc.ChatOllama(model="vanilj/Phi-4", base_url=server.url, validate_model_on_init=True)


def test_chat_has_usage_and_reasons(server):
    model = lc.ChatOllama(model=MODEL, base_url=server.url, **FEW)
    said = model.invoke([("system", "Be brief."), ("human", "Say hi.")])
    assert isinstance(said, AIMessage)
    assert said.usage_metadata["output_tokens"] <= 8
    assert said.usage_metadata["input_tokens"] > 5
    assert said.response_metadata["done_reason"] in ("stop", "length")
    parts = list(model.stream([("system", "Be brief."), ("human", "Say hi.")]))
    assert "".join(p.content for p in parts) == said.content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(server, method):
    model = lc.ChatOllama(model=MODEL, base_url=server.url, num_predict=120, temperature=0)
    chain = model.with_structured_output(City, method=method, include_raw=True)
    found = chain.invoke("Paris has 2000000 people. Give the city.")
    if method == "json_schema":
        assert isinstance(found["parsed"], City)
    else:  # a small model may answer in place of calling
        assert found["parsed"] is None or isinstance(found["parsed"], City)


def test_json_mode(server):
    model = lc.ChatOllama(model=MODEL, base_url=server.url, format="json", num_predict=60, temperature=0)
    said = model.invoke('Answer {"ok": true}')
    if said.response_metadata["done_reason"] == "stop":
        assert isinstance(json.loads(said.content), dict)
    assert said.content.lstrip().startswith("{")


def test_tools_and_their_results(server):
    model = lc.ChatOllama(model=MODEL, base_url=server.url, num_predict=60, temperature=0).bind_tools(
        [weather]
    )
    said = model.invoke("Call weather for Paris.")
    assert said.tool_calls or said.content
    for call in said.tool_calls:
        assert call["name"] == "weather"
        assert set(call["args"]) == {"city"}
    history = [
        HumanMessage("Weather in Paris?"),
        AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "1"}]),
        ToolMessage("sunny in Paris", tool_call_id="1"),
    ]
    plain = lc.ChatOllama(model=MODEL, base_url=server.url, **FEW)
    assert plain.invoke(history).content


def test_reasoning_is_refused_in_ollamas_words(server):
    with pytest.raises(Exception, match='"smollm2" does not support thinking'):
        lc.ChatOllama(model=MODEL, base_url=server.url, reasoning=True).invoke("hi")


def test_images_are_refused_in_words(server):
    message = HumanMessage(
        [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": "data:image/png;base64,aGk="}]
    )
    with pytest.raises(Exception, match="no model that sees images"):
        lc.ChatOllama(model=MODEL, base_url=server.url).invoke([message])


def test_embeddings_sync_and_async(server):
    model = lc.OllamaEmbeddings(model=MODEL, base_url=server.url)
    many, one = model.embed_documents(["a cat", "a dog"]), model.embed_query("a cat")
    assert len(many) == 2
    assert one == pytest.approx(many[0], abs=1e-6)
    assert asyncio.run(model.aembed_query("a cat")) == pytest.approx(one, abs=1e-6)


def test_keep_alive_and_seed_reach_the_server(server):
    model = lc.OllamaLLM(
        model=MODEL, base_url=server.url, keep_alive=-1, seed=5, temperature=1.3, num_predict=8
    )
    assert model.invoke("Tell me a story") == model.invoke("Tell me a story")
    [loaded] = [
        m for m in server.pool.loaded.values() if m.entry.manifest == server.store.find(MODEL).manifest
    ]
    assert loaded.keep_alive == float("inf")
    loaded.keep_alive = 300.0


def test_an_overlong_prompt_is_an_error_with_the_numbers(server):
    with pytest.raises(Exception, match="does not fit the context of 1024 tokens"):
        lc.ChatOllama(model=MODEL, base_url=server.url).invoke("word " * 3000)
