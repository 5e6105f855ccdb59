from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phikit.recipe import units


@pytest.mark.parametrize(
    ("text", "value"),
    [("2M", 2_000_000), ("1.5B", 1_500_000_000), ("10T", 10**13), ("4K", 4000), (7, 7), ("1_000", 1000),
     ("2e3", 2000), (2e6, 2_000_000), ("0", 0)],
)  # fmt: skip
def test_counts_are_powers_of_a_thousand(text, value):
    assert units.count(text) == value
    assert isinstance(units.count(text), int)


@pytest.mark.parametrize(("text", "value"), [("4K", 4096), ("16K", 16384), (4096, 4096), ("128", 128)])
def test_a_k_of_context_is_1024(text, value):
    assert units.context_length(text) == value


@pytest.mark.parametrize(("text", "value"), [("30%", 0.3), (0.3, 0.3), ("100%", 1), ("0.5 %", 0.005), (1, 1)])
def test_shares(text, value):
    assert units.share(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("6MB", 6_000_000), ("1.5GB", 1_500_000_000), (9, 9)])
def test_sizes(text, value):
    assert units.size(text) == value


def test_multiples():
    assert units.multiple("4x") == units.multiple(4) == 4
    assert units.multiple("13.8x") == 13.8


@pytest.mark.parametrize(
    ("function", "bad"),
    [
        (units.count, "2m"), (units.count, "1.5"), (units.count, -1), (units.count, True),
        (units.count, "30%"), (units.count, float("nan")), (units.count, "1e999"), (units.count, None),
        (units.count, [1]),
        (units.share, 30), (units.share, "130%"), (units.share, "4x"), (units.share, "-1%"),
        (units.multiple, "4M"), (units.context_length, "4M"), (units.size, "6M"), (units.size, ""),
    ],
)  # fmt: skip
def test_a_bad_value_says_what_to_write(function, bad):
    with pytest.raises(ValueError, match="write"):
        function(bad)


@given(st.one_of(st.text(max_size=12), st.floats(), st.integers(), st.booleans(), st.none()))
def test_any_input_is_a_number_or_a_value_error(value):
    for function in (units.count, units.share, units.multiple, units.context_length, units.size):
        with contextlib.suppress(ValueError):
            assert function(value) >= 0


def test_shown_numbers():
    assert units.show_count(14_659_507_200) == "14.7B"
    assert units.show_bytes(29_319_014_400) == "29.3 GB"
    assert units.show_count(12) == "12"
