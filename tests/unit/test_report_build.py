"""The page and the JSON, built from a run folder as the stages write it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_run import CHECKPOINTS, HOSTILE, STAGES, make_run, timings

from phikit.recipe.stages.report import stages_of
from phikit.report.build import build
from phikit.report.markup import escape, tag

RECIPE = {"name": "phi4", "scale": "nano", "seed": 7, "versions": {"torch": "2.13.0"}}


class Reader(HTMLParser):
    """Collects tags with their attributes, the text of scripts, and tags that were never closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def run(tmp_path: Path) -> tuple[str, dict[str, Any]]:
    return build(tmp_path, make_run(tmp_path), RECIPE)


def test_sections_come_in_the_order_a_reader_needs(run: tuple[str, dict[str, Any]]) -> None:
    ids = [a["id"] for t, a in Reader(run[0]).tags if t == "section"]
    assert ids == ["scores", "verdicts", "conversations", "next", "stages", "loss", "data", "intervals",
                   "pivotal", "published", "contamination", "samples", "provenance"]  # fmt: skip


def test_the_page_asks_nothing_of_the_network(run: tuple[str, dict[str, Any]]) -> None:
    reader = Reader(run[0])
    assert not reader.open
    for name, attributes in reader.tags:
        for key in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            value = attributes.get(key)
            assert value is None or value.startswith("#") or value == "data:,", (name, key, value)
    policy = next(a["content"] for t, a in reader.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    style = run[0].split("<style>")[1].split("</style>")[0]
    assert not re.search(r"@import|url\(", style)


def test_model_output_is_escaped_everywhere(run: tuple[str, dict[str, Any]]) -> None:
    reader = Reader(run[0])
    names = [t for t, _ in reader.tags]
    scripts = [a.get("type") for t, a in reader.tags if t == "script"]
    assert scripts == ["application/json", None]  # data of the pivotal tokens, and the page's own
    assert "img" not in names
    assert not [k for _, a in reader.tags for k in a if k.startswith("on")]
    assert "\x00" not in run[0]
    assert "<script>alert(1)</script>" in "".join(reader.text)  # shown as text


def test_markup_escapes_children_attributes_and_what_utf8_cannot_hold() -> None:
    assert tag("p", "<b>", title='"x"') == '<p title="&quot;x&quot;">&lt;b&gt;</p>'
    assert tag("p", tag("b", "&"), None, ["<"]) == "<p><b>&amp;</b>&lt;</p>"
    escape(HOSTILE + "\ud800").encode("utf-8")


def test_the_json_has_the_shape_scripts_rely_on(run: tuple[str, dict[str, Any]]) -> None:
    report = json.loads(json.dumps(run[1], allow_nan=False))
    assert [s["name"] for s in report["stages"]] == list(STAGES)
    assert all({"name", "seconds", "cached", "counts"} <= set(s) for s in report["stages"])
    assert report["stages"][0]["cached"] is True
    assert all(
        set(s) == {"checkpoint", "task", "metric", "value", "low", "high", "n"} for s in report["scores"]
    )
    assert {s["checkpoint"] for s in report["scores"]} == set(CHECKPOINTS)
    assert [(v["stage"], v["word"]) for v in report["verdicts"]] == [(c, "worked") for c in CHECKPOINTS]
    assert report["recipe"] == {"name": "phi4", "scale": "nano", "seed": 7}
    assert report["versions"] == {"torch": "2.13.0"}
    assert len(report["comparisons"]) == 3


def test_infinite_intervals_become_null(tmp_path: Path) -> None:
    rows = make_run(tmp_path)
    path = tmp_path / "eval" / "scores.json"
    scores = json.loads(path.read_text())
    scores[0] |= {"low": float("-inf"), "high": float("inf")}
    path.write_text(json.dumps(scores))
    html, report = build(tmp_path, rows, RECIPE)
    assert report["scores"][0]["low"] is None
    assert "nan" not in re.sub(
        r"[a-z]nan|nan[a-z]", "", html.split("<script")[0].split("</style>")[1].lower()
    )


def test_rows_without_a_value_are_left_out(tmp_path: Path) -> None:
    rows = make_run(tmp_path)
    for name in ("scores", "comparisons"):
        path = tmp_path / "eval" / f"{name}.json"
        found = json.loads(path.read_text())
        found[0]["value"] = None
        path.write_text(json.dumps(found))
    _, report = build(tmp_path, rows, RECIPE)
    assert len(report["scores"]) == 47
    assert len(report["comparisons"]) == 2


def test_the_summary_counts_parameters_tokens_and_minutes(run: tuple[str, dict[str, Any]]) -> None:
    summary = "".join(Reader(run[0].split("<header>")[1].split("</header>")[0]).text)
    assert "1.31 M parameters" in summary
    assert "4.19 M in pretrain" in summary
    assert "11 min 02 s" in summary


def test_a_failed_stage_is_shown_with_its_error_and_the_rest_says_why(tmp_path: Path) -> None:
    html, report = build(tmp_path, make_run(tmp_path, fails="dpo1"), RECIPE)
    text = "".join(Reader(html).text)
    assert "Stage dpo1 failed." in text
    assert "loss became nan at step 12 <b>" in text
    assert "Not run: the run stopped at stage dpo1, before eval." in text
    words = {v["stage"]: v["word"] for v in report["verdicts"]}
    assert words["dpo1"] == "failed"
    assert words["dpo2"] == "not run"
    assert report["scores"] == []
    assert [s["status"] for s in report["stages"]].count("not run") == 4


@pytest.mark.parametrize("fails", STAGES)
def test_a_page_is_made_wherever_the_run_stops(tmp_path: Path, fails: str) -> None:
    html, _ = build(tmp_path, make_run(tmp_path, fails=fails), RECIPE)
    assert not Reader(html).open
    assert f"Stage {fails} failed." in html


def test_what_a_stage_that_was_not_reached_left_behind_is_not_shown(tmp_path: Path) -> None:
    rows = make_run(tmp_path)
    rows[STAGES.index("eval")] |= {"status": "not run", "seconds": None, "counts": {}}
    html, report = build(tmp_path, rows, RECIPE)
    assert report["scores"] == []
    assert "Not run: stage eval was not part of this run." in html


def test_an_unreadable_file_is_named_on_the_page(tmp_path: Path) -> None:
    rows = make_run(tmp_path)
    (tmp_path / "eval" / "scores.json").write_text("{")
    (tmp_path / "pivotal" / "answers.jsonl").write_text('{"question": \n')
    html, _ = build(tmp_path, rows, RECIPE)
    assert "eval/scores.json cannot be read" in html
    assert "pivotal/answers.jsonl cannot be read" in html


def test_stage_rows_come_from_timings_and_manifests(tmp_path: Path) -> None:
    rows = make_run(tmp_path, fails="dpo1")
    rows[0] |= {"status": "cached", "counts": {}}
    rows[STAGES.index("dpo2")]["status"] = "running"
    timings(tmp_path, rows)
    read = {s["name"]: s for s in stages_of(tmp_path)}
    assert list(read) == list(STAGES)
    assert read["corpus"]["status"] == "done"
    assert read["corpus"]["cached"] is True
    assert read["corpus"]["counts"]["in"] == 9412  # from the manifest
    assert read["dpo1"]["status"] == "failed"
    assert read["dpo2"]["status"] == "not run"
    assert read["dpo2"]["seconds"] is None


def test_a_folder_without_timings_is_read_from_its_manifests(tmp_path: Path) -> None:
    make_run(tmp_path, fails="midtrain")
    statuses = [s["status"] for s in stages_of(tmp_path)]
    assert statuses == ["done"] * 5 + ["not run"] * 8


def test_the_funnel_of_synth_is_of_flows_beside_what_programs_made(run: tuple[str, dict[str, Any]]) -> None:
    text = " ".join(" ".join(Reader(run[0]).text).split())
    assert "seeds of flows 110" in text
    assert "rows of flows 27" in text
    assert "not JSON 33 all disagree 21" in text
    assert (
        "right by construction: problems 61,213, arithmetic 9,790, recall long 3,020, synthetic 27." in text
    )
