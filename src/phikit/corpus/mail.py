"""Mail as text: one document a message, with sender, date and subject above the body."""

from __future__ import annotations

import mailbox
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from phikit.corpus.html_text import html_text

MAX_MESSAGE = 64 << 20


def messages(path: Path) -> Iterator[tuple[int, str, str]]:
    """(number, text, "") of each message of an mbox or .eml file, or (number, "", what is wrong)."""
    if path.suffix == ".eml":
        yield 1, *_read(path.read_bytes())
        return
    box = mailbox.mbox(str(path), create=False)
    try:
        keys = box.keys()
        if not keys:
            raise ValueError("no message in it (an mbox starts with a line 'From ')")
        for number, key in enumerate(keys, 1):
            with box.get_file(key) as f:
                yield number, *_read(f.read(MAX_MESSAGE + 1))
    finally:
        box.close()


def _read(data: bytes) -> tuple[str, str]:
    if len(data) > MAX_MESSAGE:
        return "", f"a message of more than {MAX_MESSAGE >> 20} MB"
    try:
        message = message_from_bytes(data, policy=policy.default)
        assert isinstance(message, EmailMessage)
        body = message.get_body(preferencelist=("plain", "html"))
        if body is None:
            return "", "no text part"
        text = str(body.get_content())
        if body.get_content_subtype() == "html":
            text = html_text(text)
        head = [f"{name}: {message[name]}" for name in ("From", "Date", "Subject") if message[name]]
        return "\n".join([*head, "", text.strip()]), ""
    except (
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
    ) as e:  # what hostile headers raise
        return "", f"{type(e).__name__}: {e}"
