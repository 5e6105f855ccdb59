"""The page in a real browser at desktop and phone width. Needs chromium on PATH; skipped without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import dom, needs_chromium, probe, probed
from report_run import make_run

from phikit.report.build import build

pytestmark = needs_chromium
RECIPE = {"name": "phi4", "scale": "nano", "seed": 7, "versions": {}}
PROBE = """
addEventListener("load", () => {
  const out = document.documentElement.dataset, tip = document.getElementById("tip");
  for (const d of document.querySelectorAll("details")) d.open = true;
  out.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.querySelector("td[data-tip]").dispatchEvent(new PointerEvent("pointerenter"));
  out.cell = tip.hidden ? "hidden" : tip.textContent;
  document.querySelector("svg[data-points]").dispatchEvent(new PointerEvent("pointermove", { clientX: 200 }));
  out.curve = tip.textContent;
  dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  out.closed = tip.hidden;
  out.columns = new Set([...document.querySelectorAll(".scores tbody tr:first-child td")].map(
    (c) => Math.round(c.getBoundingClientRect().top))).size;
});
"""


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_and_hovering_shows_values(tmp_path: Path, width: int) -> None:
    (tmp_path / "run").mkdir()
    page, _ = build(tmp_path / "run", make_run(tmp_path / "run"), RECIPE)
    out = probed(page, PROBE, tmp_path, width)
    assert probe(out, "overflow") == "0"
    assert "pretrain, arithmetic sampled" in probe(out, "cell")
    assert "step " in probe(out, "curve")
    assert probe(out, "closed") == "true"
    assert probe(out, "columns") == ("1" if width == 1280 else "10")  # the table turns round on a phone


def test_the_policy_stops_a_script_that_slipped_through(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    page, _ = build(tmp_path / "run", make_run(tmp_path / "run", fails="sft"), RECIPE)
    path = tmp_path / "page.html"
    attack = "<script>document.documentElement.dataset.owned = 1</script>"
    path.write_text(page.replace("<main>", "<main>" + attack), encoding="utf-8")
    out = dom(path, tmp_path, 800)
    assert "data-owned" not in out.split("<head>")[0]
    assert "Stage sft failed." in out
