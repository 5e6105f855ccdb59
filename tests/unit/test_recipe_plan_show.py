"""What `phikit plan` prints in a narrow terminal, and its sweep over tokens, length and GPUs."""

from __future__ import annotations

import io
import os
import shutil
import sys
from itertools import pairwise

import pytest
from rich.console import Console

from phikit.recipe import plan, plan_show
from phikit.recipe.load import load
from phikit.recipe.plan_sweep import notes, rows_of, sweep
from phikit.recipe.plan_sweep_page import Series, log_chart, log_ticks, page_of


@pytest.mark.parametrize("width", [80, 120])
def test_the_plan_fits_the_terminal_and_breaks_no_word(width, tmp_path, monkeypatch):
    printed = io.StringIO()
    monkeypatch.setattr(plan_show, "terminal", lambda: Console(file=printed, width=width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((width, 24)))
    recipe = load("phi4", scale="phi4")
    assert plan_show.print_plan(recipe, tmp_path) == 0
    text = printed.getvalue()
    lines = [line for line in text.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= width
    words = {w.strip(",;") for line in plan.make_plan(recipe).lines for w in line.what.split()}
    assert not {w for w in words if w not in text}
    assert "all 14 stages: not run yet" in text
    assert "1,920 ranks" in text


def test_lines_go_whole_into_a_file(capsys):
    plan_show.say_lines(["  word " * 60])
    assert capsys.readouterr().out == "  word " * 60 + "\n"


def test_the_switch_of_long_documents_in_words():
    natural = plan.long_remarks(load("phi4", scale="phi4"))
    assert natural[0].startswith("midtrain: 75B of 250B tokens from long sources (web_long 15B,")
    assert natural[0].endswith("175B replayed")
    assert "over 8,192 tokens, 4,096 in sources made to be long" in natural[1]
    assert "those of 16,384 and more count 2 times: half of a source's tokens become 67% of it" in natural[1]
    packed = plan.long_remarks(load("phi4", scale="phi4", settings=["midtrain.long_documents=packed-short"]))
    assert packed[0] == natural[0]
    assert packed[1].startswith("packed-short: samples of at most 4,096 tokens, 4 or more joined")
    assert plan.long_remarks(load("phi4", scale="phi4").model_copy(update={"midtrain": None})) == ()


def test_the_layout_in_words():
    assert plan.layout_remarks(load("phi4", scale="nano"))[0].startswith("1 rank = ")
    keys = ["layout.precision=fp8", "layout.tp=1", "layout.fsdp=8"]
    assert plan.FP8 in plan.layout_remarks(load("phi4", scale="phi4", settings=keys))


@pytest.fixture(scope="module")
def points():
    keys = ["model.layers=3", "layout.fsdp=2", "layout.tp=1", "pretrain.micro=8"]
    return list(sweep(load("phi4", scale="mini", settings=keys), "pretrain", 16, "h100"))


def test_a_sweep_grows_as_costs_do(points):
    by = {(p.network.context, p.gpus): p for p in points}
    assert {n for n, _ in by} == {2048, 8192, 32_768}
    assert {n for _, n in by} == {2, 4, 8, 16, 32}
    for p in points:
        assert p.passes >= 1
        assert p.batch == p.passes * p.micro * p.layout.data
        assert p.days(2e9, p.mfu) == pytest.approx(2 * p.days(1e9, p.mfu))
    asked = by[2048, 16]
    assert asked.step_tokens == 256 * 2048  # as the recipe has it
    days = [by[2048, n].days(1e9, by[2048, n].mfu) for n in (2, 4, 8, 16, 32)]
    assert days == sorted(days, reverse=True)
    each = [by[n, 4].days(1e9, by[n, 4].mfu) for n in (2048, 8192, 32_768)]
    assert each == sorted(each)
    # Attention's part is that of the pairs: 16 times the length, 16 times the FLOPs of a token.
    per_token = [by[n, 4].trace.attention / (by[n, 4].micro * n) for n in (2048, 32_768)]
    assert per_token[1] / per_token[0] == pytest.approx(16, rel=0.01)


def test_a_sweep_is_a_table_and_a_page(points):
    head, *rows = rows_of(points)
    assert len(rows) == 15
    assert all(len(r) == len(head) for r in rows)
    page = page_of(points, 16, notes(points))
    assert page.count("<svg") == 3
    assert "by tokens, length and GPUs" in page
    assert all(name in page for name in (">2K<", ">8K<", ">32K<"))


def test_names_of_near_lines_do_not_cover_one_another():
    near = [Series(name, [(1, y, ""), (10, y, "")]) for name, y in (("a", 10.0), ("b", 10.1), ("c", 10.2))]
    chart = str(log_chart(near, "x", "y", str))
    places = sorted(
        float(part.split('y="')[1].split('"')[0])
        for part in chart.split("<text")[1:]
        if 'class="row"' in part
    )
    assert len(places) == 3
    assert min(b - a for a, b in pairwise(places)) >= 12


@pytest.mark.parametrize(("low", "high"), [(8.4, 241), (0.017, 3.5), (35, 71), (5, 5), (1e-3, 1e6)])
def test_ticks_hold_all_values(low, high):
    ticks = log_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= low * 1.001
    assert ticks[-1] >= high * 0.999
    assert len(ticks) <= 11


def test_a_sweep_without_gpus_says_what_it_asks_for(tmp_path):
    from phikit.recipe.plan_sweep import print_sweep

    with pytest.raises(ValueError, match="--sweep asks for --gpus"):
        print_sweep(load("phi4", scale="mini"), "pretrain", 0, "h100", tmp_path / "page.html")
