"""Preference wins: a checkpoint's sampled answers against those of the SFT checkpoint on the same prompts,
judged by the verified rubric of verify/worked.py (our place for the report's judge-based ArenaHard, Table 9).

Items: {id, question, answer}. The reference answers are samples of their own; the SFT checkpoint is compared
with them by further samples, and so comes out near 0.5. Every answer meets every reference answer of its
prompt: 1 for a win, 0.5 for a draw; the interval is clustered by prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phikit.evals.world.arithmetic import outcome
from phikit.evals.world.plan import Generated, Item, Prompter, Row, Settings, field
from phikit.records.types import Completion
from phikit.verify import worked

TASK = "preference_wins"
Reference = Mapping[str, Sequence[worked.Worked]]  # item id -> the judged reference answers


def wins(items: Sequence[Item], ask: Prompter, settings: Settings, reference: Reference) -> Generated:
    """`reference` is read when the rows are made: the SFT checkpoint fills it in the same call
    (`references`)."""

    def rows(results: Sequence[list[Completion]]) -> list[Row]:
        out = []
        for item, answers in zip(items, results):
            name = str(item["id"])
            if not reference.get(name):
                raise ValueError(f"task {TASK}, item {name}: there is no reference answer to compare with")
            for k, c in enumerate(answers):
                mine = judged(item, c)
                value = sum(worked.prefer(mine, r) for r in reference[name]) / len(reference[name])
                result = outcome(c, str(item["answer"]))
                out.append(Row(TASK, "share", name, value, result, k))
        return out

    return Generated(ask.samples(items, settings, settings.preference_samples, TASK, "answer"), rows)


def references(
    items: Sequence[Item], ask: Prompter, settings: Settings, keep: dict[str, list[worked.Worked]]
) -> Generated:
    """The reference answers of this checkpoint; judged, they are put into `keep`. They give no rows."""

    def rows(results: Sequence[list[Completion]]) -> list[Row]:
        keep.update({str(i["id"]): [judged(i, c) for c in answers] for i, answers in zip(items, results)})
        return []

    return Generated(ask.samples(items, settings, settings.preference_samples, TASK, "reference"), rows)


def judged(item: Item, c: Completion) -> worked.Worked:
    """The rubric on an answer; one that was cut is not right."""
    w = worked.points(c.text, str(field(item, "answer", TASK)))
    return w if c.finish == "stop" else worked.Worked(False, w.sums_total, w.sums_true, w.stated, w.points)
