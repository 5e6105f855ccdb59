"""What a search writes: pairs for our trainer and for others, its answers and rollouts for people.

pairs.jsonl.zst             `Preference` rows: what `dpo1` trains on
preferences.jsonl.zst       the same pairs as trl and Hugging Face datasets read them: prompt, chosen, rejected as
preferences.parquet         text and as ids
answers.jsonl               searched answers, p(success) along each, largest changes first
rollouts.jsonl.zst          a row per sampled prefix: outcomes, next tokens, examples
card.json, card.md          the data card (`card`)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phikit.engine.base import Engine
from phikit.preference.answer import Answer
from phikit.preference.evalues import Stream, interval
from phikit.preference.pivotal import Found, Pivot, SearchResult, to_pair
from phikit.preference.rollouts import Rollouts, rollout_id
from phikit.records.io import write_jsonl, write_parquet
from phikit.records.types import Preference, to_row

EXAMPLES = 4
KNOWN = 8  # rollouts from which on a p is shown


def write(
    result: SearchResult, rollouts: Rollouts, out: Path, *, answers: int | None = None
) -> list[Preference]:
    """Writes all but the card; `answers` shown at most. Returns the pairs."""
    engine = rollouts.engine
    shown = Texts(engine)
    pairs = pairs_of(result, shown)
    write_jsonl(out / "pairs.jsonl.zst", [to_row(p) for p in pairs])
    trl = [preference_row(p, rollouts, shown) for p in pairs]
    write_jsonl(out / "preferences.jsonl.zst", trl)
    if trl:
        write_parquet(out / "preferences.parquet", trl)
    write_jsonl(out / "answers.jsonl", list(answer_rows(result, shown))[:answers])
    write_jsonl(out / "rollouts.jsonl.zst", rollout_rows(rollouts, shown))
    return pairs


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


def pairs_of(result: SearchResult, texts: Texts) -> list[Preference]:
    """The verified pairs, each once."""
    return list({p.id: p for v in result.pairs for p in [to_pair(v, texts.token)]}.values())


def preference_row(pair: Preference, rollouts: Rollouts, texts: Texts) -> dict[str, Any]:
    """A row of the standard preference format (explicit prompt). The ids are exact; text may not tokenize back to one
    token, so trainers that take ids should."""
    prompt = rollouts.rendered(pair.meta["question"], pair.prompt) + pair.prefix_ids
    return {
        "prompt": texts.of(prompt), "chosen": pair.chosen, "rejected": pair.rejected,
        "prompt_ids": list(prompt), "chosen_ids": list(pair.chosen_ids), "rejected_ids": list(pair.rejected_ids),
        "id": pair.id, "kind": pair.meta["kind"], "question": pair.meta["question"],
        "p_chosen": pair.meta["p_chosen"], "p_rejected": pair.meta["p_rejected"],
    }  # fmt: skip


def rollout_rows(rollouts: Rollouts, texts: Texts) -> Iterator[dict[str, Any]]:
    """A row per sampled prefix."""
    for (question, prefix), samples in rollouts.known.items():
        first: dict[int, list[bool]] = {}
        for r in samples:
            first.setdefault(r.tokens[0], []).append(r.right)
        yield {
            "id": rollout_id(question, prefix), "question": question, "prefix": list(prefix),
            "prefix_text": texts.of(prefix), "n": len(samples), "right": sum(r.right for r in samples),
            "outcomes": [r.outcome for r in samples],
            "next": {texts.token(t): [sum(x), len(x)] for t, x in first.items()},
            "examples": [{"text": texts.engine.decode(r.tokens), "outcome": r.outcome} for r in samples[:EXAMPLES]],
        }  # fmt: skip


def answer_rows(result: SearchResult, texts: Texts) -> Iterator[dict[str, Any]]:
    """A row per searched answer, those with the largest verified changes first. Intervals hold at 95 % for each p at
    every number of rollouts at once."""
    rows: list[tuple[float, Found, Answer]] = []
    for f in result.found:
        for a in f.answers:
            changes = [abs(v.change) for v in f.pivots if _on(v, a)]
            rows.append((max(changes, default=0.0), f, a))
    for _, f, a in sorted(rows, key=lambda x: -x[0]):
        pivots = {len(v.prefix): v for v in f.pivots if _on(v, a)}
        yield {
            "id": f.question.id, "question": f.question.question, "answer": f.question.answer,
            "kind": f.question.kind, "right": a.right, "p0": f.p0.mean, **_bounds(f.p0),
            "tokens": list(_tokens(f, a, pivots, texts)),
        }  # fmt: skip


def _tokens(f: Found, answer: Answer, pivots: dict[int, Pivot], texts: Texts) -> Iterable[dict[str, Any]]:
    for i, t in enumerate(answer.tokens):
        before, after, pivot = answer.at(i), answer.at(i + 1), pivots.get(i)
        p_before, p_after = _known(before), _known(after)
        if pivot is not None:
            p_before, p_after = pivot.before, pivot.taken.mean
        others = answer.others.get(i, {}) if pivot is not None else {}
        yield {
            "text": texts.token(t), "id": t, "probability": sum(answer.ranges[i]) / 2, "pivotal": pivot is not None,
            "p_before": p_before, "p_after": p_after, "n": after.n, **_bounds(after),
            "change": pivot.change if pivot is not None else None,
            "rollouts": rollout_id(f.question.id, answer.tokens[:i]),
            "alternatives": [
                {
                    "text": texts.token(o), "id": o, "p": s.mean, "n": s.n, **_bounds(s),
                    "pair": pivot is not None and o == pivot.other,
                    "rollouts": rollout_id(f.question.id, (*answer.tokens[:i], o)),
                }
                for o, s in sorted(others.items(), key=lambda x: -x[1].n)[:6]
            ],
        }  # fmt: skip


def _on(v: Pivot, a: Answer) -> bool:
    return a.tokens[: len(v.prefix) + 1] == (*v.prefix, v.token)


def _known(s: Stream) -> float | None:
    return s.mean if s.exact is not None or s.n >= KNOWN else None


def _bounds(s: Stream) -> dict[str, float]:
    low, high = interval(s)
    return {"low": round(low, 4), "high": round(high, 4)}
