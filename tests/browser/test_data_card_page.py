"""The data card in a real browser at desktop and phone width. Needs chromium on PATH; skipped without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import needs_chromium, probe, probed

from phikit.records.io import write_json, write_jsonl
from phikit.report.data_card import write_card

pytestmark = needs_chromium
PROBE = """
addEventListener("load", () => {
  const out = document.documentElement.dataset, find = document.getElementById("find");
  for (const d of document.querySelectorAll("details")) d.open = true;
  out.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const shown = () => document.querySelectorAll(".sample:not([hidden])").length;
  out.all = shown();
  find.value = "trout"; find.dispatchEvent(new Event("input"));
  out.found = shown();
  find.value = ""; find.dispatchEvent(new Event("input"));
  const verdict = document.getElementById("verdict");
  verdict.value = "not grounded"; verdict.dispatchEvent(new Event("change"));
  out.rejected = shown();
  out.said = document.getElementById("shown").textContent;
  const [seed, sample] = document.querySelector(".sample:not([hidden]) .pair").children;
  out.beside = seed.getBoundingClientRect().top === sample.getBoundingClientRect().top;
  out.script = document.querySelectorAll(".sample script, .sample img").length;
});
"""


def make_card(folder: Path) -> Path:
    """A folder as `phikit synth run` writes it: three accepted rows with revisions, two rejected."""
    rows, steps, seeds = [], [], {}
    for i, fish in enumerate(("trout", "carp", "pike")):
        seeds[f"s{i}"] = {
            "text": f"The lake of town {i} holds {fish}. " * 6,
            "meta": {"path": f"pages/{i}.html"},
        }
        meta = {"kind": "exercise", "difficulty": "easy", "scores": {"accuracy": 4}, "total": 14.2}
        meta["revisions"] = [
            {"text": "first", "total": 9, "advice": "Ask why."},
            {"text": "second", "total": 14},
        ]
        turns = [{"role": "user", "content": seeds[f"s{i}"]["text"] + "\n\nWhat does the lake hold?"}]
        turns += [{"role": "assistant", "content": f"It holds {fish}. <img src=x onerror=alert(1)>"}]
        rows.append({
            "messages": turns, "id": f"r{i}", "flow": "exercise", "data_set": "exercise", "verdict": "accepted",
            "seed": {"id": f"s{i}", **seeds[f"s{i}"]["meta"], "text": seeds[f"s{i}"]["text"]}, "meta": meta,
            "prompts": ["exercise_write@0123456789ab"], "teachers": ["writer=smollm2"], "requests": ["k"],
        })  # fmt: skip
        steps += [
            {"seed": f"s{i}", "flow": "exercise", "prompt": "Improve it " * 30, "answer": "x" * 300}
        ] * 3
    rejected = [
        {"flow": "exercise", "seed": "s0", "reason": "not grounded", "detail": "A castle of gold."}
    ] * 2
    counts = {"seeds": 4, "accepted": 3, "rejected": {"not grounded": 2}, "requests": 9, "replayed": 0}
    quality = {
        "diversity": {"rows": 3, "distinct_1": 0.61, "self_overlap": 0.2, "spread": "not measured: no embedder here"},
        "histograms": {"kind": [["exercise", 3]], "difficulty": [["easy", 2], ["hard", 1]], "words": [["to 10", 3]]},
    }  # fmt: skip
    manifest = {
        "name": "exercise", "counts": counts, "models": {"writer": "smollm2"}, "quality": quality, "tokens": 1234,
        "budget": 5000, "seeds": "pages", "job": {"flow": "exercise", "language": "English", "options": {"words": 30}},
    }  # fmt: skip
    write_jsonl(folder / "rows.jsonl", rows)
    write_jsonl(folder / "rejected.jsonl", rejected)
    write_jsonl(folder / "steps.jsonl.zst", steps)
    write_json(folder / "blocks" / "00000" / "seeds.json", seeds)
    write_json(folder / "manifest.json", manifest)
    return write_card(folder)


@pytest.mark.parametrize("width", [1280, 390])
def test_samples_are_filtered_and_nothing_overflows(tmp_path: Path, width: int) -> None:
    page = make_card(tmp_path / "card").read_text(encoding="utf-8")
    assert "Content-Security-Policy" in page
    out = probed(page, PROBE, tmp_path, width)
    assert probe(out, "overflow") == "0"
    assert (probe(out, "all"), probe(out, "found"), probe(out, "rejected")) == ("5", "3", "2")
    assert probe(out, "said") == "2 of 5"
    assert probe(out, "beside") == ("true" if width == 1280 else "false")
    assert probe(out, "script") == "0"  # what a teacher wrote stays text
