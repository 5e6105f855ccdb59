"""Some thousand requests that nobody means; `serve_fuzz.py --cases` runs more of the same."""

from __future__ import annotations

import asyncio

from serve_fuzz import run

CASES = 2000


def test_every_answer_has_a_documented_status_and_form():
    statuses, faults, crashes = asyncio.run(run(range(CASES)))
    assert not faults, "\n".join(faults[:10])
    assert crashes == 0
    assert statuses[200] > CASES / 10
    assert statuses[400] > CASES / 10
