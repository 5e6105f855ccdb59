import json
from types import SimpleNamespace

import numpy as np
import pytest

from phikit.corpus.heldout import hold_out
from phikit.corpus.pipeline import Settings, build
from phikit.corpus.rejection import Rejection
from phikit.records import Document, from_row
from phikit.records.io import read_jsonl
from phikit.text import ngrams

QUESTION = (
    "If a farmer has seventeen sheep and all but nine of them run away, how many sheep are left for him?"
)
GERMAN = (
    "Der Fluss entspringt in den Hügeln oberhalb der Stadt und fließt bis zum Meer, wie jeder dort weiß. " * 4
)
WORDS = """
about after again all also always animal another answer any around away back because been before began
being below between book boy came children city come could country day did different does down each
earth eat end enough every example eye face family far father feet few find first follow food found four
from garden girl give good great group
""".split()  # noqa: SIM905


def prose(seed, n=120):
    rng = np.random.default_rng(seed)
    return ". ".join(" ".join(rng.choice(WORDS, 12)).capitalize() for _ in range(n // 12)) + "."


def corpus():
    items = [
        Document(prose(i), "text", {"path": f"t{i}", "origin": f"t{i}", "format": "plain"}) for i in range(30)
    ]
    code = "\n\n".join(f"def function_{i}(value):\n    return helper(value, {i})" for i in range(40))
    items.append(Document(code, "code", {"path": "a.py", "origin": "a.py", "format": "python"}))
    items.append(Document(code.replace("helper", "other"), "code", {"path": "b.py", "format": "python"}))
    items.append(Document(prose(3) + "\n", "text", {"path": "copy"}))
    items.append(Document(prose(4).replace("Garden", "Gardens", 1) + " The end.", "text", {"path": "near"}))
    items.append(Document(prose(70) + " " + QUESTION.upper(), "text", {"path": "leak"}))
    items.append(Document(GERMAN, "text", {"path": "german"}))
    items.append(Document("short", "text", {"path": "short"}))
    items.append(Rejection("0", "text", "x.bin", "unreadable", "no UTF-8"))
    return items


SETTINGS = Settings(max_code=600, heldout=0.1)


def test_every_document_is_kept_held_out_or_rejected_with_its_reason(tmp_path):
    counts = build(
        corpus(), [("sheep", QUESTION), ("tiny", "two words")], tmp_path, tmp_path / ".work", SETTINGS
    )
    rows = list(read_jsonl(tmp_path / "rejected.jsonl.zst"))
    reasons = {r["path"]: r["reason"] for r in rows}
    assert reasons.pop("b.py", "") in ("", "near_duplicate")
    assert reasons == {
        "copy": "exact_duplicate",
        "near": "near_duplicate",
        "leak": "contaminated_13gram",
        "german": "language",
        "short": "characters",
        "x.bin": "unreadable",
    }
    assert "item sheep" in next(r["detail"] for r in rows if r["path"] == "leak")
    train = [from_row(Document, r) for r in read_jsonl(tmp_path / "documents.jsonl.zst")]
    held = [from_row(Document, r) for r in read_jsonl(tmp_path / "heldout.jsonl.zst")]
    assert counts["in"] + counts["parts"] == counts["out"] + counts["heldout"] + sum(
        counts["dropped"].values()
    )
    assert counts["dropped"]["exact_duplicate"] == 1
    assert (counts["out"], counts["heldout"]) == (len(train), len(held))
    assert (
        counts["bytes_out"]
        == sum(len(d.text.encode()) for d in train)
        == sum(counts["bytes_by_source"].values())
    )
    assert (counts["references"], counts["references_too_short"]) == (2, 1)
    assert not {d.meta.get("origin") for d in train} & {d.meta.get("origin") for d in held}
    assert all(set(r) == {"id", "source", "path", "reason", "detail", "text"} for r in rows)
    texts = [d.text for d in train + held]
    assert not any("SHEEP" in t for t in texts)


def test_equal_input_gives_equal_bytes_with_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("phikit.corpus.pipeline.SHARD_CHARACTERS", 5000)
    for name, workers in ("one", 1), ("two", 2):
        build(corpus(), [("sheep", QUESTION)], tmp_path / name, tmp_path / name / ".work", SETTINGS, workers)
    for file in "documents", "heldout", "rejected":
        one, two = ((tmp_path / n / f"{file}.jsonl.zst").read_bytes() for n in ("one", "two"))
        assert one == two
    assert len(list((tmp_path / "one/.work/clean").glob("*.json"))) > 1


def test_finished_shards_are_not_cleaned_again_but_changed_ones_are(tmp_path, monkeypatch):
    build(corpus(), [], tmp_path, tmp_path / ".work", SETTINGS)
    first = (tmp_path / "documents.jsonl.zst").read_bytes()

    def fail(*_):
        raise AssertionError("cleaned again")

    with monkeypatch.context() as m:
        m.setattr("phikit.corpus.pipeline.clean", fail)
        build(corpus(), [], tmp_path, tmp_path / ".work", SETTINGS)
    assert (tmp_path / "documents.jsonl.zst").read_bytes() == first
    counts = build(corpus()[5:], [], tmp_path, tmp_path / ".work", SETTINGS)
    assert counts["in"] == len(corpus()) - 5


def test_an_empty_result_says_why(tmp_path):
    with pytest.raises(ValueError, match=r"empty: 3 files or rows were read \(language 2, characters 1\)"):
        build(
            [Document(GERMAN, "text"), Document(GERMAN + "Ja.", "text"), Document("a", "text")],
            [],
            tmp_path,
            tmp_path / ".work",
            SETTINGS,
        )
    assert not (tmp_path / "documents.jsonl.zst").exists()
    with pytest.raises(ValueError, match="nothing can be held out"):
        build([Document(prose(0), "text")], [], tmp_path, tmp_path / ".work2", SETTINGS)


def test_held_out_share_keeps_files_whole_and_leaves_out_what_others_repeat():
    documents = [
        Document(prose(1000 * i + part, 300), source, {"origin": f"f{i}"})
        for i in range(200)
        for part, source in enumerate(["code", "text", "text"])
    ]
    shared = prose(-1 % 2**32, 300)
    documents += [
        Document(prose(90_000 + i, 60) + shared, "text", {"origin": f"shared{i}"}) for i in range(40)
    ]
    words = ngrams.words([d.text for d in documents])
    train, held = hold_out(documents, words, 0.05)
    assert len(train) + len(held) == len(documents)
    assert not {d.meta["origin"] for d in train} & {d.meta["origin"] for d in held}
    assert not [d for d in held if d.meta["origin"].startswith("shared")]
    for source in "code", "text":
        part, whole = (sum(len(d.text) for d in s if d.source == source) for s in (held, documents))
        assert 0.05 <= part / whole < 0.07
    assert hold_out(documents, words, 0) == (documents, [])
    with pytest.raises(ValueError, match=r"corpus\.heldout"):
        hold_out(documents, words, 1)


def test_stage_maps_the_recipe_to_arguments(tmp_path, monkeypatch):
    from phikit.recipe.stages import corpus as stage
    from phikit.recipe.stages import synth

    folder = tmp_path / "mine"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.txt").write_text(prose(i))
    (folder / "leak.txt").write_text(prose(50) + QUESTION)
    (folder / "bench.txt").write_text(prose(51) + prose(99, 24))
    against = tmp_path / "bench.jsonl"
    against.write_text(json.dumps({"question": prose(99, 24)}))
    monkeypatch.setattr(synth, "references", lambda r: [("sheep", QUESTION)] if r == "the recipe" else [])
    config = SimpleNamespace(
        languages=["en"],
        quality=True,
        paragraphs=0,
        classifier=None,
        max_bytes=SimpleNamespace(model_dump=dict),
        folders=[SimpleNamespace(path=str(folder), source="mine", text_key="text")],
        decontaminate=SimpleNamespace(
            info=0.2, contaminated=0.5, numbers="contaminated", against=[str(against)]
        ),
        heldout=0.1,
    )
    ctx = SimpleNamespace(
        config=config, recipe="the recipe", out=tmp_path / "out", work=tmp_path / "out/.work", on="local"
    )
    counts = stage.run(ctx)
    assert counts["dropped"] == {"contaminated_13gram": 2}
    assert counts["by_source"] == {"mine": 5}
    assert counts["heldout"] == 1
