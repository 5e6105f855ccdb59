"""The closed world of the unknowns study: its sides, its answers, its pairs and what counts as a claim."""

from __future__ import annotations

import itertools
from statistics import mean

import pytest

from phikit.engine.scripted import ScriptedEngine
from phikit.preference.unknown import grade
from phikit.recipe import study_unknowns as study
from phikit.recipe import unknowns_world as w
from phikit.text.tokenizer import Tokenizer
from phikit.verify.refusal import admits_ignorance, declines

WORLD = w.make_world(3)


def test_no_name_noun_or_thing_is_on_both_sides():
    names = [p.name for group in WORLD.people.values() for p in group]
    families = [n.split()[1] for n in names]
    assert len(families) == len(set(families)) == 760
    for sides, words in ((WORLD.nouns, w.NOUNS), (WORLD.things, w.THINGS)):
        assert not set(sides["train"]) & set(sides["test"])
        assert set(sides["train"]) | set(sides["test"]) == set(words)
        assert len(sides["train"]) == len(words) * 3 // 4
        assert len(words) == len(set(words))
    assert w.make_world(3) == WORLD
    assert w.make_world(4) != WORLD


def test_the_text_tells_of_people_as_often_as_their_class_says():
    texts = " ".join(d.text for d in w.documents(WORLD, 1))
    for (kind, _), group in WORLD.people.items():
        told = [texts.count(p.name) for p in group]
        assert {"known": min(told) >= 40, "rare": set(told) == {4}, "never": set(told) == {0}}[kind]
    asked = " ".join(d.text for d in w.documents(WORLD, 1) if "?" in d.text)
    for (kind, _), group in WORLD.people.items():
        assert sum(p.name in asked for p in group) == (len(group) if kind == "known" else 0)


def test_no_chat_tells_of_people_that_are_tested():
    said = " ".join(t.content for d in w.dialogs(WORLD, 1) for t in d.turns)
    for (kind, side), group in WORLD.people.items():
        told = sum(p.name in said for p in group)
        assert told == (len(group) if (kind, side) == ("known", "chat") else 0)
    for thing in WORLD.things["test"]:
        assert f" {thing}?" not in said


@pytest.mark.parametrize("constraint", w.CONSTRAINTS, ids=lambda c: c.kind)
def test_every_constraint_can_be_kept_and_is_mostly_broken(constraint):
    for noun, does, also in itertools.product(w.NOUNS, w.DOES, w.DOES):
        assert constraint.kept(w.formed(noun, does, also, constraint))
    others = [c for c in (None, *w.CONSTRAINTS) if c is not constraint]
    assert mean(constraint.kept(w.formed("cat", "eats", "runs", c)) for c in others) < 0.5


def test_facts_are_graded_by_what_was_told():
    for kind in ("known", "rare", "never"):
        for q in w.fact_questions(WORLD, kind, "test", 1):
            assert bool(q.answer) is (kind != "never")
            assert grade(q, w.UNKNOWN) == "refused"
            assert grade(q, "Nowhere.") == "wrong"
            if q.answer:
                assert grade(q, q.answer) == "right"


def test_wishes():
    harmful = w.wishes(WORLD, "test", True, 1)
    harmless = w.wishes(WORLD, "test", False, 1)
    borderline = w.wishes(WORLD, "test", False, 1, borderline=True)
    things = len(WORLD.things["test"])
    assert len({q.question for q in (*harmful, *harmless, *borderline)}) == 16 * things
    assert len(harmful) == 2 * len(borderline) == 2 * len(harmless) == 8 * things  # others own in two ways
    assert all(any(f" {v} {o} " in q.question for v in w.BAD for o in w.THEIRS) for q in harmful)
    assert all(any(f" {v} {o} " in q.question for v in w.BAD for o in w.MINE) for q in borderline)
    assert all(any(f" {v} " in q.question for v in w.GOOD) for q in harmless)
    assert declines(w.DECLINE)
    assert admits_ignorance(w.UNKNOWN)


def test_names_of_all_classes_are_spelled_alike():
    """Were known names single tokens and unknown ones not, spelling would tell them apart."""
    texts, chats = w.documents(WORLD, 1), w.dialogs(WORLD, 1)
    tokenizer = Tokenizer.train(w.tokenizer_texts(WORLD, texts, chats), 640)
    length = {
        kind: mean(
            len(tokenizer.encode(" " + p.name)) for s in ("train", "test") for p in WORLD.people[kind, s]
        )
        for kind in ("known", "rare", "never")
    }
    assert max(length.values()) - min(length.values()) < 0.35, length


def test_pairs_of_a_model_that_knows_half_and_obeys_half():
    def says(prompt: str, seed: int) -> str:
        asked = prompt.split("user<|im_sep|>")[1].split("<|im_end|>")[0]
        if "How do I" in asked:
            return w.DECLINE if seed % 2 else "Take it."
        if any(c.words in asked for c in w.CONSTRAINTS):
            kept = next(c for c in w.CONSTRAINTS if c.words in asked)
            return w.formed("cat", "eats", "runs", kept if seed % 2 else None)
        return "Arlen." if seed % 3 else "baker."

    made, known, counts = study.make_pairs(
        ScriptedEngine(says, seeded=True), WORLD, study.Settings(asked=4), 1
    )
    assert set(made) == {"unknowns", "forms", "safety"}
    assert counts["dialogs"]["bogus"] == 2 * len(WORLD.people["never", "train"])
    assert all(d.turns[-1].content == w.UNKNOWN for d in known if d.meta["rule"] != "known")
    assert len(known) == sum(counts["dialogs"].values())
    assert counts["unknowns"]["refusal_over_bogus"] == 2 * len(WORLD.people["never", "train"])
    assert {p.kind for p in made["unknowns"]} == {"unknown"}
    assert {p.kind for p in made["safety"]} == {"safety"}
    harmful = {q.question for q in w.wishes(WORLD, "train", True, 8)}
    for p in made["safety"]:
        assert declines(p.chosen) is (p.prompt[0].content in harmful)
        assert declines(p.rejected) is not declines(p.chosen)
    assert all(max(len(p.chosen_ids), len(p.rejected_ids)) <= 5 for p in made["unknowns"])
    assert len(made["forms"]) > 50


def test_claims_read_intervals():
    flat = {"value": 0.0, "low": -0.01, "high": 0.01}
    down, up = {"value": -0.3, "low": -0.4, "high": -0.2}, {"value": 0.3, "low": 0.2, "high": 0.4}
    scores = (
        "unknown wrong",
        "known right",
        "forms kept",
        "harmful refused",
        "harmless refused",
        "borderline refused",
    )
    changes = {arm: dict.fromkeys(scores, flat) for arm in study.ARMS}
    held = study.claims(changes)
    assert [k for k, v in held.items() if v] == [
        "unknown pairs keep right answers about known people",
        "safety pairs do not raise refusals of harmless wishes",
        "safety pairs do not raise refusals of borderline wishes",
    ]
    changes["unknown dialogs"] |= {"unknown wrong": down}
    changes["unknowns"] |= {"unknown wrong": down, "known right": down}
    changes["forms"] |= {"forms kept": up}
    changes["safety"] |= {"harmful refused": up, "harmless refused": up, "borderline refused": down}
    changes["all"] |= {"unknown wrong": down, "forms kept": up, "harmful refused": up}
    held = study.claims(changes)
    assert [k for k, v in held.items() if not v] == [
        "unknown pairs keep right answers about known people",
        "safety pairs do not raise refusals of harmless wishes",
    ]


def test_a_finished_seed_is_not_run_again(tmp_path, monkeypatch):
    flat = {"value": 0.0, "low": 0.0, "high": 0.0}
    ran = []

    def fake(seed, folder):
        ran.append(seed)
        changes = {arm: {"unknown wrong": {"value": -0.1 * seed, "low": 0, "high": 0}} for arm in study.ARMS}
        return {
            "seed": seed,
            "claims": {"x": True, "y": seed > 1},
            "changes": changes,
            "scores": {"sft": {"known right": flat}},
        }

    monkeypatch.setattr(study, "run_seed", fake)
    assert study.unknowns(tmp_path) == 1  # y does not hold in every seed
    assert study.unknowns(tmp_path) == 1
    assert ran == list(study.SEEDS)
    rows = [{"changes": {"all": {"s": {"value": float(v)}}}} for v in (1, 2, 3)]
    found = study.over_seeds(rows)["all"]["s"]
    assert found["value"] == 2
    assert found["low"] < 1
    assert found["high"] > 3
