"""Agent trajectories in small text worlds (appendix D.3): analysis, reflection, action, until the goal is checked.

The agent sees rules, state and goal, analyses, and picks one of the legal actions. Where it could come back to a state
it was in, it is told so (the reflection), and `guided` leaves out actions that lead there while others remain. A
trajectory is kept only if it reaches the goal within `slack` times the shortest way. The raw analyses, which lean on
the guidance, are then rewritten into thoughts that stand alone; a thought that does not name its action is replaced
by a plain one.
"""

from __future__ import annotations

from phikit.records.types import Document, Turn
from phikit.synth import environments
from phikit.synth.flows.base import Ask, Outcome, Recorder, grounded, repeats
from phikit.synth.flows.base import words as words_of
from phikit.synth.flows.shapes import note, one_of, shape


async def agent(
    seed: Document,
    ask: Ask,
    *,
    slack: float = 2.5,
    guided: bool = True,
    words: int = 20,
    language: str = "English",
) -> Outcome:
    """`seed` is from `environments.tasks`. Accepts a Dialog: task, then thought and action by turns with what the
    world says."""
    recorder = Recorder("agent", seed, ask)
    state = environments.load(str(seed.meta["environment"]), dict(seed.meta["start"]))
    best = environments.shortest(state)
    if not best:
        return recorder.give_up("the goal cannot be reached, or is reached", seed.text)
    most, seen, path = max(best + 2, int(slack * best)), {state}, []
    while not state.done and len(path) < most:
        legal = state.moves()
        fresh = [a for a, s in legal.items() if s not in seen] if guided else []
        reflection = "" if len(fresh) == len(legal) or not path else "Some actions would undo what was done."
        values = {
            "rules": state.rules, "state": state.text, "goal": state.goal, "actions": "; ".join(fresh or legal),
            "before": "; ".join(a for _, a, _ in path[-3:]) or "nothing", "reflection": reflection, "words": words,
            "language": language,
        }  # fmt: skip
        form = shape(analysis=note(7 * words, 8), action=one_of(fresh or list(legal)))
        told = await recorder.tell(
            "agent_act",
            values,
            form,
            role="solver",
            temperature=0.5,
            max_tokens=3 * words + 40,
            seed=len(path),
        )
        if told is None:
            return recorder.give_up("no legal action told", f"step {len(path) + 1} of {state.name}")
        path.append((told["analysis"], told["action"], state))
        state = legal[told["action"]]
        seen.add(state)
    if not state.done:
        return recorder.give_up(f"goal not reached: {state.name}", f"{len(path)} actions, shortest {best}")
    turns, plain = [Turn("user", seed.text)], 0
    for i, (analysis, action, before) in enumerate(path):
        thought = await _thought(recorder, analysis, action, before, words, language)
        plain += thought is None
        turns.append(Turn("assistant", f"{thought or f'From here I {action}.'}\nAction: {action}"))
        after = path[i + 1][2] if i + 1 < len(path) else state
        if i + 1 < len(path):
            turns.append(Turn("user", f"Now: {after.text}."))
    meta = recorder.meta(
        kind="agent", environment=state.name, actions=len(path), shortest=best, plain=plain, language=language,
        difficulty="easy" if best <= 3 else "medium" if best <= 6 else "hard",
    )  # fmt: skip
    return recorder.accept(turns, meta)


async def _thought(
    recorder: Recorder, analysis: str, action: str, state: environments.State, words: int, language: str
) -> str | None:
    values = {
        "analysis": analysis,
        "action": action,
        "state": state.text,
        "goal": state.goal,
        "language": language,
    }
    answer = await recorder.one("agent_rewrite", values, temperature=0.2, max_tokens=3 * words, stop=("\n",))
    written = answer.text.strip()
    fits = answer.finish == "stop" and 4 <= len(words_of(written)) <= 3 * words and not repeats(written)
    known = f"{action} {state.text} {state.goal} {analysis}"
    return written if fits and grounded(action, written) >= 0.5 and grounded(written, known) >= 0.4 else None
