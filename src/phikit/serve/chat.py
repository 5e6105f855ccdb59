"""A terminal chat with a checkpoint: `phikit chat runs/nano`, or over a pipe, one question a line.

Answers go to stdout, everything else to stderr. Answers are greedy, so that a conversation can be repeated.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from phikit.records.types import Turn

if TYPE_CHECKING:
    from phikit.engine.base import Engine, GenRequest

STAGES = ("export", "dpo2", "dpo1", "sft")  # the latest comes first
MAX_TOKENS = 512  # of one answer
HELP = "/new starts over, /quit ends; Ctrl-C stops an answer"


def chat(path: Path | str) -> None:
    """Talks with the model at `path`: a run folder, a checkpoint folder, a Hugging Face folder, a .gguf file,
    an endpoint or a model name. Raises ValueError or FileNotFoundError where there is none."""
    from phikit.engine.open import open_engine

    spec = find(path)
    engine = open_engine(spec)
    try:
        print(f"{spec}: {engine.info.context:,} tokens of context. {HELP}", file=sys.stderr)
        talk(engine, _keyboard if sys.stdin.isatty() else _pipe, sys.stdout, sys.stderr)
    finally:
        engine.close()


def find(path: Path | str) -> str:
    """What to open: of a run folder its latest checkpoint (export, dpo2, dpo1, sft), else `path` itself."""
    folder = Path(path)
    if not folder.is_dir() or any((folder / f).is_file() for f in ("config.json", "hf/config.json")):
        return str(path)
    for stage in STAGES:
        if (folder / stage / "hf" / "config.json").is_file():
            return str(folder / stage)
    raise ValueError(
        f"{folder}: no chat model: none of {', '.join(STAGES)} is there yet; `phikit run` makes them, or "
        "give a folder with config.json"
    )


def talk(engine: Engine, ask: Callable[[], str | None], out: TextIO, notes: TextIO) -> None:
    """The conversation: `ask` gives the next line, None at the end. A question that no longer fits the
    context is refused with the numbers, never cut."""
    turns: list[Turn] = []
    while True:
        try:
            line = ask()
        except KeyboardInterrupt:
            print(f"\n{HELP}", file=notes)
            continue
        if line is None or line.strip() == "/quit":
            return
        if line.strip() == "/new":
            turns = []
            continue
        if not line.strip():
            continue
        asked = [*turns, Turn("user", line.strip())]
        if (answer := _answer(engine, asked, out, notes)) is not None:
            turns = [*asked, Turn("assistant", answer)]


def _answer(engine: Engine, turns: list[Turn], out: TextIO, notes: TextIO) -> str | None:
    """Prints an answer as it comes; what was said until a Ctrl-C counts as the answer. None: refused."""
    from phikit.engine.base import GenRequest

    prompt = tuple(engine.render(turns))
    room = engine.info.context - len(prompt)
    if room < 1:
        what = "/new starts over" if len(turns) > 1 else "ask in fewer words"
        print(f"{len(prompt)} tokens do not fit the context of {engine.info.context}: {what}", file=notes)
        return None
    request = GenRequest(prompt, min(MAX_TOKENS, room), temperature=0.0, stop_ids=engine.stop_ids)
    begin, before = time.monotonic(), engine.usage.generated
    said: list[str] = []
    stopped = False
    try:
        for piece in _pieces(engine, request):
            said.append(piece)
            out.write(piece)
            out.flush()
    except KeyboardInterrupt:
        stopped = True
    print(file=out, flush=True)
    count, seconds = engine.usage.generated - before, time.monotonic() - begin
    state = "stopped, " if stopped else ""
    print(f"  [{state}{count} tokens, {count / max(seconds, 1e-9):.1f} tokens/s]", file=notes)
    return "".join(said)


def _pieces(engine: Engine, request: GenRequest) -> Iterator[str]:
    """Text as it is generated where the engine can stream, else the whole answer."""
    if (stream := getattr(engine, "stream", None)) is not None:
        for piece in stream(request):
            yield piece if isinstance(piece, str) else piece.text
        return
    for _, completions in engine.generate([request]):
        yield completions[0].text


def _keyboard() -> str | None:
    try:
        return input("> ")
    except EOFError:
        return None


def _pipe() -> str | None:
    return sys.stdin.readline() or None
