"""The viewer of a pivotal search: rows packed for the page, and the page itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_run import HOSTILE, answer, card, make_run

from phikit.records.io import write_json, write_jsonl
from phikit.report.pivots import find, pack, read_card, read_packed, script_json
from phikit.report.pivots_page import component, write_page

EVIL = "</script><script>alert(1)</script><!-- <script> \u2028 \u202e \ud800 & \x00"


def search(folder: Path, rows: list[dict[str, Any]], with_card: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "answers.jsonl", rows)
    if with_card:
        write_json(folder / "card.json", card())
    return folder


def data_of(page: str) -> dict[str, Any]:
    return json.loads(page.split('class="pv-data">')[1].split("</script>")[0])


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


def test_a_packed_answer_says_what_its_row_said():
    rows = [answer(1), answer(2), answer(3, kind="code")]
    packed = json.loads(script_json(pack(rows, 10**6)))
    assert packed["total"] == len(packed["answers"]) == 3
    assert len(packed["questions"]) == 2  # two answers to one question share it; the third has another kind
    for row, a in zip(rows, packed["answers"]):
        question, right, tokens, probability, p, low, high, n, changes, pivots = a
        assert packed["questions"][question] == [row["question"], row["answer"], row["kind"]]
        assert [packed["texts"][i] for i in tokens] == row["tokens"]
        assert right == 1
        assert n == row["n"]
        for name, values in (("probability", probability), ("p", p), ("low", low), ("high", high)):
            assert [None if v == -1 else v / 1000 for v in values] == [
                x if x is None else pytest.approx(x, abs=5e-4) for x in row[name]
            ]
        assert dict(zip(changes[::2], changes[1::2])) == {
            i: round(1000 * c) for i, c in enumerate(row["change"]) if c is not None
        }
        assert [v[0] for v in pivots] == [0, 9, 14]
        assert [packed["texts"][b[0]] for b in pivots[0][5]] == ["First", " So", "<b>"]
        assert [b[1] for b in pivots[0][5]] == [0, 1, 2]
        assert pivots[0][5][0][7] == [[0, " 12 and 7 is 19.", 0], [1, " 12 and 5 is 17.", 0]]


def test_above_the_limit_the_first_answers_are_kept_and_the_page_says_so():
    rows = [answer(i) for i in range(40)]
    limit = len(script_json(pack(rows, 10**6))) // 2
    packed = pack(rows, limit)
    assert packed["total"] == 40
    assert 12 < len(packed["answers"]) < 28
    assert len(script_json(packed)) < 1.3 * limit  # escaping and the tail of the text table
    assert len(pack(rows, 1)["answers"]) == 1
    assert f"The {len(packed['answers'])} of 40 searched answers" in component(packed, None, "More.")


def damaged(**change: Any) -> dict[str, Any]:
    return answer(1) | change


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (damaged(tokens=[{"text": "a", "p_before": 0.2}]), "older version"),
        (damaged(n=[1]), "n has 1 values for"),
        (damaged(question=7), "expected text, got int"),
        (damaged(low=[None] * 36), "TypeError|low has"),
        (damaged(pivots=[answer(1)["pivots"][0] | {"at": 900}]), "a pivotal token at 900"),
        (damaged(pivots=[answer(1)["pivots"][0] | {"branches": []}]), "without branches"),
        ({"id": "x"}, "KeyError: 'tokens'"),
    ],
)
def test_a_damaged_row_is_named(tmp_path, row, says):
    search(tmp_path, [answer(1), row])
    with pytest.raises(ValueError, match=rf"answers.jsonl, row 2: .*({says})"):
        read_packed(tmp_path, 10**6)


def test_hostile_text_stays_text(tmp_path):
    row = answer(1) | {"question": EVIL, "answer": EVIL}
    row["tokens"] = [EVIL, *row["tokens"][1:]]
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "answers.jsonl").write_text(json.dumps(row) + "\n")  # a lone surrogate passes as an escape
    page = write_page(folder).read_text(encoding="utf-8")
    data = data_of(page)
    kept = EVIL.replace("\ud800", "?")
    assert data["questions"][0][:2] == [kept, kept]
    assert data["texts"][0] == kept
    assert any(HOSTILE in e[1] for b in data["answers"][0][9][0][5] for e in b[7])
    scripts = [a.get("type") for t, a in Tags(page).tags if t == "script"]
    assert scripts == ["application/json", None]
    assert not re.search("[<>&\u2028\u2029]", page.split('class="pv-data">')[1].split("</script>")[0])


def test_the_page_asks_for_nothing_and_lets_only_its_own_script_run(tmp_path):
    page = write_page(search(tmp_path / "out", [answer(1)])).read_text(encoding="utf-8")
    tags = Tags(page).tags
    policy = next(a["content"] for t, a in tags if t == "meta" and a.get("http-equiv")) or ""
    assert policy.startswith("default-src 'none'")
    assert re.search(r"script-src 'sha256-[\w+/=]+'$", policy)
    for name, attributes in tags:
        for key in ("src", "href", "action", "srcset"):
            assert attributes.get(key) in (None, "data:,"), (name, key)
        assert not any(k.startswith("on") for k in attributes)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML", page)


def test_the_card_is_on_the_page(tmp_path):
    page = write_page(search(tmp_path / "out", [answer(1), answer(2)])).read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", " ", page.split("<main")[1].split("pv-data")[0])
    text = re.sub(r"\s+", " ", text)
    for says in (
        "nano/sft", "6 tokens of 2 answers", "4 raise it", "2 lower it", "1 too hard", "5 math", "9,900",
        "1,980 a pair", "1.1% expected", "How sure. Each token listed changes p(success).",
    ):  # fmt: skip
        assert says in text, says
    assert page.count('class="pv-bar up"') == 2
    assert page.count('class="pv-bar down"') == 1


def test_without_a_card_what_the_answers_say_is_shown(tmp_path):
    page = write_page(search(tmp_path / "out", [answer(1)], with_card=False)).read_text(encoding="utf-8")
    assert "3 tokens</b> of 1 answers" in page
    assert page.count('class="pv-bar') >= 3


def test_a_search_that_found_no_answer_says_why(tmp_path):
    empty = card() | {"pivotal_tokens": 0, "up": 0, "down": 0, "pairs": 0, "pairs_by_kind": {}}
    empty |= {
        "questions": {"searched": 0, "too easy": 0, "too hard": 7, "answers": 0},
        "stopped": "budget spent",
    }
    empty |= {"changes": {"width": 0.05, "up": [0] * 20, "down": [0] * 20}}
    folder = search(tmp_path / "out", [])
    write_json(folder / "card.json", empty)
    page = write_page(folder).read_text(encoding="utf-8")
    assert "No answer was searched: 7 too hard." in page
    assert "budget spent." in page
    assert 'class="pv-bars"' not in page


def test_answers_without_a_pivotal_token_are_shown(tmp_path):
    row = answer(1) | {"pivots": []}
    page = write_page(search(tmp_path / "out", [row], with_card=False)).read_text(encoding="utf-8")
    assert data_of(page)["answers"][0][9] == []
    assert "0 tokens</b> of 1 answers" in page


def test_the_folder_may_be_a_search_a_run_or_its_stage(tmp_path):
    make_run(tmp_path / "run")
    assert find(tmp_path / "run") == find(tmp_path / "run" / "pivotal") == tmp_path / "run" / "pivotal"
    assert write_page(tmp_path / "run") == tmp_path / "run" / "pivotal.html"
    assert write_page(tmp_path / "run", tmp_path / "x.html").read_text().startswith("<!doctype html>")
    with pytest.raises(ValueError, match=r"no answers.jsonl in it nor in pivotal/"):
        find(tmp_path)


def test_a_card_of_an_older_version_is_named(tmp_path):
    write_json(tmp_path / "card.json", {"pairs": 1})
    with pytest.raises(ValueError, match=r"card.json: no changes, cost, .*older version"):
        read_card(tmp_path)


def test_thousands_of_answers_are_packed_in_bounds():
    row = answer(1)
    rows = ({**row, "id": str(i), "question": f"{i} {row['question']}"} for i in range(3000))
    packed = pack(rows, 16_000_000)
    assert len(packed["answers"]) == 3000
    assert len(script_json(packed)) < 3000 * 3000
