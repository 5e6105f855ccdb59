"""The learning-rate schedule."""

from __future__ import annotations

import numpy as np
import pytest

from phikit.train.optim import lr_factor


def test_the_learning_rate_warms_up_holds_and_decays():
    f = [lr_factor(s, 100, warmup=0.1, decay=0.4, final=0.1) for s in range(100)]
    assert f[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert f[10:61] == [1.0] * 51
    assert f[80] == pytest.approx(0.55)
    assert f[99] == pytest.approx(0.1 + 0.9 / 40)
    assert (np.diff(f[60:]) < 0).all()


def test_linear_warm_up_and_decay_of_the_report():
    f = [lr_factor(s, 1000, warmup=0.02, decay=0.98, final=0.0) for s in range(1000)]
    assert max(f) == 1.0
    assert f[19] == f[20] == 1.0
    steps = np.diff(f[20:])
    assert steps == pytest.approx(np.full(979, -1 / 980), abs=1e-9)
    assert 0 < f[-1] < 0.002


@pytest.mark.parametrize("total", [1, 2, 3])
def test_tiny_runs_have_a_schedule(total):
    f = [lr_factor(s, total, warmup=0.05, decay=0.95, final=0.0) for s in range(total)]
    assert f[0] == 1.0
    assert all(0 < x <= 1 for x in f)
