"""JSON out of a model's text: find, repair, validate, count.

The schema subset: type (object, array, string, integer, number, boolean), properties, required, items, enum,
minimum, maximum, minItems, maxItems, minLength, maxLength, additionalProperties, description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from phikit.ask.repair import find_json
from phikit.records.types import Turn

KNOWN = frozenset(
    ("type", "properties", "required", "items", "enum", "minimum", "maximum", "minItems", "maxItems")
    + ("minLength", "maxLength", "additionalProperties", "description")
)
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,),
    "number": (int, float), "boolean": (bool,),
}  # fmt: skip


@dataclass
class ReadCounts:
    """What became of the texts: `good` as written, `repaired` (by kind in `repairs`), `dropped` (by
    reason)."""

    good: int = 0
    repaired: int = 0
    repairs: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def read_json(text: str, schema: Mapping[str, Any], counts: ReadCounts) -> Any | None:
    """The value in `text` if it is (or can be made) valid JSON of this schema, else None, with the reason
    counted as no_json or bad_schema. What a cut end took away is not invented: the schema decides whether
    enough is left."""
    try:
        value, repairs = find_json(text)
    except ValueError:
        counts.drop("no_json")
        return None
    value = coerce(value, schema)
    if problems(value, schema):
        counts.drop("bad_schema")
        return None
    if repairs:
        counts.repaired += 1
        for kind in repairs:
            counts.repairs[kind] = counts.repairs.get(kind, 0) + 1
    else:
        counts.good += 1
    return value


async def chat_json(
    teacher: Any,
    turns: Sequence[Turn],
    schema: Mapping[str, Any],
    counts: ReadCounts,
    *,
    tries: int = 2,
    **options: Any,
) -> tuple[Any | None, Any]:
    """(value, last answer) of a question whose answer has to be JSON of `schema`; value None after `tries` answers
    that cannot be read, or at an answer that failed. A second try is the next sample of the same question: an
    unreadable answer is never asked for again. `teacher` is a Teacher or what chats like one."""
    for k in range(tries):
        answer = (await teacher.chat(turns, schema=schema, n=k + 1, **options))[k]
        if answer.finish in ("error", "refused"):
            counts.drop(answer.finish)
            return None, answer
        value = read_json(answer.text, schema, counts)
        if value is not None:
            return value, answer
    return None, answer


def coerce(value: Any, schema: Mapping[str, Any]) -> Any:
    """Whole numbers written as "4" or 4.0 where the schema wants an integer become integers; nothing else."""
    if schema.get("type") == "integer":
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
            return int(value)
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        return {k: coerce(v, inner[k]) if k in inner else v for k, v in value.items()}
    if isinstance(value, list) and "items" in schema:
        return [coerce(v, schema["items"]) for v in value]
    return value


def problems(value: Any, schema: Mapping[str, Any], at: str = "$") -> list[str]:
    """What is wrong with `value`, each with its path; empty when it is valid. Raises ValueError on a schema
    keyword outside the subset."""
    if unknown := sorted(set(schema) - KNOWN):
        raise ValueError(f"schema at {at}: unknown keywords {unknown}; known: {sorted(KNOWN)}")
    kind = schema.get("type")
    if kind is not None:
        if kind not in _TYPES:
            raise ValueError(f"schema at {at}: unknown type {kind!r}; known: {sorted(_TYPES)}")
        # bool is an int in Python, not in JSON
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
            return [f"{at}: expected {kind}, got {type(value).__name__}"]
    found: list[str] = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is not one of {schema['enum']}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            found.append(f"{at}: {value} is below {schema['minimum']}")
        if "maximum" in schema and value > schema["maximum"]:
            found.append(f"{at}: {value} is above {schema['maximum']}")
    if isinstance(value, (str, list)):
        low, high = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
        if len(value) < schema.get(low, 0):
            found.append(f"{at}: length {len(value)} is below {low} {schema[low]}")
        if high in schema and len(value) > schema[high]:
            found.append(f"{at}: length {len(value)} is above {high} {schema[high]}")
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        found += [f"{at}: lacks {name!r}" for name in schema.get("required", ()) if name not in value]
        if schema.get("additionalProperties") is False:
            found += [f"{at}: unknown property {name!r}" for name in value if name not in inner]
        for name, part in value.items():
            if name in inner:
                found += problems(part, inner[name], f"{at}.{name}")
    if isinstance(value, list) and "items" in schema:
        for i, part in enumerate(value):
            found += problems(part, schema["items"], f"{at}[{i}]")
    return found
