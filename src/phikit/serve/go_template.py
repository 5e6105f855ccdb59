"""Chat templates of Ollama (Go's text/template), rendered to the same text.

Templates with `.Messages` see the whole conversation, older ones one turn at a time (`.System`, `.Prompt`,
`.Response`), as in Ollama. Messages of one role in a row are joined by a blank line first. Steps and output are
bounded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from phikit.serve import go_parse
from phikit.serve.go_parse import Node, Operand, Pipe, TemplateError, Tree

MAX_STEPS, MAX_TEXT = 200_000, 1 << 24
_ANSWER = "\ue0f2"  # stands where the answer begins; a private-use character


class GoTemplate:
    """Raises TemplateError where the source is none."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tree = _parse(source)
        self.has_messages = "Messages" in self.tree.fields
        self.knows_tools = "Tools" in self.tree.fields
        self.knows_suffix = "Suffix" in self.tree.fields

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (), **values: Any
    ) -> str:
        """The text up to where the answer begins. `messages` are as on Ollama's wire; `values` are further fields,
        such as Suffix. Raises TemplateError."""
        rows = _collated(messages)
        system = "\n\n".join(m["Content"] for m in rows if m["Role"] == "system")
        base = {"Tools": [_tool(t) for t in tools], "System": system, "Think": False, "ThinkLevel": "",
                "IsThinkSet": False, "Suffix": "", "Prompt": "", "Response": "", **values}  # fmt: skip
        if self.has_messages:
            return _Run(self.tree).text({**base, "Messages": rows})
        texts, turn = [], {"System": "", "Prompt": "", "Response": ""}
        for m in rows:
            role, content = m["Role"], m["Content"]
            if (role == "system" and (turn["Prompt"] or turn["Response"])) or (
                role == "user" and turn["Response"]
            ):
                texts.append(self._turn({**base, **turn}))
                turn = {"System": "", "Prompt": "", "Response": ""}
            key = {"system": "System", "user": "Prompt", "assistant": "Response"}.get(role)
            if key:
                turn[key] = f"{turn[key]}\n\n{content}" if turn[key] else content
        said = turn["Response"]
        last = self._turn({**base, **turn, "Response": _ANSWER})
        return "".join([*texts, last.split(_ANSWER)[0], said])

    def _turn(self, values: Mapping[str, Any]) -> str:
        text = _Run(self.tree).text(values)
        return text if "Response" in self.tree.fields else text + values["Response"]


@lru_cache(maxsize=32)
def _parse(source: str) -> Tree:
    return go_parse.parse(source)


def _collated(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for m in messages:
        calls = [
            {"ID": c.get("id", ""), "Function": {"Index": i, "Name": c["function"]["name"],
             "Arguments": c["function"].get("arguments") or {}}}
            for i, c in enumerate(m.get("tool_calls") or [])
        ]  # fmt: skip
        content = m.get("content") or ""
        if (
            rows
            and rows[-1]["Role"] == m["role"]
            and not calls
            and not rows[-1]["ToolCalls"]
            and m["role"] != "tool"
        ):
            rows[-1]["Content"] += f"\n\n{content}"
            continue
        rows.append({
            "Role": m["role"], "Content": content, "Thinking": m.get("thinking") or "", "ToolCalls": calls,
            "ToolName": m.get("tool_name") or "", "ToolCallID": m.get("tool_call_id") or "", "Images": [],
        })  # fmt: skip
    return rows


class _Shown(dict[str, Any]):
    """A struct that prints as its JSON and whose fields have Go's names."""

    def __init__(self, fields: Mapping[str, Any], shown: Any) -> None:
        super().__init__(fields)
        self.shown = shown


def _tool(tool: Mapping[str, Any]) -> _Shown:
    function = dict(tool.get("function") or {})
    parameters = function.get("parameters") or {}
    inner = {
        "Name": function.get("name", ""), "Description": function.get("description", ""),
        "Parameters": _Shown({"Type": parameters.get("type", ""), "Required": parameters.get("required", []),
                              "Properties": parameters.get("properties", {})}, parameters),
    }  # fmt: skip
    return _Shown({"Type": tool.get("type", "function"), "Function": _Shown(inner, function)}, tool)


class _Break(TemplateError):
    pass


class _Continue(TemplateError):
    pass


class _Run:
    def __init__(self, tree: Tree) -> None:
        self.tree, self.out, self.size, self.steps, self.depth = tree, [], 0, 0, 0

    def text(self, data: Mapping[str, Any]) -> str:
        try:
            self.nodes(self.tree.body, data, [{"$": data}])
        except (TypeError, IndexError, KeyError, ValueError, RecursionError, OverflowError) as e:
            if isinstance(e, TemplateError):
                raise
            raise TemplateError(f"the model's template cannot render this conversation: {e}") from e
        return "".join(self.out)

    def write(self, text: str) -> None:
        self.size += len(text)
        if self.size > MAX_TEXT:
            raise TemplateError(f"the template's text is longer than {MAX_TEXT:,} characters")
        self.out.append(text)

    def step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise TemplateError(f"the template takes more than {MAX_STEPS:,} steps")

    def nodes(self, nodes: Sequence[Node], dot: Any, scopes: list[dict[str, Any]]) -> None:
        for node in nodes:
            self.step()
            if node.kind == "text":
                self.write(node.text)
            elif node.kind == "pipe":
                assert node.pipe
                value = self.pipe(node.pipe, dot, scopes)
                if not node.pipe.declares:
                    self.write(_print(value))
            elif node.kind == "break":
                raise _Break
            elif node.kind == "continue":
                raise _Continue
            elif node.kind == "template":
                self.call(node, dot, scopes)
            elif node.kind == "range":
                self.loop(node, dot, scopes)
            else:
                assert node.pipe
                inner = [*scopes, {}]
                value = self.pipe(node.pipe, dot, inner)
                if _true(value):
                    self.nodes(node.body, value if node.kind == "with" else dot, inner)
                else:
                    self.nodes(node.other, dot, inner)

    def call(self, node: Node, dot: Any, scopes: list[dict[str, Any]]) -> None:
        if node.text not in self.tree.named:
            raise TemplateError(f"the template calls {node.text[:40]!r}, which it does not define")
        self.depth += 1
        if self.depth > go_parse.MAX_DEPTH:
            raise TemplateError("the template calls itself too deep")
        value = self.pipe(node.pipe, dot, scopes) if node.pipe else None
        self.nodes(self.tree.named[node.text], value, [{"$": value}])
        self.depth -= 1

    def loop(self, node: Node, dot: Any, scopes: list[dict[str, Any]]) -> None:
        assert node.pipe
        value = self.pipe(Pipe(node.pipe.commands), dot, scopes)
        if isinstance(value, Mapping):
            items = sorted(value.items())
        elif isinstance(value, int) and not isinstance(value, bool):
            items = [(i, i) for i in range(min(value, MAX_STEPS))]
        else:
            items = list(enumerate(value if isinstance(value, list | tuple) else []))
        for key, item in items:
            self.step()
            names = node.pipe.declares
            inner = {names[-1]: item} | ({names[0]: key} if len(names) == 2 else {}) if names else {}
            try:
                self.nodes(node.body, item, [*scopes, inner])
            except _Continue:
                continue
            except _Break:
                break
        if not items:
            self.nodes(node.other, dot, [*scopes, {}])

    def pipe(self, pipe: Pipe, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        value, given = None, False
        for command in pipe.commands:
            value = self.command(command, dot, scopes, [value] if given else [])
            given = True
        for name in pipe.declares:
            if pipe.assigns:
                for scope in reversed(scopes):
                    if name in scope:
                        scope[name] = value
                        break
                else:
                    raise TemplateError(f"the template sets {name}, which it does not declare")
            else:
                scopes[-1][name] = value
        return value

    def command(
        self, command: tuple[Operand, ...], dot: Any, scopes: list[dict[str, Any]], last: list[Any]
    ) -> Any:
        self.step()
        first = command[0]
        if first.kind != "call":
            if len(command) > 1 or last:
                raise TemplateError("the template gives arguments to what is no function")
            return self.operand(first, dot, scopes)
        if first.value in ("and", "or"):  # evaluated only as far as needed
            value: Any = None
            for operand in (*command[1:], *(Operand("literal", x) for x in last)):
                value = self.operand(operand, dot, scopes)
                if _true(value) == (first.value == "or"):
                    break
            return value
        if first.value not in _FUNCTIONS:
            raise TemplateError(f"the template calls {first.value[:40]!r}, which is not known here")
        return _FUNCTIONS[first.value](*(self.operand(o, dot, scopes) for o in command[1:]), *last)

    def operand(self, operand: Operand, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        value: Any
        if operand.kind == "literal":
            value = operand.value
        elif operand.kind == "dot":
            value = dot
        elif operand.kind == "pipe":
            value = self.pipe(operand.value, dot, [*scopes, {}])
        elif operand.kind == "call":
            value = self.command((Operand("call", operand.value),), dot, scopes, [])
        else:
            for scope in reversed(scopes):
                if operand.value in scope:
                    value = scope[operand.value]
                    break
            else:
                raise TemplateError(f"the template reads {operand.value}, which it does not declare")
        for name in operand.fields:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


def _true(value: Any) -> bool:
    return bool(value) if not isinstance(value, _Shown) else True


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, _Shown):
        return _plain(value.shown)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _print(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return _json(value) if isinstance(value, Mapping | list | tuple) else str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else value[key]
    return value


def _printf(form: str, *values: Any) -> str:
    shown = form
    for value in values:
        at = min((i for i in (shown.find(x) for x in ("%s", "%v", "%d", "%q")) if i >= 0), default=-1)
        if at < 0:
            raise TemplateError("printf has more values than places")
        text = json.dumps(value) if shown[at + 1] == "q" else _print(value)
        shown = shown[:at] + text.replace("%", "\0") + shown[at + 2 :]
    return shown.replace("%%", "%").replace("\0", "%")


def _type_script(value: Any) -> str:
    kinds = value.get("type", "any") if isinstance(value, Mapping) else "any"
    names = {"integer": "number", "array": "any[]", "object": "Record<string, any>", "null": "null"}
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return " | ".join(names.get(k, str(k)) for k in kinds)


_FUNCTIONS: dict[str, Any] = {
    "eq": lambda a, *b: any(a == x for x in b),
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "not": lambda a: not _true(a),
    "len": lambda a: len(a or ()),
    "index": _index,
    "slice": lambda a, i=0, j=None: (a or [])[i:j],
    "print": lambda *a: "".join(map(_print, a)),
    "println": lambda *a: " ".join(map(_print, a)) + "\n",
    "printf": _printf,
    "json": _json,
    "currentDate": lambda *a: date.today().isoformat(),
    "toTypeScriptType": _type_script,
}
