"""Published Phi-4 figures (technical report, Tables 1, 6 and 9) and our nearest task for each.

`final` is Table 1 (equal to the last column of Table 9). At nano no task is the same: nothing is comparable;
a scale that runs a benchmark under its own name (`mmlu`, `math`, ...) is marked as the same task."""

from __future__ import annotations

from dataclasses import dataclass

PHI4_PARAMETERS = 14_659_507_200


@dataclass(frozen=True)
class Published:
    """One benchmark in per cent: after SFT, after DPO 1 and final; None where the report gives no figure."""

    name: str
    sft: float | None
    dpo1: float | None
    final: float
    nearest: str | None = None  # our task that asks for a like ability
    difference: str = ""  # why the two numbers cannot be compared

    @property
    def task(self) -> str:
        return self.name.lower().replace("-", "_").replace("+", "_plus").replace(" ", "_")


PUBLISHED = (
    Published(
        "MATH", 77.1, 80.5, 80.4, "arithmetic", "competition mathematics; ours are one- to three-step sums"
    ),
    Published("GPQA", 47.3, 53.6, 56.1),
    Published(
        "MMLU", 82.8, 84.8, 84.8, "choice", "57 school and college subjects; ours is choice in a closed world"
    ),
    Published("HumanEval", 79.5, 81.6, 82.6),
    Published("MGSM", 80.8, 80.8, 80.6),
    Published("SimpleQA", 3.7, 2.9, 3.0),
    Published("DROP", 82.8, 86.1, 75.5),
    Published("MMLU-Pro", 61.9, 70.0, 70.4),
    Published("HumanEval+", 77.9, 81.9, 82.8),
    Published(
        "ArenaHard",
        56.7,
        66.5,
        75.4,
        "preference_wins",
        "open questions judged by GPT-4; ours are sums a verifier ranks",
    ),
    Published("LiveBench", None, None, 47.6),
    Published(
        "IFEval", 66.2, 63.0, 63.0, "format", "verifiable instructions; ours asks only for form and stopping"
    ),
    Published("PhiBench", 48.2, 54.5, 56.2),
    Published(
        "HELMET recall 16K",
        None,
        None,
        99.0,
        "recall_4x",
        "16,384 tokens of JSON; ours is four times the base context of this run",
    ),
    Published(
        "HELMET RAG 16K",
        None,
        None,
        57.1,
        "rag_4x",
        "questions over Wikipedia passages; ours over tables of codes",
    ),
    Published(
        "HELMET ICL 16K",
        None,
        None,
        77.0,
        "icl_4x",
        "five intent datasets, hundreds of shots; ours is a pattern",
    ),
    Published(
        "HELMET re-rank 16K",
        None,
        None,
        54.4,
        "rerank_4x",
        "a written ranking of MS MARCO passages; ours ranks ids by log-probability",
    ),
    Published(
        "HELMET QA 16K",
        None,
        None,
        36.0,
        "qa_4x",
        "one book, judged by GPT-4o; ours is a sum among others, checked",
    ),
    Published(
        "HELMET summ 16K",
        None,
        None,
        40.5,
        "summ_4x",
        "court cases, judged by GPT-4o; ours says three facts, counted",
    ),
)
