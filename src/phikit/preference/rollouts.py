"""Rollouts: sampled completions of a prefix with a verdict, kept as immutable rows of one append-only log.

A search asks for prefixes in waves; each wave is one call of the engine over all questions, so that its batch stays
full. Every rollout is a row written as soon as it is there, and its seed comes from (question, prefix, index) alone:
after a kill the search replays its decisions on the rows and samples only what is missing, and more rollouts of
a prefix can be asked for later without touching the old ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phikit.engine.base import Completion, Engine, GenRequest
from phikit.jobs.progress import Bar
from phikit.records.ids import content_id, seed_of
from phikit.records.types import Turn

Prefix = tuple[int, ...]
Check = Callable[["Question", str], bool | None]  # right, wrong, or None where no answer can be read
LOG = "rollouts.jsonl"
OUTCOMES: tuple[str, ...] = ("right", "wrong", "unparsed", "truncated")
_FLUSH = 64  # rows; what a kill loses is sampled again, the same
_OWN = (
    "exact-fp32",
    "fp32-of-",
    "bf16",
    "scripted",
)  # engines that compute a prompt once for all samples of a call


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose answers can be verified. `kind`: math | choice | text | code. `answer`: the reference; for
    code the tests. `options`: how many choices there are. `language` of code."""

    id: str
    question: str
    answer: str
    kind: str = "math"
    options: int = 4
    language: str = "python"

    @property
    def turns(self) -> tuple[Turn, ...]:
        return (Turn("user", self.question),)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One completion after a prefix (both without the prompt). `outcome`: right | wrong | unparsed | truncated.
    Only `right` is success; the other three are kept apart in the counts. `logprobs` (of the model itself, temperature
    1) are kept for whole answers only: they are what is searched."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    outcome: str

    @property
    def right(self) -> bool:
        return self.outcome == "right"


class BudgetSpent(RuntimeError):
    """Nothing more that is wanted fits the budget."""


class Rollouts:
    """Samples prefixes and keeps the rows. `settings` of the log's first line must be the same after a restart."""

    def __init__(
        self,
        engine: Engine,
        check: Check,
        folder: Path,
        *,
        temperature: float,
        max_tokens: int,
        budget: int,
        seed: int,
        top_p: float = 1.0,
        stop: Mapping[str, Sequence[str]] | None = None,
        identity: str = "",
    ) -> None:
        """`budget` bounds processed tokens, generated and prefilled, over the whole log; 0 for no bound. `stop`: by
        kind of question, strings that close an answer. `identity` tells models apart; without it the engine's name
        does. Raises ValueError where the log was made with other settings."""
        self.engine, self.check, self.budget, self.seed = engine, check, budget, seed
        self.temperature, self.top_p, self.max_tokens = temperature, top_p, max_tokens
        self.stop = {k: tuple(v) for k, v in (stop or {}).items()}
        self.known: dict[tuple[str, Prefix], list[Rollout]] = {}
        self.generated = self.prefilled = self.waves = self.fresh = 0
        self._shared = engine.info.numerics.startswith(_OWN)
        self._prompts: dict[str, tuple[int, ...]] = {}
        self._verdicts: dict[tuple[str, str], str] = {}
        self._path = folder / LOG
        settings = {
            "model": identity or engine.info.name, "temperature": temperature, "top_p": top_p,
            "max_tokens": max_tokens, "seed": seed, "stop": {k: list(v) for k, v in sorted(self.stop.items())},
        }  # fmt: skip
        self._stored, self._logged = _open_log(self._path, settings)

    def count(self, question: Question, prefix: Prefix) -> int:
        return len(self.known.get((question.id, prefix), ()))

    def of(self, question: Question, prefix: Prefix) -> list[Rollout]:
        return self.known.get((question.id, prefix), [])

    def ensure(self, wanted: Sequence[tuple[Question, Prefix, int]], progress: Bar) -> None:
        """Samples until each (question, prefix) has at least n rollouts. What may not fit the budget waits until the
        rest is done; raises BudgetSpent when nothing more fits."""
        most: dict[tuple[str, Prefix], tuple[Question, int]] = {}
        for q, p, n in wanted:
            if n > self.count(q, p):
                most[q.id, p] = (q, max(n, most.get((q.id, p), (q, 0))[1]))
        todo = [(q, p, i) for (_, p), (q, n) in most.items() for i in range(self.count(q, p), n)]
        while todo:
            now, later = self._fitting(todo)
            if not now:
                left = self.budget - self.generated - self.prefilled
                raise BudgetSpent(
                    f"{self.generated:,} tokens generated and {self.prefilled:,} prefilled of a budget of "
                    f"{self.budget:,}; the next rollout could take more than the {left:,} left"
                )
            self._wave(now, progress)
            todo = later

    def outcomes(self) -> dict[str, int]:
        counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        for rollouts in self.known.values():
            for r in rollouts:
                counts[r.outcome] += 1
        return counts

    def prompt(self, question: Question) -> tuple[int, ...]:
        return self.rendered(question.id, question.turns)

    def rendered(self, question: str, turns: Sequence[Turn]) -> tuple[int, ...]:
        """The ids of a question's conversation with the assistant's turn open."""
        if question not in self._prompts:
            self._prompts[question] = tuple(self.engine.render(turns))
        return self._prompts[question]

    def room(self, prefix: Prefix) -> int:
        return self.max_tokens - len(prefix)

    def _fitting(self, todo):
        """The leading rows whose worst case fits what is left, and the rest."""
        if not self.budget:
            return todo, []
        left, seen = self.budget - self.generated - self.prefilled, set()
        for at, (q, p, _) in enumerate(todo):
            left -= self.room(p) + self._prefill(q, p, seen)
            if left < 0:
                return todo[:at], todo[at:]
        return todo, []

    def _prefill(self, q: Question, p: Prefix, seen: set[tuple[str, Prefix]]) -> int:
        """Tokens of context that a rollout computes: once a wave where the engine shares them, else each time."""
        if self._shared and (q.id, p) in seen:
            return 0
        seen.add((q.id, p))
        return len(self.prompt(q)) + len(p)

    def _wave(self, now: list[tuple[Question, Prefix, int]], progress: Bar) -> None:
        missing = [(q, p, i) for q, p, i in now if (q.id, p, i) not in self._stored]
        worst, seen = 0, set()
        for q, p, _ in missing:
            worst += self.room(p) + self._prefill(q, p, seen)
        if self.budget and missing and self._logged + worst > self.budget:
            raise BudgetSpent(f"the log holds {self._logged:,} tokens of a budget of {self.budget:,}")
        requests = [
            GenRequest(
                self.prompt(q) + p, self.room(p), temperature=self.temperature, top_p=self.top_p,
                stop_ids=self.engine.stop_ids, stop=self.stop.get(q.kind, ()),
                seed=seed_of(self.seed, q.id, p, i),
            )
            for q, p, i in missing
        ]  # fmt: skip
        if requests:
            self._sample(missing, requests, progress)
        seen = set()
        for q, p, i in now:
            rollout = self._stored.pop((q.id, p, i))
            self.known.setdefault((q.id, p), []).append(rollout)
            self.generated += len(rollout.tokens)
            self.prefilled += self._prefill(q, p, seen)
        self.waves += 1

    def _sample(self, missing, requests: list[GenRequest], progress: Bar) -> None:
        seen: set[tuple[str, Prefix]] = set()
        with self._path.open("a", encoding="utf-8") as log:
            for at, (done, (c,)) in enumerate(self.engine.generate(requests), 1):
                q, p, i = missing[done]
                if not c.tokens or len(c.logprobs) != len(c.tokens):
                    raise ValueError(
                        f"{self.engine.info.name}: a completion came without token ids or log-probabilities; "
                        "pivotal search needs both (vLLM, SGLang, llama.cpp and checkpoint folders give them)"
                    )
                r = Rollout(
                    c.tokens, () if p else tuple(round(x, 5) for x in c.logprobs), self._outcome(q, p, c)
                )
                row = {"q": q.id, "p": p, "i": i, "t": r.tokens, "o": r.outcome}
                log.write(json.dumps(row | ({} if p else {"l": r.logprobs}), separators=(",", ":")) + "\n")
                if at % _FLUSH == 0:
                    log.flush()
                self._stored[q.id, p, i] = r
                self._logged += len(r.tokens) + self._prefill(q, p, seen)
                self.fresh += 1
                progress.advance(1)
            log.flush()
            os.fsync(log.fileno())

    def _outcome(self, q: Question, p: Prefix, c: Completion) -> str:
        """Many rollouts end in the same text: its verdict is computed once."""
        if c.finish == "length":
            return "truncated"
        text = self.engine.decode(p + c.tokens) if p else c.text
        for s in self.stop.get(q.kind, ()):
            text = text.partition(s)[0]
        if (q.id, text) not in self._verdicts:
            right = self.check(q, text)
            self._verdicts[q.id, text] = "unparsed" if right is None else ("right" if right else "wrong")
        return self._verdicts[q.id, text]


def rollout_id(question: str, prefix: Prefix) -> str:
    """The name under which a pair refers to the rollouts behind it (`phikit trace`)."""
    return content_id("rollouts", question, str(prefix))


def _open_log(path: Path, settings: dict[str, Any]) -> tuple[dict[tuple[str, Prefix, int], Rollout], int]:
    """Rows of the log by (question, prefix, index), and how many tokens they hold. A last line that a kill tore is
    cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.stat().st_size == 0:
        path.write_text(json.dumps({"settings": settings}) + "\n", encoding="utf-8")
        return {}, 0
    with path.open("rb+") as f:
        data = f.read()
        whole = data.rfind(b"\n") + 1
        f.truncate(whole)
    first, *lines = data[:whole].decode("utf-8").splitlines() or [""]
    before = json.loads(first).get("settings") if first else settings
    if not first:
        path.write_text(json.dumps({"settings": settings}) + "\n", encoding="utf-8")
    if before != json.loads(json.dumps(settings)):
        other = [k for k in settings if before.get(k) != json.loads(json.dumps(settings[k]))]
        raise ValueError(
            f"{path}: these rollouts were sampled with another {', '.join(other)} "
            f"({', '.join(f'{k} {before.get(k)!r}' for k in other)}); write to another folder"
        )
    rows, tokens = {}, 0
    for number, line in enumerate(lines, 2):
        try:
            r = json.loads(line)
            key = r["q"], tuple(r["p"]), r["i"]
            rows[key] = Rollout(tuple(r["t"]), tuple(r.get("l", ())), r["o"])
        except (ValueError, KeyError) as e:
            raise ValueError(f"{path}, line {number}: not a rollout ({e}); write to another folder") from e
        tokens += len(r["t"])
    return rows, tokens
