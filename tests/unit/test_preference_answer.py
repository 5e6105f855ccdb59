"""What a searched answer knows from rollouts: which of them count at which prefix."""

from __future__ import annotations

from phikit.preference.answer import Answer, choose
from phikit.preference.evalues import Stream
from phikit.preference.rollouts import Rollout

GAP = 0.2


def test_a_rollout_counts_for_every_prefix_it_passes_through():
    answer = Answer(Rollout((1, 2, 3, 4), (-1.0,) * 4, "right"), [(0.4, 0.4)] * 4, GAP)
    answer.add((), Rollout((1, 2, 9), (), "wrong"))  # agrees to depth 2
    answer.add((1,), Rollout((2, 3, 4), (), "right"))  # sampled at 1, agrees to the end
    answer.add((1, 2, 9), Rollout((5,), (), "right"))  # forced past depth 2: says nothing of this path
    assert [answer.at(i) for i in range(4)] == [Stream(1, 0), Stream(2, 1), Stream(2, 1), Stream(1, 1)]
    assert answer.at(4).exact == 1.0
    assert answer.apart(1, 3) == Stream(1, 0)
    assert answer.apart(0, 2) == Stream(0, 0)
    assert answer.drawn(2) == (1, 1)
    assert answer.others == {2: {9: Stream(2, 1)}}


def test_the_choice_of_answers_is_no_evidence():
    def r(name, right):
        return Rollout((name, 0), (-1.0, -1.0), "right" if right else "wrong")

    given = [r(1, False), r(2, False), r(1, False), r(3, True), r(4, True)]
    picked, seen = choose(given, 2)
    assert ([x.tokens[0] for x in picked], seen) == ([1, 3], 4)
    picked, seen = choose(given[:3], 2)
    assert ([x.tokens[0] for x in picked], seen) == ([1, 2], 3)
    assert choose([Rollout((1, 2), (), "truncated"), Rollout((1,), (), "right")], 2) == ([], 2)
