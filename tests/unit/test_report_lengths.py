"""Lengths of documents on the page and in `phikit show`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from report_run import LENGTHS, LONG, make_run, timings

from phikit.recipe.show import print_run
from phikit.report.build import build
from phikit.report.lengths import bucket, buckets_of, chart, lengths

RECIPE = {"name": "phi4", "scale": "nano", "seed": 1, "versions": {}, "conversations": 3}


def rectangles(svg: str, kind: str) -> list[float]:
    return [float(h) for h in re.findall(rf'<rect class="{kind}"[^>]* height="([\d.]+)"', svg)]


def test_every_bucket_between_the_shortest_and_the_longest_has_its_place():
    assert buckets_of({**LENGTHS, **LONG}) == [64, 128, 256, 512, 1024, 2048, 4096]
    assert buckets_of({"x": {"before": {}}}) == []
    assert (bucket(512), bucket(16384)) == ("512", "16K")


def test_bars_are_as_high_as_their_shares():
    plain = str(chart(LENGTHS))
    assert rectangles(plain, "length") == pytest.approx(
        [20, *(20 * v / 0.3 for v in (0.1, 0.2, 0.3, 0.25, 0.1, 0.05))], abs=0.06
    )
    both = str(chart(LONG))
    before, after = rectangles(both, "plain"), rectangles(both, "length")
    assert (len(before), len(after)) == (5, 5)
    assert before[0] > after[0]  # the shortest of the long ones do not count twice
    assert before[2] < after[2]
    assert "after: 256 13%, 512 38%, 1K 31%, 2K 12%, 4K 6%" in both


def test_the_page_shows_both_stages_or_says_why_not(tmp_path: Path):
    rows = make_run(tmp_path / "run")
    html, _ = build(tmp_path / "run", rows, RECIPE)
    section = html.partition("document lengths")[2].partition("</section>")[0]
    assert section.count('class="chart lengths"') == 2
    stopped = make_run(tmp_path / "stopped", fails="mixture")
    html, _ = build(tmp_path / "stopped", stopped, RECIPE)
    section = html.partition("document lengths")[2].partition("</section>")[0]
    assert "stage mixture failed" in section
    data: Any = SimpleNamespace(lengths={"mixture": {}}, missing={"lengths:mixture": "cannot be read"})
    assert "cannot be read" in str(lengths(data))


def test_show_prints_them(tmp_path: Path, capsys):
    run = tmp_path / "run"
    timings(run, make_run(run))
    print_run(run)
    said = capsys.readouterr().out
    (line,) = [x for x in said.splitlines() if "text_long" in x and "after" in x]
    assert [x.strip() for x in re.split("[|\N{BOX DRAWINGS LIGHT VERTICAL}]", line) if x.strip()] == [
        "text_long", "after", "13%", "38%", "31%", "12%", "6%",
    ]  # fmt: skip
    (run / "midtrain" / "lengths.json").write_text(json.dumps({}))
    print_run(run)
    assert "text_long" not in capsys.readouterr().out
