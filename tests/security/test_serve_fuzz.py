"""Some thousand requests that nobody means; `serve_fuzz.py --cases` runs more of the same."""

from __future__ import annotations

import asyncio

import pytest
from serve_fuzz import run

CASES = 1200


@pytest.mark.parametrize("safetensors", [False, True])
def test_every_answer_has_a_documented_status_and_form(safetensors):
    statuses, faults, crashes = asyncio.run(run(range(CASES), safetensors=safetensors))
    assert not faults, "\n".join(faults[:10])
    assert crashes == 0
    assert statuses[200] > CASES / 10
    assert statuses[400] > CASES / 10
