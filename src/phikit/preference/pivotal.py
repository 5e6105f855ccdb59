"""Pivotal Token Search (report section 4.3): the tokens of an answer that decide whether it comes out right.

p(i) is the probability of a right answer after the first i tokens, estimated by rollouts. A token is pivotal if
it moves p by at least `gap`. Only questions with `low` <= p(0) <= `high` are searched; an answer is cut at the
midpoint of its cumulative log-probability until a part moves p by less than `gap` or is one token long.

What differs from the report makes it cheaper and says how sure it is:

- a part that cannot move p by `gap` (`bound`) is not sampled, and the end of an answer is known;
- a rollout is evidence for every prefix it passes through (`answer`);
- a prefix is sampled until its part is decided, not a fixed number of times. With pi the probability of a part,
  its change is (1 - pi)(p_taken - p_apart): both sides come out of the same rollouts;
- a token is listed when the posterior chance that it changes p by 3/4 gap or more is at least 1 - `error`, under a
  prior learned from the other tests of the run, above all those of the same token (`priors`); a pair when the same
  holds of its two tokens. How many of
  them e-BH also certifies to have an effect (|change| > gap / 10), for any model and any stopping, is counted, and
  `certified` lists those alone (`evalues`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from phikit.jobs.progress import bar
from phikit.preference.answer import Answer, choose
from phikit.preference.bound import sampling_range
from phikit.preference.evalues import Stream, e_bh
from phikit.preference.parts import Key, Parts, Pivot, Run, SearchConfig, Wanted
from phikit.preference.rollouts import BudgetSpent, Prefix, Question, Rollouts, rollout_id
from phikit.records.types import Preference


@dataclass
class Found:
    """What one question gave: its answers as searched, and every candidate that was tested. `seen`: of how many
    rollouts the answers were chosen; those are no evidence."""

    question: Question
    p0: Stream
    answers: list[Answer]
    tested: list[Pivot]
    seen: int
    pivots: list[Pivot] = field(default_factory=list)


@dataclass
class SearchResult:
    """`hypotheses`: candidate tokens of all searched answers; `tested` ones were sampled on their own, the others were
    ruled out with a part. `sure` are the pivotal tokens listed that e-BH rejects, `certified_pairs` the pairs."""

    found: list[Found]
    skipped: dict[str, int]
    hypotheses: int = 0
    tested: int = 0
    sure: frozenset[Key] = frozenset()
    certified_pairs: int = 0
    pairs: list[Pivot] = field(default_factory=list)
    stopped: str = ""  # why the search ended early

    @property
    def pivots(self) -> list[Pivot]:
        return [v for f in self.found for v in f.pivots]

    @property
    def certified(self) -> int:
        return len(self.sure)


def search(
    questions: Iterable[Question], rollouts: Rollouts, config: SearchConfig, label: str = "pivotal"
) -> SearchResult:
    """Searches up to `active` questions side by side: each wave samples what every question wants next."""
    result = SearchResult([], {"too easy": 0, "too hard": 0, "no answer": 0})
    queue, active, done, run = iter(questions), [], [], Run(config.error, config.certified)
    with bar(label, unit="rollouts") as progress:
        while True:
            wanted = [(s.question, p, n) for s in active for p, n in s.wants()]
            for s in active:
                if s.finished:
                    done.append(s)
                    s.learn()
            active = [s for s in active if not s.finished]
            while len(active) < config.active and (q := next(queue, None)) is not None:
                active.append(_Search(q, rollouts, config, run))
                wanted += [(q, p, n) for p, n in active[-1].wants()]
            if not active:
                break
            try:
                rollouts.ensure(wanted, progress)
            except BudgetSpent as e:
                result.stopped = str(e)
                result.skipped["budget spent"] = sum(s.p0 is None for s in active) + sum(1 for _ in queue)
                done += [s for s in active if s.p0 is not None]
                break
    for s in done:
        if s.skipped:
            result.skipped[s.skipped] += 1
        else:
            result.found.append(s.found())
    _conclude(result, config)
    return result


def _conclude(result: SearchResult, c: SearchConfig) -> None:
    """Weighted e-BH over the run, for tokens and for pairs. A token on two answers of a question has both weights."""
    tested: dict[Key, Pivot] = {}
    weights: dict[Key, float] = {}
    for f in result.found:
        for a in f.answers:
            result.hypotheses += len(a.candidates)
            for i, w in a.weights.items():
                key = (f.question.id, a.tokens[:i], a.tokens[i])
                weights[key] = weights.get(key, 0.0) + w
        for v in f.tested:
            if v.key not in tested or v.log_e_pair > tested[v.key].log_e_pair:
                tested[v.key] = v
    # What is filtered by its posterior counts as e = 0, before the procedure and not after it.
    likely = {k: v for k, v in tested.items() if v.likely >= 1 - c.error}
    sure = _rejected(
        {k: v.log_e + math.log(weights[k]) for k, v in likely.items()}, result.hypotheses, c.error
    )
    chosen = {k: v for k, v in likely.items() if k in sure or not c.certified}
    paired = {k: v for k, v in chosen.items() if v.other is not None and v.likely_pair >= 1 - c.error}
    logs = {k: v.log_e_pair + math.log(v.weight) for k, v in paired.items() if k in sure}
    sure_pairs = _rejected(logs, result.hypotheses, c.error)
    result.pairs = [v for k, v in paired.items() if k in sure_pairs or not c.certified]
    result.sure, result.certified_pairs = frozenset(sure), len(sure_pairs)
    by_question: dict[str, list[Pivot]] = {}
    for v in chosen.values():
        by_question.setdefault(v.question.id, []).append(v)
    for f in result.found:
        f.pivots = by_question.get(f.question.id, [])
    result.tested = len(tested)


def _rejected(logs: dict, hypotheses: int, error: float) -> set:
    needed = e_bh(list(logs.values()), hypotheses, error)
    return {k for k, x in logs.items() if x >= needed}


class _Search:
    """The search of one question: a pure function of its rollouts, asked after each wave what it wants next."""

    def __init__(self, question: Question, rollouts: Rollouts, config: SearchConfig, run: Run) -> None:
        self.question, self.rollouts, self.c, self.run = question, rollouts, config, run
        self.p0: Stream | None = None
        self.priors = run.priors.now()
        self.answers: list[Parts] = []
        self.skipped, self.finished, self.seen = "", False, 0
        self._fed: dict[Prefix, int] = {}
        self._prefixes: list[Prefix] = [()]

    def wants(self) -> list[Wanted]:
        if self.p0 is None:
            wanted = self._begin()
            if wanted or self.skipped:
                self.finished = bool(self.skipped)
                return wanted
        self._feed()
        merged: dict[Prefix, int] = {}
        for parts in self.answers:
            for p, more in parts.step():
                merged[p] = max(merged.get(p, 0), more)
        self.finished = not merged
        self._prefixes += [p for p in merged if p not in self._fed]
        return [(p, self.rollouts.count(self.question, p) + more) for p, more in merged.items()]

    def learn(self) -> None:
        for parts in self.answers:
            parts.learn()

    def found(self) -> Found:
        assert self.p0 is not None
        tested = [v for parts in self.answers for v in parts.tested()]
        return Found(self.question, self.p0, [a.answer for a in self.answers], tested, self.seen)

    def _begin(self) -> list[Wanted]:
        """Whether the question is worth searching, and which answers."""
        c, given = self.c, self.rollouts.of(self.question, ())
        if len(given) < c.first:
            return [((), c.first)]
        right = sum(r.right for r in given)
        share = right / len(given)
        if not c.low <= share <= c.high and 0 < right < len(given) < 2 * c.first:
            return [((), 2 * c.first)]
        self.p0 = Stream(len(given), right)
        picked, self.seen = choose(given[: c.first], c.trajectories)
        if not c.low <= share <= c.high:
            self.skipped = "too easy" if share > c.high else "too hard"
        elif not picked:
            self.skipped = "no answer"
        r = self.rollouts
        for x in picked:
            ranges = [sampling_range(p, r.temperature, r.top_p, r.engine.info.vocab) for p in x.logprobs]
            self.answers.append(
                Parts(
                    self.question,
                    Answer(x, ranges, c.gap),
                    c,
                    r.engine.stop_ids,
                    picked,
                    self.run,
                    self.priors,
                )
            )
        self.run.answers += len(self.answers)
        self.run.candidates += sum(len(a.answer.candidates) for a in self.answers)
        self._fed[()] = self.seen
        return []

    def _feed(self) -> None:
        for p in dict.fromkeys(self._prefixes):
            given = self.rollouts.of(self.question, p)
            for r in given[self._fed.get(p, 0) :]:
                for parts in self.answers:
                    parts.answer.add(p, r)
            self._fed[p] = len(given)


def to_pair(pivot: Pivot, text_of) -> Preference:
    """The preference pair of a pivot: two single tokens, no end of turn. `text_of(id)` shows a token."""
    assert pivot.other is not None
    up = pivot.taken.mean > pivot.outcomes.mean
    chosen, rejected = (pivot.token, pivot.other) if up else (pivot.other, pivot.token)
    better, worse = (pivot.taken, pivot.outcomes) if up else (pivot.outcomes, pivot.taken)
    prefix = pivot.prefix
    # Six digits: what a kill lost is sampled again in another batch, whose log-probabilities differ in the last ones.
    before, change, log_e, log_e_pair = (
        round(x, 6) for x in (pivot.before, pivot.change, pivot.log_e, pivot.log_e_pair)
    )
    meta = {
        "question": pivot.question.id, "kind": pivot.question.kind, "p_before": before,
        "p_chosen": better.mean, "p_rejected": worse.mean, "n_chosen": better.n, "n_rejected": worse.n,
        "change": change, "log_e": log_e, "log_e_pair": log_e_pair,
        "rollouts": [rollout_id(pivot.question.id, p) for p in (prefix, (*prefix, chosen), (*prefix, rejected))],
    }  # fmt: skip
    return Preference(
        pivot.question.turns, prefix, (chosen,), (rejected,), text_of(chosen), text_of(rejected), "pivotal", meta,
        parents=(pivot.question.id,),
    )  # fmt: skip
