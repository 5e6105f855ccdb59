"""Log-likelihoods and embeddings in the child process of LlamaEngine.

Scores are read off the logits of the continuation's own positions; nothing is forced. They have a context of
their own: attention in f32, one sequence, batches of a multiple of 8 tokens (smaller ones go through other code of
llama.cpp with other rounding, up to 0.3 nats away for K-quants). llama.cpp then gives the same bits for the same
tokens whatever was computed before or beside them, so a score depends on its request alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from phikit.engine.base import ScoreRequest
from phikit.engine.draw import log_total
from phikit.engine.llama_c import MEAN_POOLING, NO_POOLING, Context, Model

_MULTIPLE = 8  # tokens; batches are filled up to it
_BATCH = 512
_ROWS = 128  # logits kept at once
_SCRATCH = 1 << 28  # bytes of attention scores of one batch

Read = tuple[list[float], list[bool]]  # log-probability of each token, and whether it was the arg-max


class Scorer:
    def __init__(self, model: Model, length: int) -> None:
        heads = model.c.llama_model_n_head(model.handle)
        room = _SCRATCH // max(4 * heads * length, 1) // _MULTIPLE * _MULTIPLE
        length += _MULTIPLE + -length % _MULTIPLE  # room for what fills a batch
        self.batch = min(_BATCH, max(room, 64), length)
        self.rows = min(_ROWS, self.batch)
        self.context = Context(
            model, sequences=1, length=length, batch=self.batch, outputs=self.rows, exact=True
        )
        self.held: list[int] = []

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[int | list[Read]]:
        """Yields the number of tokens of each batch it computes, at last the results in order. Requests are taken
        in the order of their contexts, so that what these share is computed once."""
        found: dict[tuple[int, ...], dict[tuple[int, ...], Read]] = {}
        for r in requests:
            found.setdefault(r.context, {})[r.continuation] = ([], [])
        for context in sorted(found):
            yield from self._after(list(context), found[context])
        yield [found[r.context][r.continuation] for r in requests]

    def _after(self, context: list[int], found: dict[tuple[int, ...], Read]) -> Iterator[int]:
        """Fills in what `context` says of each continuation. Their first tokens share one row of logits."""
        first: np.ndarray | None = None
        for continuation in sorted(filter(None, found)):
            if first is None:
                for count, rows in self._extend(context, len(context) - 1):
                    yield count
                    first = rows[0].copy() if len(rows) else None
            assert first is not None
            _read(first[None], continuation[:1], found[continuation])
            at = 1
            if len(continuation) > 1:
                for count, rows in self._extend([*context, *continuation[:-1]], len(context)):
                    yield count
                    _read(rows, continuation[at : at + len(rows)], found[continuation])
                    at += len(rows)

    def _extend(self, tokens: list[int], begin: int) -> Iterator[tuple[int, np.ndarray]]:
        """Computes `tokens`; after each batch (its size, the logits at those of its positions that are >= begin)."""
        n = len(tokens)
        at = 0
        while at < min(len(self.held), begin, n - 1) and self.held[at] == tokens[at]:
            at += 1
        at = self.context.cut(0, at)
        while at < n:
            end = min(at + self.batch, n, max(begin, at) + self.rows)
            padding = -(end - at) % _MULTIPLE
            batch = tokens[at:end] + tokens[end - 1 : end] * padding
            wanted = [at + k >= begin and at + k < end for k in range(len(batch))]
            self.held = []
            rows = self.context.decode(batch, range(at, at + len(batch)), [0] * len(batch), wanted)
            if padding and self.context.cut(0, end) != end:
                raise RuntimeError("scores need tokens taken back, which this architecture's state cannot do")
            self.held = tokens[:end]
            at = end
            yield len(batch), rows


def _read(rows: np.ndarray, tokens: Sequence[int], into: Read) -> None:
    for row, token in zip(rows, tokens, strict=True):
        into[0].append(float(row[token]) - log_total(row))
        into[1].append(int(row.argmax()) == token)


class Embedder:
    """One vector of length 1 for a text: pooled as the model says, by the mean where it says nothing."""

    def __init__(self, model: Model, length: int) -> None:
        self.model, self.length = model, length
        arguments = {"sequences": 1, "length": length, "batch": length, "outputs": length, "embed": True}
        self.context = Context(model, **arguments)
        if self.context.pooling == NO_POOLING:
            self.context.free()
            self.context = Context(model, **arguments, mean=True)
            assert self.context.pooling == MEAN_POOLING

    def embed(self, ids: Sequence[int]) -> list[float]:
        n = len(ids)
        self.context.clear()
        self.context.decode(ids, range(n), [0] * n, [True] * n)
        vector = self.context.embedding(0).astype(np.float64)
        return (vector / max(float(np.linalg.norm(vector)), 1e-30)).tolist()
