"""Tasks on a scripted model: what counts as right, how it is asked, what goes wrong loudly."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evals_world import N, engine, perfect, worked_answer, write_world

from phikit.evals.world import bits
from phikit.evals.world.plan import Prompter, Settings
from phikit.evals.world.run import evaluate, summarize
from phikit.evals.world.samples import samples
from phikit.records.io import read_jsonl, write_jsonl

SETTINGS = Settings(samples=4, max_tokens=64, window=32)


def scores(found) -> dict:
    return {(s["task"], s["metric"]): s for s in found.scores}


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path)


@pytest.mark.parametrize("kind", ["base", "chat"])
def test_a_perfect_model(world, kind):
    found = evaluate(engine(), "sft", kind, *world, SETTINGS)
    table = scores(found)
    ones = [("arithmetic", "greedy"), ("arithmetic", "sampled"), ("format", "well_formed"), ("choice", "acc")]
    ones += [(f"recall_{k}x", "exact") for k in (1, 2, 4)]
    for key in ones:
        assert table[key]["value"] == 1.0, key
        assert table[key]["low"] < 1.0 == table[key]["high"], key
    assert table["icl", "acc"]["value"] == 3 / 8  # it always says A
    assert table["preference_wins", "share"]["value"] == 0.5
    assert (table["arithmetic", "sampled"]["n"], table["arithmetic", "sampled"]["clusters"]) == (4 * N, N)
    assert table["arithmetic", "sampled"]["counts"] == {"right": 4 * N}
    assert {m for t, m in table if t == "bits_per_byte"} == {"all", "code", "text"}


def test_how_base_and_chat_models_are_asked(world):
    base, chat = engine(), engine()
    evaluate(base, "pretrain", "base", *world, SETTINGS)
    evaluate(chat, "sft", "chat", *world, SETTINGS)
    asked = next(r["question"] for r in read_jsonl(world[0] / "arithmetic.jsonl"))
    assert asked + "\n" in base.prompts
    assert f"<|im_start|>user<|im_sep|>{asked}<|im_end|><|im_start|>assistant<|im_sep|>" in chat.prompts
    assert "Codes: k0 zu.\nAsk: k0" in chat.prompts  # recall is plain text for all
    assert Prompter(base, "base").question("Q", max_tokens=4).stop == ("\n",)
    assert Prompter(chat, "chat").question("Q", max_tokens=4).stop == ()


def test_unparsed_and_cut_answers_are_counted_apart(world):
    def script(prompt: str) -> str:
        answer = worked_answer(prompt)
        if answer is None:
            return perfect(prompt)
        last = int(answer[:-1].split()[-1]) % 4
        return ["no idea", answer + " And" * 60, "The answer is 1.", answer][last]

    table = scores(evaluate(engine(script), "sft", "chat", *world, SETTINGS))
    greedy = table["arithmetic", "greedy"]
    assert set(greedy["counts"]) == {"unparsed", "cut", "wrong", "right"}
    assert sum(greedy["counts"].values()) == N
    assert greedy["value"] == greedy["counts"]["right"] / N
    form = table["format", "well_formed"]["counts"]
    assert form["cut"] == 4 * greedy["counts"]["cut"]
    assert form["unparsed"] == 4 * greedy["counts"]["unparsed"]
    assert form["right"] == 4 * (greedy["counts"]["right"] + greedy["counts"]["wrong"])


def test_samples_of_a_problem_are_one_cluster(world):
    """Half of the problems always right: 4 samples each must not look like 4 N independent rows."""

    def script(prompt: str) -> str:
        answer = worked_answer(prompt)
        return perfect(prompt) if answer is None or int(answer[:-1].split()[-1]) % 2 else "The answer is 0."

    row = scores(evaluate(engine(script), "sft", "chat", *world, SETTINGS))["arithmetic", "sampled"]
    greedy = scores(evaluate(engine(script), "sft", "chat", *world, SETTINGS))["arithmetic", "greedy"]
    assert row["method"] == "cluster-wilson"
    assert row["high"] - row["low"] == pytest.approx(greedy["high"] - greedy["low"], rel=0.1)


def test_sampling_depends_on_the_seed_of_the_problem_only(world):
    def script(prompt: str, seed: int) -> str:
        answer = worked_answer(prompt)
        return perfect(prompt) if answer is None or seed % 2 else "The answer is 0."

    rows = [evaluate(engine(script, seeded=True), n, "chat", *world, SETTINGS).rows for n in ("sft", "dpo1")]
    sampled = [[r["value"] for r in some if r["metric"] == "sampled"] for some in rows]
    assert sampled[0] == sampled[1]
    assert 0 < sum(sampled[0]) < 4 * N
    few = evaluate(engine(script, seeded=True), "sft", "chat", *world, Settings(samples=2, window=32)).rows
    two = [r["value"] for r in few if r["metric"] == "sampled"]
    assert two == [v for k, v in enumerate(sampled[0]) if k % 4 < 2]


def test_preference_against_the_references_of_sft(world):
    def shortcut(prompt: str) -> str:
        answer = worked_answer(prompt)
        return perfect(prompt) if answer is None else answer[answer.index("The") :]

    reference = evaluate(engine(shortcut), "sft", "chat", *world, SETTINGS).references
    assert len(reference) == 12
    better = evaluate(engine(), "dpo2", "chat", *world, SETTINGS, reference)
    assert scores(better)["preference_wins", "share"]["value"] == 1.0
    assert better.references == {}
    worse = evaluate(engine(lambda p: "?"), "pretrain", "base", *world, SETTINGS, reference)
    assert scores(worse)["preference_wins", "share"]["value"] == 0.0
    assert scores(worse)["preference_wins", "share"]["high"] > 0.05


def test_a_cut_answer_wins_nothing(world):
    def long(prompt: str) -> str:
        answer = worked_answer(prompt)
        return perfect(prompt) if answer is None else answer + " Well" * 40

    reference = evaluate(engine(), "sft", "chat", *world, SETTINGS).references
    found = evaluate(engine(long), "dpo1", "chat", *world, SETTINGS, reference)
    assert scores(found)["preference_wins", "share"]["value"] == 0.0


def test_sampled_sft_meets_itself_near_one_half(world):
    def script(prompt: str, seed: int) -> str:
        answer = worked_answer(prompt)
        return perfect(prompt) if answer is None or seed % 2 else "The answer is 0."

    settings = Settings(window=32, preference_samples=16)
    row = scores(evaluate(engine(script, seeded=True), "sft", "chat", *world, settings))[
        "preference_wins", "share"
    ]
    assert 0.35 < row["value"] < 0.65
    assert row["low"] < 0.5 < row["high"]


def test_bits_count_every_token_but_the_first_once(world):
    e = engine()
    items = bits.chosen(list(read_jsonl(world[1])), None)
    plan = bits.bits(items, Prompter(e, "base"), Settings(window=10))
    text = items[0]["text"]
    first = list(plan.requests)[: -(-(len(text) - 1) // 9)]
    assert bytes(t for r in first for t in r.continuation).decode() == text[1:]
    assert all(len(r.context) == 1 and len(r.continuation) <= 9 for r in plan.requests)
    rows = plan.rows(e.score(plan.requests))
    assert [r.weight for r in rows] == [len(i["text"].encode()) - 1 for i in items]
    assert rows[0].value == pytest.approx(-sum(s.logprob for s in e.score(first)) / 0.6931471805599453)


def test_documents_are_chosen_in_turn_from_the_sources():
    docs = [{"id": f"{s}{i}", "source": s, "text": "x"} for s in ("code", "text") for i in range(9)]
    some = bits.chosen(docs, 6)
    assert sorted(d["source"] for d in some) == ["code"] * 3 + ["text"] * 3
    assert some == bits.chosen(docs[::-1], 6)


def test_continuation_ids_are_those_of_the_whole():
    r = Prompter(engine(), "base").continuation("Ask: ka ", " mo")
    assert bytes(r.context) == b"Ask: ka"
    assert bytes(r.continuation) == b"  mo"
    with pytest.raises(ValueError, match="nothing to score"):
        Prompter(engine(), "base").continuation("Ask", "")


def test_a_prompt_that_does_not_fit_is_an_error(world):
    with pytest.raises(ValueError, match="do not fit the context of pretrain"):
        evaluate(engine(context=40), "pretrain", "base", *world, Settings(window=32))


def test_a_checkpoint_of_nan_is_an_error_and_no_score(world, monkeypatch):
    e = engine()
    scored = e.score

    def broken(requests):
        out = scored(requests)
        return [replace(s, logprob=float("nan")) if i == 3 else s for i, s in enumerate(out)]

    monkeypatch.setattr(e, "score", broken)
    with pytest.raises(ValueError, match=r"checkpoint dpo1: .* nan or infinite"):
        evaluate(e, "dpo1", "chat", *world, SETTINGS)


def test_bad_held_out_files_are_named(world):
    data, corpus = world
    rows = list(read_jsonl(data / "choice.jsonl"))
    write_jsonl(data / "choice.jsonl", [{**rows[0], "gold": 5}, *rows[1:]])
    with pytest.raises(ValueError, match="task choice, item c0"):
        evaluate(engine(), "sft", "chat", data, corpus, SETTINGS)
    write_jsonl(data / "choice.jsonl", [rows[0], rows[0]])
    with pytest.raises(ValueError, match=r"choice\.jsonl.*`id` of its own"):
        evaluate(engine(), "sft", "chat", data, corpus, SETTINGS)
    (data / "choice.jsonl").unlink()
    with pytest.raises(ValueError, match=r"choice\.jsonl: no such file"):
        evaluate(engine(), "sft", "chat", data, corpus, SETTINGS)


def test_summaries_come_from_rows_alone(world):
    found = evaluate(engine(), "sft", "chat", *world, SETTINGS)
    assert summarize(found.rows) == found.scores


def test_samples_are_those_of_the_sampled_metric(world):
    def script(prompt: str, seed: int) -> str:
        answer = worked_answer(prompt)
        return perfect(prompt) if answer is None or seed % 2 else "The answer is 0."

    from phikit.evals.world.run import load_items

    e = engine(script, seeded=True)
    shown = samples(e, "sft", "chat", load_items(*world, SETTINGS), SETTINGS)
    assert len(shown) == 20
    rows = evaluate(e, "sft", "chat", *world, SETTINGS).rows
    first = {r["id"]: r["outcome"] for r in rows if r["metric"] == "sampled" and r["sample"] == 0}
    sums = [s for s in shown if s["task"] == "arithmetic"]
    assert [s["verdict"] for s in sums] == [first[s["id"]] for s in sums]
    assert {"right", "wrong"} == {s["verdict"] for s in sums}
    recall = [s for s in shown if s["task"] == "recall_4x"]
    assert [s["output"] for s in recall] == [" zu", " zu"]
