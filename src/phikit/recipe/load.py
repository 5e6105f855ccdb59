"""Reading a recipe: YAML -> scale -> overrides -> validated `Recipe`; errors name the key and the fix."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from phikit.recipe import schema
from phikit.recipe.scales import OWN, RecipeError, check_scale, override, resolve

BUILT_IN = Path(__file__).parent
SHORT = {"init": "model", "questions": "file"}  # `init: PATH` is short for `init: {model: PATH}`
HINTS = {  # of keys that have no default
    "init.model": ": --set init=MODEL (a Hugging Face folder, a GGUF, smollm2, a run)",
    "questions.file": ": --set questions=FILE (JSONL or Parquet: question, answer, and solution for SFT)",
}


def load(
    recipe: str = "phi4", *, scale: str | None = None, settings: Sequence[str] = (), seed: int | None = None
) -> schema.Recipe:
    """The recipe of a file or of a built-in name (`phi4`), at a scale, with `a.b=c` settings applied.

    The scale is `scale`, else the file's own `scale:` key, else nano; a recipe with `init` has none. Raises
    RecipeError.
    """
    path = find(recipe)
    raw = read_yaml(path)
    if "init" in raw and scale:
        raise RecipeError(f"{path}: it begins with a model of your own and has no scales: leave --scale out")
    raw = {k: {SHORT[k]: v} if k in SHORT and isinstance(v, str) else v for k, v in raw.items()}
    chosen = OWN if "init" in raw else check_scale(scale or str(raw.get("scale", "nano")))
    raw = resolve({**raw, "scale": chosen}, chosen)
    pairs = [_setting(s) for s in settings]
    if seed is not None:
        pairs.append(("seed", seed))
    return validate(override(raw, pairs), str(path))


def find(recipe: str) -> Path:
    """The file of a built-in recipe name or a path."""
    built_in = sorted(p.stem for p in BUILT_IN.glob("*.yaml"))
    if recipe in built_in:
        return BUILT_IN / f"{recipe}.yaml"
    path = Path(recipe)
    if not path.is_file():
        raise RecipeError(
            f"no recipe {recipe!r}: give a YAML file or a built-in recipe ({', '.join(built_in)})"
        )
    return path


def validate(raw: dict[str, Any], source: str = "recipe") -> schema.Recipe:
    """The Recipe of resolved raw values; stages run in the order of their keys."""
    # An empty section (`eval:`) is a stage with its defaults.
    raw = {k: {} if v is None and k in schema.STAGES else v for k, v in raw.items()}
    try:
        # The JSON mode of pydantic is strict on values, yet takes a list where a tuple is declared.
        recipe = schema.Recipe.model_validate_json(json.dumps(raw))
    except ValidationError as e:
        lines = [_explain(error) for error in e.errors(include_url=False)]
        raise RecipeError(f"{source}: " + "; ".join(dict.fromkeys(lines))) from e
    except (TypeError, RecursionError) as e:
        raise RecipeError(f"{source}: not plain values ({e})") from e
    recipe._order = tuple(k for k in raw if k in schema.STAGES)
    return recipe


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as e:
        raise RecipeError(f"{path}: not valid YAML: {' '.join(str(e).split())}") from e
    if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
        raise RecipeError(f"{path}: a recipe is a mapping of sections, got {type(value).__name__}")
    return value


def _setting(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"--set {text!r}: write it as section.key=value")
    path = path.strip()
    try:
        found = yaml.load(value, Loader=_Loader)
        return f"{path}.{SHORT[path]}" if path in SHORT and isinstance(found, str) else path, found
    except (yaml.YAMLError, RecursionError) as e:
        raise RecipeError(f"--set {text!r}: the value is not YAML: {' '.join(str(e).split())}") from e


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: PyYAML's 1.1 reads 2e-3 as a string, `no` as false and 010 as 8."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ComposerError(None, None, "recipes have no aliases (*name)", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"{key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for tag, pattern, first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)


def _explain(error: Any) -> str:
    loc = error["loc"]
    path = ".".join(str(p) for p in loc)
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key{_nearest(loc)}"
    if error["type"] == "missing":
        return f"{path}: missing, give it a value{HINTS.get(path, '')}"
    message = error["msg"].removeprefix("Value error, ")
    shown = repr(error["input"])
    shown = "" if shown in message or len(shown) > 80 else f" (got {shown})"
    return f"{path or 'the recipe'}: {message}{shown}"


def _nearest(loc: tuple[Any, ...]) -> str:
    """The closest key beside it, else the closest key anywhere, else the keys that may stand there."""
    *parent, key = loc
    prefix = ".".join(str(p) for p in parent)
    model = schema.model_at(parent)
    beside = [n for n in model.model_fields if n != "scale"] if model else []
    if near := difflib.get_close_matches(str(key), beside, 1, 0.6):
        return f"; did you mean {prefix + '.' if prefix else ''}{near[0]}?"
    everywhere = schema.known_keys()
    names = {p.rsplit(".", 1)[-1]: p for p in reversed(everywhere)}
    if near := difflib.get_close_matches(str(key), list(names), 1, 0.75):
        return f"; did you mean {names[near[0]]}? Keys here: {', '.join(beside)}"
    return f"; keys here: {', '.join(beside)}"
