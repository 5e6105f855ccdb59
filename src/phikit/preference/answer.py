"""A searched answer and the evidence about its prefixes.

Rollouts share prefixes: one that was sampled at prefix s and follows the answer to depth d is an independent sample
for every prefix s..d, and the token it takes at d is a sampled alternative there. So the rollouts of a question
form a trie, and each answer keeps the part that touches its own path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phikit.preference.bound import surprises
from phikit.preference.evalues import Stream
from phikit.preference.rollouts import Prefix, Rollout


class Answer:
    """`ranges[i]`: least and greatest probability with which token i was drawn. The answer itself is never evidence:
    it was chosen for its outcome."""

    def __init__(self, rollout: Rollout, ranges: Sequence[tuple[float, float]], gap: float) -> None:
        self.tokens, self.right, self.ranges = rollout.tokens, rollout.right, ranges
        self.surprise = surprises([low for low, _ in ranges])
        # The last token is none: after it there is nothing to choose.
        self.candidates = [i for i in range(len(self.tokens) - 1) if self.bound(i, i + 1) >= gap]
        self.others: dict[int, dict[int, Stream]] = {}  # depth -> alternative token -> its outcomes
        self.weights = self._weigh(gap)
        self._rows: list[tuple[int, int, bool]] = []  # (depth it began at, depth to which it agrees, right)
        self._table = np.zeros((0, 3), dtype=np.int64)

    def _weigh(self, gap: float) -> dict[int, float]:
        """A weight for each candidate, 1 on average: those whose bound leaves more room are likelier to be pivotal, and
        the multiplicity of the test falls less on them. Log-probabilities decide it, never outcomes."""
        room = {i: self.bound(i, i + 1) - gap + 0.05 for i in self.candidates}
        return {i: x * len(room) / sum(room.values()) for i, x in room.items()}

    def __len__(self) -> int:
        return len(self.tokens)

    def bound(self, a: int, b: int) -> float:
        """The most by which the part a..b can change p."""
        return -float(np.expm1(self.surprise[a] - self.surprise[b]))

    def add(self, prefix: Prefix, rollout: Rollout) -> None:
        """Takes a rollout of the same question into account."""
        start = len(prefix)
        agree = common(prefix, self.tokens)
        if agree < start:
            if agree == start - 1:
                self._other(agree, prefix[agree], rollout.right)
            return
        depth = start + common(rollout.tokens, self.tokens[start:])
        self._rows.append((start, depth, rollout.right))
        if depth < len(self) and depth - start < len(rollout.tokens):
            self._other(depth, rollout.tokens[depth - start], rollout.right)

    def at(self, i: int) -> Stream:
        """Outcomes after the first i tokens; exact at the end."""
        if i == len(self):
            return Stream(0, 0, float(self.right))
        t = self._evidence()
        return _stream(t[(t[:, 0] <= i) & (t[:, 1] >= i), 2])

    def apart(self, a: int, b: int) -> Stream:
        """Outcomes of rollouts that reached depth a and left the answer before b."""
        t = self._evidence()
        return _stream(t[(t[:, 0] <= a) & (t[:, 1] >= a) & (t[:, 1] < b), 2])

    def drawn(self, a: int) -> tuple[int, int]:
        """How often the answer's token, and another one, was drawn at depth a."""
        t = self._evidence()
        free = (t[:, 0] <= a) & (t[:, 1] >= a)
        taken = int((free & (t[:, 1] > a)).sum())
        return taken, int(free.sum()) - taken

    def _other(self, depth: int, token: int, right: bool) -> None:
        seen = self.others.setdefault(depth, {})
        s = seen.get(token, Stream(0, 0))
        seen[token] = Stream(s.n + 1, s.right + right)

    def _evidence(self) -> np.ndarray:
        if len(self._table) != len(self._rows):
            self._table = np.array(self._rows, dtype=np.int64)
        return self._table


def choose(rollouts: Sequence[Rollout], count: int) -> tuple[list[Rollout], int]:
    """(answers to search, how many rollouts the choice looked at): the first whole answers, none twice, right and
    wrong ones in equal number as far as there are both. What the choice looked at is not independent of it, and is no
    evidence; what comes later is."""
    picked: dict[tuple[int, ...], Rollout] = {}
    spare: dict[tuple[int, ...], Rollout] = {}
    most = {True: (count + 1) // 2, False: count // 2}
    for seen, r in enumerate(rollouts, 1):
        if r.outcome == "truncated" or len(r.tokens) < 2 or r.tokens in picked or r.tokens in spare:
            continue
        side = sum(x.right is r.right for x in picked.values())
        (picked if side < most[r.right] else spare)[r.tokens] = r
        if len(picked) == count:
            return list(picked.values()), seen
    return [*picked.values(), *spare.values()][:count], len(rollouts)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences share at their begin."""
    n = min(len(a), len(b))
    for i in range(n):
        if a[i] != b[i]:
            return i
    return n


def _stream(right: np.ndarray) -> Stream:
    return Stream(len(right), int(right.sum()))
