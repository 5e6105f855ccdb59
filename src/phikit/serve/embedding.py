"""Embeddings of both APIs: texts in, vectors of length 1 out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from phikit.serve.pool import Lease
from phikit.serve.refusal import bad
from phikit.serve.worker import CHARACTERS

MAX_TEXTS = 2048


async def embed(
    lease: Lease, texts: Sequence[str], *, limit: int, truncate: bool, dimensions: int | None = None
) -> tuple[list[list[float]], int]:
    """Vectors and the number of tokens. A text beyond `limit` tokens is cut where `truncate` says so, else refused;
    `dimensions` keeps the first ones, normalized anew. Raises a Refusal."""
    if len(texts) > MAX_TEXTS:
        raise bad(f"{len(texts)} texts; {MAX_TEXTS} are the most", "input")
    if dimensions is not None and dimensions < 1:
        raise bad(f"dimensions must be 1 or more, not {dimensions}", "dimensions")
    if lease.model.facts.kind != "gguf":
        raise bad(f'"{lease.model.entry.name}" does not support embeddings: only GGUF models do', "model")
    kept: list[str] = []
    for i, text in enumerate(texts):
        if not text:
            raise bad(f"input {i} is empty", "input")
        if truncate:
            text = text[: CHARACTERS * limit]
        # A token is at most a few characters of most texts: only long ones need to be counted.
        ids = await lease.worker.encode([(text, False)]) if len(text) >= limit - 2 else []
        if len(ids) > limit - 2:
            if not truncate:
                raise bad(f"input {i} has {len(ids)} tokens; the context takes {limit - 2}", "input")
            text = await lease.worker.decode(ids[: limit - 2])
        kept.append(text)
    if not kept:
        return [], 0
    vectors, count = await lease.worker.embed(kept)
    if dimensions is not None and dimensions < len(vectors[0]):
        vectors = [_unit(v[:dimensions]) for v in vectors]
    return vectors, count


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(math.fsum(x * x for x in vector)) or 1.0
    return [x / length for x in vector]
