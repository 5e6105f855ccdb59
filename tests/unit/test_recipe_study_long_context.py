"""The study of long documents: its arms differ in one key, its tables, and a resumed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from phikit.recipe import study_long_context as study
from phikit.recipe import study_long_context_show as show
from phikit.recipe.studies import STUDIES
from phikit.recipe.study_runs import nano
from phikit.records.io import read_json

BY_NAME = {a.name: a for a in study.ARMS}


def midtrain(name: str) -> dict[str, Any]:
    section = nano(1, BY_NAME[name].settings).midtrain
    assert section
    return section.model_dump()


def test_arms_differ_in_their_long_share_alone():
    natural, packed, replay = (midtrain(n) for n in ("natural", "packed short", "replay only"))
    assert {k for k in natural if natural[k] != packed[k]} == {"long_documents"}
    assert {k for k in natural if natural[k] != replay[k]} == {"long"}
    assert replay["long"] == 0

    assert len(study.SEEDS) >= 3
    assert STUDIES["long-context"] is study.study
    assert {x for a, b, _ in study.CONTRASTS for x in (a, b)} <= set(BY_NAME)


METRICS = (*show.LONG, *show.SHORT)


def result(right: float, bits: float, tokens: int) -> dict[str, Any]:
    rows = {m: [[f"q{i}", float(i < round(100 * right)), 1.0] for i in range(100)] for m in METRICS}
    rows |= {m: [[f"d{i}", 10 * bits, 10.0] for i in range(20)] for m in ("bits_128", "bits_512")}
    return {"counts": {"tokens": tokens} if tokens else {}, "rows": rows}


RIGHT = {"pretrained": 0.1, "natural": 0.8, "packed short": 0.3, "replay only": 0.2}


def results(seeds=(1, 2)) -> dict[int, dict[str, Any]]:
    return {
        s: {
            n: result(r + s / 100, 2.0 - r / 10, 0 if n == study.PRETRAINED else 450)
            for n, r in RIGHT.items()
        }
        for s in seeds
    }


def test_tables_and_picture(tmp_path: Path):
    show.publish(tmp_path, results(), study.ARMS)
    text = (tmp_path / "study.md").read_text()
    assert (
        "| natural - packed short | recall 4x | +50.0 [+43.0, +57.0] | +50.0 [+50.0, +50.0] | +50.0 +50.0 |"
        in text
    )
    assert (
        "| bits per byte, windows of 128 | -0.050 [-0.050, -0.050] | -0.050 [-0.050, -0.050] | -0.050 -0.050 |"
        in text
    )  # bits
    assert "| pretrained | 11.5 [" in text
    drawn = ElementTree.parse(tmp_path / "study.svg")
    said = [t.text for t in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert said.count("packed short") == len(show.DRAWN)
    assert read_json(tmp_path / "study.json")["seeds"] == [1, 2]


def test_a_run_goes_on_where_it_was(tmp_path: Path, monkeypatch):
    calls: list[tuple[int, str]] = []

    def trained(seed, arm, run, out):
        calls.append((seed, arm.name))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return {"tokens": 450}, tmp_path / arm.name

    found = results((1, 2, 3))
    monkeypatch.setattr(study, "run_until", lambda *a: None)
    monkeypatch.setattr(study, "trained", trained)
    monkeypatch.setattr(study, "answers", lambda seed, folder, run: found[seed][folder.name]["rows"])
    with pytest.raises(KeyboardInterrupt):
        study.study(tmp_path / "out", seeds=(1, 2, 3))
    first, rest = list(BY_NAME)[: study.FIRST], list(BY_NAME)[study.FIRST :]
    kept = read_json(tmp_path / "out" / "study.json")
    assert kept["seeds"] == [1]  # what is finished is shown
    assert set(kept["arms"]) == set(first)
    assert study.study(tmp_path / "out", seeds=(1, 2, 3)) == 0
    wanted = [(s, n) for s in (1, 2, 3) for n in first] + [(s, n) for s in (1, 2, 3) for n in rest]
    assert calls == [*wanted[:6], *wanted[5:]]  # the one that was killed, again
    study.study(tmp_path / "out", seeds=(1, 2, 3))
    assert len(calls) == 13
    assert set(read_json(tmp_path / "out" / "study.json")["arms"]) == set(BY_NAME)


def test_the_pretrained_network_is_taken_as_it_is(tmp_path: Path):
    assert study.trained(1, BY_NAME["pretrained"], tmp_path, tmp_path / "out") == (
        {},
        tmp_path / "pretrain" / "hf",
    )
