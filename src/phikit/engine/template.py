"""Chat templates of other people's models, run in jinja2's immutable sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

from phikit.records.types import Turn

# Two private-use characters mark where a turn's text held a special-token string.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"


class ChatTemplate:
    """A Jinja chat template (`tokenizer_config.json` or GGUF) and the special tokens of its model."""

    def __init__(self, source: str, bos: str, eos: str, specials: Sequence[str]) -> None:
        from jinja2 import TemplateError, TemplateSyntaxError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self.error = TemplateError
        env = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        env.globals["raise_exception"] = _refuse
        env.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self.template = env.from_string(source)
        except TemplateSyntaxError as e:
            raise ValueError(f"chat template, line {e.lineno}: {e.message}") from e
        self.bos, self.eos, self.specials = bos, eos, tuple(specials)

    def render(self, turns: Sequence[Turn]) -> Iterator[tuple[str, bool]]:
        """Pieces (text, special): where `special` is True, special-token strings are tokens. There is one
        piece unless a turn's content holds such a string; that string becomes a piece of its own with
        False."""
        found = re.compile(
            "|".join(re.escape(s) for s in sorted(self.specials, key=len, reverse=True)) or r"(?!)"
        )
        marked: list[str] = []

        def mark(m: re.Match[str]) -> str:
            marked.append(m.group())
            return f"{_OPEN}{len(marked) - 1}{_CLOSE}"

        messages = [{"role": t.role, "content": found.sub(mark, _plain(t.content))} for t in turns]
        try:
            text = self.template.render(
                messages=messages, add_generation_prompt=True, bos_token=self.bos, eos_token=self.eos
            )
        except self.error as e:
            raise ValueError(f"the model's chat template refuses this conversation: {e}") from e
        for i, piece in enumerate(re.split(f"{_OPEN}([0-9]+){_CLOSE}", text)):
            if piece:
                yield (marked[int(piece)], False) if i % 2 else (piece, True)


def _plain(text: str) -> str:
    return text.replace(_OPEN, "").replace(_CLOSE, "")


def _refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
