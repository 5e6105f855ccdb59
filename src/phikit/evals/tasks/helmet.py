"""HELMET's six categories (Yen et al. 2024; report section 3.3, table 6) on local data: helmet-style, at any length.

phikit eval --model M --tasks helmet --set helmet.length=16384 --out DIR"""

from dataclasses import replace

from phikit.evals import long
from phikit.evals.metrics import judging
from phikit.evals.metrics import long as metrics
from phikit.evals.task import Generate, Task

RUNS, LENGTH = 5, 8192
SETS = {"trec_coarse": ("trec", "coarse"), "trec_fine": ("trec", "fine"), "banking77": ("banking77", "label"),
        "clinc150": ("clinc150", "label"), "nlu": ("nlu", "label")}  # fmt: skip

RECALL = Task(
    name="helmet_recall", title="JSON key-value recall (helmet-style)", suite="helmet", pack="", items=long.recall,
    output=Generate(metrics.sub_em, max_tokens=long.RECALL_TOKENS, stop=("\n",), runs=RUNS), metrics=("sub_em",),
    per_run=True, length=LENGTH,
    note="HELMET's Recall is the mean of this and three RULER tasks; the report names this one.",
)  # fmt: skip
RAG = Task(
    name="helmet_rag", title="RAG on HotpotQA (helmet-style)", suite="helmet", pack="hotpotqa", split="dev",
    items=long.rag,
    output=Generate(metrics.sub_em, max_tokens=long.RAG_TOKENS, stop=("\n",), runs=RUNS), metrics=("sub_em",),
    per_run=True, length=LENGTH,
    note="The report averages NaturalQuestions, HotpotQA and PopQA with passages retrieved from Wikipedia; here the "
    "distractors are HotpotQA's own and those of other questions.",
)  # fmt: skip
RERANK = Task(
    name="helmet_rerank", title="Re-rank HotpotQA (helmet-style)", suite="helmet", pack="hotpotqa", split="dev",
    items=long.rerank,
    output=Generate(metrics.ranked, max_tokens=long.RANK_TOKENS, stop=("\n",), runs=RUNS), metrics=("ndcg@10",),
    per_run=True, length=LENGTH,
    note="HELMET ranks MS MARCO passages with graded labels; here two of all are relevant.",
)  # fmt: skip
ICL = tuple(
    Task(
        name=f"helmet_icl_{name}", title=f"ICL, {name} (helmet-style)", suite="helmet", pack=pack,
        items=long.labelled(field), metrics=("acc",), per_run=True, length=LENGTH,
        output=Generate(metrics.label, max_tokens=long.LABEL_TOKENS, stop=("\n",), runs=RUNS),
        note="One label an item, so accuracy is the micro F1 that the report names. All items of a run share examples.",
    )
    for name, (pack, field) in SETS.items()
)  # fmt: skip
QA = Task(
    name="helmet_qa", title="QA on long text, judged (helmet-style)", suite="helmet", pack="drop", split="dev",
    items=long.reading,
    output=Generate(judging.ungraded, max_tokens=long.QA_TOKENS, chat=True, runs=RUNS), metrics=("score",),
    judge=judging.LONG_ANSWER, per_run=True, length=LENGTH,
    note="HELMET asks about one book (NarrativeQA); here about one of many passages of DROP.",
)  # fmt: skip
SUMM = Task(
    name="helmet_summ", title="Summaries, judged (helmet-style)", suite="helmet", pack="hotpotqa", split="dev",
    items=long.summary,
    output=Generate(judging.ungraded, max_tokens=long.SUMMARY_TOKENS, chat=True, runs=RUNS),
    metrics=("score", "recall", "precision"), judge=judging.SUMMARY, per_run=True, length=LENGTH,
    note="HELMET summarizes court cases (Multi-LexSum); here what many documents say about two subjects.",
)  # fmt: skip
QA_F1 = replace(
    QA, name="helmet_qa_f1", title="QA on long text, word F1 (helmet-style)", metrics=("f1",), judge=None,
    output=replace(QA.output, grade=metrics.word_f1), note="helmet_qa where there is no judge.",
)  # fmt: skip
SUMM_ROUGE = replace(
    SUMM, name="helmet_summ_rouge", title="Summaries, ROUGE-L (helmet-style)", metrics=("rouge_l",), judge=None,
    output=replace(SUMM.output, grade=metrics.rouge), note="helmet_summ where there is no judge: the reference is "
    "its key points in a row.",
)  # fmt: skip
TASKS = (RECALL, RAG, RERANK, *ICL, QA, QA_F1, SUMM, SUMM_ROUGE)
