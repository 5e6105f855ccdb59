"""Questions of several formats, their checks, and what a search writes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from pivotal_process import RIGHT, Process, check

from phikit.preference import command, pts
from phikit.preference.pivotal import SearchConfig
from phikit.preference.questions import is_right, program_of, question_of, read_questions
from phikit.preference.rollouts import Question
from phikit.records import Preference, from_row
from phikit.records.io import RowError, read_json, read_jsonl, read_parquet, write_jsonl, write_parquet

DATA = Path(__file__).parents[3] / "shared" / "data" / "benchmarks"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")


def test_our_own_rows(tmp_path):
    rows = [
        {"id": "a", "question": "1+1?", "answer": 2},
        {"question": "Which?", "answer": "B", "kind": "choice", "options": 3},
        {"question": "Capital?", "answer": "Paris\nthe city of Paris", "kind": "text"},
        {"question": "Write f.", "answer": "assert f(1) == 2", "kind": "code"},
    ]
    for name, write in (("q.jsonl", write_jsonl), ("q.jsonl.zst", write_jsonl)):
        write(tmp_path / name, rows)
        given = list(read_questions(tmp_path / name))
        assert [(q.kind, q.answer) for q in given] == [
            ("math", "2"), ("choice", "B"), ("text", "Paris\nthe city of Paris"), ("code", "assert f(1) == 2"),
        ]  # fmt: skip
        assert given[0].id == "a"
        assert given[1].options == 3
        assert len({q.id for q in given}) == 4
    write_parquet(tmp_path / "q.parquet", [{"question": "1+1?", "answer": "2"}])
    assert [q.answer for q in read_questions(tmp_path / "q.parquet")] == ["2"]
    assert next(read_questions(tmp_path / "q.parquet", kind="text")).kind == "text"


def test_gsm8k_rows():
    q = question_of({"question": "How many?", "answer": "48/2 = <<48/2=24>>24\n#### 1,072"})
    assert (q.kind, q.answer) == ("math", "1,072")
    assert is_right(q, "So 1000 + 72 = 1072. The answer is 1072.")
    assert is_right(q, "The answer is 72.") is False
    assert is_right(q, "No idea.") is None


def test_mbpp_rows():
    row = {
        "text": "Write a function that doubles.", "code": "def d(x): ...", "task_id": 7, "test_setup_code": "k = 2",
        "test_list": ["assert d(3) == 3 * k", "assert d(0) == 0"],
    }  # fmt: skip
    q = question_of(row)
    assert (q.id, q.kind, q.answer) == ("7", "code", "k = 2\nassert d(3) == 3 * k\nassert d(0) == 0")
    assert "assert d(0) == 0" in q.question
    assert "def d(x): ..." not in q.question


def test_multiple_choice_rows():
    listed = {"question": "Largest?", "choices": ["one", "two", "three"], "answer": 2}
    arc = {
        "question": "Largest?",
        "choices": {"text": ["one", "two", "three"], "label": ["1", "2", "3"]},
        "answer": "3",
    }
    for row in (listed, listed | {"answer": "C"}, arc):
        q = question_of(row)
        assert (q.kind, q.answer, q.options) == ("choice", "C", 3)
        assert "C. three" in q.question
    assert is_right(q, "The answer is C.")
    assert is_right(q, "The answer is A.") is False


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": "1"}, 'no text under "question"'),
        ({"question": "x", "answer": " "}, 'nothing under "answer"'),
        ({"question": "x", "answer": "1", "kind": "poem"}, "kind must be one of"),
        ({"question": "x", "answer": "y ####"}, 'nothing after "####"'),
        ({"question": "x", "choices": ["a", "b"], "answer": "C"}, "names none of the 2 choices"),
        ({"text": "x", "test_list": []}, "tests in"),
        ({"question": "x", "answer": "t", "kind": "code", "language": "rust"}, "Python only"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, says):
    write_jsonl(tmp_path / "q.jsonl", [{"question": "ok", "answer": "1"}, row])
    with pytest.raises(RowError, match=r"q\.jsonl, row 2: .*" + says.replace("(", r"\(")):
        list(read_questions(tmp_path / "q.jsonl"))


def test_a_repeated_question_is_an_error(tmp_path):
    write_jsonl(tmp_path / "q.jsonl", [{"question": "ok", "answer": "1"}] * 2)
    with pytest.raises(RowError, match=r"row 2: the id .* occurs twice"):
        list(read_questions(tmp_path / "q.jsonl"))


def test_a_program_is_taken_out_of_its_fences():
    assert program_of("def f(): pass") == "def f(): pass"
    assert program_of("Here:\n```python\ndef f():\n    return 1\n```\nand\n```\nx = f()\n```\n") == (
        "def f():\n    return 1\n\nx = f()"
    )
    assert program_of("```python\nx = 1") == "x = 1"


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_the_real_files_are_read():
    gsm8k = list(read_questions(DATA / "gsm8k" / "test-200.jsonl.gz"))
    assert len(gsm8k) == 200
    assert {q.kind for q in gsm8k} == {"math"}
    with gzip.open(DATA / "gsm8k" / "test-200.jsonl.gz", "rt") as f:
        solutions = [json.loads(x)["answer"] for x in f]
    assert all(is_right(q, s) for q, s in zip(gsm8k, solutions))
    mbpp = list(read_questions(DATA / "mbpp" / "mbpp.jsonl.gz"))
    assert len(mbpp) == 974
    assert {q.kind for q in mbpp} == {"code"}


# -- what a search writes -----------------------------------------------------------------------------------------

SHAPE = {"length": 14, "wording": 0.1, "decisive": 0.02, "size": 0.8, "paths": 8, "slips": 0.15}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("pts")
    kinds = ("math", "choice", "code")
    questions = [Question(f"q{i}", str(i), str(RIGHT), kinds[i % 3]) for i in range(12)]
    sampling = pts.Sampling(max_tokens=30, seed=5)
    pts.run(Process(seed=0, **SHAPE), questions, out, SearchConfig(), sampling, check=check)
    return out


def test_the_pairs_are_written_for_us_and_for_others(folder):
    ours = [from_row(Preference, r) for r in read_jsonl(folder / "pairs.jsonl.zst")]
    lines = list(read_jsonl(folder / "preferences.jsonl.zst"))
    table = list(read_parquet(folder / "preferences.parquet"))
    assert len(ours) == len(lines) == len(table) >= 8
    assert lines == table
    for pair, row in zip(ours, lines):
        assert row["id"] == pair.id
        assert all(isinstance(row[k], str) for k in ("prompt", "chosen", "rejected"))
        assert row["prompt_ids"] == [1, int(pair.prompt[0].content), *pair.prefix_ids]
        assert (row["chosen_ids"], row["rejected_ids"]) == (list(pair.chosen_ids), list(pair.rejected_ids))
        assert row["p_chosen"] > row["p_rejected"]


def test_hugging_face_datasets_read_them(folder):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_parquet(str(folder / "preferences.parquet"), cache_dir=str(folder / "hf"))
    assert {"prompt", "chosen", "rejected"} <= set(table.column_names)


def test_the_card_adds_up(folder):
    card = read_json(folder / "card.json")
    rows = [json.loads(x) for x in (folder / ".work" / "rollouts.jsonl").read_text().splitlines()[1:]]
    assert card["cost"]["rollouts"] == len(rows) == sum(card["cost"]["outcomes"].values())
    assert card["cost"]["tokens_generated"] == sum(len(r["t"]) for r in rows)
    assert (
        card["pairs"]
        == sum(card["pairs_by_kind"].values())
        == len(list(read_jsonl(folder / "pairs.jsonl.zst")))
    )
    assert card["up"] + card["down"] == card["pivotal_tokens"] >= card["pairs"]
    assert card["error"]["candidates"] >= card["error"]["tested"] >= card["pivotal_tokens"]
    text = (folder / "card.md").read_text()
    assert f"| pairs | {card['pairs']:,} (" in text
    assert "132,859" in text
    assert "posterior chance of at least 95%" in text


def test_answers_show_p_along_the_way(folder):
    answers = list(read_jsonl(folder / "answers.jsonl"))
    sampled = {r["id"] for r in read_jsonl(folder / "rollouts.jsonl.zst")}
    pivots = [(a, v) for a in answers for v in a["pivots"]]
    assert pivots
    for a, v in pivots:
        assert v["after"] - v["before"] == pytest.approx(v["change"], abs=2e-4)
        assert a["change"][v["at"]] == v["change"]
        assert [b["role"] for b in v["branches"]].count("taken") == 1
        assert all(b["low"] <= b["p"] <= b["high"] for b in v["branches"])
        for b in v["branches"]:  # examples are the rollouts that were counted
            outcomes = {e["outcome"] == "right" for e in b["examples"]}
            assert outcomes == {
                right for right in (True, False) if (b["right"] if right else b["n"] - b["right"])
            }
        assert v["rollouts"] in sampled
    largest = [max((abs(v["change"]) for v in a["pivots"]), default=0) for a in answers]
    assert largest == sorted(largest, reverse=True)
    assert [a["p"][-1] for a in answers] == [float(a["right"]) for a in answers]
    assert all(len(a["p"]) == len(a["low"]) == len(a["high"]) == len(a["tokens"]) + 1 for a in answers)
    card = read_json(folder / "card.json")
    assert card["pivotal_tokens"] == len({(a["id"], *a["ids"][: v["at"] + 1]) for a, v in pivots})
    assert card["error"]["certified"] == len(
        {(a["id"], *a["ids"][: v["at"] + 1]) for a, v in pivots if v["certified"]}
    )
    assert (sum(card["changes"]["up"]), sum(card["changes"]["down"])) == (card["up"], card["down"])


def test_a_second_run_gives_the_same_bytes(folder, tmp_path):
    questions = [Question(f"q{i}", str(i), str(RIGHT), ("math", "choice", "code")[i % 3]) for i in range(12)]
    sampling = pts.Sampling(max_tokens=30, seed=5)
    pts.run(Process(seed=0, **SHAPE), questions, tmp_path, SearchConfig(), sampling, check=check)
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_command_says_what_is_missing(tmp_path):
    (tmp_path / "q.jsonl").write_text("")
    with pytest.raises(ValueError, match="no questions"):
        command.pts("smollm2", tmp_path / "q.jsonl", tmp_path / "out")
    with pytest.raises(ValueError, match="--budget 'lots'"):
        command.pts("smollm2", tmp_path / "q.jsonl", tmp_path / "out", budget="lots")
    assert [command.tokens(x) for x in ("5M", "0", "1.5K", "2_000")] == [5_000_000, 0, 1500, 2000]
