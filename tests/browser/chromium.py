"""Pages in a real Chromium: headless with a probe in the page, or driven by playwright (fixture `browser`)."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: the page is not looked at"
)
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@contextmanager
def opened(
    browser, url: str, own: tuple[str, ...], *, width: int, height: int, touch: bool, fails: bool = False
) -> Iterator:
    """The page at `url`, open. Afterwards nothing may have been logged (unless it `fails`) nor thrown, no address asked
    for but those that begin with one of `own`, and nothing may stick out."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, has_touch=touch, is_mobile=touch
    )
    page = context.new_page()
    wrong: list[str] = []

    def said(message) -> None:
        if message.type in ("error", "warning") and not fails:
            wrong.append(f"{message.type}: {message.text}")

    page.on("console", said)
    page.on("pageerror", lambda e: wrong.append(f"exception: {e}"))
    page.on("request", lambda r: None if r.url.startswith(own) else wrong.append(f"asked {r.url}"))
    page.goto(url)
    yield page
    assert page.evaluate(OVERFLOW) == 0
    context.close()
    assert not wrong


def dom(page: Path, tmp_path: Path, width: int) -> str:
    """The document after its scripts ran."""
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    )
    flags += "--disable-component-update --disable-sync --virtual-time-budget=3000 --dump-dom"
    command = [
        str(CHROMIUM),
        *flags.split(),
        f"--window-size={width},900",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def probed(page: str, script: str, tmp_path: Path, width: int) -> str:
    """The document after its scripts and a probe ran, without the policy that would stop the probe: hostile text must
    be harmless by itself."""
    page, n = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert n == 1
    path = tmp_path / "page.html"
    path.write_text(page.replace("</head>", f"<script>{script}</script></head>"), encoding="utf-8")
    return dom(path, tmp_path, width)


def probe(out: str, name: str) -> str:
    """What the probe wrote into the dataset of the document."""
    found = re.search(rf'data-{name}="([^"]*)"', out.split("<head>")[0])
    assert found, f"the probe did not report {name}"
    return html.unescape(found[1])
