"""Chat data for supervised tuning (report sections 2.4 and 4.1): several answers to a prompt, the best by a judge.

The kind of a data set decides what an answer must pass before a judge sees it: a number equal to the reference where
there is one (math), Python that compiles and passes the seed's tests (code), the right name and no other model's
(identity), declining where the prompt is harmful and not where it is harmless (safety), the right language (all).
"""

from __future__ import annotations

import ast
import asyncio
import re
from typing import Literal

from phikit.ask.judge import judge
from phikit.corpus.language import language as language_of
from phikit.records.types import Document, Turn
from phikit.synth.flows.base import Answer, Ask, Outcome, Recorder, gbnf_text, repeats
from phikit.synth.flows.base import words as words_of
from phikit.synth.languages import LANGUAGES
from phikit.verify import math_answer, refusal, sandbox, worked
from phikit.verify.code import extract_program, run_tests
from phikit.verify.verdict import Verdict

Kind = Literal["math", "code", "reasoning", "conversation", "identity", "safety"]
OTHERS = re.compile(
    r"\b(?:chatgpt|gpt-?\d|openai|claude|anthropic|gemini|bard|llama|mistral|qwen|deepseek|smollm)", re.I
)


async def instruct(
    seed: Document, ask: Ask, *, kind: Kind = "conversation", language: str = "English", n: int = 3, least: float = 3.0,
    words: int = 60, name: str = "Phi", maker: str = "its authors", verified: bool = True,
) -> Outcome:  # fmt: skip
    """`seed` is a prompt; `meta` may hold `answer` (math), `tests` (code), `harmful` (safety). A prompt that is not
    in `language` is translated first. Accepts the answer with the best mean mark, where that is at least
    `least` of 5. `verified`: a reference answer must be met; without it the reference only measures."""
    recorder = Recorder(f"instruct {kind}", seed, ask)
    prompt = seed.text
    if language != "English" and not _speaks(prompt, language):
        asked = await recorder.one(
            "instruct_translate", {"prompt": prompt, "language": language}, temperature=0.0, max_tokens=160
        )  # fmt: skip
        prompt = asked.text.strip()
        if asked.finish != "stop" or not _speaks(prompt, language):
            return recorder.give_up("prompt not translated", prompt)
    values = {"prompt": prompt, "language": language, "words": words, "name": name, "maker": maker}
    held = _held(kind, seed, name) if language == "English" else None
    answers = await recorder.say(
        f"instruct_{kind}", values, role="solver", n=n, temperature=0.8, max_tokens=3 * words + 32, held=held
    )
    good: list[str] = []
    for answer in answers:
        reason = await _problem(answer, kind, seed, language, name, verified)
        if reason:
            recorder.reject(f"answer: {reason}", answer.text)
        elif answer.text.strip() not in good:
            good.append(answer.text.strip())
    turns = (Turn("user", prompt),)
    proven = verified and any(
        seed.meta.get(k) for k in {"math": ("answer",), "code": ("tests",)}.get(kind, ())
    )
    if proven and len(good) == 1:  # the reference or the tests have chosen
        facts = {"answer": seed.meta["answer"], "label_right": True} if kind == "math" else {}
        meta = recorder.meta(kind=kind, language=language, of=1, solved=round(1 / n, 3), **facts)
        return recorder.accept((*turns, Turn("assistant", good[0])), meta)
    if len(good) < 2:
        return recorder.give_up("fewer than two different answers left", f"{len(good)} of {n}")
    judged = await judge(ask.role("judge"), turns, good, counts=recorder.reads)  # type: ignore[arg-type]
    if judged is None:
        return recorder.give_up("the judge cannot be read")
    recorder.keys.append(judged.key)
    recorder.steps.append(("judge", f"{[round(g.overall, 2) for g in judged.grades]} {judged.discussion}"))
    best = max(range(len(good)), key=lambda i: judged.grades[i].overall)
    grade = judged.grades[best]
    if grade.overall < least:
        return recorder.give_up("the best is marked low", f"{grade.overall:.2f}: {good[best]}")
    marks = {"accuracy": grade.accuracy, "style": grade.style, "detail": grade.detail}
    facts = {"answer": seed.meta["answer"]} if kind == "math" and seed.meta.get("answer") is not None else {}
    if facts:
        facts["label_right"] = _same(good[best], str(seed.meta["answer"]))
    if proven:
        facts["solved"] = round(len(good) / n, 3)
    meta = recorder.meta(
        kind=kind, scores=marks, overall=round(grade.overall, 2), language=language, of=len(good), **facts
    )
    return recorder.accept((*turns, Turn("assistant", good[best])), meta)


_SUMS = (
    'root ::= step{1,5} "The answer is " number "."\n'
    'step ::= [A-Z] [a-z ,]{3,70} [ ] number " " [-+*/] " " number " = " number ". "\n'
    'number ::= [0-9]{1,6} ("." [0-9]{1,2})?'
)


def _held(kind: Kind, seed: Document, name: str) -> str | None:
    """GBNF of how an answer has to open where a small teacher would not: with its name, or by declining; of a math
    problem that it is worked in one to five sums and ends with the answer."""
    if kind == "math":
        return _SUMS
    if kind == "identity":
        rest = r'("." | ", " [^\n.]{8,100} ".") (" " [A-Z] [^\n.]{8,100} ".")?'
        return f"root ::= {gbnf_text(f'I am {name}')} {rest}"
    if kind == "safety" and seed.meta.get("harmful", True):
        return r'root ::= "I cannot help with " [a-z] [^\n.]{8,80} ". " [A-Z] [^\n.]{12,100} "."'
    return None


async def _problem(
    answer: Answer, kind: Kind, seed: Document, language: str, name: str, verified: bool
) -> str | None:
    text = answer.text.strip()
    if answer.finish != "stop":
        return "cut"
    if len(words_of(text)) < 3 and language == "English":
        return "too short"
    if repeats(text, 8):
        return "repetition"
    if language != "English" and not _speaks(text, language):
        return "in another language"
    if kind == "math" and _false_sum(text):
        return "a false sum"
    if kind == "math" and verified and (reference := seed.meta.get("answer")) is not None:
        return None if _same(text, str(reference)) else "not the reference answer"
    if kind == "code":
        return await _code_problem(text, seed)
    if kind == "identity":
        return (
            None if re.search(rf"\b{re.escape(name)}\b", text) and not OTHERS.search(text) else "another name"
        )
    if kind == "safety":
        harmful = bool(seed.meta.get("harmful", True))
        return (
            None
            if refusal.declines(text) == harmful
            else "helps to harm"
            if harmful
            else "declines without need"
        )
    return None


async def _code_problem(text: str, seed: Document) -> str | None:
    program = extract_program(text)
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "not Python"
    if not any(isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.Call)) for n in ast.walk(tree)):
        return "no program"
    if tests := seed.meta.get("tests"):
        check = await asyncio.to_thread(run_tests, program, "\n".join(tests))
        if check.status == "no_sandbox":
            return f"not run: no sandbox ({sandbox.available()})"
        return None if check.verdict == Verdict.right else "fails its tests"
    return None


def _false_sum(text: str) -> bool:
    """Whether a sum is written with a false whole result; other results may be rounded."""
    plain = re.sub(r"[$\u20ac\u00a3,](?=\d)", "", text)
    return any(
        not true and result is not None and result.denominator == 1 for true, result in worked.sums(plain)
    )


def _same(text: str, reference: str) -> bool:
    value = math_answer.extract_answer(text)
    return value is not None and math_answer.equal(value, reference)


def _speaks(text: str, language: str) -> bool:
    return language_of(text)[0] == LANGUAGES[language]
