"""One working form of each technique of section 2.2 of the Phi-4 report; each flow is one short file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from phikit.records.types import Document
from phikit.synth.flows.base import Ask, Outcome
from phikit.synth.flows.multi_agent import multi_agent
from phikit.synth.flows.plurality import plurality
from phikit.synth.flows.reversal import reversal
from phikit.synth.flows.rewrite import rewrite
from phikit.synth.flows.self_revision import self_revision

Flow = Callable[[Document, Ask], Awaitable[Outcome]]

FLOWS: Mapping[str, Flow] = {
    "multi_agent": multi_agent,
    "self_revision": self_revision,
    "reversal": reversal,
    "rewrite": rewrite,
    "plurality": plurality,
}

__all__ = ["FLOWS", "Ask", "Flow", "Outcome"]
