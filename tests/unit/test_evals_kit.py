"""Sets of original questions with notes: begun, checked, tried, scored."""

from __future__ import annotations

import pytest

from phikit.ask.teacher import Teacher
from phikit.engine.scripted import ScriptedEngine
from phikit.evals import kit, kit_command
from phikit.evals.run import Settings, evaluate
from phikit.evals.select import choose

QUESTION = """\
skill: explain
prompt: Why is the sky blue on a clear day at noon, and red at dusk?
answer: Short waves are scattered more than long ones.
notes:
- {points: 3, text: Says that short waves scatter more}
- {points: 1, text: Says what changes at dusk}
"""


def judge(prompt: str) -> str:
    """Full points where the graded answer speaks of scattering or of doubles."""
    graded = prompt.rpartition("Answer to grade:")[2]
    notes = 3 if "note_3" in prompt else 2
    good = "scattered" in graded if notes == 2 else "doubles" in graded
    most = (3, 1) if notes == 2 else (1, 2, 1)
    return "{" + ", ".join(f'"note_{i + 1}": {m if good else 0}' for i, m in enumerate(most)) + "}"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "sky"
    kit.new(made)
    (made / "questions/002-sky.yaml").write_text(QUESTION)
    return made


def test_a_new_set_is_good_and_is_scored(folder, tmp_path):
    lines = []
    assert kit_command.validate(folder, [], "", say=lines.append) == 0
    assert "2 questions, 8 points" in lines[0]
    model = ScriptedEngine(lambda p: "Waves are scattered." if "sky" in p else "Python rounds.")
    with Teacher(ScriptedEngine(judge), tmp_path / "log") as teacher:
        found = evaluate(model, "m", choose(str(folder)), tmp_path / "out", Settings(), judge=teacher)
    assert {s["group"]: s["value"] for s in found.scores} == {"": 0.5, "explain": 1.0, "find the error": 0.0}
    assert {f["file"] for f in found.run["tasks"][0]["files"]} == {"001-example.yaml", "002-sky.yaml"}
    assert found.records["sky"][1]["detail"] == "note_1 3/3, note_2 1/1"


def test_notes_are_tried_on_known_answers(folder, tmp_path):
    _, questions = kit.read(folder)
    with Teacher(ScriptedEngine(judge), tmp_path / "log") as teacher:
        rows = kit.tried(questions, teacher)
    assert [(r.own, r.other) for r in rows] == [(1.0, 0.0), (1.0, 0.0)]
    with Teacher(ScriptedEngine(lambda p: "?"), tmp_path / "log2") as teacher:
        assert kit.tried(questions, teacher)[0].own is None


def test_what_to_mend(folder, tmp_path):
    (folder / "questions/003-again.yaml").write_text(
        QUESTION.replace("?", " ?").replace("- {points: 1, text: Says what changes at dusk}\n", "")
        .replace("Says that short waves scatter more", "waves")
    )  # fmt: skip
    _, questions = kit.read(folder)
    found = kit.problems(
        questions, ["it says why is the sky blue on a clear day at noon, and red at dusk! ok"]
    )
    assert any(x.startswith("003-again: the same question as 002-sky") for x in found)
    assert any("one note gives all points" in x for x in found)
    assert any("too short" in x for x in found)
    assert sum("13 words in a row" in x for x in found) == 2
    lines = []
    assert kit_command.validate(folder, [], "", say=lines.append) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("points: 3", "points: 0", "1 to 10"),
        ("points: 3", "points: true", "1 to 10"),
        ("points: 3", "marks: 3", "`points` and `text`"),
        ("skill: explain", "skil: explain", "unknown keys skil"),
        ("skill: explain", "skill: ''", "must be a text"),
        ("notes:", "notes: x\nmore:", "unknown keys more"),
        ("skill: explain", "skill: [", "not valid YAML"),
    ],
)
def test_a_bad_question_is_an_error_that_names_it(folder, old, new, message):
    (folder / "questions/002-sky.yaml").write_text(QUESTION.replace(old, new))
    with pytest.raises(ValueError, match=message) as e:
        kit.read(folder)
    assert "002-sky.yaml" in str(e.value)


def test_a_set_is_not_begun_over_files(folder, tmp_path):
    with pytest.raises(ValueError, match="not empty"):
        kit.new(folder)
    with pytest.raises(FileNotFoundError, match="phikit eval new"):
        kit.read(tmp_path / "nothing")
    (folder / "set.yaml").write_text("name: a b\n")
    with pytest.raises(ValueError, match="name 'a b'"):
        kit.read(folder)
