"""Sections of a recipe that say what data there is (worlds, corpora, questions, mixtures), and what all share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from phikit.recipe.units import Bytes, Count, Multiple, Share

Rows = Annotated[Count, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fractions = dict[str, Share]


class Section(BaseModel):
    """ROUNDING: keys that say where and how something is computed; results differ by rounding at most. They enter no
    fingerprint, so that a run goes on after they were changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    ROUNDING: ClassVar[frozenset[str]] = frozenset()


Range = tuple[int, int]


class World(Section):
    """The closed world whose answers are checked by construction (design section 4). Recall documents hold
    (least, most) pairs, three tokens each; `test_pairs` are those of recall_1x, recall_2x and recall_4x."""

    operands: Rows = 20  # numbers run from 1 to this
    steps: Range = (2, 3)  # least and most operations of a problem
    facts: Count = 20_000  # documents of five single sums
    problems: Count = 12_000  # problems with solutions, as text
    echo: Count = 12_000  # lists with their verbatim copies
    recall_short: Count = 30_000
    recall: Count = 5_000
    recall_long: Count = 1_500
    icl: Count = 4_000
    dialogs: Rows = 20_000  # problems with solutions, as chat
    questions: Rows = 2_000  # for preference search; no solutions
    heldout_problems: Rows = 1_000
    preference_problems: Rows = 400
    heldout_items: Rows = 250  # of every other test set
    echo_length: Range = (4, 24)  # least and most syllables of a list
    short_pairs: Range = (2, 6)
    base_pairs: Range = (16, 30)
    long_pairs: Range = (60, 155)
    test_pairs: tuple[int, int, int] = (38, 78, 158)


class Decontaminate(Section):
    """Hybrid 13/7-gram rule of report appendix B.1; both thresholds are not disclosed. `numbers`: what an item with
    other numbers in it is called, for which the report has no rule."""

    info: Share = 0.1
    contaminated: Share = 0.4
    numbers: Literal["partial", "contaminated"] = "partial"
    against: tuple[str, ...] = ()  # folders of benchmark files, beside the recipe's own held-out sets


class Init(Section):
    """The model that a recipe begins with, in place of `corpus` to `midtrain`. `init: PATH` is short for its
    `model`."""

    model: str  # a Hugging Face folder, a GGUF, `smollm2`, a run or a stage's folder
    template: str | None = None  # a Jinja file of a chat template, for a model whose files have none


class Questions(Section):
    """Your own questions. `questions: FILE` is short for its `file`."""

    file: str  # JSONL or Parquet, as `phikit pts` reads them
    kind: Literal["", "math", "choice", "text", "code"] = ""  # of rows that name none; without it math
    heldout: Share = 0.2  # kept for the evaluation, by a hash of the question
    test: str | None = None  # a file of held-out questions of its own; nothing of `file` is kept then
    dialogs: str | None = None  # chats to train on; without it the solutions of the questions
    decontaminate: Decontaminate = Decontaminate()


class CorpusBytes(Section):
    code: Bytes
    text: Bytes


class Folder(Section):
    """Your own documents; `source` is their name in the mixture, rows hold their text under `text_key`."""

    path: str
    source: str = "text"
    text_key: str = "text"


class Classifier(Section):
    """The quality classifier of report section 2.3: a teacher grades a sample by a rubric, a small classifier learns
    from it, the best share of the documents is kept."""

    teacher: str = "smollm2"  # or a .gguf, a checkpoint, http://host/v1#model; one that can grade is needed
    sample: Rows = 1000  # documents that it grades; the report: about a million
    votes: Rows = 1  # answers to each; two or more show how far the teacher agrees with itself
    good: NotNegative = 3.0  # the mean grade (0 to 5) from which a text is good
    rubric: str = ""  # what the teacher is told; without it `corpus/annotate.py`
    keep: Share = 0.3
    amplify: Annotated[float, Field(ge=1)] = 1.0  # of topics outside STEM, so many times that share
    sources: tuple[str, ...] = ("text",)  # whose documents are graded; the others stay as they are


class Corpus(Section):
    languages: tuple[str, ...] = ("en",)
    max_bytes: CorpusBytes
    folders: tuple[Folder, ...] = ()
    quality: bool = True  # whether the quality heuristics apply
    paragraphs: Count = 0  # one that more documents have is cut from all but the first; 0: none
    classifier: Classifier | None = None  # the quality loop; without it no teacher is asked
    decontaminate: Decontaminate = Decontaminate()
    heldout: Share = 0.02


Form = Literal["multi_agent", "self_revision", "reversal", "rewrite", "plurality"]


class Synth(Section):
    """The teacher's flows (report section 2.2) and data set types of the catalogue (`phikit synth list`); `seeds` for
    each. Neither forms nor sets: no teacher is asked."""

    forms: tuple[Form, ...] = ("multi_agent", "self_revision", "reversal", "rewrite", "plurality")
    sets: tuple[str, ...] = ()
    seeds: Rows = 12


class Tokenizer(Section):
    kind: Literal["trained", "cl100k"] = "trained"
    sample: Bytes = 4_000_000  # bytes of text a trained tokenizer sees


class Phase(Section):
    """A part of pretraining that ends at `until` (share of its tokens)."""

    until: Share
    fractions: Fractions

    @model_validator(mode="after")
    def _whole(self) -> Phase:
        _sums_to_one(self.fractions)
        return self


class Tokenized(Section):
    """A folder or URL of token shards, made by the recipe's tokenizer; they are read where they are."""

    source: str
    path: str


class Mixture(Section):
    """Fractions of the pretraining tokens; epochs follow from them (report section 3.2, Table 5)."""

    fractions: Fractions
    phases: tuple[Phase, ...] = ()
    answer_weight: NotNegative = 1.0  # loss weight of answer tokens, where a document marks them
    other_weight: dict[str, Share] = {}  # by source: of all its other tokens, where below 1
    max_epochs: Multiple = 20.0  # a source that would be repeated more often is an error
    shards: tuple[Tokenized, ...] = ()  # sources that are tokens already

    @model_validator(mode="after")
    def _whole(self) -> Mixture:
        _sums_to_one(self.fractions)
        ends = [p.until for p in self.phases]
        if ends and (ends != sorted(set(ends)) or ends[-1] != 1):
            raise ValueError(f"phases must end at rising shares, the last at 100%, got {ends}")
        return self


def _sums_to_one(fractions: Fractions) -> None:
    total = sum(fractions.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"fractions add up to {total:.6g}, they must add up to 100%")
