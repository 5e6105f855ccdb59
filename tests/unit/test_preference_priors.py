"""What a search learns of tokens from its other tests."""

from __future__ import annotations

import numpy as np
import pytest

from phikit.preference.evalues import APART, EVEN, Stream, chance
from phikit.preference.priors import STRENGTH, Tokens, far_mass, tilted

KEYS = ("token", ("before", "token"))


def test_a_share_is_that_of_the_other_tests_drawn_to_the_coarser_one():
    tokens = Tokens()
    assert tokens.share("a", KEYS, 0.3) == pytest.approx(0.3)  # nothing is known
    for k in range(12):
        tokens.note(k, KEYS, 1.0)
    coarse = (STRENGTH * 0.3 + 12) / (STRENGTH + 12)
    assert tokens.share("a", KEYS, 0.3) == pytest.approx((STRENGTH * coarse + 12) / (STRENGTH + 12))
    assert tokens.share("a", ("token", ("other", "token")), 0.3) == pytest.approx(coarse)
    assert tokens.share("a", ("other",), 0.3) == pytest.approx(0.3)


def test_a_test_never_counts_for_itself():
    tokens = Tokens()
    tokens.note("a", KEYS, 1.0)
    assert tokens.share("a", KEYS, 0.3) == pytest.approx(0.3)
    tokens.note("b", KEYS, 0.0)
    assert tokens.share("a", ("token",), 0.3) == pytest.approx(STRENGTH * 0.3 / (STRENGTH + 1))
    tokens.note("a", KEYS, 0.5)  # its chance changes: the sum holds one value of each test
    assert tokens.share("b", ("token",), 0.3) == pytest.approx((STRENGTH * 0.3 + 0.5) / (STRENGTH + 1))
    assert tokens.share("c", ("token",), 0.3) == pytest.approx((STRENGTH * 0.3 + 0.5) / (STRENGTH + 2))


def test_a_tilted_prior_has_the_share_and_nothing_else_changes():
    prior = tilted(EVEN, 0.3, 0.9)
    far = APART >= 0.3
    assert prior.sum() == pytest.approx(1)
    assert far_mass(prior, 0.3) == pytest.approx(0.9)
    assert np.ptp(prior[far]) == pytest.approx(0)
    assert np.array_equal(tilted(EVEN, 1.5, 0.9), EVEN)  # nothing differs by so much
    a, b = Stream(6, 5), Stream(6, 2)
    low, even, high = (chance(a, b, 0.3, p) for p in (tilted(EVEN, 0.3, 0.05), EVEN, prior))
    assert low < even < high
