"""Mail as text: one document a message, with sender, date and subject above the body."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import IO

from phikit.corpus.html_text import html_text
from phikit.records.remote import Place

MAX_MESSAGE = 64 << 20


def messages(path: Place) -> Iterator[tuple[int, str, str]]:
    """(number, text, "") of each message of an mbox or .eml file, or (number, "", what is wrong). One message at a
    time is held, and of one that is too long no more than shows it."""
    with path.open("rb") as f:
        number = 0
        for number, data in enumerate([f.read(MAX_MESSAGE + 1)] if path.suffix == ".eml" else _parts(f), 1):
            yield number, *_read(data)
        if not number:
            raise ValueError("no message in it (an mbox starts with a line 'From ')")


def _parts(f: IO[bytes]) -> Iterator[bytes]:
    """The messages of an mbox, without the `From ` lines that part them. (`mailbox.mbox` keeps an index of all.)"""
    parts: list[bytes] | None = None
    size, fresh = 0, True
    while line := f.readline(1 << 20):
        if fresh and line.startswith(b"From "):
            if parts is not None:
                yield b"".join(parts)
            parts, size = [], 0
        elif parts is not None and size <= MAX_MESSAGE:
            parts.append(line)
            size += len(line)
        fresh = line.endswith(b"\n")
    if parts is not None:
        yield b"".join(parts)


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
