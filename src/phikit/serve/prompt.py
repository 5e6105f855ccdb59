"""From messages to token ids: the model's own template, system text and messages of its Modelfile, tools."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from phikit.engine.marks import Marks
from phikit.engine.template import ChatTemplate
from phikit.serve.facts import Facts
from phikit.serve.go_template import GoTemplate
from phikit.serve.refusal import bad
from phikit.store.store import Parts

Pieces = list[tuple[str, bool]]
_PROBE = {"type": "function", "function": {
    "name": "probe_tool", "description": "d", "parameters": {"type": "object", "properties": {}},
}}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Renderer:
    """A template, Ollama's or Jinja, and whether it knows tools. `source` is "" for a base model without one."""

    source: str
    form: Literal["go", "jinja", "none"]
    knows_tools: bool
    knows_suffix: bool
    facts: Facts

    @property
    def tools_by(self) -> Literal["template", "prompt", "none"]:
        """How tools reach the model: its own template, or our prompt with a grammar, which only llama.cpp has."""
        if self.knows_tools:
            return "template"
        return "prompt" if self.facts.kind == "gguf" and self.form != "none" else "none"

    async def pieces(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (), **values: Any
    ) -> Pieces:
        """Pieces of the rendered conversation: (text, are special tokens in it special). Raises a Refusal."""
        try:
            if self.form == "none":
                return _plain(messages)
            if self.form == "go":
                marks = Marks(tuple(self.facts.specials))
                hidden, hidden_tools, hidden_values = (
                    marks.hide(x) for x in (list(messages), list(tools), values)
                )
                go = _go(self.source)
                text = await asyncio.to_thread(lambda: go.render(hidden, hidden_tools, **hidden_values))
                return list(marks.split(text))
            template = _jinja(self.source, self.facts.bos, self.facts.eos, tuple(self.facts.specials))
            return list(await asyncio.to_thread(template.render_messages, _strict(messages), tools))
        except ValueError as e:
            raise bad(str(e)) from e


def renderer(facts: Facts, parts: Parts, override: str | None = None) -> Renderer:
    """The template of a request: its own, else the Modelfile's, else the weights'. Raises a Refusal where it is not
    one."""
    source = override or parts.template or facts.template or ""
    # A template of no action (as Ollama writes for a GGUF it knows nothing of) says only: the prompt.
    if not source:
        return Renderer("", "none", False, False, facts)
    try:
        return _renderer(source, facts.bos, facts.eos, tuple(facts.specials), facts)
    except ValueError as e:
        raise bad(f"the chat template is not one: {e}", "template") from e


def _renderer(source: str, bos: str, eos: str, specials: tuple[str, ...], facts: Facts) -> Renderer:
    if is_jinja(source):
        return Renderer(source, "jinja", _jinja_knows_tools(source, bos, eos, specials), False, facts)
    go = _go(source)
    return Renderer(source, "go", go.knows_tools, go.knows_suffix, facts)


def is_jinja(source: str) -> bool:
    """Go's templates have `{{ .Field }}`; a Jinja chat template has statements or `messages`."""
    return "{%" in source or ("{{" in source and "messages" in source and ".Messages" not in source)


@lru_cache(maxsize=32)
def _go(source: str) -> GoTemplate:
    return GoTemplate(source)


@lru_cache(maxsize=32)
def _jinja(source: str, bos: str, eos: str, specials: tuple[str, ...]) -> ChatTemplate:
    return ChatTemplate(source, bos, eos, specials)


@lru_cache(maxsize=32)
def _jinja_knows_tools(source: str, bos: str, eos: str, specials: tuple[str, ...]) -> bool:
    """Whether a tool's name comes out of the template where it is given the tool."""
    template = _jinja(source, bos, eos, specials)
    try:
        pieces = template.render_messages([{"role": "user", "content": "hi"}], [_PROBE])
        return any("probe_tool" in text for text, _ in pieces)
    except ValueError:
        return False


def _strict(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as Hugging Face's templates expect them: no fields that are nothing."""
    found = []
    for m in messages:
        row = {k: v for k, v in m.items() if v not in (None, [], "") or k == "content"}
        row["content"] = m.get("content") or ""
        if calls := m.get("tool_calls"):
            row["tool_calls"] = [{"type": "function", **c} for c in calls]
        found.append(row)
    return found


def _plain(messages: Sequence[Mapping[str, Any]]) -> Pieces:
    """For a base model: contents alone, as Ollama's `{{ .Prompt }}`."""
    return [("\n\n".join(str(m.get("content") or "") for m in messages), False)]
