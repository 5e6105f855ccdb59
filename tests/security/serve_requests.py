"""The requests of `serve_fuzz`: a sound one for every route, and what is done to it. A number decides a case."""

from __future__ import annotations

import json
import random
from typing import Any

SHORT = {"num_predict": 2, "temperature": 0}
HI = [{"role": "user", "content": "The user"}]
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"enum": [1]}}}},
}
DIGEST = "sha256:" + "0" * 64
# (method, path, a sound body); a push and a pull of nothing are part of it.
SOUND: list[tuple[str, str, Any]] = [
    (
        "POST",
        "/api/generate",
        {
            "model": "tiny",
            "prompt": "The",
            "stream": False,
            "options": SHORT,
            "format": "",
            "system": "s",
            "raw": False,
            "keep_alive": "5m",
            "logprobs": True,
            "top_logprobs": 2,
            "context": [1, 2],
            "suffix": None,
            "template": None,
            "images": None,
            "think": False,
        },
    ),
    (
        "POST",
        "/api/chat",
        {
            "model": "tiny",
            "messages": HI,
            "stream": False,
            "options": SHORT,
            "tools": [],
            "format": None,
            "keep_alive": 300,
            "think": None,
            "truncate": True,
        },
    ),
    (
        "POST",
        "/api/chat",
        {"model": "tiny", "messages": HI, "stream": True, "options": SHORT, "tools": [TOOL]},
    ),
    (
        "POST",
        "/api/embed",
        {"model": "tiny", "input": ["a", "b"], "dimensions": 4, "truncate": True, "options": {}},
    ),
    ("POST", "/api/embeddings", {"model": "tiny", "prompt": "a"}),
    ("POST", "/api/show", {"model": "tiny", "verbose": True}),
    ("POST", "/api/copy", {"source": "tiny", "destination": "fuzz/copy"}),
    ("DELETE", "/api/delete", {"model": "fuzz/copy"}),
    (
        "POST",
        "/api/create",
        {
            "model": "fuzz/made",
            "from": "tiny",
            "system": "x",
            "parameters": {"stop": ["a"]},
            "stream": False,
            "template": "{{ .Prompt }}",
            "license": "MIT",
            "messages": HI,
            "files": None,
            "quantize": None,
        },
    ),
    ("POST", "/api/pull", {"model": "127.0.0.1:1/a/b", "insecure": True, "stream": False}),
    ("POST", "/api/push", {"model": "tiny"}),
    ("POST", f"/api/blobs/{DIGEST}", {"junk": 1}),
    ("HEAD", f"/api/blobs/{DIGEST}", None),
    (
        "POST",
        "/v1/chat/completions",
        {
            "model": "tiny",
            "messages": HI,
            "max_tokens": 2,
            "temperature": 0,
            "n": 1,
            "seed": 1,
            "stop": ["x"],
            "stream": False,
            "stream_options": {"include_usage": True},
            "logprobs": True,
            "top_logprobs": 1,
            "response_format": {"type": "text"},
            "tools": None,
            "tool_choice": "auto",
            "frequency_penalty": 0.5,
        },
    ),
    (
        "POST",
        "/v1/chat/completions",
        {
            "model": "tiny",
            "messages": HI,
            "max_tokens": 3,
            "tools": [TOOL],
            "tool_choice": "required",
            "stream": True,
        },
    ),
    (
        "POST",
        "/v1/completions",
        {
            "model": "tiny",
            "prompt": ["The", "a"],
            "max_tokens": 2,
            "echo": True,
            "logprobs": 1,
            "n": 1,
            "best_of": 1,
            "suffix": None,
            "stream": False,
        },
    ),
    (
        "POST",
        "/v1/responses",
        {
            "model": "tiny",
            "input": HI,
            "max_output_tokens": 2,
            "instructions": "x",
            "stream": False,
            "text": {"format": {"type": "text"}},
            "tools": [],
            "truncation": "auto",
        },
    ),
    (
        "POST",
        "/v1/embeddings",
        {"model": "tiny", "input": ["a"], "encoding_format": "base64", "dimensions": 3},
    ),
    (
        "POST",
        "/v1/score",
        {"model": "tiny", "context": "The", "continuations": [" user", " b"], "token_logprobs": True},
    ),
    ("GET", "/api/tags", None),
    ("GET", "/api/ps", None),
    ("GET", "/api/version", None),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/tiny", None),
    ("GET", "/metrics", None),
    ("GET", "/", None),
    ("GET", "/web/index.html", None),
    ("GET", "/pivots?model=tiny", None),
    ("GET", "/pivots/page?model=nothing", None),
]
_WORDS = [
    "",
    "tiny",
    "nothing",
    "a" * 300,
    "../x",
    "\0",
    "\ud7ff",
    "<|im_start|>",
    "{{",
    "{% if %}",
    "json",
    "5m",
    "-1",
    "NaN",
    "\u202e",
    "1e999",
]
_KEYS = [
    "role",
    "content",
    "name",
    "function",
    "arguments",
    "type",
    "text",
    "schema",
    "model",
    "tool_calls",
    "$ref",
    "items",
    "x",
]


def value(r: random.Random, depth: int = 0) -> Any:
    kind = r.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return r.choice([None, True, False])
    if kind == 1:
        return r.choice(
            [0, 1, -1, 2, 21, 64, 65, -(2**31), 2**31, 2**53, 2**63, 2**64, 10**30, r.randrange(-100, 100)]
        )
    if kind == 2:
        return r.choice([0.0, -0.5, 0.5, 1e-30, 1e300, 3.0, r.uniform(-5, 5)])
    if kind in (3, 4):
        return r.choice(_WORDS)
    if kind == 5:
        return "".join(
            chr(r.choice([r.randrange(32, 127), r.randrange(0x80, 0xD800)])) for _ in range(r.randrange(12))
        )
    if kind == 6:
        return [value(r, depth + 1) for _ in range(r.randrange(4))]
    return {r.choice([*_KEYS, str(value(r, 3))]): value(r, depth + 1) for _ in range(r.randrange(4))}


def changed(r: random.Random, body: Any) -> Any:
    """A body with a few things replaced, removed or added, at any depth."""
    for _ in range(r.randrange(1, 4)):
        at, path = body, []
        while isinstance(at, dict | list) and at and (not path or r.random() < 0.5):
            key = r.choice(list(at) if isinstance(at, dict) else range(len(at)))
            path.append((at, key))
            at = at[key]
        if not path:
            return value(r)
        holder, key = path[-1]
        if isinstance(holder, dict) and r.random() < 0.2:
            del holder[key]
        elif isinstance(holder, dict) and r.random() < 0.1:
            holder[r.choice(_KEYS)] = value(r)
        else:
            holder[key] = value(r)
    return body


def case(number: int) -> tuple[str, str, dict[str, str], bytes]:
    """(method, path, headers, body) of a number."""
    r = random.Random(number)
    method, path, sound = SOUND[number % len(SOUND)]
    headers = {"host": "localhost", "content-type": "application/json"}
    body = b"" if sound is None else json.dumps(changed(r, json.loads(json.dumps(sound)))).encode()
    chance = r.random()
    if chance < 0.05:
        body = bytes(r.randrange(256) for _ in range(r.randrange(60)))
    elif chance < 0.1 and body:
        at = r.randrange(len(body))
        body = body[:at] + bytes([r.randrange(256)]) * r.randrange(3) + body[at + r.randrange(4) :]
    elif chance < 0.13:
        method = r.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
    elif chance < 0.16:
        path = r.choice(
            [path + "/", path + "/x", "/" + "".join(r.choice("ab/.%\\:0") for _ in range(9)), path.upper()]
        )
    elif chance < 0.19:
        name = r.choice(
            [
                "origin",
                "host",
                "authorization",
                "content-encoding",
                "content-length",
                "accept",
                "content-type",
            ]
        )
        headers[name] = r.choice(
            [
                "null",
                "http://localhost:1",
                "gzip",
                "-1",
                "99999999999999",
                "x" * 200,
                "text/html",
                "[::1]",
                "",
            ]
        )
    return method, path, headers, body
