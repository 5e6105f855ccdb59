"""Stage `synth` with data sets of the catalogue beside the flows."""

import json
from types import SimpleNamespace

from synth_script import Script

import phikit.ask.teacher
from phikit.recipe.load import load
from phikit.recipe.stages import synth
from phikit.records import Document, to_row
from phikit.records.io import read_jsonl, write_jsonl

PAGE = (
    "The mill of Orley was built in 1871 by weavers, and it now holds a museum of wool. It is open in summer. "
    * 2
)
WORLD = ("facts", "problems", "echo", "recall_short", "recall", "recall_long", "icl", "dialogs", "questions")


class Player(Script):
    """Plays agent: takes the first action it is offered, and thinks nothing of it; web_rewrite: one sentence."""

    async def chat(self, turns, *, n=1, **options):
        said = turns[-1].content
        if "Actions: " in said:
            action = said.partition("Actions: ")[2].partition("\n")[0].split("; ")[0]
            item = json.dumps({"analysis": f"I {action}.", "action": action})
        else:
            item = "Weavers built the mill of Orley in 1871; a museum of wool is in it now, open in summer."
        self.items = [item]
        return await super().chat(turns, n=n, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_data_sets_of_the_catalogue_are_made_from_the_corpus(tmp_path, monkeypatch):
    sets = ["agents_in_text_worlds", "web_textbook", "chat_math"]
    small = [f"world.{k}=3" for k in WORLD]
    recipe = load(
        "phi4",
        scale="nano",
        settings=["synth.forms=[]", f"synth.sets={json.dumps(sets)}", "synth.seeds=6", *small],
    )
    rows = [to_row(Document(PAGE, "text", {"path": "a.html"}))]
    write_jsonl(tmp_path / "documents.jsonl.zst", rows)
    monkeypatch.setattr(phikit.ask.teacher, "open_teacher", lambda *a, **k: Player())
    ctx = SimpleNamespace(
        recipe=recipe, config=recipe.synth, seed=1, out=tmp_path / "out",
        file=lambda stage, name: tmp_path / name,
    )  # fmt: skip
    counts = synth.run(ctx)
    flows = counts["flows"]
    assert flows["agents_in_text_worlds"]["seeds"] == 6
    assert flows["agents_in_text_worlds"]["accepted"] >= 1
    assert flows["web_textbook"]["accepted"] == 1
    assert flows["chat_math"]["rejected"] == {"no seeds in the corpus": 1}
    sources = [r["source"] for r in read_jsonl(tmp_path / "out" / "documents.jsonl.zst")]
    assert sources.count("web_rewrites") == 1
    assert sources.count("synthetic") == flows["agents_in_text_worlds"]["accepted"]
