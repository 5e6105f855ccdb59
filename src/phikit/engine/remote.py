"""RemoteEngine: the engine protocol over an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, phikit
serve).

Generation needs an endpoint that takes token-id prompts and names the ids it generated. Tokenization needs
/tokenize and /detokenize beside /v1 (vLLM, llama.cpp), scores need `prompt_logprobs` (vLLM): where they are
missing, a clear error says so. What a reply counts is compared with what was asked: an endpoint that cut a prompt
or left out tokens is an error, not a result.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

import httpx

from phikit.engine.base import Counter, EngineInfo, GenRequest, PromptTooLong, ScoreRequest, Usage
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
from phikit.records.ids import seed_of
from phikit.records.types import Completion, Score, Turn

_TOO_LONG = re.compile(r"context (size|length|window)|too long|exceed_context", re.IGNORECASE)


class NotOffered(EndpointError):
    """The endpoint has no way to do this; the message says what would."""


class RemoteEngine:
    """`concurrency` requests at once. Errors are typed (`phikit.engine.endpoint`) and never retried here.

    `info.context` and `info.vocab` are 0 unless given: the OpenAI protocol does not tell them."""

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
        self._counter, self._lock = Counter(), threading.Lock()
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
        return (
            self._ids(self._beside("/tokenize", _text_body(text, special=False), "encode()")) if text else []
        )

    def render(self, turns: Sequence[Turn]) -> list[int]:
        """The endpoint's own template. Raises ValueError where a turn holds text that the endpoint would take for
        special tokens: it could forge another turn."""
        messages = [{"role": t.role, "content": t.content} for t in turns]
        body = {"messages": messages, "add_generation_prompt": True}
        value = self._beside("/tokenize", body, "encode() and render()")
        if not value.get("tokens"):  # llama.cpp renders by another route
            text = self._beside("/apply-template", {"messages": messages}, "render()").get("prompt")
            if not isinstance(text, str):
                raise NotOffered(f"{self.info.name}: the endpoint does not render conversations; use chat")
            value = self._beside("/tokenize", _text_body(text, special=True), "render()")
        for turn in turns:
            if "<" in turn.content or "[" in turn.content:
                plain, special = (
                    self._ids(self._beside("/tokenize", _text_body(turn.content, special=s), "render()"))
                    for s in (False, True)
                )
                if plain != special:
                    raise ValueError(
                        f"{self.info.name}: a {turn.role} turn holds text that is a special token: "
                        f"{turn.content[:80]!r}"
                    )
        return self._ids(value)

    def decode(self, ids: Sequence[int]) -> str:
        plain = [int(i) for i in ids if i not in self._stop_ids]
        value = self._beside("/detokenize", {"tokens": plain}, "decode()")
        text = value.get("prompt", value.get("content"))
        if not isinstance(text, str):
            raise BadReply(f"{self.info.name}: /detokenize gave no text: {str(value)[:200]}")
        return text

    def chat(self, turns: Sequence[Turn], **options: Any) -> ChatReply:
        """One answer of /v1/chat/completions; `options` are the protocol's own (max_tokens, temperature,
        ...)."""
        return chat_reply(self._post("/chat/completions", chat_body(self.endpoint.model, turns, options)))

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[tuple[int, list[Completion]]]:
        """Results as they finish. Raises PromptTooLong, NotOffered and the other EndpointErrors."""
        for request in requests:
            if request.grammar or request.json_schema:
                raise ValueError(
                    f"{self.info.name}: an endpoint takes no grammar with a prompt of token ids; ask for a JSON "
                    "schema by chat"
                )
            if self.info.context and len(request.prompt) + 1 > self.info.context:
                raise PromptTooLong(
                    f"{self.info.name}: a prompt of {len(request.prompt)} tokens, the context is "
                    f"{self.info.context}"
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
        try:
            return self._ask(request, request.n, request.seed)
        except Refused as e:
            # llama.cpp takes no more samples a request than it has slots.
            if request.n == 1 or e.status != 400 or "'n'" not in str(e):
                raise
        return [c for k in range(request.n) for c in self._ask(request, 1, seed_of(request.seed, k))]

    def _ask(self, request: GenRequest, n: int, seed: int) -> list[Completion]:
        # The defaults of llama.cpp and of models' own settings cut the distribution: all are set to "off".
        body: dict[str, Any] = {
            "model": self.endpoint.model, "prompt": list(request.prompt),
            "max_tokens": max(request.max_tokens, 1),
            "n": n, "temperature": request.temperature, "top_p": request.top_p, "top_k": -1, "min_p": 0.0,
            "seed": seed & 0x7FFFFFFF, "logprobs": max(request.top_logprobs, 1), "return_token_ids": True,
        }  # fmt: skip
        if request.stop:
            body["stop"] = list(request.stop)
        if request.stop_ids:
            body["stop_token_ids"] = list(request.stop_ids)
        if request.top_logprobs:
            body["return_tokens_as_token_ids"] = True
        if request.prompt_logprobs:
            body["prompt_logprobs"] = 1
        value = self._completions(body)
        found = choices(value)
        if len(found) != n:
            raise BadReply(f"{self.info.name}: asked for {n} samples, got {len(found)}")
        completions = [self._completion(c, request) for c in found]
        self._check_counts(value, request, completions)
        if request.max_tokens == 0:  # the protocol's least is 1
            return [Completion("", (), (), "length", (), c.prompt_logprobs) for c in completions]
        return [self._end(c, request.stop_ids) for c in completions]

    def _completion(self, choice: Mapping[str, Any], request: GenRequest) -> Completion:
        tokens, logprobs, top = read_tokens(choice)
        if not tokens and choice.get("text"):
            raise NotOffered(
                f"{self.info.name}: the endpoint names no token ids of what it generates; use one that does "
                "(vLLM, llama.cpp, phikit serve), or ask it by chat"
            )
        if request.top_logprobs and (len(top) != len(tokens) or not all(top)):
            raise NotOffered(f"{self.info.name}: the endpoint names no ids of alternatives (top_logprobs)")
        prompt: tuple[float, ...] = ()
        if request.prompt_logprobs:
            rows = self._prompt_rows(choice, request.prompt)
            prompt = tuple(self._row(t, row)[0] for t, row in list(zip(request.prompt, rows))[1:])
        alternatives = tuple(t[: request.top_logprobs] for t in top) if request.top_logprobs else ()
        return Completion(choice.get("text") or "", tokens, logprobs, finish_of(choice), alternatives, prompt)

    def _check_counts(
        self, value: Mapping[str, Any], request: GenRequest, completions: Sequence[Completion]
    ) -> None:
        found, usage = choices(value), value.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        asked, taken = len(request.prompt), usage.get("prompt_tokens")
        if isinstance(taken, int) and taken not in (asked, asked * len(completions)):
            raise NotOffered(
                f"{self.info.name}: a prompt of {asked} tokens was sent and the endpoint counts {taken}: it cuts "
                "prompts or adds to them; its answer is not an answer to this prompt"
            )
        counts, made = [len(c.tokens) for c in completions], usage.get("completion_tokens")
        named = sum(counts)
        # The tokens of a stop string may be left out, as its text is. llama.cpp counts one sample of several.
        cut = bool(request.stop) and any(c.finish == "stop" for c in completions)
        right = made in (None, named) or (cut and named < made) or (len(counts) > 1 and made in counts)
        if not right or not all(map(_says_its_text, found)):
            raise NotOffered(
                f"{self.info.name}: the endpoint generated {made} tokens and named the ids of {named} (llama.cpp's "
                "server leaves out those that are part of a character); open the GGUF itself, or use vLLM"
            )
        self._count(asked, named)

    def _end(self, c: Completion, stop_ids: Sequence[int]) -> Completion:
        """Cut after the first stop id, for endpoints that know no stop ids."""
        at = next((t for t, token in enumerate(c.tokens) if token in stop_ids), None)
        if at is None or at == len(c.tokens) - 1:
            return c if at is None else replace(c, finish="stop")
        text = self.decode(c.tokens[:at])
        return replace(
            c, text=text, tokens=c.tokens[: at + 1], logprobs=c.logprobs[: at + 1], finish="stop",
            top=c.top[: at + 1],
        )  # fmt: skip

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
        rows = self._prompt_rows(choices(self._completions(body))[0], ids)
        self._count(len(ids), 0)
        total, greedy = 0.0, True
        for token, row in list(zip(ids, rows))[len(request.context) :]:
            logprob, best = self._row(token, row)
            total, greedy = total + logprob, greedy and best
        return Score(total, greedy, len(request.continuation))

    def _prompt_rows(self, choice: Mapping[str, Any], ids: Sequence[int]) -> list[Any]:
        rows = choice.get("prompt_logprobs")
        if not isinstance(rows, list) or len(rows) != len(ids):
            raise NotOffered(
                f"{self.info.name}: the endpoint returned no prompt_logprobs, so it cannot score; "
                "use a checkpoint folder, a GGUF file or a vLLM endpoint"
            )
        return rows

    def _row(self, token: int, row: Any) -> tuple[float, bool]:
        entry = (row or {}).get(str(token))
        if entry is None:
            raise BadReply(f"{self.info.name}: prompt_logprobs lacks token {token}")
        return float(entry["logprob"]), entry.get("rank") == 1

    def _completions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._post("/completions", body)
        except Refused as e:
            if e.status in (404, 405) and "model" not in str(e).lower():
                raise NotOffered(
                    f"{self.info.name}: the endpoint has no /completions, so it takes no prompts of token ids; "
                    "ask it by chat, or use one that does (vLLM, llama.cpp, phikit serve)"
                ) from e
            if e.status in (400, 413, 422) and _TOO_LONG.search(str(e)):
                raise PromptTooLong(str(e)) from e
            raise

    def _ids(self, value: Mapping[str, Any]) -> list[int]:
        tokens = value.get("tokens")
        if not isinstance(tokens, list):
            raise BadReply(f"{self.info.name}: /tokenize gave no tokens: {str(value)[:200]}")
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

    def _count(self, prefilled: int, generated: int) -> None:
        with self._lock:
            self._counter.prefilled += prefilled
            self._counter.generated += generated

    def _post(self, path: str, body: Mapping[str, Any], base: str | None = None) -> dict[str, Any]:
        url = (self.endpoint.url if base is None else base) + path
        try:
            response = self._client.post(url, json=body, headers=self.endpoint.headers())
        except httpx.HTTPError as e:
            raise transport_error(url, e) from e
        return read_reply(url, response, self.endpoint.key_variable)


def _says_its_text(choice: Mapping[str, Any]) -> bool:
    """Whether the bytes of the tokens that llama.cpp names begin with the text."""
    steps = (choice.get("logprobs") or {}).get("content") or ()
    if not all(isinstance(s.get("bytes"), list) for s in steps):
        return True
    data = bytes(b for s in steps for b in s["bytes"])
    return not steps or data.decode("utf-8", "replace").startswith(
        (choice.get("text") or "").rstrip("\ufffd")
    )


def _text_body(text: str, *, special: bool) -> dict[str, Any]:
    """For vLLM (`prompt`, `add_special_tokens`) and for llama.cpp, both without a start token."""
    return {
        "prompt": text, "content": text, "add_special_tokens": False, "add_special": False,
        "parse_special": special,
    }  # fmt: skip


Top = tuple[tuple[tuple[int, float], ...], ...]


def read_tokens(choice: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...], Top]:
    """(ids, logprobs, alternatives) of a choice: llama.cpp's `logprobs.content`, or vLLM's `token_ids`,
    `token_logprobs` and `top_logprobs` keyed "token_id:N". Empty where ids are not named."""
    logprobs = choice.get("logprobs") or {}
    if content := logprobs.get("content"):
        if not all("id" in step for step in content):
            return (), (), ()
        top = tuple(tuple((t["id"], t["logprob"]) for t in s.get("top_logprobs") or ()) for s in content)
        return tuple(s["id"] for s in content), tuple(s["logprob"] for s in content), top
    ids, values = choice.get("token_ids"), logprobs.get("token_logprobs")
    if not ids or not values or len(ids) != len(values):
        return (), (), ()
    rows = [row or {} for row in logprobs.get("top_logprobs") or ()]
    if len(rows) != len(ids) or not all(k.startswith("token_id:") for row in rows for k in row):
        return tuple(ids), tuple(values), ()
    named = [[(int(k.removeprefix("token_id:")), v) for k, v in row.items()] for row in rows]
    return tuple(ids), tuple(values), tuple(tuple(sorted(r, key=lambda x: -x[1])) for r in named)
