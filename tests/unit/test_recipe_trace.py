from __future__ import annotations

import pytest

from phikit.recipe import show
from phikit.recipe.trace import trace
from phikit.records import Preference, content_id, to_row, turns
from phikit.records.io import write_json, write_jsonl, write_parquet


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    problem, question = content_id("problem"), content_id("question")
    rollouts = [content_id("rollout", str(i)) for i in range(5)]
    pairs = [
        Preference(
            prompt=turns(("user", f"What is {i} + 1?")),
            prefix_ids=(1, i),
            chosen_ids=(2,),
            rejected_ids=(3,),
            chosen="so",
            rejected="if",
            kind="pivotal",
            meta={"question": question, "gain": 0.4},
            parents=(question, *rollouts[:2]),
        )
        for i in range(3)
    ]
    write_jsonl(folder / "pivotal" / "pairs.jsonl.zst", [to_row(p) for p in pairs])
    rows = [{"id": r, "question_id": question, "text": "3 + 1 = 4", "correct": True} for r in rollouts]
    write_jsonl(folder / "pivotal" / "rollouts.jsonl.zst", rows)
    write_jsonl(folder / "pivotal" / ".work" / "rows.jsonl", [{"id": question, "wrong": True}])
    question_row = {"id": question, "question": "What?", "answer": "4", "kind": "math", "parents": [problem]}
    write_jsonl(folder / "synth" / "questions.jsonl.zst", [question_row])
    write_parquet(folder / "corpus" / "documents.parquet", [{"id": problem, "meta": {"path": "lib/a.py"}}])
    judged = {**to_row(pairs[0]), "id": content_id("judged"), "kind": "judged", "parents": ["f" * 32]}
    write_jsonl(folder / "judged" / "pairs.jsonl.zst", [{**judged, "meta": {}}])
    return folder, pairs, question, problem


def test_from_a_pair_to_question_rollouts_and_source(run):
    folder, pairs, question, problem = run
    node = trace(folder, pairs[1].id)
    assert node.row["prompt"][0]["content"] == "What is 1 + 1?"
    assert node.file == "pivotal/pairs.jsonl.zst"
    assert [p.file for p in node.parents] == ["synth/questions.jsonl.zst"] + [
        "pivotal/rollouts.jsonl.zst"
    ] * 2
    source = node.parents[0].parents[0]
    assert (source.id, source.file, source.row["meta"]["path"]) == (
        problem,
        "corpus/documents.parquet",
        "lib/a.py",
    )
    assert node.parents[0].id == question
    assert node.others == 3


def test_by_index_and_by_the_first_digits(run):
    folder, pairs, _, _ = run
    assert trace(folder, "2").id == pairs[2].id
    assert trace(folder, pairs[2].id[:10]).id == pairs[2].id
    assert trace(folder, "judged:0").row["kind"] == "judged"


def test_a_parent_that_is_nowhere_is_reported(run):
    assert trace(run[0], "judged:0").missing == ["f" * 32]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("9", "there are 3 pivotal pairs, none has index 9"),
        ("judged:4", "there are 1 judged pairs"),
        ("abcdef0123", "no pair of pivotal or judged has an id that begins with 'abcdef0123'"),
        ("sft:1", "pivotal:INDEX"),
    ],
)
def test_an_absent_pair_is_a_clear_error(run, pair, message):
    with pytest.raises(ValueError, match=message):
        trace(run[0], pair)


def test_the_printed_tree(run, capsys):
    show.print_trace(run[0], "0")
    printed = capsys.readouterr().out
    assert "lib/a.py" in printed
    assert "3 more rollouts" in printed


def test_the_printed_run(run, capsys):
    folder = run[0]
    with pytest.raises(ValueError, match="no run here"):
        show.print_run(folder)
    row = {"name": "pivotal", "status": "done", "cached": False, "seconds": 3.25, "counts": {"pairs": 3}}
    write_json(folder / "timings.json", {"recipe": "phi4", "scale": "nano", "stages": [row]})
    score = {
        "checkpoint": "sft",
        "task": "icl",
        "metric": "f1",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 9,
    }
    write_json(folder / "report.json", {"stages": [row], "scores": [score]})
    show.print_run(folder)
    printed = capsys.readouterr().out
    assert "pairs 3" in printed
    assert "0.500" in printed
    assert "[0.400" in printed


def test_export_is_copied_and_never_over_something(run, tmp_path):
    folder = run[0]
    with pytest.raises(ValueError, match="export stage is not finished"):
        show.copy_export(folder, tmp_path / "to")
    from phikit.records import artifact

    (folder / "export" / "hf").mkdir(parents=True)
    (folder / "export" / "hf" / "config.json").write_text("{}")
    artifact.seal(folder / "export", stage="export", fingerprint="f", config={}, inputs={}, counts={})
    assert len(show.copy_export(folder, tmp_path / "to")) == 1
    assert (tmp_path / "to" / "hf" / "config.json").read_text() == "{}"
    with pytest.raises(ValueError, match="not an empty folder"):
        show.copy_export(folder, tmp_path / "to")
