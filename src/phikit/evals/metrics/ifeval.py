"""IFEval (Zhou et al. 2023): are the instructions of a prompt kept, strictly and loosely. The checks are those of
verify/constraints.py."""

from __future__ import annotations

from collections.abc import Mapping

from phikit.evals.task import Answer, Graded, Item
from phikit.verify.constraints import keeps


def grade(item: Item, answer: Answer) -> Graded:
    """Metrics `prompt_strict` and `prompt_loose` (all instructions of the prompt are kept); `kept_strict`, `kept_loose`
    and `asked` count instructions, and give the accuracies by instruction (`share`). `detail` names what is broken."""
    wanted = list(zip(item.reference["kinds"], item.reference["arguments"], strict=True))
    strict = [keeps(kind, answer.text, **args) for kind, args in wanted]
    forms = loosened(answer.text)
    loose = [any(keeps(kind, form, **args) for form in forms) for kind, args in wanted]
    scores = {
        "prompt_strict": float(all(strict)),
        "prompt_loose": float(all(loose)),
        "kept_strict": float(sum(strict)),
        "kept_loose": float(sum(loose)),
        "asked": float(len(wanted)),
    }
    broken = ", ".join(kind for (kind, _), kept in zip(wanted, strict) if not kept)
    return Graded(scores, "right" if all(strict) else "wrong", detail=broken)


def loosened(text: str) -> list[str]:
    """IFEval's eight forms of an answer: with and without its first line, its last line and its asterisks."""
    lines = text.split("\n")
    cut = [text, *("\n".join(some).strip() for some in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(t.replace("*", "") for t in cut)]


def share_strict(means: Mapping[str, float]) -> float:
    return means["kept_strict"] / means["asked"]


def share_loose(means: Mapping[str, float]) -> float:
    return means["kept_loose"] / means["asked"]
