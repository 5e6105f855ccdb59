"""The quality loop as part of the corpus stage: the funnel adds up, other sources stay, a killed run goes on."""

from __future__ import annotations

import shutil

import pytest
from ask_endpoint import FaultyEndpoint
from test_corpus_select import GOOD, documents, opinion, scripted

from phikit.corpus import graded
from phikit.corpus.graded import Grading, grade
from phikit.corpus.select import Learning, Selection
from phikit.recipe.context import StageContext
from phikit.recipe.load import load
from phikit.recipe.stages import corpus as stage
from phikit.records import Document, to_row
from phikit.records.io import read_json, read_jsonl, write_jsonl

SETTINGS = Grading(("web",), Learning(sample=200, votes=1), Selection(keep=0.5))


def corpus(out):
    """What `pipeline.build` leaves: web texts, half of them good, among code."""
    mixed = []
    for i, d in enumerate(documents(300)):
        mixed.append(d)
        if i % 3 == 0:
            mixed.append(Document(f"def f{i}(): return {i}", "code", {"path": f"{i}.py"}))
    write_jsonl(out / "documents.jsonl.zst", (to_row(d) for d in mixed))
    write_jsonl(out / "rejected.jsonl.zst", [{"id": "x", "path": "y", "reason": "language"}])
    by = {"web": 300, "code": 100}
    return mixed, {"in": 401, "parts": 0, "out": 400, "heldout": 0, "dropped": {"language": 1}, "by_source": by,
                   "bytes_by_source": by, "bytes_out": 400}  # fmt: skip


def test_the_funnel_adds_up_and_other_sources_stay(tmp_path):
    mixed, before = corpus(tmp_path)
    with scripted(tmp_path) as teacher:
        counts = grade(teacher, tmp_path, tmp_path / ".work", before, SETTINGS)
    kept = list(read_jsonl(tmp_path / "documents.jsonl.zst"))
    rejected = list(read_jsonl(tmp_path / "rejected.jsonl.zst"))
    assert counts["in"] == counts["out"] + sum(counts["dropped"].values())
    assert counts["out"] == len(kept)
    assert counts["dropped"] == {"language": 1, "low_quality": len(rejected) - 1}
    assert counts["by_source"] == {"code": 100, "web": len(kept) - 100}
    assert counts["bytes_out"] == sum(len(r["text"].encode()) for r in kept)
    order = [d.id for d in mixed]
    assert [order.index(r["id"]) for r in kept] == sorted(order.index(r["id"]) for r in kept)
    web = [r for r in kept if r["source"] == "web"]
    assert all(0 <= r["meta"]["quality"] <= 1 and r["meta"]["topic"] for r in web)
    assert not any("quality" in r["meta"] for r in kept if r["source"] == "code")
    assert sum(int(r["meta"]["path"]) % 2 for r in web) / len(web) > 0.9
    about = counts["classifier"]
    assert about["agreement_low"] < about["agreement"] < about["agreement_high"]
    assert about["kept"] + about["dropped"] == 300
    assert about["auc"] > 0.8
    assert sum(counts["topics"].values()) == about["kept"]
    assert set(counts["topics"]) == {"web/history", "web/science"}
    assert read_json(tmp_path / "quality/learned.json")["crossed"]["tested"] == 200


def test_a_run_that_was_killed_between_its_two_files_ends_with_the_same_bytes(tmp_path, monkeypatch):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    copied = shutil.copyfile

    def kill(a, b):
        if str(a).endswith("selected.jsonl.zst"):
            raise KeyboardInterrupt
        return copied(a, b)

    few = Grading(("web",), Learning(sample=80), Selection(keep=0.5))

    def run(out):
        _, counts = corpus(out)  # the plan writes both files again where one has another size
        with scripted(out) as teacher:
            grade(teacher, out, out / ".work", counts, few)
            return teacher.counts()["asked"]

    assert run(quiet) == 80
    monkeypatch.setattr(graded.shutil, "copyfile", kill)
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    assert len(list(read_jsonl(killed / "rejected.jsonl.zst"))) > 1
    monkeypatch.undo()
    assert run(killed) == 0
    for file in ("documents.jsonl.zst", "rejected.jsonl.zst", "quality/quality.npz"):
        assert (quiet / file).read_bytes() == (killed / file).read_bytes()


def test_a_teacher_that_cannot_grade_stops_the_stage(tmp_path):
    _, counts = corpus(tmp_path)
    same = scripted(tmp_path, lambda p, s: '{"score": 4, "topic": "science"}')
    with same as teacher, pytest.raises(ValueError, match="too few of one kind"):
        grade(teacher, tmp_path, tmp_path / ".work", counts, SETTINGS)
    assert len(list(read_jsonl(tmp_path / "documents.jsonl.zst"))) == 400


def test_the_recipe_key_runs_the_loop_inside_the_corpus_stage(tmp_path, monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    notes = tmp_path / "notes"
    notes.mkdir()
    write_jsonl(notes / "a.jsonl", ({"text": f"{d.text}. " * 3} for d in documents(240)))

    def chat(_, body):
        said = opinion(body["messages"][-1]["content"])
        message = {"role": "assistant", "content": said}
        usage = {"prompt_tokens": 20, "completion_tokens": 10}
        return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}

    with FaultyEndpoint(reply=chat) as endpoint:
        settings = [
            "corpus.max_bytes.code=30KB", "corpus.max_bytes.text=0", "corpus.heldout=5%", "corpus.quality=false",
            f"corpus.folders=[{{path: {notes}, source: text}}]", "corpus.languages=[en, und]",
            f"corpus.classifier.teacher={endpoint.url}#grader", "corpus.classifier.sample=150",
            "corpus.classifier.amplify=1.5",
        ]  # fmt: skip
        recipe = load("phi4", scale="nano", settings=settings)
        out = tmp_path / "corpus"
        ctx = StageContext("corpus", recipe, recipe.corpus, {}, out, out / ".work", 1)
        counts = stage.run(ctx)
    kept = list(read_jsonl(out / "documents.jsonl.zst"))
    assert counts["in"] + counts["parts"] == counts["out"] + counts["heldout"] + sum(
        counts["dropped"].values()
    )
    assert counts["dropped"]["low_quality"] == counts["classifier"]["dropped"] > 50
    assert counts["classifier"]["graded"] == 150
    assert {r["source"] for r in kept} == {"code", "text"}
    assert sum(any(w in r["text"] for w in GOOD) for r in kept if r["source"] == "text") >= 0.8 * sum(
        r["source"] == "text" for r in kept
    )
    assert (out / "quality/topics.npz").is_file()
    assert recipe.corpus is not None
    assert load("phi4", scale="nano").corpus.classifier is None
