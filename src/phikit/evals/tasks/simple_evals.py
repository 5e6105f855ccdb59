"""What the tasks of the report's chat protocol share: temperature 0.5, 2,048 tokens, and the instructions of OpenAI's
simple-evals (MIT), whose wording is part of the protocol and is quoted."""

from __future__ import annotations

from collections.abc import Sequence

from phikit.evals.task import Generate, Grade

_CHOICE = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of {letters}. Think step by step before answering."
)
_MATH = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$ANSWER (without quotes) where $ANSWER is the answer to the problem."
)
_MATH_END = 'Remember to put your answer on its own line after "Answer:", and you do not need to use a \\boxed command.'
CODE = (
    "Read the following function signature and docstring, and fully implement the function described. Your response "
    "should only contain the code for this function.\n"
)
LETTERS = "ABCDEFGHIJ"


def sampled(grade: Grade, runs: int = 1) -> Generate:
    """One user turn, temperature 0.5 (report section 6)."""
    return Generate(grade, max_tokens=2048, temperature=0.5, chat=True, runs=runs)


def multiple_choice(question: str, choices: Sequence[str]) -> str:
    letters = LETTERS[: len(choices)]
    options = "\n".join(f"{x}) {c}" for x, c in zip(letters, choices))
    return f"{_CHOICE.format(letters=letters)}\n\n{question}\n\n{options}"


def mathematics(problem: str) -> str:
    return f"{_MATH}\n\n{problem}\n\n{_MATH_END}"
