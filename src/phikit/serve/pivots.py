"""The pivotal tokens of a served run, for the page: `GET /pivots?model=NAME`, and the search's or run's own page.

A model is of a run when its weights lie in a stage's folder of one (`RUN/dpo2/hf`) beside `RUN/pivotal/answers.jsonl`.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from phikit.records.io import read_jsonl
from phikit.serve.http import json_response
from phikit.serve.refusal import Refusal, bad
from phikit.serve.state import state

ANSWERS = 400  # of a search that the chat page is told of, those with the largest changes
PAGES = ("pivotal/pivotal.html", "report.html")
# The pages are self-contained and name the hash of their one script themselves; nothing else is let in.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'"


async def pivots(request: Request) -> Response:
    """{"answers": [{question, tokens, pivots: [{at, before, after, change}]}], "page": address or ""}; no answers for
    a model that is of no run."""
    run = await asyncio.to_thread(_run, request)
    found = await asyncio.to_thread(_answers, run) if run else []
    name = request.query_params.get("model", "")
    page = f"/pivots/page?model={quote(name)}" if run and _page(run) else ""
    return json_response({"answers": found, "page": page})


async def page(request: Request) -> Response:
    run = await asyncio.to_thread(_run, request)
    path = _page(run) if run else None
    if path is None:
        raise Refusal(404, "this model is of no run with a page of its own")
    headers = {
        "content-security-policy": POLICY,
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
    return Response(
        await asyncio.to_thread(path.read_bytes), headers=headers, media_type="text/html; charset=utf-8"
    )


def _run(request: Request) -> Path | None:
    """The folder of the run that the model is of."""
    name = request.query_params.get("model", "")
    if not name:
        raise bad("model is required", "model")
    entry = state(request).pool.entry(name)
    try:
        weights = state(request).store.parts(entry).weights
    except (ValueError, OSError):
        return None
    run = weights.parent.parent  # RUN/dpo2/hf, RUN/export/model.gguf
    return next((r for r in (run, weights.parent) if (r / "pivotal" / "manifest.json").is_file()), None)


def _page(run: Path) -> Path | None:
    return next((run / name for name in PAGES if (run / name).is_file()), None)


def _answers(run: Path) -> list[dict[str, Any]]:
    """Rows of the search's answers.jsonl, less what the page does not show. None where they are of an older form."""
    path = run / "pivotal" / "answers.jsonl"
    if not path.is_file():
        return []
    try:
        return [
            {"question": r["question"], "tokens": r["tokens"],
             "pivots": [{k: v[k] for k in ("at", "before", "after", "change")} for v in r["pivots"]]}
            for r in islice(read_jsonl(path), ANSWERS) if r["pivots"]
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, OSError):
        return []
