"""The viewer of a pivotal search in real Chromium: pointer, touch, keys, filters, widths. Needs chromium on PATH and
the package playwright; skipped without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chromium import needs_chromium, opened
from report_run import HOSTILE, answer, card, make_run

from phikit.engine.scripted import ScriptedEngine
from phikit.preference import pts
from phikit.preference.pivotal import SearchConfig
from phikit.preference.rollouts import Question
from phikit.records.io import write_json, write_jsonl
from phikit.report.build import build
from phikit.report.pivots_page import write_page

pytestmark = needs_chromium


@contextmanager
def shown(browser, path: Path, width: int = 1280, touch: bool = False) -> Iterator:
    with opened(browser, path.as_uri(), ("file:", "data:"), width=width, height=850, touch=touch) as page:
        yield page


def rows() -> list[dict]:
    """Six answers: the third wrong code with one large fall, the fourth without a pivotal token; hostile text."""
    out = [answer(i) | {"question": f"Question {i} about {'cats' if i % 2 else 'dogs'}"} for i in range(6)]
    big = out[2]["pivots"][1] | {"before": 0.95, "after": 0.1, "change": -0.85}
    out[2] |= {"kind": "code", "right": False, "pivots": [big]}
    out[3] |= {"pivots": []}
    out[4]["tokens"] = ["\u0645\u0631\u062d\u0628\u0627", " \u202e", "\U0001f642", "", *out[4]["tokens"][4:]]
    out[5] |= {"question": HOSTILE}
    return out


@pytest.fixture(scope="module")
def page_path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pts")
    write_jsonl(folder / "answers.jsonl", rows())
    write_json(folder / "card.json", card())
    return write_page(folder)


def order(page) -> list[str]:
    return page.locator(".pv-row .q").all_inner_texts()


def test_a_click_or_a_moment_over_a_token_shows_its_alternatives_and_rollouts(browser, page_path):
    with shown(browser, page_path) as page:
        page.locator(".pv-row", has_text="Question 0").click()
        first = page.locator(".pv-tok.pivotal").first
        first.click()
        fork = page.locator(".pv-fork")
        assert "raises p(success) from 0.42 to 0.67" in fork.inner_text()
        assert first.get_attribute("aria-pressed") == "true"
        assert page.locator(".pv-branch").count() == 3
        assert page.locator(".pv-branch").nth(1).inner_text().split() == [
            "<b>",
            "0.40",
            "0.20\u20130.60",
            "10",
            "of",
            "24",
            "right",
        ]
        assert "12 and 7 is 19." in fork.inner_text()
        assert page.locator(".pv-sides .part").all_inner_texts() == [
            "7 is 19.",
            "5 is 17.",
        ]  # where they part
        assert "<script>alert(1)</script>" in fork.inner_text()
        page.locator(".pv-branch", has_text="<b>").click()
        assert "With <b> instead" in fork.inner_text()
        assert "No rollout of its own." in fork.inner_text()
        page.locator(".pv-tok.pivotal").nth(1).hover()
        fork.filter(has_text="lowers").wait_for()
        page.locator(".pv-tok:not(.pivotal)").nth(1).hover()
        assert "p(success)" in page.locator("#tip").inner_text()
        assert "lowers" in fork.inner_text()  # what was looked at stays


def test_keys_lead_through_answers_and_pivotal_tokens(browser, page_path):
    with shown(browser, page_path) as page:
        position = page.locator(".pv-top > span").nth(1)
        assert position.inner_text() == "1 of 6"
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("k")
        assert position.inner_text() == "2 of 6"
        assert page.locator('.pv-row[aria-selected="true"]').get_attribute("aria-posinset") == "2"
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert "pivotal token 1 of 3" in page.locator(".pv-fork").inner_text()
        page.keyboard.press("ArrowRight")
        assert "pivotal token 2 of 3" in page.locator(".pv-fork").inner_text()
        focused = page.evaluate(
            "document.activeElement.className + getComputedStyle(document.activeElement).outlineStyle"
        )
        assert "pivotal" in focused
        assert focused.endswith("solid")
        page.keyboard.press("?")
        assert page.locator("dialog").is_visible()
        page.keyboard.press("j")
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()
        assert position.inner_text() == "2 of 6"  # keys of the help are not those of the page
        page.keyboard.press("/")
        page.keyboard.type("jk")
        assert page.locator(".pv-search").input_value() == "jk"
        assert page.locator(".pv-answer").inner_text() == "No answer matches."
        page.get_by_role("button", name="Show all").click()
        page.locator(".pv-list").focus()
        page.keyboard.press("End")
        assert position.inner_text() == "6 of 6"
        assert page.locator(".pv-list").get_attribute("aria-activedescendant") == "pv-row-5"
        assert "Token" in (page.locator(".pv-said").text_content() or "")


def test_filters_and_order(browser, page_path):
    with shown(browser, page_path) as page:
        assert order(page)[0] == "Question 2 about dogs"  # the largest change
        page.locator(".pv-search").fill("CATS")
        assert set(order(page)) == {"Question 1 about cats", "Question 3 about cats"}
        page.locator(".pv-search").fill("")
        page.locator(".pv-kind").select_option("code")
        assert order(page) == ["Question 2 about dogs"]
        page.locator(".pv-kind").select_option("")
        page.locator(".pv-right").select_option("0")
        assert order(page) == ["Question 2 about dogs"]
        assert page.locator(".pv-count").inner_text() == "1 of 6 answers. Show all"
        page.locator(".pv-count button").click()
        page.locator(".pv-way").select_option("1")
        assert len(order(page)) == 4  # not the one that only falls, nor the one without a pivotal token
        assert page.locator(".pv-tok.pivotal.other").count() == 1
        page.locator(".pv-way").select_option("0")
        page.locator(".pv-least").fill("0.8")
        assert order(page) == ["Question 2 about dogs"]
        assert page.locator("output").inner_text() == "0.80"
        assert page.locator(".pv-bar:not(.off)").count() == 0
        page.locator(".pv-least").fill("0.2")
        page.locator(".pv-sort").select_option("question")
        assert order(page)[1:] == [f"Question {i} about {'cats' if i % 2 else 'dogs'}" for i in range(5)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_all_of_it_works_by_tapping(browser, page_path, scheme):
    with shown(browser, page_path, 390, touch=True) as page:
        page.emulate_media(color_scheme=scheme)
        assert not page.locator(".pv-list").is_visible()
        page.get_by_role("button", name="All answers").tap()
        page.locator(".pv-row", has_text="Question 1").tap()
        assert not page.locator(".pv-list").is_visible()
        assert "Question 1" in page.locator(".pv-asked").inner_text()
        page.locator(".pv-tok.pivotal").nth(1).tap()
        assert "lowers" in page.locator(".pv-fork").inner_text()
        page.locator(".pv-tok:not(.pivotal)").nth(2).tap()
        assert "p(success)" in page.locator("#tip").inner_text()
        page.get_by_role("button", name="Next answer").tap()
        right = (
            "Math.max(...[...document.querySelectorAll('.pv *')].map((e) => e.getBoundingClientRect().right))"
        )
        assert page.evaluate(right) <= 390 + 1


def test_p_is_drawn_above_the_token_it_belongs_to(browser, page_path):
    with shown(browser, page_path) as page:
        page.locator(".pv-row", has_text="Question 0").click()
        boxes = page.evaluate(
            """() => ['.pv-tok.pivotal', '.jump'].map((s) => [...document.querySelectorAll('.pv-answer ' + s)].map(
            (e) => { const b = e.getBoundingClientRect(); return [b.left, b.right, b.top, b.bottom]; }))"""
        )
        assert len(boxes[0]) == len(boxes[1]) == 3
        for token, jump in zip(*boxes):
            assert token[0] - 3 <= jump[0] <= jump[1] <= token[1] + 3
            assert jump[3] <= token[2] + 3


def test_strange_text_is_shown_as_what_it_is(browser, page_path):
    with shown(browser, page_path) as page:
        page.locator(".pv-row", has_text="Question 4").click()
        tokens = page.locator(".pv-tok")
        assert tokens.nth(0).inner_text() == "\u0645\u0631\u062d\u0628\u0627"
        assert tokens.nth(1).inner_text() == " U+202E"  # it would turn round what follows
        assert tokens.nth(3).inner_text() == "\u00b7"  # a byte of a character that another token completes
        page.locator(".pv-row", has_text="alert").click()
        assert page.locator(".pv-asked").inner_text().startswith("<script>alert(1)</script> <img src=")
        assert page.locator(".pv-answer img").count() == 0


def test_the_section_of_a_report_works_beside_its_other_parts(browser, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    html, _ = build(run, make_run(run), {"name": "phi4", "scale": "nano", "seed": 7, "versions": {}})
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    for width, touch in ((1280, False), (390, True)):
        with shown(browser, tmp_path / "report.html", width, touch) as page:
            page.keyboard.press("j")
            position = page.locator(".pv-top > span").nth(1)
            assert position.inner_text() == "1 of 2"  # the viewer is not on the screen
            page.locator("#pivotal").scroll_into_view_if_needed()
            page.locator(".pv-body").scroll_into_view_if_needed()
            page.evaluate("document.querySelector('.pv-answer').scrollIntoView({ behavior: 'instant' })")
            page.keyboard.press("j")
            assert position.inner_text() == "2 of 2"


def test_thousands_of_answers_stay_quick(browser, tmp_path):
    many = [
        answer(i) | {"id": str(i), "question": f"{i} pens are shared by {i % 7} people."} for i in range(4000)
    ]
    write_jsonl(tmp_path / "answers.jsonl", many)
    with shown(browser, write_page(tmp_path)) as page:
        assert page.locator(".pv-row").count() < 40  # only rows in sight exist
        took = page.evaluate(
            """() => { const t = performance.now(), s = document.querySelector('.pv-search');
            s.value = '77'; s.dispatchEvent(new Event('input')); return performance.now() - t; }"""
        )
        assert took < 1500  # about 30 ms where the machine is idle
        assert page.locator(".pv-count").inner_text().startswith("76 of 4,000 answers")


def test_a_real_search_can_be_looked_at(browser, tmp_path, monkeypatch):
    """Tokens are bytes: half of the answers take a path that works, with letters of two bytes."""
    monkeypatch.setenv("PHIKIT_QUIET", "1")

    def script(prompt: str, seed: int) -> str:
        said = prompt.rpartition("<|im_sep|>")[2]
        good = said.startswith("\u00e9") if said else seed % 2
        whole = "\u00e9toile: 7" if good else "un: 8"
        return whole[len(said) :] if whole.startswith(said) else "?"

    engine = ScriptedEngine(script, seeded=True)
    config, sampling = SearchConfig(rollouts=24), pts.Sampling(max_tokens=40)
    check = lambda question, text: text.endswith("7")
    pts.run(
        engine,
        [Question(f"q{i}", f"Which? {i}", "7") for i in range(3)],
        tmp_path,
        config,
        sampling,
        check=check,
    )
    with shown(browser, write_page(tmp_path)) as page:
        page.locator(".pv-row", has_text="right").first.click()
        assert "toile: 7" in page.locator(".pv-text").inner_text().replace("\n", "")
