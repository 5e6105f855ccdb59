"""The pages of evaluations in a real browser: nothing overflows, the search finds, what a model wrote stays text."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import needs_chromium, probe, probed

from phikit.engine.scripted import ScriptedEngine
from phikit.evals.compare import compare_runs
from phikit.evals.run import Settings, evaluate
from phikit.evals.select import choose
from phikit.records.io import write_jsonl
from phikit.report.evals_page import write_comparison, write_page

pytestmark = needs_chromium
HOSTILE = "</script><script>document.documentElement.dataset.hacked = 1</script><img src=x onerror=alert(1)>"
PROBE = """
addEventListener("load", () => {
  const out = document.documentElement.dataset, search = document.getElementById("search");
  for (const d of document.querySelectorAll("details")) d.open = true;
  out.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  out.items = document.querySelectorAll("article.item").length;
  search.value = "needle7 ";
  search.dispatchEvent(new Event("input"));
  out.found = document.getElementById("found").textContent;
  out.marks = document.querySelectorAll("mark").length;
  search.value = "";
  const outcome = document.getElementById("outcome");
  outcome.value = "right";
  outcome.dispatchEvent(new Event("change"));
  out.right = document.getElementById("found").textContent;
});
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evals")
    rows = [
        {
            "id": f"q{i}",
            "question": f"needle{i} {'word ' * 300}{HOSTILE}?",
            "answer": str(i),
            "group": f"g{i % 3}",
        }
        for i in range(30)
    ]
    write_jsonl(folder / "q.jsonl", rows)
    (folder / "t.yaml").write_text("data: q.jsonl\ngroup: group\nname: a_task_with_a_rather_long_name\n")
    for name, right in (("a", "0"), ("b", "1")):
        answer = lambda p, right=right: right if f"needle{right} " in p else HOSTILE
        evaluate(
            ScriptedEngine(answer), f"model-{name}", choose(str(folder / "t.yaml")), folder / name, Settings()
        )
        write_page(folder / name)
    rows = compare_runs(folder / "a", folder / "b")
    write_comparison(folder / "a", folder / "b", rows, folder / "both")
    return folder


def looked_at(page: Path, tmp_path: Path, width: int) -> str:
    return probed(page.read_text(encoding="utf-8"), PROBE, tmp_path, width)


@pytest.mark.parametrize("width", [1280, 390])
def test_an_evaluation(pages, tmp_path, width):
    out = looked_at(pages / "a/report.html", tmp_path, width)
    assert probe(out, "overflow") == "0"
    assert probe(out, "items") == "20"
    assert probe(out, "found") == "1 of 30"
    assert int(probe(out, "marks")) >= 1
    assert probe(out, "right") == "1 of 30"
    assert "data-hacked" not in out.split("<head>")[0]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_comparison(pages, tmp_path, width):
    out = looked_at(pages / "both/report.html", tmp_path, width)
    assert probe(out, "overflow") == "0"
    assert probe(out, "items") == "2"  # where they differ
    assert "no visible change" in out
    assert "model-b" in out
