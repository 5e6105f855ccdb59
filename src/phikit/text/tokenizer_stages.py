"""What a tokenizer.json does around its merges: normalizer, pre-splits, post-processor, decoder.

The backend runs any of them on every text. What is allowed here ends in time proportional to the text: a stranger's
regex could run forever, and steps that make a text longer, one after another, double it with each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from phikit.text.splits import KNOWN

MAX_STEPS = 64  # of one stage; its post-processor's template has no more parts
_PREPEND = 64  # characters
_STEPS = {
    "normalizer": {
        "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Prepend", "Replace", "ByteLevel",
        "BertNormalizer", "Nmt",
    },
    "pre_tokenizer": {
        "ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "Metaspace",
        "BertPreTokenizer", "CharDelimiterSplit", "UnicodeScripts",
    },
    "post_processor": {"ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing"},
    "decoder": {"ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"},
}  # fmt: skip
_PARTS = {
    "normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors",
    "decoder": "decoders",
}  # fmt: skip
STAGES = tuple(_STEPS)


def check_stage(stage: str, value: Any) -> None:
    """Raises ValueError where the value of a stage is not None nor made of known steps that keep a text's length."""
    seen: set[str] = set()
    for n, step in enumerate(_steps(stage, value)):
        kind = step["type"]
        if n >= MAX_STEPS:
            raise ValueError(f"{stage} has more than {MAX_STEPS} steps")
        if kind in ("ByteLevel", "TemplateProcessing") and kind in seen:
            raise ValueError(f"{stage}: {kind} twice makes a text longer each time")
        seen.add(kind)
        if kind in ("Replace", "Split"):
            _check_pattern(stage, step)
        if kind == "Prepend" and not _text(step.get("prepend"), _PREPEND):
            raise ValueError(f"{stage}: Prepend needs a text of up to {_PREPEND} characters")
        if (
            kind == "Strip"
            and stage == "decoder"
            and (step.get("start") not in (0, 1) or step.get("stop") != 0)
        ):
            raise ValueError(f"{stage}: Strip is known with start 0 or 1 and stop 0 only")
        if kind == "TemplateProcessing":
            _check_template(stage, step)


def _steps(stage: str, value: Any) -> Iterator[dict[str, Any]]:
    """The steps inside nested sequences, in order."""
    todo = [] if value is None else [value]
    while todo:
        step = todo.pop()
        kind = step.get("type") if isinstance(step, dict) else None
        if kind == "Sequence":
            inner = step.get(_PARTS[stage])
            if not isinstance(inner, list) or len(inner) > MAX_STEPS:
                raise ValueError(f"{stage}: a Sequence needs a list of up to {MAX_STEPS} steps")
            todo += reversed(inner)
        elif not isinstance(kind, str) or kind not in _STEPS[stage]:
            raise ValueError(
                f"{stage}: {str(kind)[:40]!r} is no known step: {', '.join(sorted(_STEPS[stage]))}"
            )
        else:
            yield step


def _check_pattern(stage: str, step: dict[str, Any]) -> None:
    pattern = step.get("pattern")
    if not isinstance(pattern, dict) or len(pattern) != 1:
        raise ValueError(f"{stage}: {step['type']} needs one pattern, a String or a Regex")
    ((form, text),) = pattern.items()
    if form == "Regex" and (not isinstance(text, str) or text not in KNOWN):
        raise ValueError(
            f"{stage}: the regex {str(text)[:80]!r} is not one of the known pre-splits "
            "(phikit/text/splits.py); a regex of a stranger's file could run forever"
        )
    if form not in ("Regex", "String") or not isinstance(text, str) or not text:
        raise ValueError(f"{stage}: {step['type']} needs one pattern, a String or a Regex")
    longest = 1 if form == "Regex" else len(text)
    if step["type"] == "Replace" and not _text(step.get("content"), longest):
        raise ValueError(
            f"{stage}: Replace may not make a text longer (content of up to {longest} characters)"
        )


def _check_template(stage: str, step: dict[str, Any]) -> None:
    """The template of one text has the text once: `encode` gives its ids, and special tokens are asked for apart."""
    parts = step.get("single")
    if not isinstance(parts, list) or len(parts) > MAX_STEPS or not all(isinstance(p, dict) for p in parts):
        raise ValueError(f"{stage}: TemplateProcessing needs a list of up to {MAX_STEPS} parts")
    if sum("Sequence" in p for p in parts) != 1:
        raise ValueError(f"{stage}: the template of one text must have the text once")


def _text(value: Any, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest
