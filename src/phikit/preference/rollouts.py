"""Rollouts: sampled completions of a prefix with a verdict, kept as immutable rows.

A search asks for prefixes in waves; each wave is one call of the engine, so that its batch stays full over all
questions. A wave is written when it is done, and a restart reads the waves back: the search itself has no state
but these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from phikit.engine.base import Engine, GenRequest
from phikit.jobs.progress import Bar
from phikit.records.ids import content_id, seed_of
from phikit.records.io import read_jsonl, write_jsonl
from phikit.records.types import Turn

Prefix = tuple[int, ...]
Check = Callable[["Question", str], bool | None]  # right, wrong, or None where no answer can be read


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose answers can be verified (kind: math | choice | text | code)."""

    id: str
    question: str
    answer: str
    kind: str = "math"

    @property
    def turns(self) -> tuple[Turn, ...]:
        return (Turn("user", self.question),)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One completion after `prefix` (both without the prompt). `outcome`: right | wrong | unparsed | truncated.
    Only `right` is success; the other three are kept apart in the counts."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    outcome: str

    @property
    def right(self) -> bool:
        return self.outcome == "right"


class BudgetSpent(RuntimeError):
    """The next wave would generate more tokens than the budget allows."""


class Rollouts:
    """p(success) of prefixes by sampling. `n` samples an estimate; each sample's seed comes from its prefix, so
    that neither the order of waves nor a restart changes any row."""

    def __init__(
        self,
        engine: Engine,
        check: Check,
        folder: Path,
        *,
        n: int,
        temperature: float,
        max_tokens: int,
        budget: int,
        seed: int,
    ) -> None:
        """`folder` keeps the waves; `budget` bounds generated tokens over all waves, 0 for no bound."""
        self.engine, self.check, self.folder = engine, check, folder
        self.n, self.temperature, self.max_tokens, self.budget, self.seed = (
            n,
            temperature,
            max_tokens,
            budget,
            seed,
        )
        self.known: dict[tuple[str, Prefix], list[Rollout]] = {}
        self.generated, self.prefilled, self.waves = 0, 0, 0
        for path in sorted(folder.glob("wave-*.jsonl.zst")):
            for row in read_jsonl(path):
                self._take(row)
            self.waves += 1

    def ensure(self, wanted: Sequence[tuple[Question, Prefix]], progress: Bar) -> None:
        """Samples what is not known yet, in one engine call. Raises BudgetSpent before it would overspend."""
        todo = {(q.id, p): (q, p) for q, p in wanted if (q.id, p) not in self.known}
        if not todo:
            return
        pairs = list(todo.values())
        room = [self.max_tokens - len(p) for _, p in pairs]
        most = self.n * sum(room)
        if self.budget and self.generated + most > self.budget:
            raise BudgetSpent(
                f"{self.generated:,} tokens generated; the next wave could take {most:,} more, "
                f"and the budget is {self.budget:,}"
            )
        prompts = [tuple(self.engine.render(q.turns)) for q, _ in pairs]
        requests = [
            GenRequest(
                prompt + p, max(1, r), n=self.n, temperature=self.temperature, stop_ids=self.engine.stop_ids,
                seed=seed_of(self.seed, q.id, p),
            )
            for (q, p), prompt, r in zip(pairs, prompts, room)
        ]  # fmt: skip
        rows: list[dict | None] = [None] * len(pairs)
        verdicts: dict[tuple[str, str], str] = {}
        for i, completions in self.engine.generate(requests):
            q, p = pairs[i]
            samples = []
            for c in completions:
                text = self.engine.decode(p + c.tokens)
                outcome = "truncated" if c.finish == "length" else verdicts.get((q.id, text), "")
                if not outcome:  # many rollouts end in the same text: its verdict is computed once
                    outcome = verdicts[q.id, text] = _outcome(self.check(q, text))
                samples.append(
                    {"tokens": c.tokens, "logprobs": [round(x, 4) for x in c.logprobs], "outcome": outcome}
                )
            rows[i] = {"question": q.id, "prefix": p, "prompt_tokens": len(prompts[i]), "samples": samples}
            progress.advance(len(completions))
        write_jsonl(self.folder / f"wave-{self.waves:05d}.jsonl.zst", rows)  # type: ignore[arg-type]
        self.waves += 1
        for row in rows:
            self._take(row)  # type: ignore[arg-type]

    def of(self, question: Question, prefix: Prefix) -> list[Rollout]:
        return self.known[question.id, prefix]

    def p(self, question: Question, prefix: Prefix) -> float:
        """Share of right answers among the rollouts of a prefix."""
        rollouts = self.of(question, prefix)
        return sum(r.right for r in rollouts) / len(rollouts)

    def outcomes(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for rollouts in self.known.values():
            for r in rollouts:
                counts[r.outcome] = counts.get(r.outcome, 0) + 1
        return counts

    def _take(self, row: dict) -> None:
        rollouts = [Rollout(tuple(s["tokens"]), tuple(s["logprobs"]), s["outcome"]) for s in row["samples"]]
        self.known[row["question"], tuple(row["prefix"])] = rollouts
        self.generated += sum(len(r.tokens) for r in rollouts)
        self.prefilled += row["prompt_tokens"] + len(row["prefix"])


def rollout_id(question: str, prefix: Prefix) -> str:
    """The name under which a pair refers to the rollouts behind it (`phikit trace`)."""
    return content_id("rollouts", question, str(prefix))


def _outcome(right: bool | None) -> str:
    return "unparsed" if right is None else ("right" if right else "wrong")
