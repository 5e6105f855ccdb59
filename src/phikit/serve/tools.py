"""Tool calls: what a model is told of the tools, what its answer must look like, and the calls read out of it.

Templates that know tools are given them, and the calls are read in the form that such models write. For any other
model a system text describes the tools and a JSON schema holds the answer to one of two forms:

    {"tool_calls": [{"name": "...", "arguments": {...}}]}   or   {"answer": "..."}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from phikit.serve.refusal import bad

MAX_TOOLS, MAX_CALLS = 128, 8
Choice = Literal["auto", "none", "required"]
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: dict[str, Any]


def check(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tools of a request as {"type": "function", "function": {...}}. Raises a Refusal."""
    if len(tools) > MAX_TOOLS:
        raise bad(f"{len(tools)} tools; {MAX_TOOLS} are the most", "tools")
    found = []
    for i, tool in enumerate(tools):
        function = tool.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name, str) or not _NAME.fullmatch(name):
            raise bad(f"tools.{i}: a tool is a function with a name of letters, digits, _ . and -", "tools")
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, Mapping):
            raise bad(f"tools.{i}: parameters must be a JSON schema object", "tools")
        found.append({"type": "function", "function": {
            "name": name, "description": str(function.get("description") or ""),
            "parameters": dict(parameters or {"type": "object", "properties": {}}),
        }})  # fmt: skip
    return found


def schema(tools: Sequence[Mapping[str, Any]], choice: Choice, only: str | None = None) -> dict[str, Any]:
    """The JSON schema of an answer. `only` names the one tool that may be called. Raises a Refusal where it is none
    of the tools."""
    functions = [t["function"] for t in tools if only in (None, t["function"]["name"])]
    if not functions:
        raise bad(f"tool_choice names {only!r}, which is none of the tools", "tool_choice")
    definitions: dict[str, Any] = {}
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": f["name"]}, "arguments": _own(f["parameters"], definitions, i)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for i, f in enumerate(functions)
    ]
    form: dict[str, Any] = _object("tool_calls", {
        "type": "array", "items": {"anyOf": calls}, "minItems": 1, "maxItems": 1 if only else MAX_CALLS,
    })  # fmt: skip
    if choice == "auto":
        form = {"anyOf": [form, _object("answer", {"type": "string"})]}
    return form | ({"$defs": definitions} if definitions else {})


def system_text(tools: Sequence[Mapping[str, Any]], choice: Choice) -> str:
    """What a model without a template for tools is told."""
    lines = ["You can call these functions:"]
    lines += [json.dumps(t["function"], ensure_ascii=False) for t in tools]
    lines.append('To call functions, answer {"tool_calls": [{"name": "...", "arguments": {...}}]}.')
    if choice == "auto":
        lines.append('When no function helps, answer {"answer": "..."} with your answer to the user.')
    return "\n".join(lines)


def as_text(messages: Sequence[Mapping[str, Any]], *, form: bool) -> list[dict[str, Any]]:
    """A conversation for a template that knows no tools: calls become the assistant's text (in the `form` of an answer
    where more of them may follow), results the user's."""
    found = []
    for m in messages:
        m = dict(m)
        if m.get("tool_calls"):
            calls = [
                {"name": c["function"]["name"], "arguments": c["function"].get("arguments") or {}}
                for c in m["tool_calls"]
            ]
            told = "; ".join(
                f"{c['name']} with {json.dumps(c['arguments'], ensure_ascii=False)}" for c in calls
            )
            content = json.dumps({"tool_calls": calls}, ensure_ascii=False) if form else f"I call {told}."
            m = {"role": "assistant", "content": content}
        elif m["role"] == "tool":
            name = m.get("tool_name") or m.get("name") or "The function"
            m = {"role": "user", "content": f"{name} returned: {m.get('content') or ''}"}
        found.append(m)
    return found


def read_answer(text: str) -> tuple[str, list[Call]]:
    """(text, calls) of an answer in the form of `schema`; a text that is not in it is the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text, []
    if isinstance(value, dict):
        if isinstance(value.get("answer"), str):
            return value["answer"], []
        if calls := _calls(value.get("tool_calls")):
            return "", calls
    return text, []


_BLOCKS = (
    re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL),  # Hermes, Qwen
    re.compile(r"<\|tool_call\|>\s*(\[.*?\])\s*<\|/tool_call\|>", re.DOTALL),  # Phi-4-mini
    re.compile(r"\[TOOL_CALLS\]\s*(\[.*\])", re.DOTALL),  # Mistral
)
OPENINGS = ("<tool_call>", "<|tool_call|>", "[TOOL_CALLS]", "{", "[{")


def read_native(text: str) -> tuple[str, list[Call]]:
    """(text, calls) of an answer as models write that were trained on tools: marked blocks, or JSON alone."""
    for block in _BLOCKS:
        if found := block.findall(text):
            calls = [c for part in found for c in _calls(_json(part))]
            if calls:
                return block.sub("", text).strip(), calls
    if text.lstrip().startswith(("{", "[{")) and (calls := _calls(_json(text.strip()))):
        return "", calls
    return text, []


def may_be_call(text: str) -> bool:
    """Whether an answer that begins so can still turn out to be a call."""
    text = text.lstrip()
    return any(o.startswith(text) or text.startswith(o) for o in OPENINGS)


def _calls(value: Any) -> list[Call]:
    found = []
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict):
            return []
        inner = one.get("function")
        one = inner if isinstance(inner, dict) else one
        arguments = one.get("arguments", one.get("parameters"))
        arguments = _json(arguments) if isinstance(arguments, str) else arguments
        if not isinstance(one.get("name"), str) or not isinstance(arguments, dict):
            return []
        found.append(Call(one["name"], arguments))
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _object(name: str, value: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {name: value}, "required": [name], "additionalProperties": False}


def _own(parameters: Mapping[str, Any], definitions: dict[str, Any], number: int) -> dict[str, Any]:
    """A tool's schema with its definitions moved to the top under names of their own."""
    own = dict(parameters)
    names = {}
    for key in ("$defs", "definitions"):
        for name, value in (own.pop(key, None) or {}).items():
            names[f"#/{key}/{name}"] = f"#/$defs/t{number}_{name}"
            definitions[f"t{number}_{name}"] = value
    own.setdefault("type", "object")
    for name in list(definitions):
        if name.startswith(f"t{number}_"):
            definitions[name] = _moved(definitions[name], names)
    return _moved(own, names)


def _moved(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            k: names.get(v, v) if k == "$ref" and isinstance(v, str) else _moved(v, names)
            for k, v in value.items()
        }
    return [_moved(v, names) for v in value] if isinstance(value, list) else value


_HEAD = re.compile(r'\s*\{\s*"(answer|tool_calls)"\s*:\s*"?')
_TEXT = re.compile(
    r'(?:[^"\\]|\\["\\/bfnrt]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4})*'
)


class AnswerText:
    """The text of {"answer": "..."} while it is being written: JSON pieces in, text out."""

    def __init__(self) -> None:
        self.seen, self.at, self.form = "", 0, ""

    def add(self, piece: str) -> str:
        """What of the answer's text became known; "" as long as the form is open, and always for calls."""
        self.seen += piece
        if not self.form:
            m = _HEAD.match(self.seen)
            if not m or (m[1] == "answer" and not m[0].endswith('"')):
                return ""
            self.form, self.at = m[1], m.end()
        if self.form != "answer":
            return ""
        m = _TEXT.match(self.seen, self.at)
        assert m
        self.at = m.end()
        return json.loads(f'"{m[0]}"', strict=False)
