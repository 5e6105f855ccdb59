"""A conversation of `phikit chat`: turns, settings, commands, and answers that stream."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from phikit.records.io import read_json, write_json
from phikit.records.types import Turn
from phikit.serve.refusal import Refusal
from phikit.serve.sampling import Sampling, number, stops

if TYPE_CHECKING:
    from phikit.engine.base import Engine, GenRequest

MAX_TOKENS = 512  # of one answer, where num_predict says nothing
HELP = "/new starts over, /quit ends, /help lists the rest; Ctrl-C stops an answer"
COMMANDS = '''/new              start over
/system TEXT      a system text (without TEXT: none), and start over
/set              show the settings; /set NAME VALUE changes one (temperature, top_p, top_k, min_p,
                  repeat_penalty, seed, num_predict, stop ...)
/retry            answer the last question again, with another seed
/save FILE        keep the conversation as JSON; /load FILE goes on with it
/show             the model
/quit             end (also Ctrl-D)
"""               several lines up to the next """ are one message'''
_SHOWN = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty",
          "repeat_last_n", "num_predict", "seed", "stop")  # fmt: skip


class Conversation:
    """`take` one line after another. `render` stands in for the engine's own rendering of turns."""

    def __init__(
        self,
        engine: Engine,
        out: TextIO,
        notes: TextIO,
        *,
        name: str = "",
        settings: Sampling | None = None,
        system: str = "",
        render: Callable[[Sequence[Turn]], list[int]] | None = None,
    ) -> None:
        self.engine, self.out, self.notes, self.name = engine, out, notes, name or engine.info.name
        self.settings = settings or Sampling(temperature=0.0, top_p=1.0, top_k=0)
        self.system, self.render = system, render or engine.render
        self.turns: list[Turn] = []

    def take(self, line: str) -> bool:
        """Answers a question or obeys a command; False ends the conversation."""
        text = line.strip()
        if not text:
            return True
        if text.startswith("/"):
            word, _, rest = text.partition(" ")
            if word in ("/quit", "/bye", "/exit"):
                return False
            try:
                self._command(word, rest.strip())
            except (ValueError, OSError) as e:
                self.note(str(e))
            except Refusal as e:
                self.note(e.message)
            return True
        self._ask([*self.turns, Turn("user", text)])
        return True

    def note(self, text: str) -> None:
        print(text, file=self.notes)

    def _command(self, word: str, rest: str) -> None:
        if word in ("/new", "/clear"):
            self.turns = []
        elif word == "/help" or word == "/?":
            self.note(COMMANDS)
        elif word == "/system":
            self.system, self.turns = rest, []
        elif word == "/set":
            self._set(*rest.split(None, 1)) if rest else self._show_settings()
        elif word == "/retry":
            self._retry()
        elif word == "/save":
            self._save(rest)
        elif word == "/load":
            self._load(rest)
        elif word == "/show":
            i = self.engine.info
            self.note(
                f"{self.name}: {i.context:,} tokens of context, vocabulary {i.vocab:,}, numerics {i.numerics}"
            )
        else:
            self.note(f"{word} is no command; {HELP}")

    def _set(self, name: str, value: str = "") -> None:
        name = {"system": "", "max_tokens": "num_predict"}.get(name, name)
        if name not in _SHOWN:
            raise ValueError(f"no such setting; known are {', '.join(_SHOWN)}")
        if name == "stop":
            self.settings = replace(self.settings, stop=stops([value]) if value else ())
            return
        try:
            parsed = json.loads(value)
        except ValueError as e:
            raise ValueError(f"/set {name}: give a number") from e
        self.settings = replace(self.settings, **{name: number(name, parsed)})

    def _show_settings(self) -> None:
        values = asdict(self.settings)
        self.note("  ".join(f"{n} {json.dumps(values[n])}" for n in _SHOWN))

    def _retry(self) -> None:
        if not self.turns:
            raise ValueError("nothing was asked yet")
        asked = self.turns[:-1] if self.turns[-1].role == "assistant" else self.turns
        self.settings = replace(self.settings, seed=self.settings.seed + 1)
        if self.settings.temperature == 0:
            self.note("at temperature 0 the answer stays the same: /set temperature 0.8")
        self._ask(asked)

    def _save(self, path: str) -> None:
        if not path:
            raise ValueError("/save needs a file name")
        rows = [{"role": t.role, "content": t.content} for t in self.turns]
        write_json(Path(path).expanduser(), {"model": self.name, "system": self.system, "messages": rows})
        self.note(f"saved {len(rows)} messages to {path}")

    def _load(self, path: str) -> None:
        if not path:
            raise ValueError("/load needs a file name")
        value: Any = read_json(Path(path).expanduser())
        try:
            turns = [Turn(m["role"], m["content"]) for m in value["messages"]]
            if any(t.role not in ("user", "assistant") or not isinstance(t.content, str) for t in turns):
                raise ValueError("roles are user and assistant, contents are texts")
            self.system, self.turns = str(value.get("system") or ""), turns
        except (KeyError, TypeError, AttributeError, ValueError) as e:
            raise ValueError(f"{path}: not a saved conversation: {e}") from e
        self.note(f"{len(turns)} messages; the last: {turns[-1].content[:60] if turns else 'none'}")

    def _ask(self, asked: list[Turn]) -> None:
        if (answer := self._answer(asked)) is not None:
            self.turns = [*asked, Turn("assistant", answer)]

    def _answer(self, turns: list[Turn]) -> str | None:
        """Prints an answer as it comes; what was said until a Ctrl-C counts as the answer. None: refused."""
        try:
            prompt = tuple(self.render([Turn("system", self.system), *turns] if self.system else turns))
        except (ValueError, Refusal) as e:
            self.note(str(e))
            return None
        room = self.engine.info.context - len(prompt)
        if room < 1:
            what = "/new starts over" if len(turns) > 1 else "ask in fewer words"
            self.note(f"{len(prompt)} tokens do not fit the context of {self.engine.info.context}: {what}")
            return None
        request = self._request(prompt, room)
        begin, before = time.monotonic(), self.engine.usage.generated
        first = 0.0
        said: list[str] = []
        stopped = False
        try:
            for piece in _pieces(self.engine, request):
                first = first or time.monotonic()
                said.append(piece)
                self.out.write(piece)
                self.out.flush()
        except KeyboardInterrupt:
            stopped = True
        except (ValueError, RuntimeError) as e:
            self.note(str(e))
            return None
        print(file=self.out, flush=True)
        count, end = self.engine.usage.generated - before, time.monotonic()
        state = "stopped, " if stopped else ""
        rate = count / max(end - begin, 1e-9)
        late = f", first after {first - begin:.1f} s" if first - begin >= 1 else ""
        self.note(f"  [{state}{count} tokens, {rate:.1f} tokens/s{late}]")
        return "".join(said)

    def _request(self, prompt: tuple[int, ...], room: int) -> GenRequest:
        from phikit.engine.base import GenRequest

        s = self.settings
        most = MAX_TOKENS if s.num_predict < 0 else max(s.num_predict, 1)
        return GenRequest(prompt, min(most, room), stop=s.stop, stop_ids=self.engine.stop_ids, **s.drawing)


def _pieces(engine: Engine, request: GenRequest) -> Iterator[str]:
    """Text as it is generated where the engine can stream, else the whole answer."""
    if (stream := getattr(engine, "stream", None)) is not None:
        for piece in stream(request):
            yield piece if isinstance(piece, str) else piece.text
        return
    for _, completions in engine.generate([request]):
        yield completions[0].text
