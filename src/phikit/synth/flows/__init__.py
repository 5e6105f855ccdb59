"""The techniques of section 2.2, 2.4 and appendix D of the Phi-4 report, each one short file of async Python."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from phikit.synth.flows.agent import agent
from phikit.synth.flows.augment import augment
from phikit.synth.flows.base import Ask, Outcome
from phikit.synth.flows.code_task import code_task
from phikit.synth.flows.conversation import conversation
from phikit.synth.flows.curate import curate
from phikit.synth.flows.deduction import deduction
from phikit.synth.flows.exercise import exercise
from phikit.synth.flows.instruct import instruct
from phikit.synth.flows.long_document import long_document
from phikit.synth.flows.middle import middle
from phikit.synth.flows.multi_agent import multi_agent
from phikit.synth.flows.panel import panel
from phikit.synth.flows.plurality import plurality
from phikit.synth.flows.reversal import reversal
from phikit.synth.flows.rewrite import rewrite
from phikit.synth.flows.science import science
from phikit.synth.flows.self_revision import self_revision
from phikit.synth.flows.trace import trace
from phikit.synth.flows.web_rewrite import web_rewrite

Flow = Callable[..., Awaitable[Outcome]]  # (seed, ask, **options)
SeedKind = Literal["page", "passage", "argument", "function", "question", "prompt", "environment"]

FLOWS: Mapping[str, Flow] = {
    "multi_agent": multi_agent, "self_revision": self_revision, "reversal": reversal, "rewrite": rewrite,
    "plurality": plurality, "curate": curate, "deduction": deduction, "trace": trace, "augment": augment,
    "web_rewrite": web_rewrite, "panel": panel, "conversation": conversation, "exercise": exercise,
    "code_task": code_task, "science": science, "middle": middle, "agent": agent, "instruct": instruct,
    "long_document": long_document,
}  # fmt: skip

# What each flow is given: see `synth.sources`.
SEEDS: Mapping[str, SeedKind] = {
    "curate": "page", "long_document": "page", "reversal": "function", "trace": "function", "code_task": "function",
    "plurality": "question", "panel": "question", "instruct": "prompt", "agent": "environment",
    "deduction": "argument", "middle": "argument",
    **dict.fromkeys(
        ("multi_agent", "self_revision", "rewrite", "augment", "web_rewrite", "conversation", "exercise",
         "science"), "passage"
    ),
}  # type: ignore[dict-item]  # fmt: skip

__all__ = ["FLOWS", "SEEDS", "Ask", "Flow", "Outcome", "SeedKind"]
