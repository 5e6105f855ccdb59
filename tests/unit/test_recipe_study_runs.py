"""What studies share: runs made up to a stage, and differences paired by item."""

from __future__ import annotations

from pathlib import Path

import pytest

from phikit.recipe import run as runner
from phikit.recipe import study_runs
from phikit.recipe.study_compare import contrast
from phikit.recipe.study_runs import nano, run_until


def test_only_what_is_missing_is_run_and_nothing_after_it(tmp_path: Path, monkeypatch):
    there, ran = {"corpus", "tokenizer"}, []

    def run(recipe, folder, *, only):
        ran.append(only)
        there.add(only)
        return 0

    monkeypatch.setattr(study_runs.artifact, "load", lambda p: p if p.name in there else None)
    monkeypatch.setattr(runner, "run", run)
    assert run_until(nano(1), tmp_path, "mixture") == tmp_path / "mixture"
    assert ran == ["synth", "mixture"]
    run_until(nano(1), tmp_path, "mixture")
    assert len(ran) == 2
    monkeypatch.setattr(runner, "run", lambda *a, **k: 1)
    with pytest.raises(ValueError, match=r"stage pretrain failed in .*; see its timings.json"):
        run_until(nano(1), tmp_path, "pretrain")


def test_a_seed_is_a_recipe_of_its_own():
    one, two = nano(1), nano(2, ["pretrain.tokens=1M"])
    assert (one.seed, two.seed) == (1, 2)
    assert one.pretrain
    assert two.pretrain
    assert (one.pretrain.tokens, two.pretrain.tokens) == (3_000_000, 1_000_000)


def test_arms_that_answered_other_items_are_not_compared():
    rows = {"a": {"rows": {"m": [["x", 1.0, 1.0], ["y", 0.0, 1.0]]}}}
    rows["b"] = {"rows": {"m": [["y", 0.0, 1.0], ["x", 1.0, 1.0]]}}
    with pytest.raises(ValueError, match="seed 3: 'a' and 'b' have not answered the same items"):
        contrast({3: rows}, "a", "b")
