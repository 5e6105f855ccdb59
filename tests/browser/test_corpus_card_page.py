"""The corpus card in a real browser at desktop and phone width. Needs chromium on PATH; skipped without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import needs_chromium, probe, probed

from phikit.records.io import write_json, write_jsonl
from phikit.report.corpus_card import write_card

pytestmark = needs_chromium
HOSTILE = "</div><script>document.documentElement.dataset.hacked = 1</script><img src=x onerror=alert(1)>"
SOURCES = ("web", "code", "a-source-with-a-rather-long-name")
PROBE = """
addEventListener("load", () => {
  const out = document.documentElement.dataset;
  const closed = [...document.querySelectorAll("details")];
  const visible = () => [...document.querySelectorAll(".example")].filter(e => e.checkVisibility()).length;
  out.before = visible();
  for (const d of closed) d.open = true;
  out.after = visible();
  out.reasons = closed.length;
  out.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  out.script = document.querySelectorAll("main script, main img").length;
  const figures = [...document.querySelectorAll("figure")].map(f => f.getBoundingClientRect());
  out.figures = figures.length;
  out.columns = new Set(figures.slice(0, 3).map(r => Math.round(r.left))).size;
  out.narrow = figures.filter(r => r.width < 120).length;
  const bars = [...document.querySelectorAll("figure")].flatMap(f => [...f.querySelectorAll("*")])
    .filter(e => getComputedStyle(e).backgroundColor !== "rgba(0, 0, 0, 0)" && e.getBoundingClientRect().width > 4);
  out.bars = bars.length > 10;
});
"""


def make_card(folder: Path) -> str:
    """The card of a corpus stage with three sources, long names, and texts that would be markup."""
    rows = [
        {
            "id": str(i), "text": "wort " * (20 << (i % 6)), "source": SOURCES[i % 3],
            "meta": {"language": ("en", "de", "zh")[i % 3], "format": "html", "licence": "CC BY-SA 4.0" * (1 + i % 2),
                     "topic": HOSTILE if i % 7 == 0 else "history"},
        }
        for i in range(90)
    ]  # fmt: skip
    reasons = ("language", "near_duplicate", "contaminated_numbers", "noise_share")
    rejected = [
        {"id": f"r{i}", "source": "web", "path": "web/" + "deep/" * 40 + f"{i}", "reason": reasons[i % 4],
         "detail": HOSTILE, "text": HOSTILE + "x" * 400}
        for i in range(20)
    ]  # fmt: skip
    write_jsonl(folder / "documents.jsonl.zst", rows)
    write_jsonl(folder / "rejected.jsonl.zst", rejected)
    counts = {"in": 112, "parts": 0, "out": 90, "heldout": 2, "dropped": dict.fromkeys(reasons, 5)}
    write_json(folder / "manifest.json", {"counts": counts})
    write_card(folder, folder / "card.html")
    return (folder / "card.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [1280, 390])
def test_what_was_left_out_opens_and_nothing_overflows(tmp_path: Path, width: int) -> None:
    page = make_card(tmp_path / "corpus")
    assert "Content-Security-Policy" in page
    out = probed(page, PROBE, tmp_path, width)
    assert probe(out, "overflow") == "0"
    assert (probe(out, "reasons"), probe(out, "before"), probe(out, "after")) == ("4", "0", "12")
    assert probe(out, "figures") == "15"  # length and four measures of three sources
    assert probe(out, "columns") == ("3" if width == 1280 else "1")
    assert (probe(out, "narrow"), probe(out, "bars")) == ("0", "true")
    assert probe(out, "script") == "0"
    assert "data-hacked" not in out.split("<head>")[0]
