"""A searched answer as people see it: p(success) along it, its pivotal tokens, and what followed their alternatives.

Everything is told of *places*: place i lies before token i, the last one after the end, so an answer of T tokens has
T + 1 of them. Intervals are confidence sequences at 95 % where rollouts give p; at other places they follow from the
nearest one that has rollouts, for no run of tokens with probability Pi moves p by more than 1 - Pi (`bound`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from phikit.engine.base import Engine
from phikit.preference.answer import Answer, common
from phikit.preference.evalues import Stream, interval
from phikit.preference.pivotal import Found, Pivot, SearchResult
from phikit.preference.rollouts import Prefix, Rollout, Rollouts, rollout_id

KNOWN = 8  # rollouts from which on a p is shown
BRANCHES = 6  # alternatives shown at a pivotal token
LONGEST = 1500  # characters of an example


class Texts:
    """Text of ids with special tokens shown by name: what a tokenizer that knows them reads back as the same ids."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        found = getattr(getattr(engine, "tokenizer", None), "special_ids", None)
        found = found or getattr(getattr(engine, "meta", None), "specials", None) or {}
        self.specials: dict[int, str] = {i: name for name, i in found.items()}
        self.known: dict[int, str] = {}

    def token(self, id: int) -> str:
        if id not in self.known:
            self.known[id] = self.specials.get(id) or self.engine.decode([id])
        return self.known[id]

    def of(self, ids: Sequence[int]) -> str:
        text, run = "", []
        for i in ids:
            if i in self.specials:
                text += (self.engine.decode(run) if run else "") + self.specials[i]
                run = []
            else:
                run.append(i)
        return text + (self.engine.decode(run) if run else "")

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each id adds to the text: "" while a character lacks bytes. Together they are the text."""
        single = [self.token(i) for i in ids]
        if "".join(single) == self.of(ids):
            return single
        # Tokens that hold a part of a character, or a blank that only shows inside a text: read in context.
        out: list[str] = []
        context, begin = 0, 0
        for end in range(1, len(ids) + 1):
            before, after = self.of(ids[context:begin]), self.of(ids[context:end])
            if after.endswith("\ufffd") and end < len(ids):
                out.append("")
            else:
                out.append(after[len(before) :])
                context, begin = begin, end
        return out


def answer_rows(result: SearchResult, rollouts: Rollouts, texts: Texts) -> Iterator[dict[str, Any]]:
    """A row per searched answer, those with the largest changes first:

    id, question, answer (the reference), kind, right
    tokens, ids, probability    per token: text, id, probability with which it was drawn
    p, low, high, n             per place: estimate (None where there are too few rollouts), interval, rollouts
    change                      per token: how much it moves p, where that was tested; None elsewhere
    pivots                      at (token), before, after, change, likely, certified, rollouts, branches:
                                the token itself and its alternatives with estimate, interval, n, right, examples
    """
    seen = {f.question.id: f.seen for f in result.found}
    samples: dict[str, list[tuple[Prefix, Rollout]]] = {}
    for (question, prefix), found in rollouts.known.items():
        fresh = found if prefix else found[seen.get(question, 0) :]
        samples.setdefault(question, []).extend((prefix, r) for r in fresh)
    rows: list[tuple[float, Found, Answer]] = []
    for f in result.found:
        for a in f.answers:
            rows.append((max((abs(v.change) for v in f.pivots if _on(v, a)), default=0.0), f, a))
    for _, f, a in sorted(rows, key=lambda x: -x[0]):
        streams = [f.p0, *(a.at(i) for i in range(1, len(a) + 1))]
        low, high = band(a, streams)
        pivots = sorted((v for v in f.pivots if _on(v, a)), key=lambda v: len(v.prefix))
        yield {
            "id": f.question.id, "question": f.question.question, "answer": f.question.answer,
            "kind": f.question.kind, "right": a.right,
            "tokens": texts.pieces(a.tokens), "ids": list(a.tokens),
            "probability": [_round(sum(x) / 2) for x in a.ranges],
            "p": [_round(s.mean) if _known(s) else None for s in streams],
            "low": [_round(x) for x in low], "high": [_round(x) for x in high],
            "n": [s.n for s in streams],
            "change": _changes(a, pivots),
            "pivots": [_pivot(v, f, a, samples[f.question.id], result, texts) for v in pivots],
        }  # fmt: skip


def band(answer: Answer, streams: Sequence[Stream]) -> tuple[list[float], list[float]]:
    """Interval of p at each place [T + 1]. Where there are too few rollouts, it is carried over from the place that is
    nearest in log-probability: with q in [0, 1] the p after other tokens, p_a = Pi p_b + (1 - Pi) q."""
    sources = [i for i, s in enumerate(streams) if _known(s)]
    known = {i: interval(streams[i]) for i in sources}
    surprise = np.array(answer.surprise)
    far = np.abs(surprise[:, None] - surprise[sources][None, :])
    low, high = [], []
    for i, nearest in enumerate(far.argmin(1)):
        j = i if i in known else sources[int(nearest)]
        l, h = known[j]
        pi = float(np.exp(-abs(surprise[i] - surprise[j])))
        if i < j:
            l, h = pi * l, 1 - pi * (1 - h)
        elif i > j:
            l, h = (l - (1 - pi)) / max(pi, 1e-9), h / max(pi, 1e-9)
        low.append(min(max(l, 0.0), 1.0))
        high.append(min(max(h, 0.0), 1.0))
    return low, high


def _changes(a: Answer, pivots: Sequence[Pivot]) -> list[float | None]:
    out: list[float | None] = [None] * len(a)
    for i in a.candidates:
        taken, apart = a.at(i + 1), a.apart(i, i + 1)
        if _known(taken) and _known(apart):
            out[i] = _round((1 - sum(a.ranges[i]) / 2) * (taken.mean - apart.mean))
    for v in pivots:
        out[len(v.prefix)] = _round(v.change)
    return out


def _pivot(
    v: Pivot,
    f: Found,
    a: Answer,
    samples: Sequence[tuple[Prefix, Rollout]],
    result: SearchResult,
    texts: Texts,
) -> dict[str, Any]:
    i = len(v.prefix)
    # The alternative of the pair is always shown, then those that were drawn most often.
    others = sorted(a.others.get(i, {}).items(), key=lambda x: (x[0] != v.other, -x[1].n))[:BRANCHES]
    branches = [(v.token, v.taken, "taken")]
    branches += [(o, s, "pair" if o == v.other else "other") for o, s in others]
    return {
        "at": i, "before": _round(v.before), "after": _round(v.taken.mean), "change": _round(v.change),
        "likely": _round(v.likely), "certified": v.key in result.sure,
        "rollouts": rollout_id(f.question.id, v.prefix),
        "branches": [
            {
                "text": _after(texts, (*v.prefix, t), i), "id": t, "role": role, "p": _round(s.mean),
                **dict(zip(("low", "high"), map(_round, interval(s)))), "n": s.n, "right": s.right,
                "rollouts": rollout_id(f.question.id, (*v.prefix, t)),
                "examples": _examples((*v.prefix, t), samples, texts),
            }
            for t, s, role in branches
        ],
    }  # fmt: skip


def _examples(
    prefix: Prefix, samples: Sequence[tuple[Prefix, Rollout]], texts: Texts
) -> list[dict[str, Any]]:
    """The first right rollout through `prefix` and the first that is not, as they go on after it. Only rollouts whose
    own prompt is no longer count: a longer one already says how the answer goes on."""
    found: dict[bool, dict[str, Any]] = {}
    for begin, r in samples:
        if len(begin) > len(prefix) or r.right in found:
            continue
        whole = begin + r.tokens
        if len(whole) >= len(prefix) and common(whole, prefix) == len(prefix):
            ends = len(whole) > len(prefix) and whole[-1] in texts.engine.stop_ids
            text = _after(texts, whole[:-1] if ends else whole, len(prefix))
            found[r.right] = {
                "outcome": r.outcome,
                "text": text[:LONGEST],
                "left_out": max(0, len(text) - LONGEST),
            }
            if len(found) == 2:
                break
    return [found[k] for k in (True, False) if k in found]


def _after(texts: Texts, ids: Prefix, at: int) -> str:
    """Text of ids[at:] as it reads in its context."""
    return "".join(texts.pieces(ids)[at:])


def _on(v: Pivot, a: Answer) -> bool:
    return a.tokens[: len(v.prefix) + 1] == (*v.prefix, v.token)


def _known(s: Stream) -> bool:
    return s.exact is not None or s.n >= KNOWN


def _round(x: float) -> float:
    return round(float(x), 4)
