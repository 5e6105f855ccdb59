"""The data set types of a whole synthetic corpus: flow x seed source x domain x language, one line each.

The report made "50 broad types" of synthetic data sets, about 400 B unweighted tokens (section 2.2), and about 8 B
tokens of chat data (section 2.4); it does not name them. These are ours. `billions` is the quota at scale phi4; other
scales take a fixed share of it. An option of a flow that is not given has the flow's default, which suits a small
teacher; LARGE is what a strong one can be asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from phikit.synth.flows import FLOWS, SEEDS
from phikit.synth.languages import LANGUAGES

Use = Literal["pretrain", "long", "chat"]
SHARES = {"phi4": 1.0, "mini": 1 / 5_000, "nano": 1 / 4_000_000}  # of the quota
TOTALS = {"pretrain": 400.0, "long": 7.5, "chat": 8.0}  # billions of tokens at phi4
LARGE = {"words": 300}
EVERY = "all"  # each seed in one of the languages, by its hash

# Where the seeds of a data set come from; `synth run` takes them from the folder one names.
SOURCES = {
    "web": "filtered web pages",
    "web_humanities": "web pages on arts, history, travel and culture",
    "code": "source code",
    "books": "books",
    "papers": "papers and their abstracts",
    "forums": "questions of forums and sites",
    "problems": "problems with a final answer",
    "prompts": "prompts of public instruction sets",
    "harmful": "harmful prompts",
    "harmless": "harmless prompts that look harmful",
    "about_me": "questions to the model about itself",
    "multilingual": "web pages and encyclopedias in other languages",
    "worlds": "text environments",
    "curated": "passages that `curate` tagged",
}
# What must hold for a row, in a few words; docs/synth.md has the whole list.
VALIDATORS = {
    "multi_agent": "evaluator's quote supports the answer", "self_revision": "marks rose, and grounded",
    "reversal": "same behaviour on generated inputs, same doctests", "rewrite": "answer quoted, second reading agrees",
    "plurality": "neither all agree nor all differ", "curate": "marks, own fact count, description fits",
    "deduction": "premises alone lead to the conclusion", "trace": "executed; steps name the values",
    "augment": "grounded, critic's marks", "web_rewrite": "no invented numbers or names, not lost, not copied",
    "panel": "judge's pick, critic's mark, a second solver agrees", "conversation": "each turn marked and grounded",
    "exercise": "critic's marks rose, grounded", "code_task": "tests pass on the code and fail on mutants",
    "science": "answer in its sentence, relevance, difficulty", "middle": "F1 with the truth, grade",
    "agent": "goal reached within 2.5 times the shortest way", "instruct": "by kind; best of n by a judge",
    "long_document": "4,096 tokens, little said twice",
}  # fmt: skip
_PROMPTS = {
    "multi_agent": ("agents_ask", "agents_answer", "agents_evaluate"),
    "self_revision": ("revision_answer", "revision_critique", "revision_revise"),
    "reversal": ("reversal_instruction", "reversal_code"), "plurality": ("plurality",),
    "rewrite": ("rewrite_question", "rewrite_answer", "rewrite_check"), "curate": ("curate_page", "curate_passage"),
    "deduction": ("deduction_chain", "deduction_question", "deduction_answer"), "trace": ("trace_step",),
    "augment": ("augment_{form}", "augment_line", "augment_check"), "web_rewrite": ("web_rewrite",),
    "panel": ("panel_solve", "panel_criticize", "panel_judge"),
    "conversation": ("conversation_ask", "conversation_reply", "conversation_evaluate"),
    "exercise": (
        "exercise_write", "exercise_question", "exercise_solution", "exercise_critique", "exercise_revise",
    ),
    "code_task": ("reversal_instruction", "code_task_test", "reversal_code"),
    "science": ("science_write", "science_judge"), "middle": ("middle_reason", "middle_grade"),
    "agent": ("agent_act", "agent_rewrite"), "instruct": ("instruct_{kind}",),
    "long_document": ("long_plan", "long_section"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DataSet:
    """One type of data set. `billions`: tokens at phi4. `language`: a name of LANGUAGES, or EVERY."""

    name: str
    flow: str
    seeds: str
    billions: float
    use: Use = "pretrain"
    domain: str = ""
    language: str = "English"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompts(self) -> tuple[str, ...]:
        defaults = {"form": "exercise", "kind": "conversation"}
        known = {**defaults, **self.options}
        some = (p for p in _PROMPTS[self.flow] if p != "augment_line" or known["form"] == "discussion")
        return tuple(p.format(**known) for p in some)

    @property
    def validator(self) -> str:
        return VALIDATORS[self.flow]

    def quota(self, scale: str) -> int:
        """Tokens at a scale."""
        return max(round(self.billions * 1e9 * SHARES[scale]), 1)

    def row(self, scale: str) -> dict[str, Any]:
        """What `phikit synth list --json` says of it."""
        return {
            "name": self.name, "flow": self.flow, "use": self.use, "seeds": self.seeds,
            "seed_source": SOURCES[self.seeds], "seed_kind": SEEDS[self.flow], "domain": self.domain,
            "language": self.language, "options": dict(self.options), "prompts": list(self.prompts),
            "validator": self.validator, "quota_tokens": self.quota(scale),
        }  # fmt: skip


_BOOK = {"style": "encyclopedia", **LARGE}
_TALK = {"words": 120, "most": 6}
_OPEN = {"kind": "conversation", **LARGE}
_SUMS = {"kind": "math", **LARGE}
_TWO = {"form": "discussion", **LARGE}


def _all() -> tuple[DataSet, ...]:
    d, found = DataSet, []
    subjects = {
        "mathematics": 14.0, "physics": 12.0, "chemistry": 9.0, "biology": 10.0, "computing": 14.0, "engineering": 8.0,
        "economics": 7.0, "history": 9.0, "society": 7.0, "medicine": 7.0,
    }  # fmt: skip
    found += [
        d(f"exercises_{s}", "augment", "curated", b, domain=s, options={"form": "exercise", **LARGE})
        for s, b in subjects.items()
    ]
    found += [
        d("discussions_science", "augment", "curated", 10, domain="science", options=_TWO),
        d("discussions_humanities", "augment", "web_humanities", 8, domain="humanities", options=_TWO),
        d("reasoning_from_web", "augment", "web", 14, options={"form": "reasoning", **LARGE}),
        d("reasoning_from_papers", "augment", "papers", 10, domain="research", options={"form": "reasoning", **LARGE}),
        d("reading_questions", "rewrite", "web", 10),
        d("web_textbook", "web_rewrite", "web", 20, options={"style": "textbook", **LARGE}),
        d("web_encyclopedia", "web_rewrite", "web", 15, options=_BOOK),
        d("web_lesson", "web_rewrite", "web", 15, options={"style": "lesson", **LARGE}),
        d("web_notes", "web_rewrite", "web", 10, options={"style": "notes", **LARGE}),
        d("web_for_children", "web_rewrite", "web_humanities", 6, options={"style": "children", **LARGE}),
        d("web_rewrites_multilingual", "web_rewrite", "multilingual", 12, language=EVERY, options=_BOOK),
        d("deductions_from_books", "deduction", "books", 10, options=LARGE),
        d("deductions_from_papers", "deduction", "papers", 8, domain="research", options=LARGE),
        d("code_traces", "trace", "code", 8, domain="computing"),
        d("code_instructions", "reversal", "code", 14, domain="computing"),
        d("code_tasks_with_tests", "code_task", "code", 14, domain="computing"),
        d("questions_math_plurality", "plurality", "forums", 12, domain="mathematics"),
        d("panel_math", "panel", "forums", 10, domain="mathematics", options={"kind": "math", **LARGE}),
        d("panel_general", "panel", "forums", 8, options={"kind": "text", **LARGE}),
        d("conversations_expert", "conversation", "web", 8, options=_TALK),
        d("conversations_code", "conversation", "curated", 5, domain="computing", options=_TALK),
        d("conversations_multilingual", "conversation", "multilingual", 6, language=EVERY, options=_TALK),
        d("student_and_teacher", "multi_agent", "web", 6),
        d("summaries_revised", "self_revision", "web", 6),
        d("exercises_revised_science", "exercise", "curated", 10, domain="science", options=LARGE),
        d("exercises_revised_humanities", "exercise", "web_humanities", 6, domain="humanities", options=LARGE),
        d("science_questions_physics", "science", "papers", 6, domain="physics", options={"words": 120}),
        d("science_questions_biology", "science", "papers", 6, domain="biology", options={"words": 120}),
        d("science_questions_medicine", "science", "papers", 5, domain="medicine", options={"words": 120}),
        d("missing_middle_text", "middle", "books", 5, options={"words": 120}),
        d("missing_middle_papers", "middle", "papers", 3, domain="research", options={"words": 120}),
        d("agents_in_text_worlds", "agent", "worlds", 2, options={"words": 80}),
        d("agents_unguided", "agent", "worlds", 1, options={"words": 80, "guided": False}),
        d("curated_seeds_web", "curate", "web", 7),
        d("curated_seeds_books", "curate", "books", 7),
        d("long_articles", "long_document", "web", 3, "long", options=LARGE),
        d("long_surveys", "long_document", "papers", 2.5, "long", domain="research", options=LARGE),
        d("long_stories_of_history", "long_document", "web_humanities", 1, "long", domain="history", options=LARGE),
        d("long_manuals", "long_document", "code", 1, "long", domain="computing", options=LARGE),
        d("chat_math", "instruct", "problems", 1.5, "chat", "mathematics", options=_SUMS),
        d("chat_code", "instruct", "prompts", 1.5, "chat", "computing", options={"kind": "code", **LARGE}),
        d("chat_reasoning", "instruct", "prompts", 1.2, "chat", options={"kind": "reasoning", **LARGE}),
        d("chat_conversation", "instruct", "prompts", 1.5, "chat", options={"kind": "conversation", **LARGE}),
        d("chat_identity", "instruct", "about_me", 0.1, "chat", options={"kind": "identity"}),
        d("chat_safety_harmful", "instruct", "harmful", 0.3, "chat", options={"kind": "safety"}),
        d("chat_safety_harmless", "instruct", "harmless", 0.2, "chat", options={"kind": "safety"}),
        d("chat_40_languages", "instruct", "prompts", 1.2, "chat", language=EVERY, options=_OPEN),
        d("chat_math_40_languages", "instruct", "problems", 0.5, "chat", language=EVERY, options=_SUMS),
    ]  # fmt: skip
    return tuple(found)


DATA_SETS: Mapping[str, DataSet] = {s.name: s for s in _all()}


def find(name: str) -> DataSet:
    """The data set of a name. Raises ValueError with the near ones."""
    if name in DATA_SETS:
        return DATA_SETS[name]
    import difflib

    near = difflib.get_close_matches(name, [*DATA_SETS, *FLOWS], 3)
    hint = f"; near: {', '.join(near)}" if near else ""
    raise ValueError(f"no flow or data set {name!r}{hint}. `phikit synth list` names them all")


def check() -> None:
    """The table is whole: every flow, source and language is known. Raises ValueError that names the row."""
    for s in DATA_SETS.values():
        if (
            s.flow not in FLOWS
            or s.seeds not in SOURCES
            or (s.language != EVERY and s.language not in LANGUAGES)
        ):
            raise ValueError(f"catalogue: {s.name} names an unknown flow, source or language")
