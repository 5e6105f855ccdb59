"""POST /api/pull: a model of a registry or of the Hugging Face hub into the store."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request

from phikit.serve import wire
from phikit.serve.http import read
from phikit.serve.progress import answer
from phikit.serve.refusal import bad
from phikit.serve.state import state
from phikit.store.names import BadName, parse
from phikit.store.pull import Say, pull_name

_EVERY = 0.1  # seconds between two lines of one download


async def pull(request: Request) -> Any:
    q = await read(request, wire.Named)
    try:
        name = parse(q.wanted)
    except BadName as e:
        raise bad(str(e), "model") from e
    store = state(request).store

    def work(say: Say) -> None:
        last: dict[str, float] = {}

        def sparse(row: dict[str, Any]) -> None:
            key, now = str(row.get("digest", "")), time.monotonic()
            if "completed" in row and row["completed"] < row["total"] and now - last.get(key, 0) < _EVERY:
                return
            last[key] = now
            say(row)

        pull_name(store, name, insecure=bool(q.insecure), say=sparse)

    return await answer(request, work, q.stream)
