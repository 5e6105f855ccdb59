"""The design of the pivotal study: what it compares, how settings are chosen, what its tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from phikit.recipe import study_pivotal as study
from phikit.recipe import study_pivotal_show as show
from phikit.recipe.study_pivotal import ARMS, BY_NAME, CONTRASTS, RATES, WEIGHTS, Arm, Setting
from phikit.recipe.study_pivotal_seed import Seed
from phikit.records.io import write_jsonl


def test_arms_come_after_what_they_are_made_from():
    seen: set[str] = {"sft"}
    for arm in ARMS:
        of = arm.pairs.partition(":")[2]
        assert {arm.base, *([arm.shares] if arm.shares else []), *([of] if of else [])} <= seen, arm.name
        seen.add(arm.name)
    assert len(BY_NAME) == len(ARMS)
    assert {name for a, b, _ in CONTRASTS for name in (a, b)} <= seen


class Cells:
    """A seed whose cells are made up: `best` of each arm is right nine times in ten, at its rate otherwise six."""

    def __init__(self, best: dict[str, Setting]) -> None:
        self.best, self.asked = best, []

    def cell(self, arm: Arm, c: Setting):
        self.asked.append((arm.name, c))
        best = self.best[arm.name]
        return {"sampled": {"q": [0.9 if c == best else 0.6 if c.lr == best.lr else 0.5]}}


def test_every_form_is_tuned_at_the_same_cost():
    best = {"pivotal": Setting(RATES[2], 0.3), "whole answer": Setting(RATES[0], 1.0)}
    seed: Any = Cells(best)
    assert study.chosen(seed, BY_NAME["pivotal"]) == best["pivotal"]
    assert len(set(seed.asked)) == len(RATES) + len(WEIGHTS) - 1
    assert study.chosen(seed, BY_NAME["whole answer"]) == best["whole answer"]
    assert len(set(seed.asked)) == 2 * (len(RATES) + len(WEIGHTS) - 1)
    assert study.chosen(seed, BY_NAME["whole answer, more questions"]) == best["whole answer"]


@pytest.fixture
def seed(tmp_path: Path) -> Seed:
    return Seed(1, tmp_path / "models", tmp_path / "out")


def test_equal_steps_and_equal_epochs(seed, monkeypatch):
    monkeypatch.setattr(Seed, "pairs", lambda self, name: [None] * {"pivotal": 480}[name])
    assert (
        seed._steps(BY_NAME["pivotal"], 480) == seed._steps(BY_NAME["whole answer"], 7) == 45
    )  # 3 x 480 / 32
    assert seed._steps(BY_NAME["judged, longer"], 3000) == round(1.7 * 45)
    assert seed._steps(BY_NAME["pivotal, then judged"], 3000) == round(0.7 * 45)
    assert seed._steps(BY_NAME["whole answer, fewer pairs"], 160) == 15
    assert seed._steps(BY_NAME["whole answer, more questions"], 1600) == 50
    assert seed._steps(BY_NAME["pivotal, holding"], 10) == 9  # a set smaller than a batch


def test_development_problems_are_none_of_the_test(seed):
    rows = [{"id": str(i), "question": f"{i % 900}?", "answer": "1"} for i in range(1000)]
    path = seed.run / "synth" / "heldout" / "arithmetic.jsonl"
    write_jsonl(path, rows)
    test, dev = seed.held_out(True), seed.held_out(False)
    assert [q.id for q in test] == [str(i) for i in range(300)]
    assert [q.id for q in dev] == [str(i) for i in range(300, 500)]
    write_jsonl(path, [*rows[:300], *rows[:50], *rows[300:500]])  # some come again
    assert not {q.question for q in seed.held_out(True)} & {q.question for q in seed.held_out(False)}
    write_jsonl(path, rows[:400])
    with pytest.raises(ValueError, match="fewer than 500 problems"):
        seed.held_out(False)


def test_a_finished_arm_is_not_trained_again_and_the_chosen_one_is_tested(seed, monkeypatch):
    ran, tested = [], []

    def train(self, arm, setting, folder):
        ran.append(setting)
        (folder / "hf").mkdir(parents=True)
        (folder / "hf" / "lr").write_text(str(setting.lr))
        return {"pairs": 3, "steps": 1, "tokens": 5}

    def dev(self, folder):
        lr = float((folder / "hf" / "lr").read_text())
        return {"sampled": {"q": [0.9 if lr == RATES[1] else 0.5]}, "cut": 0.0}

    def test(self, folder):
        tested.append(folder)
        return {"sampled": {"p": [1.0]}, "greedy": {"p": [1.0]}}

    for name, f in (("_train", train), ("_dev", dev), ("_test", test)):
        monkeypatch.setattr(Seed, name, f)
    assert not seed.finished(BY_NAME["pivotal"])
    first = seed.trained(BY_NAME["pivotal"])
    assert [a.name for a in ARMS if seed.finished(a)] == ["pivotal"]
    assert (first["lr"], first["nll"], first["steps"]) == (RATES[1], WEIGHTS[0], 1)
    assert ran == [*(Setting(lr, WEIGHTS[0]) for lr in RATES), Setting(RATES[1], WEIGHTS[1])]
    assert tested == [seed.folder(BY_NAME["pivotal"])]
    kept = [f.parent for f in seed.out.rglob("hf")]
    assert kept == tested  # the networks of other settings are gone, their scores are not
    again = Seed(1, seed.run.parent, seed.out.parent)
    assert again.trained(BY_NAME["pivotal"]) == first
    assert len(ran) == len(RATES) + len(WEIGHTS) - 1
    assert len(tested) == 1
    monkeypatch.setattr(Seed, "sft_dev", {"sampled": {"q": [0.4]}})
    rows = show.tuning(again, [BY_NAME["pivotal"]])
    assert [t["sampled"] for t in rows] == [0.5, 0.9, 0.5, 0.5, 0.9]
    assert [t["chosen"] for t in rows] == [False, True, False, False, False]


def test_changes_are_paired_by_sample_and_pooled_over_seeds():
    def arm(gain: int):
        rows = {f"q{i}": [float((i + k + gain) % 4 == 0 or i < gain) for k in range(4)] for i in range(40)}
        return {"sampled": rows, "greedy": {q: v[:1] for q, v in rows.items()}}

    results = {s: {"sft": arm(0), "better": arm(8)} for s in (1, 2, 3)}
    row = show.compare(results, "better", "sft", "steps")
    assert row["sampled"]["problems"]["value"] == pytest.approx(8 / 40 * 0.75)
    assert row["sampled"]["problems"]["clusters"] == 120
    assert row["sampled"]["seeds"]["value"] == pytest.approx(0.15)
    assert row["sampled"]["problems"]["low"] > 0.05
    assert len(row["sampled"]["by_seed"]) == 3
    same = show.compare(results, "sft", "sft", "")
    assert same["sampled"]["problems"]["value"] == same["sampled"]["problems"]["low"] == 0
    assert show._points(show.compare({1: results[1]}, "better", "sft", "")["sampled"]["seeds"]) == "+15.0"


def test_changes_are_over_the_same_problems_alone():
    def arm(names: str, value: float, samples: int = 2):
        return {m: {q: [value] * samples for q in names} for m in ("sampled", "greedy")}

    results = {7: {"a": arm("pq", 1.0), "b": arm("qp", 0.0), "c": arm("pqr", 0.0), "d": arm("pq", 0.0, 1)}}
    assert show.compare(results, "a", "b", "steps")["sampled"]["problems"]["value"] == 1
    for other in ("c", "d"):
        with pytest.raises(
            ValueError, match=f"study pivotal, seed 7: 'a' and '{other}' have not answered the same"
        ):
            show.compare(results, "a", other, "")


def test_kinds_are_judged_against_the_world():
    rows = [
        {"fact": False, "holds": True, "recovers": True}, {"fact": False, "holds": True, "recovers": False},
        {"fact": False, "holds": False, "recovers": False}, {"fact": True, "holds": True, "recovers": False},
        {"fact": True, "holds": False, "recovers": False},
    ]  # fmt: skip
    found = show.kinds(rows)
    assert (found["pairs"], found["paths"]) == (5, 3)
    assert found["holds"] == {"yes": 3, "precision": 2 / 3, "recall": 2 / 3, "facts_kept_out": 0.5}
    assert found["recovers"]["recall"] == 1 / 3


def test_tables_and_pictures_show_every_arm():
    e = {"value": 0.1, "low": 0.05, "high": 0.15}
    metric = {"problems": e, "seeds": e, "by_seed": [e, e]}
    change = [{"a": a.name, "b": "sft", "equal": "", "sampled": metric, "greedy": metric} for a in ARMS]
    arm = {"pairs": [3], "steps": [4], "tokens": [5000], "length": [9.0], "sampled": [0.5], "greedy": [0.25]}
    tuning = [
        {"seed": n, "arm": a.name, "lr": lr, "nll": nll, "sampled": 0.4 + lr, "sft": 0.41, "cut": 0.0,
         "chosen": (lr, nll) == (RATES[2], WEIGHTS[0])}
        for a in ARMS for n in (1, 2)
        for lr, nll in (*((lr, WEIGHTS[0]) for lr in RATES), (RATES[2], WEIGHTS[1]))
    ]  # fmt: skip
    rule = {"yes": 1, "precision": 1.0, "recall": 0.5, "facts_kept_out": 0.25}
    study_row = {
        "seeds": [1, 2], "changes": change, "tuning": tuning, "arms": dict.fromkeys(("sft", *BY_NAME), arm),
        "contrasts": [dict(change[0], b="whole answer", equal="steps")],
        "chosen": {a.name: [{"lr": 1e-4, "nll": 0.3}, {"lr": 4e-5, "nll": 1.0}] for a in ARMS},
        "kinds": [{"seed": 1, "pairs": 2, "paths": 1, "holds": rule, "recovers": rule}],
    }  # fmt: skip
    text = show.markdown(study_row)
    for name in BY_NAME:
        assert (
            f"| {name} | 3 | 4 | 5k | 0.0001, 0.3; 4e-05, 1 | 0.500 | 0.250 | +10.0 [+5.0, +15.0] |" in text
        )
    assert (
        "| pivotal - whole answer | steps | +10.0 [+5.0, +15.0] | +10.0 [+5.0, +15.0] | +10.0 +10.0 |" in text
    )
    assert "| pivotal, seed 2 | 0.400 | 0.400 | **0.400** | 0.401 | 0.400 | 0.410 |" in text
    for svg in (show.changes_svg(change), show.rates_svg(tuning)):
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
    drawn = show.changes_svg(change)
    assert all(f">{name}<" in drawn for name in BY_NAME)


def test_pair_sets_come_from_one_search(seed, monkeypatch):
    from pivotal_process import Process, check

    from phikit.preference.pivotal import SearchConfig, search
    from phikit.preference.rollouts import Question, Rollouts

    monkeypatch.setenv("PHIKIT_QUIET", "1")
    process = Process(seed=3, length=14, wording=0.1, decisive=0.02, size=0.8, paths=8, slips=0.15)
    rollouts = Rollouts(process, check, seed.out / "search", temperature=1.0, max_tokens=30, budget=0, seed=5)
    questions = [Question(f"q{i}", str(i), "90") for i in range(40)]
    result = search(questions, rollouts, SearchConfig(trajectories=3))
    seed.__dict__["search"] = result, rollouts  # what the cached property would hold
    sets = {name: seed.pairs(name) for name in ("pivotal", "whole", "random")}
    count = {
        name: {q.id: sum(p.meta["question"] == q.id for p in some) for q in questions}
        for name, some in sets.items()
    }
    assert len(sets["pivotal"]) > 20
    assert all(count[name][q] <= n for name in count for q, n in count["pivotal"].items())
    assert len(sets["whole"]) > 0.8 * len(sets["pivotal"])
    assert all(len(p.chosen_ids) == len(p.rejected_ids) == 1 for n in ("pivotal", "random") for p in sets[n])
    pivots = {(v.question.id, v.prefix) for v in result.pivots}
    assert sets["random"]
    assert all((p.meta["question"], p.prefix_ids) not in pivots for p in sets["random"])
    held, few = seed.held(), [seed.pairs(f"{kind}_few") for kind in ("holds", "fails")]
    assert len(few[0]) == len(few[1])
    assert all(held[p.id]["holds"] for p in few[0])
    assert not any(held[p.id]["holds"] for p in few[1])
    again = Seed(1, seed.run.parent, seed.out.parent)
    assert again.pairs("whole") == sets["whole"]  # from the file: it has made no search
