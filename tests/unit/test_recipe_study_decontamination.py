import json
import random

from phikit.corpus.plant import KINDS, plant
from phikit.recipe import study_decontamination as study

PARTS = ("lor", "ips", "dol", "met", "con", "sed", "em", "um")
WORDS = [a + b + c for a in PARTS for b in PARTS for c in PARTS]


def text(rng: random.Random, n: int) -> str:
    return " ".join(rng.choice(WORDS) + ("." if i % 9 == 8 else "") for i in range(n))


def test_the_hybrid_rule_finds_edited_items_that_13_grams_miss(tmp_path, monkeypatch):
    rng = random.Random(1)
    hosts = ["\n\n".join(text(rng, 90) for _ in range(3)) for _ in range(400)]
    items = [(str(i), text(rng, 40) + f" {i} 12") for i in range(80)]
    monkeypatch.setattr(study, "hosts", lambda: hosts)
    monkeypatch.setattr(study, "problems", lambda: items)
    monkeypatch.setattr(study, "passages", lambda texts: items)
    assert study.decontamination(tmp_path) == 0
    rows = json.loads((tmp_path / "study.json").read_text())["rows"]
    found = {(r["kind"], r["rule"]): r["value"] for r in rows if r["items"] == "problems"}
    for kind in ("verbatim", "wrapped", "capitals"):
        assert found[kind, "13-gram"] == found[kind, "hybrid 40%"] == 1
    assert found["every 12th word", "13-gram"] < 0.1
    assert found["every 12th word", "hybrid 20%"] > 0.9
    assert found["every 8th word", "hybrid 20%"] < found["every 12th word", "hybrid 20%"]
    assert found["half of it", "hybrid 20%"] == 1
    assert all(
        found["clean documents", rule] == 0 for rule in ("13-gram", "hybrid 60%", "hybrid 40%", "hybrid 20%")
    )
    assert set(KINDS) == {r["kind"] for r in rows} - {"clean documents"}


def test_passages_that_become_items_are_no_hosts():
    rng = random.Random(2)
    texts = [f"{text(rng, 30)}\n\n{text(rng, 100)}" for _ in range(5)] + [text(rng, 100)]
    items = study.passages(texts)
    assert len(items) == 5
    assert len(texts) == 1
    assert not any(item in t for _, item in items for t in texts)


def test_planted_items_stand_in_the_host():
    rng = random.Random(3)
    host = text(rng, 50)
    planted = plant(host, "the item", rng)
    assert "\nthe item\n" in planted
    assert planted.replace("\nthe item\n", "") == host
