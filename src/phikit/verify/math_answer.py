"""Final answers of problems: find the answer in a completion, compare it with the reference.

Numbers are compared exactly (`numbers`), everything else by math-verify (`symbolic`) or, where it is words, as
normalized text. Callers pass the completion alone, never the prompt: an answer quoted from the question must not
count. `question` guards against completions that repeat it.
"""

from __future__ import annotations

import re
from itertools import pairwise

from phikit.verify import numbers, symbolic
from phikit.verify.numbers import NUMBER, plain_signs
from phikit.verify.verdict import Verdict

_SAYS = re.compile(
    r"\b(?:the|my|our|final|correct|a|so)?\s*\banswer\b(?:\s+to\s+[^.:\n]{1,60}?)?\**\s*"
    r"(?:is|was|equals|would be|must be|=|:)(?![a-z])\s*:?[ \t]*",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_LAST = re.compile(rf"(?<![\w.])[-+]?\$?(?:{NUMBER})(?:[eE][-+]?\d{{1,3}}\b)?(?:\s*/\s*[1-9]\d*)?%?")
_SUPPOSED = re.compile(
    r"\b(?:if|whether|suppose|assume|assuming|unless)\s+(?:[a-z]+\s+){0,2}$", re.IGNORECASE
)
_NO = re.compile(r"(?:not|never|n't|neither|no longer)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[^\s])[.!?](?=\s|$)|\n")
_CLAUSE = re.compile(r"(?<=[^\s])[.!](?=\s|$)|[;,](?=\s)")
# A number that a text denies: "is not 5", "isn't 5", "rather than 5", "5 is wrong".
_DENIED = re.compile(
    rf"(?:\b(?:not|never|neither|instead of|rather than)|n't)\s+"
    rf"(?:be\s+|equal(?:\s+to)?\s+|simply\s+|just\s+)?\$?(?:{NUMBER})%?"
    rf"|(?<![\w.])\$?(?:{NUMBER})%?\s+(?:is|are|was|would be)\s*(?:not\b|n't\b|wrong|incorrect|false)",
    re.IGNORECASE,
)
# Sentences that follow an answer and are none, suppose one, or say that there is none.
_CHATTER = re.compile(
    r"^\s*(?:if|suppose|assume|assuming)\b"
    r"|\b(?:let me know|(?:i|we) hope|hope (?:this|that|it|the)|feel free|happy to help|unsure|unclear|no idea"
    r"|(?:don't|do not|cannot|can't|can not|not) (?:know|sure|certain|tell|determine|answer|say)|impossible to)\b",
    re.IGNORECASE,
)
# "If 5/6 are eaten, 30 - 25 = 5 are left" supposes the first half only.
_CONDITION = re.compile(r"^\s*if\b.*?,\s+(?=.*\d)", re.IGNORECASE | re.DOTALL)
_AGAIN = re.compile(r"\s*(?:[,;]|\bor\b|\band\b)*\s*\$?", re.IGNORECASE)
_HEDGE = re.compile(r"\b(?:or|and|to|through)\b|[,/]|\bbetween\b", re.IGNORECASE)


def extract_answer(text: str, question: str = "") -> str | None:
    """The final answer of a completion, or None where it gives none.

    The last of "The answer is N", `\\boxed{...}` and "#### N" counts, whichever comes last; else the last number.
    Denied ("is not 5"), supposed ("if the answer is 5") and asked ("is the answer 5?") numbers are none, nor are
    those of a repeated `question` or of closing chatter. Several values joined by "or", "and" or a comma stay
    together as one answer, which equals no single one of them.
    """
    text = plain_signs(text)
    if question and (echo := plain_signs(question).strip()):
        text = text.replace(echo, " ")
    stated = [*_said(text), *_boxed(text), *((m.start(), _first_value(m[1])) for m in _HASHES.finditer(text))]
    for _, answer in sorted(stated, key=lambda x: -x[0]):
        if answer:
            return answer
    return _last_number(text)


def equal(a: str, b: str) -> bool:
    """Whether two answers are the same: as numbers where both are numbers, as expressions, sets or intervals where
    they are mathematics, else as normalized text. Units that convert are converted, others read over."""
    if len(a) > 4000 or len(b) > 4000:
        return False
    x, y = numbers.parse(a), numbers.parse(b)
    if x is not None and y is not None:
        return numbers.same(x, y)
    if (plain := _plain(a)) and plain == _plain(b):
        return True
    return symbolic.equivalent(_math(a), _math(b))


def judge(completion: str, answer: str, question: str = "") -> Verdict:
    """The verdict on a completion (without its prompt) whose reference answer is `answer`."""
    found = extract_answer(completion, question)
    if found is None:
        return Verdict.unparsed
    return Verdict.right if equal(found, answer) else Verdict.wrong


def parse_number(text: str):
    """(value, is a percentage) of a text that is one number with an optional unit, else None."""
    found = numbers.parse(text)
    return None if found is None else (found.value, found.percent)


def _said(text: str) -> list[tuple[int, str | None]]:
    """(position, answer) of every "the answer is"; a denied or supposed one is left out, and what follows a
    denial ("is not 5 but 6") counts instead."""
    found: list[tuple[int, str | None]] = []
    for m in _SAYS.finditer(text):
        rest = text[m.end() :].lstrip("* \t")
        line = rest.partition("\n")[0] or rest.lstrip().partition("\n")[0]
        sentence = _SENTENCE.split(line, maxsplit=1)[0]
        asked = line[len(sentence) : len(sentence) + 1] == "?"
        if asked or _SUPPOSED.search(text[: m.start()] + " "):
            continue
        if _NO.match(line):
            tail = re.split(
                r"\bbut(?: rather)?\b|\bit is\b|\bit's\b|[,;]\s+(?:it is|it's|but)?", sentence, maxsplit=1
            )
            found.append(
                (m.start(), _first_value(tail[1]) if len(tail) > 1 and _LAST.search(tail[1]) else None)
            )
        else:
            found.append((m.start(), _stated(line, text, m.start())))
    return found


def _stated(line: str, text: str, at: int) -> str | None:
    """What a statement says; a statement without a value gives way to a box or hashes anywhere ("the answer is
    clear: ... \\boxed{7}")."""
    value = _first_value(line)
    bare = value is None or not re.search(r"[\d\\]", value)
    return None if bare and (_BOXED.search(text) or _HASHES.search(text)) else value


def _first_value(text: str) -> str | None:
    """The answer at the start of a text: one number with its unit, a list, an expression, else its words."""
    text = text.strip()
    if text.startswith(("$", "\\(", "\\[")) and (
        m := re.match(r"(\$\$?|\\[(\[])\s*(.+?)\s*(?:\$\$?|\\[)\]])", text)
    ):
        inner = m[2]
        if not re.match(r"\s*(?:or|and)\b", text[m.end() :], re.IGNORECASE):
            boxed = _boxed(inner)
            return boxed[-1][1] if boxed else inner
    if (boxed := _boxed(text)) and boxed[-1][1]:
        return boxed[-1][1]
    whole = _SENTENCE.split(text, maxsplit=1)[0].strip()
    if numbers.parse(whole) is not None or re.match(r"[\[({]|\\", whole):
        return whole
    reasons = re.split(r"\s(?:because|since|as|which|so)\b|\s\((?=[a-z])", whole, maxsplit=1)[0].strip(" *")
    if _hedged(reasons):
        return reasons
    clause = _CLAUSE.split(whole, maxsplit=1)[0].strip()
    if numbers.parse(clause) is not None:
        return clause
    start = re.split(
        r"\s*(?:[(:]|\s(?:because|since|as|which|so|for|from|after|out of|,)\b)", clause, maxsplit=1
    )[0]
    if numbers.parse(start) is not None:
        return start
    if "=" in clause and numbers.parse(end := clause.rpartition("=")[2]) is not None:
        return end.strip()
    if symbolic.comparable(clause):
        return clause
    found = _LAST.findall(clause)
    return found[-1] if found else (clause.strip("* ") or None)


def _hedged(text: str) -> bool:
    """Whether two different numbers are joined as alternatives or a list ("5 or 6", "5, 6 and 7", "5-6")."""
    spans = [(m.start(), m.end(), m[0]) for m in _LAST.finditer(text)]
    for (_, end, a), (start, _, b) in pairwise(spans):
        between = re.sub(r"[$*\\() ]", " ", text[end:start]).strip()
        words = between.split()
        joined = (
            bool(words)
            and len(words) <= 3
            and bool(_HEDGE.fullmatch(words[-1]) or _HEDGE.fullmatch(words[0]))
        )
        if joined and not equal(a, b):
            return True
    return False


def _boxed(text: str) -> list[tuple[int, str | None]]:
    """(position, content) of every closed box; boxes joined by "or", "and" or a comma are one answer."""
    found: list[tuple[int, int, str]] = []  # start, end, content
    for m in _BOXED.finditer(text):
        depth = 1
        for i in range(m.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0) if text[i - 1] != "\\" else 0
            if depth == 0:
                inner = _boxed(text[m.end() : i])
                content = inner[-1][1] if inner else text[m.end() : i].strip()
                if found and m.start() < found[-1][1]:
                    break  # inside the last one
                joined = text[found[-1][1] : m.start()] if found else ""
                if joined.strip(" $") and _AGAIN.fullmatch(joined.lstrip("$ ")):
                    found[-1] = (found[-1][0], i + 1, f"{found[-1][2]}, {content}")
                else:
                    found.append((m.start(), i + 1, content or ""))
                break
    return [(start, content or None) for start, _, content in found]


def _last_number(text: str) -> str | None:
    for whole in reversed([s for s in re.split(r"(?<=[.!?])\s+|\n", text) if s.strip()]):
        sentence = _CONDITION.sub("", whole)
        if sentence.rstrip().endswith("?") or _CHATTER.search(sentence):
            continue
        denied = [x for m in _DENIED.finditer(sentence) for x in _LAST.findall(m[0])]
        found = [m[0] for m in _LAST.finditer(_DENIED.sub(" ", sentence))]
        if found := [x for x in found if not any(equal(x, d) for d in denied)]:
            return (
                sentence.strip(" .") if _hedged(sentence) and _ends_in_alternatives(sentence) else found[-1]
            )
        if denied:
            return None  # the last word on the matter is a denial
    return None


def _ends_in_alternatives(sentence: str) -> bool:
    """A sentence that ends in its alternatives: "So it is 5 or 6". Elsewhere a list of numbers is working."""
    last = list(_LAST.finditer(sentence))[-2:]
    tail = sentence[last[-1].end() :].strip(" .!*")
    return len(tail.split()) <= 2 and bool(re.search(r"\bor\b", sentence[last[0].end() : last[1].start()]))


def _math(text: str) -> str:
    """Unicode signs and joining words of an answer in LaTeX's terms."""
    text = plain_signs(text).strip().strip("$").rstrip(".").strip()
    text = (
        text.replace("\u221a", "\\sqrt ")
        .replace("\u03c0", "\\pi ")
        .replace("\u221e", "\\infty ")
        .replace("\u222a", "\\cup ")
    )
    text = re.sub(
        r"(?<![\\a-zA-Z])(pi|sqrt|infinity|inf)(?![a-zA-Z])",
        lambda m: "\\" + {"infinity": "infty", "inf": "infty"}.get(m[1], m[1]) + " ",
        text,
    )
    text = re.sub(r"\\sqrt\s+\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\sqrt\s+(\d+|[a-z])", r"\\sqrt{\1}", text)
    return re.sub(r"\s+(?:or|and)\s+", ", ", text)


def _plain(text: str) -> str:
    return re.sub(r"[\s$*`.]|\\(?:left|right)(?![a-z])", "", numbers.unlatex(text)).casefold()
