"""The rubric of the closed world."""

from __future__ import annotations

from fractions import Fraction

import pytest

from phikit.verify.worked import points, prefer, repeats, states_answer, sums

STEPS = "Step by step: 12-3=9. 9+5=14. The answer is 14."
SHORTCUT = "First 12-3=9. The answer is 14."
AT_ONCE = "The answer is 14."
FALSE_SUM = "12-3=8. 9+5=14. The answer is 14."


def test_a_worked_answer():
    w = points(STEPS, "14")
    assert (w.right, w.sums_total, w.sums_true, w.stated) == (True, 2, 2, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12-3=9.", [(True, 9)]),
        ("12 - 3 = 9", [(True, 9)]),
        ("12-3=9+5=14.", [(True, 9), (True, 14)]),
        ("12-3=8.", [(False, 8)]),
        ("112-3=9.", [(False, 9)]),
        ("2*3+4=10. 2+3*4=14. 8/2-1=3.", [(True, 10), (True, 14), (True, 3)]),
        ("-4+9=5. 3+-2=1.", [(True, 5), (True, 1)]),
        ("1/0=0.", [(False, 0)]),
        ("12-3=", [(False, None)]),
        ("x = 9 and 9 = 9", []),
        ("The answer is 14.", []),
    ],
)
def test_sums(text, expected):
    assert sums(text) == [(holds, None if r is None else Fraction(r)) for holds, r in expected]


def test_better_worked_answers_win_among_right_ones():
    order = [points(t, "14") for t in (STEPS, SHORTCUT, AT_ONCE, FALSE_SUM)]
    assert [w.points for w in order] == sorted((w.points for w in order), reverse=True)
    assert prefer(order[0], order[1]) == 1.0
    assert prefer(order[3], order[2]) == 0.0


def test_shorter_wins_ties_and_equals_draw():
    short, long = points("12-3=9. 9+5=14. The answer is 14.", "14"), points(STEPS, "14")
    assert prefer(short, long) == 1.0
    assert prefer(long, long) == 0.5


def test_right_beats_wrong_however_it_looks():
    wrong, unread = points(STEPS, "15"), points("I do not know.", "14")
    assert (wrong.right, unread.right) == (False, None)
    assert prefer(points(AT_ONCE, "14"), wrong) == 1.0
    assert prefer(wrong, points(AT_ONCE, "14")) == 0.0
    assert prefer(wrong, unread) == 0.5


def test_repetition_costs_but_a_change_undone_does_not():
    assert repeats("5+3=8. 5+3=8. The answer is 8.")
    assert repeats("The answer is 8. The answer is 9.")
    assert not repeats("5+3=8. 8-3=5. 5+3=8. The answer is 8.")


@pytest.mark.parametrize(
    ("text", "states", "ends"),
    [
        (AT_ONCE, True, True),
        ("So the answer is 14.", True, True),
        ("The answer is 14. Next, Tom", True, False),
        ("The answer is 14", False, False),
        ("The answer is Tom.", False, False),
        ("The answer is 1.5.", True, True),
    ],
)
def test_the_stated_form(text, states, ends):
    assert states_answer(text) is states
    assert points(text, "14").stated is ends
