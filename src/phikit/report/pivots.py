"""Answers of a pivotal search as compact JSON for the page that shows them (`pivots.js`), from their files alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from phikit.records.io import read_json, read_jsonl

ANSWERS, CARD = "answers.jsonl", "card.json"
STAGE = "pivotal"  # where a run folder keeps them
ROLES = ("taken", "pair", "other")
OUTCOMES = ("right", "wrong", "unparsed", "truncated")
NEEDED = (
    "changes",
    "cost",
    "down",
    "error",
    "pairs",
    "pairs_by_kind",
    "pivotal_tokens",
    "questions",
    "stopped",
    "up",
)
OLD = "it was written by an older version; search again into the same folder (its rollouts are used again)"


def find(folder: Path) -> Path:
    """The folder with the answers: `folder` itself, or its stage `pivotal`. Raises ValueError where there is none."""
    for at in (folder, folder / STAGE):
        if (at / ANSWERS).is_file():
            return at
    raise ValueError(
        f"{folder}: no {ANSWERS} in it nor in {STAGE}/; give the --out folder of `phikit pts` or the folder of a run"
    )


def read_card(folder: Path) -> dict[str, Any] | None:
    """The search's own card; None where it was not written."""
    if not (folder / CARD).is_file():
        return None
    value = read_json(folder / CARD)
    lacks = [k for k in NEEDED if k not in value] if isinstance(value, dict) else list(NEEDED)
    if lacks:
        raise ValueError(f"{folder / CARD}: no {', '.join(lacks)}; {OLD}")
    return value


def read_packed(folder: Path, limit: int) -> dict[str, Any]:
    """`pack` of the folder's answers, read row by row. An error names file and row."""
    try:
        return pack(read_jsonl(folder / ANSWERS), limit)
    except Malformed as e:
        raise ValueError(f"{folder / ANSWERS}, {e}") from e


class Malformed(ValueError):
    """A row that is not one of a searched answer."""


def pack(rows: Iterable[Mapping[str, Any]], limit: int) -> dict[str, Any]:
    """Rows of `answers.jsonl` without their names, shares in thousandths, each text once.

    At most `limit` characters of JSON: the answers that come first (those with the largest changes) are kept, and
    `total` says how many there are. The layout is what `pivots.js` reads:

    texts       strings that the numbers below name
    questions   [question, answer, kind]
    answers     [question, right, tokens, probability, p, low, high, n, [token, change, ...], pivots]
    pivots      [token, before, after, change, certified, branches]
    branches    [text, role, p, low, high, n, right, [[outcome, text, left out], ...]]
    """
    texts, questions = _Table(), _Table()
    answers: list[Any] = []
    size = total = 0
    for number, row in enumerate(rows, 1):
        total += 1
        if size > limit:
            continue
        try:
            packed = _answer(row, texts, questions)
        except (KeyError, TypeError, ValueError, IndexError) as e:
            reason = OLD if _is_old(row) else f"not a searched answer ({type(e).__name__}: {e})"
            raise Malformed(f"row {number}: {reason}") from e
        size += len(_json(packed)) + texts.fresh() + questions.fresh()
        if size <= limit or not answers:
            answers.append(packed)
    return {"texts": texts.items, "questions": questions.items, "answers": answers, "total": total}


def script_json(value: Any) -> str:
    """JSON that may stand inside <script>: nothing in it can end the element or open a comment."""
    text = _json(value).encode("utf-8", "replace").decode("utf-8")  # a lone surrogate becomes "?"
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return text


class _Table:
    """Values by number, each kept once."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._known: dict[Any, int] = {}
        self._fresh = 0

    def of(self, value: Any) -> int:
        if value not in self._known:
            self._known[value] = len(self.items)
            self.items.append(value)
            self._fresh += len(_json(value)) + 1
        return self._known[value]

    def fresh(self) -> int:
        """Characters of JSON added since the last call."""
        n, self._fresh = self._fresh, 0
        return n


def _answer(row: Mapping[str, Any], texts: _Table, questions: _Table) -> list[Any]:
    tokens = [texts.of(_text(t)) for t in row["tokens"]]
    for name, n in (("probability", 0), ("change", 0), ("p", 1), ("low", 1), ("high", 1), ("n", 1)):
        if len(row[name]) != len(tokens) + n:
            raise ValueError(f"{name} has {len(row[name])} values for {len(tokens)} tokens")
    question = questions.of((_text(row["question"]), _text(row["answer"]), _text(row["kind"])))
    changes = chain.from_iterable((i, _share(c)) for i, c in enumerate(row["change"]) if c is not None)
    return [
        question, int(bool(row["right"])), tokens,
        *(_shares(row[k]) for k in ("probability", "p", "low", "high")), [int(n) for n in row["n"]],
        list(changes), [_pivot(v, len(tokens), texts) for v in row["pivots"]],
    ]  # fmt: skip


def _pivot(v: Mapping[str, Any], tokens: int, texts: _Table) -> list[Any]:
    if not 0 <= v["at"] < tokens:
        raise ValueError(f"a pivotal token at {v['at']} of {tokens}")
    branches = [
        [
            texts.of(_text(b["text"])), ROLES.index(b["role"]), *(_share(b[k]) for k in ("p", "low", "high")),
            int(b["n"]), int(b["right"]),
            [[OUTCOMES.index(x["outcome"]), _text(x["text"]), int(x["left_out"])] for x in b["examples"]],
        ]
        for b in v["branches"]
    ]  # fmt: skip
    if not branches:
        raise ValueError("a pivotal token without branches")
    return [
        int(v["at"]),
        *(_share(v[k]) for k in ("before", "after", "change")),
        int(v["certified"]),
        branches,
    ]


def _is_old(row: Mapping[str, Any]) -> bool:
    tokens = row.get("tokens")
    return isinstance(tokens, list) and any(isinstance(t, dict) for t in tokens)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _share(x: float) -> int:
    return round(1000 * x)


def _shares(values: Sequence[float | None]) -> list[int]:
    """In thousandths; -1 where there is none."""
    return [-1 if x is None else _share(x) for x in values]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
