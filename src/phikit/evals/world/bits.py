"""Bits per byte on held-out organic text: what a text costs, whatever the vocabulary.

Items: Document rows {id, text, source}. A document is cut into windows of `window` tokens that overlap by the
one token which is the next window's context. Its first token has no context: neither its bits nor its bytes
count. Rows hold bits in `value`, bytes in `weight`, and the source as metric; the score is a ratio of sums
with an interval clustered by document.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from phikit.engine.base import ScoreRequest
from phikit.evals.asking import windows
from phikit.evals.world.plan import Item, Prompter, Row, Scored, Settings, field
from phikit.records.ids import content_id
from phikit.records.types import Score

TASK = "bits_per_byte"
WINDOWS = 32  # of characters a token: a document counts with at most its first 32 x window characters


def chosen(documents: Sequence[Item], most: int | None) -> list[Item]:
    """At most `most` documents, taken in turn from the sources in an order that only the ids decide."""
    ranked = sorted(documents, key=lambda d: content_id("bits", str(d["id"])))
    sources = sorted({str(d["source"]) for d in ranked})
    columns = [[d for d in ranked if d["source"] == s] for s in sources]
    turns = [d for some in itertools.zip_longest(*columns) for d in some if d is not None]
    return turns[:most]


def bits(items: Sequence[Item], ask: Prompter, settings: Settings) -> Scored:
    engine = ask.engine
    window = min(settings.window or engine.info.context, engine.info.context)
    if window < 2:
        raise ValueError(f"{TASK}: a window of {window} tokens has nothing to predict, it needs 2")
    requests: list[ScoreRequest] = []
    spans: list[tuple[Item, int, int]] = []  # document, its requests, its bytes
    for item in items:
        text = str(field(item, "text", TASK))[: WINDOWS * window]
        ids = engine.encode(text)
        cuts = windows(ids, window)
        size = len(text.encode("utf-8", "replace")) - len(engine.decode(ids[:1]).encode("utf-8"))
        if cuts and size > 0:
            requests += cuts
            spans.append((item, len(cuts), size))

    def rows(scores: Sequence[Score]) -> list[Row]:
        out, at = [], 0
        for item, n, size in spans:
            cost = -math.fsum(s.logprob for s in scores[at : at + n]) / math.log(2)
            out.append(Row(TASK, str(item["source"]), str(item["id"]), cost, "scored", weight=float(size)))
            at += n
        return out

    return Scored(requests, rows)
