"""The chat page at `/` in a real browser, against a real server. Needs chromium and the package playwright; skipped
without them. Where a text must be a certain one, the answer's stream is written here and the rest stays real."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chromium import needs_chromium, opened
from serve_running import running

from phikit.model.config import ModelConfig
from phikit.model.hf import save_hf
from phikit.model.transformer import build
from phikit.records.io import write_json, write_jsonl
from phikit.serve.settings import Settings
from phikit.store import local
from phikit.store.names import parse
from phikit.store.store import Store
from phikit.text.tokenizer import Tokenizer

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = [
    needs_chromium,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

QUESTION = "What is 3 + 4?"
ANSWER = r"""# Three things

Some **bold**, *italic*, `code` and [a link](https://example.org/x), and <img src=x onerror=alert(1)>.

1. First \(x^2\)
2. Second
   - inner

| a | b |
| - | -: |
| 1 | $\frac{1}{2}$ |

$$\sum_{i=1}^{n} i = \frac{n(n+1)}{2}$$

It costs $5 and then $7, and \unknowncommand{x} stays: $\unknowncommand{x}$.

```python
def f(x):  # a comment
    return "<b>" + str(x)
```
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run whose search looked at one question; its model is tiny."""
    folder = tmp_path_factory.mktemp("run")
    text = "user system assistant: What is 3 + 4? It is 7, and 5 + 6 is 11. " * 6
    tokenizer = Tokenizer.train([text], 285)
    save_hf(build(ModelConfig(288, 32, 1, 2, 1, 64, 256), 0), tokenizer, folder / "dpo2" / "hf")
    row = {
        "question": QUESTION, "tokens": ["It", " is", " 7"],
        "pivots": [{"at": 2, "before": 0.4, "after": 0.95, "change": 0.55, "branches": []}],
    }  # fmt: skip
    write_jsonl(folder / "pivotal" / "answers.jsonl", [row])
    write_json(folder / "pivotal" / "manifest.json", {})
    (folder / "report.html").write_text("<!doctype html><title>Report</title><h1>The report</h1>")
    return folder


@pytest.fixture(scope="module")
def server(run, tmp_path_factory) -> Iterator[str]:
    store = Store(tmp_path_factory.mktemp("models"))
    store.remember(parse("ours"), local.manifest_of(store, run / "dpo2" / "hf", copy=False))
    local.remember_teacher(store)
    with running(store, Settings(port=0, threads=1, context=512, shutdown_time=2.0)) as found:
        yield found.url


@contextmanager
def chat(browser, url: str, *, model: str = "ours", width: int = 1280, fails: bool = False) -> Iterator:
    """The page with a model chosen."""
    own = (url, "blob:", "data:")
    with opened(browser, url, own, width=width, height=800, touch=width < 500, fails=fails) as page:
        page.wait_for_selector("#model option", state="attached")
        page.select_option("#model", f"{model}:latest")
        expect(page.locator("#about")).not_to_contain_text("undefined")
        yield page


def writes(page, text: str, tokens: list[tuple[str, float]] | None = None) -> None:
    """Answers of this page have this text, a piece a line, as the server writes them."""
    pieces = tokens or [(text[i : i + 7], 0.0) for i in range(0, len(text), 7)]
    rows = []
    for piece, logprob in pieces:
        row = {"model": "ours", "message": {"role": "assistant", "content": piece}, "done": False}
        if tokens:
            top = [{"token": piece, "logprob": logprob}, {"token": " other", "logprob": -3.0}]
            row["logprobs"] = [{"token": piece, "logprob": logprob, "top_logprobs": top}]
        rows.append(row)
    last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    rows.append(last | {"eval_count": len(pieces), "eval_duration": 10**9})
    page.route("**/api/chat", lambda r: r.fulfill(
        content_type="application/x-ndjson", body="".join(json.dumps(x) + "\n" for x in rows)
    ))  # fmt: skip


def ask(page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")
    page.wait_for_selector(".message.assistant .tools button", timeout=60_000)


@pytest.mark.parametrize("width", [1280, 390])
def test_markdown_code_and_tex_are_shown_and_markup_is_text(browser, server, width):
    with chat(browser, server, width=width) as page:
        writes(page, ANSWER)
        ask(page, "Show me <b>everything</b>")
        body = page.locator(".message.assistant .md")
        assert page.locator(".message.user .body").inner_text() == "Show me <b>everything</b>"
        assert body.locator("h1").inner_text() == "Three things"
        assert body.locator("strong").inner_text() == "bold"
        assert body.locator("em").first.inner_text() == "italic"
        assert body.locator("ol > li").count() == 2
        assert body.locator("ol ul > li").inner_text() == "inner"
        assert body.locator("table td math mfrac").count() == 1
        assert body.locator("math[display=block] munderover, math[display=block] msubsup").count() == 1
        assert body.locator("code.tex").inner_text() == r"$\unknowncommand{x}$"
        assert "It costs $5 and then $7" in body.inner_text()
        assert body.locator("img").count() == 0
        assert "<img src=x onerror=alert(1)>" in body.inner_text()
        assert body.locator("a").get_attribute("rel") == "noopener noreferrer nofollow"
        assert body.locator("pre").inner_text() == 'def f(x):  # a comment\n    return "<b>" + str(x)'
        assert body.locator("pre .k").all_inner_texts() == ["def", "return"]
        assert body.locator("pre .c").inner_text() == "# a comment"


def test_a_real_answer_streams_and_stops(browser, server):
    with chat(browser, server) as page:
        page.click("#open-settings")
        page.fill("#num_predict", "200")
        page.fill("#text", QUESTION)
        page.press("#text", "Enter")
        page.wait_for_selector("#stop:visible")
        page.keyboard.press("Escape")
        page.wait_for_selector("#send:visible")
        page.click("#open-settings")
        assert page.locator(".message.assistant").count() == 1
        assert "stopped" in page.locator(".message.assistant .tools").inner_text()
        page.click("#new")
        page.click("#open-settings")
        page.fill("#num_predict", "8")
        ask(page, QUESTION)
        told = re.search(r"(\d+) tokens", page.locator(".message.assistant .tools").inner_text())
        assert told
        assert 1 <= int(told[1]) <= 8  # sampled: it may end by itself
        assert page.locator(".entry").count() == 2


def test_tokens_show_probability_alternatives_and_the_runs_pivotal_tokens(browser, server):
    with chat(browser, server) as page:
        writes(page, "", [("It", -0.01), (" is", -0.7), (" 7", -1.5), (".", -0.02)])
        page.click("#tokens")
        expect(page.locator(".starters button").first).to_have_text("What is 3 + 4?")
        page.click(".starters button")
        page.wait_for_selector(".legend")
        assert page.locator(".t").evaluate_all("x => x.slice(0, 4).map(e => e.className.match(/p\\d/)[0])") == [
            "p1", "p3", "p4", "p1",
        ]  # fmt: skip
        assert page.locator(".t.up").inner_text() == " 7"
        page.locator(".t.up").click()
        card = page.locator("#card").inner_text()
        assert "22%" in card
        assert "other" in card
        assert "p(success) went from 40% to 95%" in card
        page.keyboard.press("ArrowRight")
        assert page.locator(".t.at").inner_text() == "."
        page.keyboard.press("Escape")
        assert page.locator("#card").is_hidden()
        page.keyboard.press("Control+.")
        assert page.locator(".md").inner_text() == "It is 7."
        page.click("#open-settings")
        assert (
            page.request.get(server + page.get_attribute("#pivots", "href"))
            .text()
            .endswith("The report</h1>")
        )


def test_edit_again_reload_search_and_delete(browser, server):
    with chat(browser, server) as page:
        writes(page, "first answer")
        ask(page, "one apple")
        ask(page, "two pears")
        expect(page.locator(".message.assistant")).to_have_count(2)
        page.press("#text", "ArrowUp")
        page.fill(".edit textarea", "three plums")
        page.press(".edit textarea", "Enter")
        page.wait_for_selector("#send:visible")
        assert page.locator(".message.user .body").all_inner_texts() == ["one apple", "three plums"]
        writes(page, "another answer")
        page.get_by_role("button", name="Again").click()
        expect(page.locator("body")).to_contain_text("another answer")
        assert page.locator(".message.assistant").count() == 2
        page.reload()
        page.wait_for_selector(".entry")
        page.click(".entry .name")
        assert page.locator(".message").count() == 4
        page.fill("#find", "no such word")
        assert page.locator(".entry").count() == 0
        page.fill("#find", "plums")
        page.on("dialog", lambda d: d.accept())
        page.hover(".entry")
        page.click(".entry .drop")
        assert page.locator(".entry").count() == 0
        assert page.locator(".empty h1").is_visible()


def test_an_error_is_told_in_the_servers_words(browser, server):
    with chat(browser, server, fails=True) as page:
        page.click("#open-settings")
        page.fill("#num_ctx", "16")
        page.fill("#text", "word " * 60)
        page.press("#text", "Enter")
        page.wait_for_selector(".message .error")
        assert "token" in page.locator(".message .error").inner_text()
        assert page.locator("#send").is_visible()


def test_on_a_phone_the_conversations_are_a_drawer(browser, server):
    with chat(browser, server, width=390) as page:
        assert not page.locator("#side").is_visible()
        page.tap("#menu")
        page.wait_for_selector("#side.open")
        assert page.locator("#new").is_visible()
        page.tap("#new")
        page.wait_for_selector("#side:not(.open)", state="attached")


def test_the_page_lets_nothing_else_in(server):
    import httpx

    answer = httpx.get(server, headers={"accept": "text/html"})
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert httpx.get(server).text == "Ollama is running"
    assert httpx.get(server + "/web/../app.py").status_code == 404
    assert httpx.get(server + "/pivots", params={"model": "nobody"}).status_code == 404
