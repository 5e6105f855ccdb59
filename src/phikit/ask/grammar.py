"""GBNF (llama.cpp's grammar) of the JSON-schema subset that `ask.structured` validates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_RANGE = 64  # integers of a bounded range are spelled out up to this many
_RULES = r"""
ws ::= [ \n]?
string ::= "\"" ([^"\\\x00-\x1F] | "\\" ["\\/bfnrt])* "\""
integer ::= "-"? ("0" | [1-9] [0-9]{0,14})
number ::= "-"? ("0" | [1-9] [0-9]{0,14}) ("." [0-9]{1,6})?
boolean ::= "true" | "false"
"""


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """A grammar whose every complete output is valid for `schema`; properties come in the order they are
    listed, all of them. Raises ValueError that names the keyword it does not know."""
    rules: list[str] = []
    root = _expression(schema, "root", rules)
    return "\n".join([f"root ::= {root}", *rules]) + _RULES


def _expression(schema: Mapping[str, Any], name: str, rules: list[str]) -> str:
    if "enum" in schema:
        return "(" + " | ".join(_literal(json.dumps(v)) for v in schema["enum"]) + ")"
    kind = schema.get("type")
    if kind == "object":
        parts = []
        for i, (key, value) in enumerate(schema.get("properties", {}).items()):
            inner = _rule(value, f"{name}-{i}", rules)
            parts.append(f'{_literal(json.dumps(key))} ":" ws {inner}')
        return '"{" ws ' + ' ws "," ws '.join(parts) + ' ws "}"'
    if kind == "array":
        inner = _rule(schema.get("items", {"type": "string"}), f"{name}-i", rules)
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        more = f'(ws "," ws {inner}){{{max(low - 1, 0)},{"" if high is None else max(high - 1, 0)}}}'
        if high == 0:
            return '"[" ws "]"'
        body = f"{inner} {more} ws"
        return f'"[" ws {body} "]"' if low else f'"[" ws ({body})? "]"'
    if kind == "integer":
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and high is not None and 0 <= high - low <= MAX_RANGE:
            return "(" + " | ".join(f'"{v}"' for v in range(low, high + 1)) + ")"
        return "integer"
    if kind == "string":
        # A bound keeps a small model from filling its whole budget with one string.
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        if not low and high is None:
            return "string"
        item = r'([^"\\\x00-\x1F] | "\\" ["\\/bfnrt])'
        return rf'"\"" {item}{{{low},{"" if high is None else high}}} "\""'
    if kind in ("number", "boolean"):
        return str(kind)
    raise ValueError(
        f"schema at {name}: type {kind!r} has no grammar; known: object array string integer number boolean"
    )


def _rule(schema: Mapping[str, Any], name: str, rules: list[str]) -> str:
    rules.append(f"{name} ::= {_expression(schema, name, rules)}")
    return name


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
