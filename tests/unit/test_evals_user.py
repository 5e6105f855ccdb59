"""A task of one's own: a file of questions, or a YAML file beside it. The examples of docs/evals.md work."""

from __future__ import annotations

from pathlib import Path

import pytest

from phikit.engine.scripted import ScriptedEngine
from phikit.evals.run import Settings, evaluate
from phikit.evals.select import Chosen
from phikit.evals.user import KEYS, user_task
from phikit.records.io import write_jsonl

DOCS = Path(__file__).parents[2] / "docs/evals.md"


def scored(path, tmp_path, script):
    engine = ScriptedEngine(script)
    found = evaluate(engine, "m", [Chosen(user_task(path), True)], tmp_path / "out", Settings())
    return {(s["metric"], s["group"]): s["value"] for s in found.scores}, engine


def test_the_example_of_the_docs(tmp_path):
    text = DOCS.read_text(encoding="utf-8")
    line = next(x for x in text.splitlines() if x.startswith('{"question": "Which river'))
    (tmp_path / "rivers.jsonl").write_text(line + "\n")
    values, _ = scored(tmp_path / "rivers.jsonl", tmp_path, lambda p: " Danube")
    assert values["acc", ""] == 1.0
    yaml = text[text.index("data: tickets.csv") : text.index("```", text.index("data: tickets.csv"))]
    (tmp_path / "tickets.yaml").write_text(yaml)
    rows = ["body,department,language"] + [
        f"text {i},{'sales' if i % 2 else 'support'},{'de' if i > 6 else 'en'}" for i in range(10)
    ]
    (tmp_path / "tickets.csv").write_text("\n".join(rows))
    values, engine = scored(tmp_path / "tickets.yaml", tmp_path, lambda p: " sales\nmore")
    assert values["exact", ""] == 0.5
    assert values["exact", "de"] == pytest.approx(2 / 3)
    assert len(engine.prompts) == 6
    assert engine.prompts[0].startswith(
        "Ticket: text 0\nDepartment: support\n\nTicket: text 1\nDepartment: sales"
    )
    assert engine.prompts[0].endswith("Ticket: text 4\nDepartment:")


def test_every_key_is_in_the_docs():
    text = DOCS.read_text(encoding="utf-8")
    assert all(f"| `{key}` | {meaning} |" in text for key, meaning in KEYS.items())


def test_open_questions_in_chat(tmp_path):
    write_jsonl(
        tmp_path / "q.jsonl",
        [{"question": "2+2?", "answer": ["4", "four"]}, {"question": "3+3?", "answer": "6"}],
    )
    values, engine = scored(tmp_path / "q.jsonl", tmp_path, lambda p: "Four.")
    assert values == {("exact", ""): 0.5}
    assert "<|im_start|>user<|im_sep|>2+2?<|im_end|>" in engine.prompts[0]


@pytest.mark.parametrize(
    ("yaml", "rows", "said"),
    [
        ("prompt: x", None, "no key `data`"),
        ("data: q.jsonl\nprompts: x", None, "unknown keys prompts"),
        ("data: q.jsonl\nmetric: bleu", None, "metric 'bleu'"),
        ("data: q.jsonl\nchoices: c\nmetric: exact", None, "no `metric`"),
        (
            "data: q.jsonl\nprompt: '{body}'",
            [{"question": "?", "answer": "x"}],
            r"row 1: no field 'body' \(it has question",
        ),
        (
            "data: q.jsonl\nchoices: c",
            [{"question": "?", "c": ["a", "b"], "answer": "z"}],
            "none of the choices",
        ),
        ("data: q.jsonl\nshots: 3", [{"question": "?", "answer": "x"}], "need more rows"),
        ("data: none.jsonl", None, "no such file of questions"),
        ("data: q.jsonl\nname: a/b", None, "letters, digits"),
        ("- a list", None, "expected keys"),
    ],
)
def test_mistakes_are_named(tmp_path, yaml, rows, said):
    (tmp_path / "t.yaml").write_text(yaml)
    write_jsonl(tmp_path / "q.jsonl", rows or [])
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        scored(tmp_path / "t.yaml", tmp_path, lambda p: "x")


def test_choices_by_letter_index_and_template(tmp_path):
    (tmp_path / "t.yaml").write_text('data: q.jsonl\nchoices: ["{a}", "{b}"]\nanswer: "{right}"\n')
    rows = [
        {"id": i, "question": "?", "a": "no", "b": "yes", "right": r}
        for i, r in enumerate(["B", 1, "1", "yes"])
    ]
    write_jsonl(tmp_path / "q.jsonl", rows)
    values, _ = scored(tmp_path / "t.yaml", tmp_path, lambda p: " yes")
    assert values["acc", ""] == 1.0
