"""What each training stage did, in words, from scores and paired comparisons alone. Pure; no files.

Rules. Where somebody's own questions were measured (task `questions`): each stage by its sampled accuracy there against
the checkpoint before it. Otherwise pretrain: bits per byte below 8, the cost of knowing nothing. midtrain:
`recall_4x` against pretrain, with disjoint intervals. sft: `format` and `arithmetic` against midtrain. dpo1: paired
sampled `arithmetic` against sft. dpo2: `preference_wins` against dpo1, with `arithmetic` not below. A paired
comparison decides wherever one was written, except for midtrain; otherwise a change counts only when the two
intervals are disjoint, and the words say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from phikit.report.numbers import CHECKPOINTS, column_order, lower_is_better, score_text, with_interval

Row = Mapping[str, Any]
Word = Literal["worked", "no effect", "harmed", "not judged", "not run", "failed"]
FORMAT_GOAL = 0.95
OWN = "questions"  # the task of a recipe that began with somebody's own model


@dataclass(frozen=True)
class Change:
    """How `after` compares with `before` on one score. `sign` is +1 better, -1 worse, 0 no visible change."""

    sign: int
    text: str


@dataclass(frozen=True)
class Verdict:
    """`goal` is whether the stage reached what the recipe asks of it (None: not measured); `gains` and
    `costs` are other scores that moved visibly since the stage before."""

    stage: str
    word: Word
    text: str
    goal: bool | None = None
    gains: tuple[str, ...] = ()
    costs: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        return {**asdict(self), "gains": list(self.gains), "costs": list(self.costs)}


class Scores:
    """Scores by (checkpoint, task, metric) with the paired comparisons beside them."""

    def __init__(self, scores: Sequence[Row], comparisons: Sequence[Row] = ()) -> None:
        self.rows = {(r["checkpoint"], r["task"], r["metric"]): r for r in scores}
        self.comparisons = comparisons
        self.columns = sorted({(t, m) for _, t, m in self.rows}, key=column_order)

    def get(self, checkpoint: str, task: str, metric: str | None = None) -> Row | None:
        """The score of that metric, or of the task's first metric when none is named."""
        for t, m in self.columns:
            if t == task and metric in (None, m) and (row := self.rows.get((checkpoint, t, m))):
                return row
        return None

    def paired(self, after: str, before: str, task: str, metric: str) -> dict[str, float] | None:
        """The paired difference after - before, turned round where it was written as before - after."""
        for c in self.comparisons:
            if (c.get("task"), c.get("metric")) != (task, metric):
                continue
            if (c.get("a"), c.get("b")) == (after, before):
                return {"value": c["value"], "low": c["low"], "high": c["high"], "n": c.get("n", 0)}
            if (c.get("a"), c.get("b")) == (before, after):
                return {"value": -c["value"], "low": -c["high"], "high": -c["low"], "n": c.get("n", 0)}
        return None

    def change(
        self, after: str, before: str, task: str, metric: str | None = None, *, by_pairs: bool = True
    ) -> Change | None:
        """None where a score is missing and no paired comparison was written (or is not to be used)."""
        if metric is None:
            named = [m for t, m in self.columns if t == task]
            named += [c["metric"] for c in self.comparisons if c.get("task") == task]
            return self.change(after, before, task, str(named[0]), by_pairs=by_pairs) if named else None
        good = -1 if lower_is_better(task, metric) else 1
        a, b = self.rows.get((after, task, metric)), self.rows.get((before, task, metric))
        moved = f"{before} {with_interval(dict(b))}, {after} {with_interval(dict(a))}" if a and b else ""
        if by_pairs and (p := self.paired(after, before, task, metric)) is not None:
            sign = good if p["low"] > 0 else -good if p["high"] < 0 else 0
            return Change(sign, "; ".join(x for x in (difference(task, metric, p), moved) if x))
        if a is None or b is None:
            return None
        if a["low"] > b["high"]:
            return Change(good, f"{moved}; intervals disjoint")
        if a["high"] < b["low"]:
            return Change(-good, f"{moved}; intervals disjoint")
        return Change(0, f"{moved}; intervals overlap")


def difference(task: str, metric: str, paired: Mapping[str, float]) -> str:
    """`+7.7 points paired [4.1, 11.3]`"""
    value, low, high = (score_text(task, metric, paired[k]) for k in ("value", "low", "high"))
    unit = "bits" if lower_is_better(task, metric) else "points"
    sign = "+" if paired["value"] > 0 else ""
    n = f", n = {int(paired['n']):,}" if paired.get("n") else ""
    return f"{sign}{value} {unit} paired [{low}, {high}]{n}"


def judge(
    scores: Sequence[Row], comparisons: Sequence[Row] = (), stages: Sequence[Row] = ()
) -> list[Verdict]:
    """One verdict per training stage, in order. `stages` (name, status, error) tells which did not run."""
    table = Scores(scores, comparisons)
    status = {s["name"]: s for s in stages}
    rules = {"pretrain": _pretrain, "midtrain": _midtrain, "sft": _sft, "dpo1": _dpo1, "dpo2": _dpo2}
    own = any(task == OWN for task, _ in table.columns)
    out = []
    there = [c for c in CHECKPOINTS if c in status] if status else list(CHECKPOINTS)
    for i, name in enumerate(there):
        if name == "init":  # it is what the others are measured by
            continue
        state = status.get(name, {}).get("status", "done")
        if state == "failed":
            text = f"The stage stopped: {last_line(status[name].get('error')) or 'no message'}"
            out.append(Verdict(name, "failed", text, False))
        elif state != "done":
            out.append(Verdict(name, "not run", "There is no checkpoint to judge."))
        elif not scores:
            text = "The evaluation was not run to its end, so there is nothing to judge by."
            out.append(Verdict(name, "not judged", text))
        else:
            before = there[i - 1] if i else ""
            word, text, goal = _own(table, name, before) if own else rules[name](table)
            gains, costs = _others(table, name, before) if before and name in JUDGED_BY else ((), ())
            out.append(Verdict(name, word, text, goal, gains, costs))
    return out


def last_line(error: Any) -> str:
    """The last line of an error: of a traceback, its message."""
    lines = [x for x in str(error or "").strip().splitlines() if x.strip()]
    return lines[-1].strip() if lines else ""


Outcome = tuple[Word, str, bool | None]
NOT_MEASURED = "The evaluation has no {} for this checkpoint{}."


def _own(t: Scores, after: str, before: str) -> Outcome:
    c = t.change(after, before, OWN, "sampled") if before else None
    if c is None:
        return "not judged", NOT_MEASURED.format("sampled answers", f" and {before}" if before else ""), None
    text = ("shows no visible change", "rose", "fell")[c.sign]
    return _word(c.sign), f"Accuracy on the held-out questions {text}: {c.text}.", c.sign > 0


def _pretrain(t: Scores) -> Outcome:
    row = t.get("pretrain", "bits_per_byte")
    if row is None:
        return "not judged", NOT_MEASURED.format("bits per byte", ""), None
    learned = row["high"] < 8.0
    text = f"Held-out text costs {with_interval(dict(row))} bits per byte; knowing nothing costs 8."
    return ("worked" if learned else "no effect"), text, learned


def _midtrain(t: Scores) -> Outcome:
    c = t.change("midtrain", "pretrain", "recall_4x", by_pairs=False)
    if c is None:
        return "not judged", NOT_MEASURED.format("recall_4x", " and pretrain"), None
    text = {
        1: "Recall at four times the base context rose",
        0: "Recall at four times the base context shows no visible change",
        -1: "Recall at four times the base context fell",
    }[c.sign]
    return _word(c.sign), f"{text}: {c.text}.", c.sign > 0


def _sft(t: Scores) -> Outcome:
    form = t.get("sft", "format")
    if form is None:
        return "not judged", NOT_MEASURED.format("format", ""), None
    goal = form["value"] >= FORMAT_GOAL
    changes = [t.change("sft", "midtrain", task) for task in ("format", "arithmetic")]
    signs = [c.sign for c in changes if c]
    sign = -1 if -1 in signs else 1 if 1 in signs or (not signs and goal) else 0
    parts = []
    for name, c in zip(("Well-formed, stopped answers", "arithmetic"), changes):
        if c:
            parts.append(f"{name} {('show no visible change', 'rose', 'fell')[c.sign]} ({c.text})")
    if not changes[0]:
        parts.insert(0, f"{with_interval(dict(form))} of answers are well-formed and stop")
    if not goal:
        parts.append(f"the goal is {FORMAT_GOAL:.0%} well-formed")
    text = "; ".join(parts)
    return _word(sign), text + ".", goal


def _dpo1(t: Scores) -> Outcome:
    c = t.change("dpo1", "sft", "arithmetic", "sampled")
    if c is None:
        return "not judged", NOT_MEASURED.format("sampled arithmetic", " and sft"), None
    text = (
        "Sampled arithmetic shows no visible change",
        "Sampled arithmetic rose",
        "Sampled arithmetic fell",
    )
    return _word(c.sign), f"{text[c.sign]}: {c.text}.", c.sign > 0


def _dpo2(t: Scores) -> Outcome:
    wins = t.change("dpo2", "dpo1", "preference_wins")
    if wins is None:
        return "not judged", NOT_MEASURED.format("preference_wins", " and dpo1"), None
    text = ("Preference wins show no visible change", "Preference wins rose", "Preference wins fell")
    text = f"{text[wins.sign]}: {wins.text}"
    sums = t.change("dpo2", "dpo1", "arithmetic", "sampled")
    if sums is None:
        return _word(wins.sign), text + ". Sampled arithmetic was not compared.", None
    kept = ("Sampled arithmetic is not below dpo1", "Sampled arithmetic rose", "Sampled arithmetic fell")
    text += f". {kept[sums.sign]}: {sums.text}."
    sign = -1 if sums.sign < 0 else wins.sign
    return _word(sign), text, wins.sign > 0 and sums.sign >= 0


JUDGED_BY = {
    "midtrain": {"recall_4x"},
    "sft": {"format", "arithmetic"},
    "dpo1": {"arithmetic"},
    "dpo2": {"preference_wins", "arithmetic"},
}


def _others(t: Scores, after: str, before: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Scores the verdict does not rest on that moved visibly: better ones, worse ones."""
    gains: list[str] = []
    costs: list[str] = []
    for task, metric in t.columns:
        if task in (*JUDGED_BY[after], OWN) and (task not in ("arithmetic", OWN) or metric == "sampled"):
            continue
        c = t.change(after, before, task, metric)
        ends = [t.rows.get((k, task, metric)) for k in (after, before)]
        if c and c.sign and all(ends):
            a, b = (score_text(task, metric, row["value"]) for row in ends if row)
            name = f"{task} {metric}" if task in ("arithmetic", OWN) else task
            (gains if c.sign > 0 else costs).append(f"{name} {b} to {a}")
    return tuple(gains), tuple(costs)


def _word(sign: int) -> Word:
    words: tuple[Word, Word, Word] = ("no effect", "worked", "harmed")
    return words[sign]
