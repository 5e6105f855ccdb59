"""`phikit run --on plan`: the run ends at the plan, its tasks run elsewhere, the same command goes on from there."""

from __future__ import annotations

import textwrap

import pytest

from phikit.jobs.command import run_task
from phikit.recipe.load import load
from phikit.recipe.run import run
from phikit.records.io import read_json

RECIPE = """
name: fake
model: {layers: 1, width: 8, heads: 2, kv_heads: 1, ffn: 16, vocab: 64}
tokenizer:
report:
"""
STAGES = {
    "__init__": "",
    "tokenizer": """
        from phikit.jobs.pool import run_shards
        from phikit.records.io import write_jsonl
        def square(i):
            return i * i
        def run(ctx):
            squares = run_shards(square, [1, 2, 3], work=ctx.work / "squares", label="squares", on=ctx.on)
            return {"rows": write_jsonl(ctx.out / "rows.jsonl", ({"n": n} for n in squares))}
    """,
    "report": """
        NEEDS = ("tokenizer",)
        def run(ctx):
            return {}
    """,
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "stages_on_plan"
    folder.mkdir()
    for name, text in STAGES.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    (tmp_path / "own.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PHIKIT_QUIET", "1")
    return folder.name


def test_a_run_ends_at_its_plan_and_goes_on_when_the_tasks_are_done(tmp_path, package):
    said: list[str] = []
    recipe, out = load(str(tmp_path / "own.yaml")), tmp_path / "run"
    assert run(recipe, out, on="plan", say=said.append, package=package) == 0
    plan = out / "tokenizer" / ".work" / "squares" / "plan.json"
    assert f"3 of 3 tasks are to be run: {plan}" in said[-1]
    assert [r["status"] for r in read_json(out / "timings.json")["stages"]] == ["stopped", "not run"]
    assert [run_task(plan, i, said.append) for i in range(3)] == [0, 0, 0]
    assert run(recipe, out, say=said.append, package=package) == 0
    assert run(recipe, tmp_path / "quiet", say=said.append, package=package) == 0
    for file in ("manifest.json", "rows.jsonl"):
        assert (out / "tokenizer" / file).read_bytes() == (
            tmp_path / "quiet" / "tokenizer" / file
        ).read_bytes()


def test_a_place_that_is_none_is_refused_before_anything_is_computed(tmp_path, package):
    with pytest.raises(ValueError, match="--on slurm: give local, plan, ray"):
        run(
            load(str(tmp_path / "own.yaml")),
            tmp_path / "run",
            on="slurm",
            say=lambda _: None,
            package=package,
        )
    assert not (tmp_path / "run").exists()
