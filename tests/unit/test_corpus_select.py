import json
import zlib

import numpy as np
import pytest

from phikit.ask.teacher import Teacher
from phikit.corpus import select
from phikit.corpus.annotate import TOPICS
from phikit.corpus.classifier import (
    Classifier,
    auc,
    auc_interval,
    calibrate,
    calibration_error,
    kappa,
    train,
)
from phikit.corpus.features import features
from phikit.corpus.select import Learning, Selection, learn, thresholds
from phikit.engine.scripted import ScriptedEngine
from phikit.records import Document
from phikit.records.io import read_jsonl
from phikit.text import ngrams

GOOD = "because therefore example proof step shows reason follows theorem explain".split()  # noqa: SIM905
BAD = "click buy now cheap offer login cart cookie subscribe banner".split()  # noqa: SIM905
PLACES = "paris museum painting century king journey temple festival".split()  # noqa: SIM905
FILL = [f"word{i}" for i in range(300)]


def documents(n: int, seed: int = 0) -> list[Document]:
    """Half good, half bad, a third of each about history; eight tell-tale words in sixty."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        told = GOOD if i % 2 else BAD
        words = [*rng.choice(FILL, 48), *rng.choice(told, 8), *(rng.choice(PLACES, 4) if i % 3 == 0 else [])]
        found.append(Document(" ".join(rng.permutation(words)), "web", {"path": str(i)}))
    return found


def opinion(prompt: str, seed: int = 0) -> str:
    text = prompt.rpartition("Text:")[2]
    score = 4 if sum(text.count(w) for w in GOOD) > sum(text.count(w) for w in BAD) else 1
    if zlib.crc32(f"{seed}{text}".encode()) % 10 == 0:  # not always of the same opinion
        score = 5 - score
    topic = "history" if any(w in text for w in PLACES) else "science"
    return json.dumps({"score": score, "topic": topic})


def scripted(tmp_path, script=opinion, **options) -> Teacher:
    return Teacher(ScriptedEngine(script, seeded=True, **options), tmp_path / "log")


def test_the_loop_finds_what_the_teacher_likes_and_says_how_well(tmp_path):
    with scripted(tmp_path) as teacher:
        report = learn(teacher, documents(400), tmp_path, Learning(sample=300, votes=3))
    q = report["quality"]
    assert report["graded"] == 300
    assert q["tested"] == pytest.approx(60, abs=20)
    assert q["agreement"]["value"] > 0.85 > q["majority"]
    assert q["kappa"] > 0.7
    assert q["auc"] > 0.85
    assert q["calibration_error"] < 0.15
    assert q["good_among"]["best 33%"]["value"] > 0.9
    assert (
        0.5 < report["teacher_with_itself"]["kappa"] < 0.95
    )  # it contradicts itself in a tenth of its votes
    assert report["topic"]["kappa"] > 0.6
    assert report["crossed"]["tested"] == 300
    assert report["crossed"]["auc_low"] < report["crossed"]["auc"] < report["crossed"]["auc_high"]
    assert report["crossed"]["auc"] > 0.85
    assert json.loads((tmp_path / "learned.json").read_text()) == json.loads(json.dumps(report))
    assert len(list(read_jsonl(tmp_path / "annotations.jsonl"))) == 300

    others = documents(600, seed=9)
    found = select.select(lambda: iter(others), tmp_path, tmp_path / "half", Selection(keep=0.5))
    kept = list(read_jsonl(tmp_path / "half/selected.jsonl.zst"))
    rejected = list(read_jsonl(tmp_path / "half/rejected.jsonl.zst"))
    assert len(kept) + len(rejected) == 600
    assert sum(int(r["meta"]["path"]) % 2 for r in kept) / len(kept) > 0.9
    assert {r["reason"] for r in rejected} == {"low_quality"}
    assert sum(found["kept"].values()) == len(kept)
    more = select.select(lambda: iter(others), tmp_path, tmp_path / "more", Selection(keep=0.3, amplify=2))
    less = select.select(lambda: iter(others), tmp_path, tmp_path / "less", Selection(keep=0.3))
    assert more["kept"]["history"] > 1.2 * less["kept"]["history"]
    assert more["kept"]["science"] == less["kept"]["science"]


def test_a_second_run_asks_nothing_and_gives_equal_bytes(tmp_path):
    for _ in range(2):
        with scripted(tmp_path) as teacher:
            learn(teacher, documents(200), tmp_path, Learning(sample=150))
            asked = teacher.counts()["asked"]
    assert asked == 0
    first = (tmp_path / "quality.npz").read_bytes()
    with scripted(tmp_path / "other") as teacher:
        learn(teacher, reversed(documents(200)), tmp_path / "other", Learning(sample=150))
    again, mine = (Classifier.load(p / "quality.npz") for p in (tmp_path / "other", tmp_path))
    np.testing.assert_allclose(again.weights, mine.weights, atol=1e-6)
    assert len(first) > 1000


def test_too_little_to_learn_from_is_an_error_that_says_why(tmp_path):
    content, mute = '{"score": 4, "topic": "science"}', "I like it"
    few = pytest.raises(ValueError, match=r"60 were graded, 60 of them 3 or better: too few of one kind")
    with scripted(tmp_path, lambda p, s: content) as teacher, few:
        learn(teacher, documents(60), tmp_path, Learning())
    none = pytest.raises(ValueError, match=r"of 30 texts 0 were graded")
    with scripted(tmp_path / "b", lambda p, s: mute) as teacher, none:
        learn(teacher, documents(30), tmp_path / "b", Learning())
    with pytest.raises(ValueError, match="keep must lie in"):
        select.select(lambda: iter([]), tmp_path, tmp_path, Selection(keep=0))
    (tmp_path / "quality.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="not a classifier"):
        select.select(lambda: iter([]), tmp_path, tmp_path, Selection())


def test_features_are_unit_rows_of_words_and_pairs():
    x = features(ngrams.words(["a b a", "", "one two three four"]))
    assert np.diff(x.offsets).tolist() == [4, 0, 7]  # a, b, "a b", "b a"
    np.testing.assert_allclose(np.add.reduceat(x.values**2, [0, 4]), 1)
    weights = np.random.default_rng(0).normal(size=(1 << 18, 2))
    dense = np.zeros((3, 1 << 18))
    for d in range(3):
        dense[d, x.columns[x.offsets[d] : x.offsets[d + 1]]] = x.values[x.offsets[d] : x.offsets[d + 1]]
    np.testing.assert_allclose(x.dot(weights), dense @ weights, atol=1e-12)
    rows = np.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(x.add(rows, 1 << 18), dense.T @ rows, atol=1e-12)
    np.testing.assert_allclose(x.take(np.array([2, 0])).dot(weights), (dense @ weights)[[2, 0]], atol=1e-12)


def test_calibration_rises_and_gives_shares():
    rng = np.random.default_rng(1)
    scores = rng.random(4000)
    hits = rng.random(4000) < scores**2
    x, y = calibrate(scores, hits)
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) >= 0).all()
    fresh = rng.random(4000)
    truth = rng.random(4000) < fresh**2
    assert calibration_error(np.interp(fresh, x, y), truth) < 0.04 < calibration_error(fresh, truth)


def test_measures():
    scores, hits = np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 0, 1, 1])
    assert auc(scores, hits) == pytest.approx(3.5 / 4)
    assert auc(scores, np.ones(4)) == 0.5
    low, high = auc_interval(0.5, 4, 14)
    assert low < 0.27
    assert high > 0.73  # 18 texts say nothing
    assert auc_interval(1.0, 50, 50)[0] > 0.9
    assert auc_interval(1.0, 50, 50)[1] == 1
    assert auc_interval(0.5, 0, 9) == (0.0, 1.0)
    a, b = np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0])
    assert kappa(a, b) == pytest.approx((0.75 - 0.5) / 0.5)
    assert kappa(a, a) == 1
    with pytest.raises(ValueError, match="two classes"):
        train(features(ngrams.words(["a", "b"])), np.array([1, 1]), ("low", "good"))


def test_the_interval_of_an_auc_covers_the_truth():
    rng = np.random.default_rng(5)
    truth, covered = 0.76, 0  # two normals one standard deviation apart
    for _ in range(200):
        scores = np.concatenate([rng.normal(1, 1, 20), rng.normal(0, 1, 30)])
        hits = np.repeat([1, 0], [20, 30])
        low, high = auc_interval(auc(scores, hits), 20, 30)
        covered += low <= truth <= high
    assert covered >= 184


def test_thresholds_keep_the_share_and_are_lower_for_topics_outside_stem():
    rng = np.random.default_rng(2)
    topics = np.repeat([TOPICS.index("science"), TOPICS.index("arts")], 500)
    scores = rng.random(1000) + np.repeat([0.4, 0.0], 500)
    plain, more = (thresholds(scores, topics, Selection(0.3, a)) for a in (1.0, 1.5))
    assert (scores >= plain[topics]).sum() == 300
    arts = scores[500:]
    assert (arts >= more[TOPICS.index("arts")]).sum() == 225
    assert more[TOPICS.index("science")] == plain[0]
