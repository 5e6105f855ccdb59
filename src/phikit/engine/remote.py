"""RemoteEngine: the engine protocol over an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, phikit
serve).

Generation works everywhere that takes token-id prompts. Tokenization needs /tokenize and /detokenize beside
/v1 (vLLM, llama.cpp), scores need `prompt_logprobs` (vLLM): where they are missing, a clear error says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx

from phikit.engine.base import Counter, EngineInfo, GenRequest, ScoreRequest, Usage
from phikit.engine.endpoint import (
    BadReply,
    ChatReply,
    Endpoint,
    EndpointError,
    Refused,
    chat_body,
    chat_reply,
    choices,
    finish_of,
    read_reply,
    transport_error,
)
from phikit.records.types import Completion, Score, Turn


class NotOffered(EndpointError):
    """The endpoint has no way to do this; the message says what would."""


class RemoteEngine:
    """`concurrency` requests at once. Errors are typed (`phikit.engine.endpoint`) and never retried here.

    `info.context` and `info.vocab` are 0 unless given: the OpenAI protocol does not tell them. Completions
    carry tokens and log-probabilities where the reply names token ids; both are empty where it does not."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        concurrency: int = 8,
        stop_ids: Sequence[int] = (),
        context: int = 0,
        vocab: int = 0,
    ) -> None:
        self.endpoint, self.concurrency = endpoint, concurrency
        self.info = EngineInfo(f"{endpoint.url}#{endpoint.model}", context, vocab, "remote")
        self._stop_ids = tuple(stop_ids)
        self._counter = Counter()
        self._client = httpx.Client(timeout=endpoint.timeout)

    @classmethod
    def from_spec(cls, spec: str) -> RemoteEngine:
        return cls(Endpoint.from_spec(spec))

    @property
    def usage(self) -> Usage:
        return self._counter.usage()

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Empty unless given: the endpoint ends turns by itself."""
        return self._stop_ids

    def encode(self, text: str) -> list[int]:
        return self._tokenize(
            {"prompt": text, "content": text, "add_special_tokens": False, "add_special": False}
        )

    def render(self, turns: Sequence[Turn]) -> list[int]:
        messages = [{"role": t.role, "content": t.content} for t in turns]
        return self._tokenize({"messages": messages, "add_generation_prompt": True})

    def decode(self, ids: Sequence[int]) -> str:
        value = self._beside("/detokenize", {"tokens": list(ids)}, "decode()")
        text = value.get("prompt", value.get("content"))
        if not isinstance(text, str):
            raise BadReply(f"{self.info.name}: /detokenize gave no text: {str(value)[:200]}")
        return text

    def chat(self, turns: Sequence[Turn], **options: Any) -> ChatReply:
        """One answer of /v1/chat/completions; `options` are the protocol's own (max_tokens, temperature,
        ...)."""
        return chat_reply(self._post("/chat/completions", chat_body(self.endpoint.model, turns, options)))

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[tuple[int, list[Completion]]]:
        for request in requests:
            if request.grammar:
                raise ValueError(
                    f"{self.info.name}: an endpoint takes no GBNF grammar; ask for a JSON schema by chat"
                )
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = {pool.submit(self._complete, r): i for i, r in enumerate(requests)}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                for future in futures:
                    future.cancel()

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(self._score, requests))

    def close(self) -> None:
        self._client.close()

    def _complete(self, request: GenRequest) -> list[Completion]:
        body: dict[str, Any] = {
            "model": self.endpoint.model, "prompt": list(request.prompt), "max_tokens": request.max_tokens,
            "n": request.n, "temperature": request.temperature, "top_p": request.top_p,
            "seed": request.seed & 0x7FFFFFFF, "logprobs": 1, "return_token_ids": True,
        }  # fmt: skip
        if request.stop:
            body["stop"] = list(request.stop)
        if request.stop_ids:
            body["stop_token_ids"] = list(request.stop_ids)
        value = self._post("/completions", body)
        found = choices(value)
        if len(found) != request.n:
            raise BadReply(f"{self.info.name}: asked for {request.n} samples, got {len(found)}")
        usage = value.get("usage") or {}
        self._counter.prefilled += usage.get("prompt_tokens") or 0
        self._counter.generated += usage.get("completion_tokens") or 0
        return [Completion(c.get("text") or "", *_tokens(c), finish_of(c)) for c in found]

    def _score(self, request: ScoreRequest) -> Score:
        """vLLM's `prompt_logprobs`: for each prompt token a map id -> {logprob, rank}."""
        ids = [*request.context, *request.continuation]
        body = {
            "model": self.endpoint.model,
            "prompt": ids,
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 1,
        }
        value = self._post("/completions", body)
        rows = choices(value)[0].get("prompt_logprobs")
        if not isinstance(rows, list) or len(rows) != len(ids):
            raise NotOffered(
                f"{self.info.name}: the endpoint returned no prompt_logprobs, so it cannot score; "
                "use a checkpoint folder, a GGUF file or a vLLM endpoint"
            )
        self._counter.prefilled += len(ids)
        total, greedy = 0.0, True
        for token, row in list(zip(ids, rows))[len(request.context) :]:
            entry = (row or {}).get(str(token))
            if entry is None:
                raise BadReply(f"{self.info.name}: prompt_logprobs lacks token {token}")
            total += float(entry["logprob"])
            greedy = greedy and entry.get("rank") == 1
        return Score(total, greedy, len(request.continuation))

    def _tokenize(self, body: dict[str, Any]) -> list[int]:
        value = self._beside("/tokenize", body, "encode() and render()")
        tokens = value.get("tokens")
        if not isinstance(tokens, list) or (not tokens and body.get("messages")):
            raise NotOffered(
                f"{self.info.name}: /tokenize of this endpoint does not render conversations; use chat"
            )
        return [int(t) for t in tokens]

    def _beside(self, path: str, body: dict[str, Any], what: str) -> dict[str, Any]:
        """These routes lie beside /v1, not under it."""
        try:
            return self._post(
                path, {"model": self.endpoint.model, **body}, self.endpoint.url.removesuffix("/v1")
            )
        except Refused as e:
            if e.status in (404, 405):
                raise NotOffered(f"{self.info.name}: the endpoint has no {path}, which {what} needs") from e
            raise

    def _post(self, path: str, body: Mapping[str, Any], base: str | None = None) -> dict[str, Any]:
        url = (self.endpoint.url if base is None else base) + path
        try:
            response = self._client.post(url, json=body, headers=self.endpoint.headers())
        except httpx.HTTPError as e:
            raise transport_error(url, e) from e
        return read_reply(url, response)


def _tokens(choice: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """(ids, logprobs) of a choice: llama.cpp's `logprobs.content`, or vLLM's `token_ids` and
    `token_logprobs`."""
    logprobs = choice.get("logprobs") or {}
    if content := logprobs.get("content"):
        if all("id" in step for step in content):
            return tuple(s["id"] for s in content), tuple(s["logprob"] for s in content)
        return (), ()
    ids, values = choice.get("token_ids"), logprobs.get("token_logprobs")
    if ids and values and len(ids) == len(values):
        return tuple(ids), tuple(values)
    return (), ()
