"""A terminal chat: `phikit chat MODEL`, or over a pipe, one question a line.

Answers go to stdout, everything else to stderr, so the output can be piped on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phikit.serve.conversation import HELP, Conversation
from phikit.serve.refusal import Refusal
from phikit.store import local

if TYPE_CHECKING:
    from phikit.records.types import Turn
    from phikit.serve.prompt import Renderer
    from phikit.store.store import Store

_FENCE = '"""'
_COMMANDS = ("/new", "/system ", "/set ", "/save ", "/load ", "/retry", "/show", "/help", "/quit")


def chat(spec: Path | str) -> None:
    """Talks with a model: a name of the store (fetched where it is not there, as `ollama run` does), a run folder, a
    checkpoint, a Hugging Face folder, a .gguf file or an endpoint. Raises ValueError or OSError."""
    talk_to = open_model(str(spec))
    engine = talk_to.engine
    terminal = sys.stdin.isatty()
    if terminal:
        _with_history()
    try:
        print(f"{talk_to.name}: {engine.info.context:,} tokens of context. {HELP}", file=sys.stderr)
        talk(talk_to, _keyboard if terminal else _pipe)
    finally:
        engine.close()


def open_model(spec: str) -> Conversation:
    """The model's engine, with the template, system text and parameters of its Modelfile where it has one."""
    from phikit.engine.open import open_engine, split_kind
    from phikit.serve.command import store

    found = find(spec)
    if spec.startswith(("http://", "https://")) or split_kind(spec)[0] or Path(found).exists():
        return Conversation(open_engine(found), sys.stdout, sys.stderr, name=found)
    try:
        return _of_store(store(), spec)
    except Refusal as e:  # a template or a parameter of its Modelfile
        raise ValueError(f"{spec}: {e}") from e


def find(path: Path | str) -> str:
    """What to open: of a run folder its latest checkpoint (export, dpo2, dpo1, sft), else `path` itself."""
    folder = Path(path)
    if not folder.is_dir():
        return str(path)
    weights = local.weights_of(folder)
    return str(weights.parent if weights != folder and weights.name == "hf" else weights)


def talk(conversation: Conversation, ask: Callable[[str], str | None]) -> None:
    """`ask(prompt)` gives the next line, None at the end. Lines between two `\"\"\"` are one message."""
    while True:
        try:
            line = ask("> ")
            if line is not None and line.lstrip().startswith(_FENCE):
                line = _fenced(line.lstrip()[len(_FENCE) :], ask)
        except KeyboardInterrupt:
            print(f"\n{HELP}", file=conversation.notes)
            continue
        if line is None or not conversation.take(line):
            return


def _fenced(first: str, ask: Callable[[str], str | None]) -> str:
    lines = [first.rstrip("\n")]
    while _FENCE not in lines[-1]:
        line = ask("... ")
        if line is None:
            break
        lines.append(line.rstrip("\n"))
    lines[-1] = lines[-1].split(_FENCE)[0]
    return "\n".join(lines).strip("\n")


def _of_store(store: Store, spec: str) -> Conversation:
    from phikit.engine.open import open_weights
    from phikit.serve.command import fetch
    from phikit.serve.facts import facts
    from phikit.serve.prompt import renderer
    from phikit.serve.sampling import sampling
    from phikit.store.names import parse
    from phikit.store.store import ModelNotFound

    try:
        entry = store.find(spec)
    except ModelNotFound:
        print(f"{parse(spec)} is not here: asking its registry", file=sys.stderr)
        entry = fetch(store, spec)
    parts = store.runnable(entry)
    known = facts(parts.weights)
    form = renderer(known, parts)
    # As the server samples, but with one seed: a conversation can be repeated.
    settings = sampling({"seed": 0} | parts.parameters, {})
    engine = open_weights(parts.weights)
    render = _renders(engine, form) if parts.template else None
    return Conversation(
        engine,
        sys.stdout,
        sys.stderr,
        name=str(entry.name),
        settings=settings,
        system=parts.system or "",
        render=render,
    )


def _renders(engine: Any, form: Renderer) -> Callable[[Sequence[Turn]], list[int]]:
    """Rendering by the Modelfile's template in place of the weights' own."""

    def render(turns: Sequence[Turn]) -> list[int]:
        pieces = asyncio.run(form.pieces([{"role": t.role, "content": t.content} for t in turns]))
        return engine.encode_pieces(pieces)

    return render


def _keyboard(prompt: str) -> str | None:
    try:
        return input(prompt)
    except EOFError:
        return None


def _pipe(_: str) -> str | None:
    return sys.stdin.readline() or None


def _with_history() -> None:
    """Line editing, the lines of earlier chats, and completion of commands, where Python has readline."""
    try:
        import atexit
        import readline
    except ImportError:
        return
    path = Path.home() / ".phikit" / "chat_history"
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    readline.set_completer_delims("")
    readline.set_completer(lambda text, i: [*(c for c in _COMMANDS if c.startswith(text)), None][i])
    readline.parse_and_bind("tab: complete")

    def keep() -> None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)

    atexit.register(keep)
