"""Chat templates of other people's models. They are programs of strangers: they run in a child process with little
time and memory, in jinja2's immutable sandbox (`template_child.py`)."""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from phikit.engine.marks import Marks
from phikit.engine.spans import rendered
from phikit.records.types import Turn
from phikit.text.chat_format import Rendered
from phikit.text.tokenizer import Tokenizer

MAX_SOURCE = 1 << 18  # characters; the longest published templates have about 20,000


class ChatTemplate:
    """A Jinja chat template (`tokenizer_config.json` or GGUF) and the special tokens of its model. Raises
    ValueError where the template is no Jinja."""

    def __init__(self, source: str, bos: str, eos: str, specials: Sequence[str]) -> None:
        if len(source) > MAX_SOURCE:
            raise ValueError(f"chat template: {len(source):,} characters; {MAX_SOURCE:,} are the most")
        self.source, self.bos, self.eos, self.specials = source, bos, eos, tuple(specials)
        reply = _child.ask({"source": source, "bos": bos, "eos": eos, "messages": None})
        if "error" in reply:
            raise ValueError(f"chat template, {reply['error']}")

    def render(self, turns: Sequence[Turn]) -> Iterator[tuple[str, bool]]:
        """Pieces (text, special): where `special` is True, special-token strings are tokens. There is one
        piece unless a turn's content holds such a string; that string becomes a piece of its own with
        False. Raises ValueError where the template refuses the conversation, fails, or takes too much time
        or memory."""
        return self.render_messages([{"role": t.role, "content": t.content} for t in turns])

    def render_messages(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        open_turn: bool = True,
    ) -> Iterator[tuple[str, bool]]:
        """As `render`, of messages that may hold more than role and content, and of tools (JSON schemas) for a
        template that knows them. `open_turn`: with an open assistant header at the end."""
        marks = Marks(self.specials)
        request = {
            "source": self.source, "bos": self.bos, "eos": self.eos, "messages": marks.hide(list(messages)),
            "tools": marks.hide(list(tools)), "open": open_turn,
        }  # fmt: skip
        reply = _child.ask(request)
        if "error" in reply:
            raise ValueError(f"the model's chat template refuses this conversation: {reply['error']}")
        return marks.split(reply["text"])


class FileChat:
    """Conversations as a file's own template says, in the ids of its tokenizer. `stop_ids` end a turn."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, stop_ids: Sequence[int]) -> None:
        self.tokenizer, self.template, self.stop_ids = tokenizer, template, tuple(stop_ids)
        names = sorted(tokenizer.special_ids, key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, names)) + ")" if names else r"((?!))")

    def render(self, turns: Sequence[Turn]) -> list[int]:
        """Raises ValueError where the model has no template, or the template refuses."""
        if self.template is None:
            raise ValueError("the model has no chat template; it is a base model: use encode()")
        return self.encode_pieces(self.template.render(turns))

    def encode_pieces(self, pieces: Iterable[tuple[str, bool]]) -> list[int]:
        """Ids of pieces (text, special) of a rendered conversation."""
        return [
            i for text, special in pieces for i in (self.encode if special else self.tokenizer.encode)(text)
        ]

    @property
    def source(self) -> str | None:
        return self.template.source if self.template else None

    @property
    def bos(self) -> str:
        return self.template.bos if self.template else ""

    @property
    def eos(self) -> str:
        return self.template.eos if self.template else ""

    def rendered(self, turns: Sequence[Turn], *, open_assistant: bool = False) -> Rendered:
        """Tokens and loss spans, as `text.chat.render` gives them (`engine/spans.py`)."""
        return rendered(self, turns, open_assistant)

    def encode(self, text: str) -> list[int]:
        """Ids of a text whose special-token strings are tokens."""
        ids: list[int] = []
        for i, piece in enumerate(self._special.split(text)):
            if i % 2:
                ids.append(self.tokenizer.special_ids[piece])
            elif piece:
                ids += self.tokenizer.encode(piece)
        return ids


class _Child:
    """The process, started at the first template and again after one that ended it. Thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0

    def ask(self, request: dict[str, Any]) -> dict[str, str]:
        with self.lock:
            if self.process is None or self.owner != os.getpid():  # a fork has not its parent's child
                self.process, self.owner = self._start(), os.getpid()
            assert self.process.stdin
            assert self.process.stdout
            line = b""
            try:
                with suppress(BrokenPipeError):
                    self.process.stdin.write(json.dumps(request).encode() + b"\n")
                    self.process.stdin.flush()
                    line = self.process.stdout.readline()
            except BaseException:  # Ctrl-C: the answer would be taken for that of the next request
                self.stop()
                raise
            if not line.endswith(b"\n"):
                self.stop()
                return {"error": "it takes too much time or memory"}
            return json.loads(line)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "phikit.engine.template_child"]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        if self.process is not None and self.owner == os.getpid():
            assert self.process.stdin
            assert self.process.stdout
            self.process.kill()
            self.process.wait()
            with suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.stdout.close()
        self.process = None


_child = _Child()
atexit.register(_child.stop)
