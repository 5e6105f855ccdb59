"""Final answers of word problems: find the answer in a completion, compare it with the reference.

Values are compared exactly, as fractions: `0.5`, `1/2` and `\\frac{1}{2}` are equal, `0.33` and `1/3` are
not. Callers pass the completion alone, never the prompt: an answer quoted from the question must not count.
"""

from __future__ import annotations

import re
from fractions import Fraction

from phikit.verify.verdict import Verdict

_NUMBER = r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|[-+]?(?:\d+\.\d+|\.\d+|\d+)"
_SAYS = re.compile(r"the\s+(?:final\s+)?answer\s+is\s*:?[ \t]*", re.IGNORECASE)
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_LAST = re.compile(rf"(?<![\w.])\$?(?:{_NUMBER})(?:\s*/\s*[1-9]\d*)?%?")
_FRAC = re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")
_TEXT = re.compile(r"\\(?:text|mathrm|mbox)\{([^{}]*)\}")
_VALUE = re.compile(
    rf"(?P<int>[-+]?\d+)\s+(?P<a>\d+)\s*/\s*(?P<b>[1-9]\d*)"  # 1 1/2
    rf"|(?P<top>{_NUMBER})\s*/\s*(?P<bottom>{_NUMBER})"
    rf"|(?P<plain>{_NUMBER})(?P<exp>[eE][-+]?\d{{1,3}}(?![\w]))?"
)
# A unit: words, degree and currency signs, powers as in "cm^2". Any other digit or operator means an
# expression.
_UNIT = re.compile(r"\s*(?P<percent>%|percent\b)?\s*(?:[^\W\d_]+(?:\^?[23])?|[\u00b0$\u20ac\u00a3'/ .-])*")


def extract_answer(text: str) -> str | None:
    """The final answer of a completion, or None.

    In this order: the last "The answer is N", the last `\\boxed{...}`, the last "#### N", the last number.
    """
    if said := list(_SAYS.finditer(text)):
        return _first_value(text[said[-1].end() :].partition("\n")[0])
    if (boxed := _last_boxed(text)) is not None:
        return boxed.strip() or None
    if found := _HASHES.findall(text):
        return _first_value(found[-1])
    found = _LAST.findall(text)
    return found[-1] if found else None


def equal(a: str, b: str) -> bool:
    """Whether two answers are the same: as numbers where both are numbers, else as normalized text.

    Units and currency are ignored ("5 apples" = "5"). A percentage equals its number and its share: "50%" =
    "50" = "0.5", but two percentages must have equal numbers.
    """
    x, y = parse_number(a), parse_number(b)
    if x is None or y is None:
        return x is None and y is None and _plain(a) == _plain(b) != ""
    (p, p_percent), (q, q_percent) = x, y
    if p_percent != q_percent:
        share, other = (p, q) if p_percent else (q, p)
        return other in (share, share / 100)
    return p == q


def judge(completion: str, answer: str) -> Verdict:
    """The verdict on a completion (without its prompt) whose reference answer is `answer`."""
    found = extract_answer(completion)
    if found is None:
        return Verdict.unparsed
    return Verdict.right if equal(found, answer) else Verdict.wrong


def parse_number(text: str) -> tuple[Fraction, bool] | None:
    """(value, is a percentage) of a text that is one number with an optional unit, else None."""
    text = _unlatex(text)
    match = _VALUE.match(text)
    if match is None:
        return None
    unit = _UNIT.fullmatch(text, match.end())
    if unit is None:
        return None
    if match["int"] is not None:
        part = Fraction(int(match["a"]), int(match["b"]))
        whole = int(match["int"])
        value = whole - part if match["int"].startswith("-") else whole + part
    elif match["top"] is not None:
        bottom = _fraction(match["bottom"])
        if bottom == 0:
            return None
        value = _fraction(match["top"]) / bottom
    else:
        value = _fraction(match["plain"]) * (Fraction(10) ** int(match["exp"][1:]) if match["exp"] else 1)
    return Fraction(value), unit["percent"] is not None


def _fraction(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _unlatex(text: str) -> str:
    text = _TEXT.sub(r" \1", _FRAC.sub(r"(\1)/(\2)", text)).replace("\\%", "%").replace("\\$", "$")
    text = text.replace("\\!", "").replace("\\,", "").replace("\u2212", "-").replace("{,}", ",").strip()
    text = re.sub(r"\((-?[\d.,]+)\)", r"\1", text)
    text = re.sub(r"^\\?[\(\[]|\\[\)\]]$", "", text).strip("*`_ \t").rstrip(".")
    return re.sub(r"^(-?)[$\u20ac\u00a3]\s*", r"\1", text.strip("$") if text.endswith("$") else text)


def _first_value(text: str) -> str | None:
    """What follows "the answer is", up to the end of its clause: a number with its unit where there is
    one."""
    text = re.split(r"(?<=[^\s])[.!?](?=\s|$)|[;,](?=\s)", text, maxsplit=1)[0].strip()
    if parse_number(text) is not None:
        return text
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed.strip() or None
    found = _LAST.findall(text)
    return found[-1] if found else (text or None)


def _last_boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for i in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin:i]
    return None


def _plain(text: str) -> str:
    return re.sub(r"[\s$*`.]|\\(?:left|right)", "", _unlatex(text)).casefold()
