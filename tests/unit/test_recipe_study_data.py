"""The data studies: their design, their world, the teacher's critic and validator, their tables, and one tiny run."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from phikit.recipe import data_world, study_data_seed, teacher_answers
from phikit.recipe import study_data_show as show
from phikit.recipe.studies import STUDIES as NAMED
from phikit.recipe.study_data import (
    REPETITION,
    REVISION,
    SEEDS,
    STUDIES,
    SYNTHETIC_ONLY,
    TUNE,
    Arm,
    Part,
    Study,
)
from phikit.recipe.study_data_seed import DataSeed
from phikit.recipe.teacher_answers import Draft, answer_sets, better, criticism, valid
from phikit.records.types import Completion
from phikit.synth.world.arithmetic import Problem, side_of, solve
from phikit.verify import worked

# -- design --------------------------------------------------------------------------------------------------------


def test_every_arm_spends_its_tokens_and_every_contrast_has_its_arms():
    assert set(STUDIES) <= set(NAMED)
    assert TUNE not in SEEDS
    for study in STUDIES.values():
        names = [a.name for a in study.arms]
        assert len(set(names)) == len(names)
        for arm in study.arms:
            assert sum(p.share for p in arm.parts.values()) == pytest.approx(1), (study.name, arm.name)
        assert {x for a, b, _ in study.contrasts for x in (a, b)} <= set(names)


def times(study: Study, arm: str) -> float:
    (part,) = (p for a in study.arms if a.name == arm for n, p in a.parts.items() if n == "synthetic")
    return part.share * study.tokens / part.unique


def test_sets_are_repeated_as_often_as_the_report_says():
    padding = 0.06  # of packed rows, at most
    assert times(REPETITION, "4 times") == pytest.approx(4, rel=padding + 0.01)  # figure 2
    assert times(REPETITION, "12 times") == pytest.approx(12, rel=padding + 0.01)
    # table 3: more than 20 repetitions
    assert times(SYNTHETIC_ONLY, "synthetic") == pytest.approx(20, rel=padding)
    shares = [dict(a.parts) for a in REVISION.arms]
    assert len({p["web"].share for p in shares}) == 1


# -- the world -----------------------------------------------------------------------------------------------------


def taken(source: str, n: int = 600, seed: int = 5, stream: str = "x"):
    world = data_world.make(seed, 40)
    return world, list(islice(data_world.SOURCES[source](world, stream), n))


def test_web_answers_at_once_and_one_time_in_five_wrongly():
    _, pages = taken("web")
    answered = [d for d in pages if "gold" in d.meta]
    assert 0.4 < len(answered) / len(pages) < 0.6
    said = [d.text.rpartition("\n")[2] for d in answered]
    assert not any("=" in s for s in said)
    wrong = sum(s != f"The answer is {d.meta['gold']}." for s, d in zip(said, answered)) / len(said)
    assert 0.12 < wrong < 0.28


def test_synthetic_text_is_right_and_shares_no_numbers_with_the_test():
    world, texts = taken("synthetic")
    for d in texts:
        assert all(true for true, _ in worked.sums(d.text)), d.text
    held = data_world.held_out(world, 30)
    asked = {i["question"] for i in held["arithmetic"]}
    for name in data_world.SOURCES:
        assert not asked & {d.text.partition("\n")[0] for d in taken(name)[1]}
    stream = data_world._problems(world, "x", "y", side="heldout")
    assert {side_of(p.skeleton) for p in islice(stream, 20)} == {"heldout"}


def test_who_is_told_of_where():
    told = {}
    for name in data_world.SOURCES:
        world, texts = taken(name, 2500)
        told[name] = {p.name for p in world.people if any(p.name in d.text for d in texts)}
    assert len(told["web"]) == 40
    assert told["rewrites"] == {p.name for p in world.people[:20]}
    assert told["synthetic"] == {p.name for p in world.people[:10]}


def test_items_have_one_right_choice():
    world, _ = taken("web", 1)
    for item, asked in zip(*(data_world.held_out(world, 5)[k] for k in ("choice", "people"))):
        assert len(set(item["choices"])) == data_world.OPTIONS
        assert item["choices"][item["gold"]] == asked["answer"] + "."


# -- the teacher's answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, kept",
    [
        ("First 6+3=9. 9+9=18. The answer is 18.", None),
        ("With a check: 6+3=9. 9+9=18. Check: 18-9=9. The answer is 18.", None),
        ("First 6+3=8. 8+9=17. The answer is 17.", ""),
        ("Count: 6+3=9. 9+9=17. The answer is 17.", "Count: 6+3=9. "),
        ("The answer is 18.", ""),  # no way to it is shown
        ("First 6+3=9. 9+9=18. The answer is 19.", "First 6+3=9. 9+9=18. "),
        ("First 6+3=9. 9+9=18.", "First 6+3=9. 9+9=18."),
        ("First 6+3=9. The answer is 9. The answer is 9.", "First 6+3=9. "),
    ],
)
def test_the_critic_knows_no_answer_and_finds_the_first_thing_to_mend(text, kept):
    at = criticism(Draft(text, True))
    assert (None if at is None else text[:at]) == kept


def test_the_rubric_is_content_with_every_right_solution_by_program_that_shows_its_sums():
    world = data_world.make(1, 4)
    rng = random.Random(0)
    for p in data_world.questions(world, 40, "t"):
        for style in ("steps", "check"):
            draft = Draft(solve(p, style, rng), True)
            assert criticism(draft) is None, draft.text
            assert valid(p, draft)


def test_better_is_further_on():
    wrong, late = Draft("6+3=8. The answer is 8.", True), Draft("6+3=9. 9+9=17. The answer is 17.", True)
    fine = Draft("6+3=9. 9+9=18. The answer is 18.", True)
    assert better(late, wrong)
    assert better(fine, late)
    assert not better(wrong, late)
    assert not better(late, late)


class Pupil:
    """Writes "1+1=3." first and mends what it is shown half of the time: by the number of its question."""

    stop_ids = ()

    def encode(self, text):
        return [ord(c) for c in text]

    def generate(self, requests):
        for i, r in enumerate(requests):
            question = "".join(map(chr, r.prompt)).partition("\n")[0]
            start = int(question.partition(" ")[2].partition("+")[0])
            total = start + 2
            right = f"{start}+1={start + 1}. {start + 1}+1={total}. The answer is {total}."
            first = not self.seen.get(question)
            self.seen[question] = True
            text = "1+1=3. The answer is 3." if first else right if start % 2 else "1+1=4. The answer is 4."
            yield i, [Completion(text, (), (), "stop")]

    def __init__(self):
        self.seen = {}


def test_sets_of_answers(monkeypatch):
    problems = [Problem(f"Sum {k}+1+1?", k, (1, 1)) for k in range(1, 9)]
    monkeypatch.setattr(data_world, "questions", lambda *a: problems)
    monkeypatch.setattr(teacher_answers, "QUESTIONS", 8)
    sets, counts = answer_sets(data_world.make(1, 4), Pupil(), 3)
    assert {n: len(s) for n, s in sets.items()} == {
        "raw": 8, "validated": 0, "revised": 8, "revised_validated": 4, "gold": 8,
    }  # fmt: skip
    assert counts == {"questions": 8, "criticised": [8, 4, 4], "valid_after_round": [0, 4, 4, 4]}
    assert sum("1+1=3" in d.text for d in sets["revised"]) == 4  # no better: the first stays
    lucky = Problem("q", 1, (1, 1))
    assert not valid(lucky, Draft("1+1=3. 3+1=3. The answer is 3.", True))


# -- tables ----------------------------------------------------------------------------------------------------------


def result(right: float, bits: float = 2.0):
    rows = {m: [[f"q{i}", float(i < 100 * right), 1.0] for i in range(100)] for m in show.NAMES}
    rows |= {f"bits of {n}": [[f"d{i}", bits * 10, 10.0] for i in range(20)] for n in ("web", "synthetic")}
    return {"counts": {"seen": {"web": 1.0}}, "rows": rows}


def test_differences_are_paired_by_item_over_all_seeds():
    results = {1: {"a": result(0.6), "b": result(0.4, 2.5)}, 2: {"a": result(0.7), "b": result(0.5, 2.5)}}
    row = show.contrast(results, "a", "b")
    assert row["led"]["items"]["value"] == pytest.approx(0.2)
    assert row["led"]["items"]["clusters"] == 200
    assert row["led"]["by_seed"] == pytest.approx([0.2, 0.2])
    assert row["bits of web"]["items"]["value"] == pytest.approx(-0.5)
    results[2]["b"]["rows"]["led"] = results[2]["b"]["rows"]["led"][1:]
    with pytest.raises(ValueError, match="seed 2: 'a' and 'b' have not answered the same items"):
        show.contrast(results, "a", "b")


def test_tables_and_picture_name_every_arm(tmp_path: Path):
    study = Study(
        "x", 1000, (Arm("a", {"web": Part(1.0)}), Arm("b", {"web": Part(1.0)})), (("a", "b", "why"),)
    )
    seeds = [
        SimpleNamespace(seed=s, measured=lambda a: result(0.6 if a.name == "a" else 0.4)) for s in (1, 2)
    ]
    show.publish(study, tmp_path, seeds)  # type: ignore[arg-type]
    text = (tmp_path / "study.md").read_text()
    assert "| a - b | why | +20.0 [+14.4, +25.6]; +20.0 +20.0 |" in text
    assert "| a | web 1.0x | 60.0 [53.1, 66.5] |" in text
    drawn = ElementTree.parse(tmp_path / "study.svg")
    said = [t.text for t in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert said.count("a") == len(show.SHOWN)


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_tiny_run_trains_measures_and_goes_on(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(study_data_seed, "PROBLEMS", 4)
    monkeypatch.setattr(study_data_seed, "PAGES", 4)
    monkeypatch.setattr(study_data_seed, "PEOPLE", 6)
    monkeypatch.setattr(study_data_seed, "WEB_TOKENS", 2048)
    arm = Arm("twice", {"synthetic": Part(0.5, 1000), "web": Part(0.5)}, "web")
    study = Study("x", 4096, (arm,), ())
    seed = DataSeed(3, study, tmp_path / "seed", tmp_path / "data")
    row = seed.measured(arm)
    assert row["counts"]["steps"] == 4
    assert 1.5 < row["counts"]["seen"]["synthetic"] < 2.6
    assert row["counts"]["seen"]["web"] < 1
    assert len(row["rows"]["led"]) == 4
    assert len(row["rows"]["people"]) == 12
    assert "bits of the synthetic set" in row["rows"]
    monkeypatch.setattr(DataSeed, "_trained", None)  # nothing is trained again
    monkeypatch.setattr(DataSeed, "_measure", None)
    assert DataSeed(3, study, tmp_path / "seed", tmp_path / "data").measured(arm) == row
