from __future__ import annotations

import json

import pytest
import yaml

from phikit.recipe import schema
from phikit.recipe.load import BUILT_IN, load, validate
from phikit.recipe.scales import SCALES, RecipeError, override, resolve


def test_the_phi4_figures_of_the_report():
    r = load("phi4", scale="phi4")
    assert (r.model.layers, r.model.width, r.model.heads, r.model.kv_heads) == (40, 5120, 40, 10)
    assert (r.model.ffn, r.model.vocab, r.model.tied, r.model.norm_eps) == (17920, 100352, False, 1e-5)
    assert r.pretrain
    assert r.midtrain
    assert r.sft
    assert r.mixture
    assert r.pivotal
    assert r.dpo1
    assert (r.pretrain.tokens, r.pretrain.context, r.pretrain.batch) == (10**13, 4096, 5760)
    assert (r.pretrain.lr, r.pretrain.weight_decay, r.pretrain.decay) == (3e-4, 0.1, None)
    assert (r.midtrain.tokens, r.midtrain.context, r.midtrain.rope_base) == (250 * 10**9, 16384, 250000)
    assert r.midtrain.lr == pytest.approx(r.pretrain.lr / 10)
    assert r.midtrain.long == pytest.approx(0.3)
    assert (r.sft.tokens, r.sft.lr) == (8 * 10**9, 1e-6)
    table5 = {"web": 0.15, "web_rewrites": 0.15, "synthetic": 0.4, "code": 0.2, "acquired": 0.1}
    assert r.mixture.fractions == pytest.approx(table5)
    assert (r.pivotal.low, r.pivotal.high) == (0.2, 0.8)
    assert r.dpo1.optimizer == r.pretrain.optimizer == "adamw"


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_has_all_stages_in_order(scale):
    recipe = load("phi4", scale=scale)
    assert recipe.stages == tuple(s for s in schema.STAGES if s not in ("init", "questions"))
    assert recipe.scale == scale


def test_nano_is_the_default_scale():
    assert load().scale == "nano"
    assert load() == load("phi4", scale="nano")


def test_midtraining_is_four_times_the_context_at_every_scale():
    for scale in SCALES:
        r = load("phi4", scale=scale)
        assert r.midtrain
        assert r.pretrain
        assert r.midtrain.context == 4 * r.pretrain.context


def test_settings_win_over_the_file_and_take_units():
    r = load(
        "phi4", settings=["pretrain.tokens=3M", "corpus.languages=[en, de]", "mixture.phases.0.until=50%"]
    )
    assert r.pretrain
    assert r.corpus
    assert r.mixture
    assert r.pretrain.tokens == 3_000_000
    assert r.corpus.languages == ("en", "de")
    assert r.mixture.phases[0].until == 0.5
    assert load("phi4", seed=7).seed == 7


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("pretrian.lr=1", r"pretrian: unknown key; did you mean pretrain\?"),
        ("pretrain.lrr=1", r"pretrain\.lrr: unknown key; did you mean pretrain\.lr\?"),
        (
            "mixture.phases.0.untl=1",
            r"mixture\.phases\.0\.untl: unknown key; did you mean mixture\.phases\.0\.until",
        ),
        ("betas=[1, 2]", r"betas: unknown key; did you mean pretrain\.betas"),
        ("world.zzz=1", r"world\.zzz: unknown key; keys here: operands, steps"),
        ("pretrain.lr=-1", r"pretrain\.lr: .*greater than 0.*-1"),
        ("pretrain.lr=.nan", r"pretrain\.lr: .*finite"),
        ("pretrain.tokens=abc", r"pretrain\.tokens: 'abc' is not a count: write 2000000 or 2M"),
        ("pretrain.warmup=5", r"pretrain\.warmup: 5 is more than the whole"),
        ("layout.compile=1", r"layout\.compile: .*boolean"),
        ("seed.x=1", r"seed is the value 20241212, it has no keys"),
        ("mixture.phases.9.until=1", r"mixture\.phases is a list of 3"),
        ("mixture.fractions.code=90%", r"mixture: fractions add up to"),
        ("mixture.phases.2.until=90%", r"mixture: phases must end at rising shares"),
        ("model.heads=3", r"model: width 128 is not a multiple of heads 3"),
        ("model.kv_heads=3", r"model: heads 4 is not a multiple of kv_heads 3"),
        ("dpo1=3", r"dpo1: .*object"),
        ("nothing", r"write it as section\.key=value"),
        ("a..b=1", r"write the path as section\.key"),
        ("corpus.languages=[en", r"the value is not YAML"),
    ],
)
def test_errors_name_the_key_and_the_fix(setting, message):
    with pytest.raises(RecipeError, match=message):
        load("phi4", settings=[setting])


def test_a_missing_key_and_a_missing_scale_are_named():
    with pytest.raises(RecipeError, match=r"name: missing"):
        validate({"model": {}})
    with pytest.raises(RecipeError, match=r"`model:`.*or.*`init:`.*one of the two"):
        validate({"name": "x"})
    with pytest.raises(RecipeError, match=r"a\.1\.lr has no value at scale mini \(it has nano\)"):
        resolve({"a": [0, {"lr": {"nano": 1}}]}, "mini")
    with pytest.raises(RecipeError, match=r"unknown scale 'nan'.*did you mean nano"):
        load("phi4", scale="nan")
    with pytest.raises(RecipeError, match=r"no recipe 'phi5'.*phi4"):
        load("phi5")


def test_scale_mappings_may_hold_mappings_and_lists():
    raw = {"a": {"nano": {"b": [1, {"nano": 2, "mini": 3}]}, "mini": 0}, "c": {"nano": 1, "other": 2}}
    assert resolve(raw, "nano") == {"a": {"b": [1, 2]}, "c": {"nano": 1, "other": 2}}


def test_an_override_leaves_its_input_alone():
    raw = {"a": {"b": [1, 2]}}
    assert override(raw, [("a.b.1", 5), ("a.new.key", 6)]) == {"a": {"b": [1, 5], "new": {"key": 6}}}
    assert raw == {"a": {"b": [1, 2]}}


def _write(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


OWN = "name: own\nmodel: {layers: 1, width: 8, heads: 2, kv_heads: 1, ffn: 16, vocab: 64}\n"


def test_an_own_recipe_may_leave_stages_out_and_choose_their_order(tmp_path):
    recipe = load(_write(tmp_path, OWN + "scale: mini\nexport:\neval:\n"))
    assert recipe.stages == ("export", "eval")
    assert recipe.scale == "mini"
    assert recipe.eval == schema.Eval()
    assert recipe.sft is None


def test_yaml_scalars_are_those_of_yaml_1_2(tmp_path):
    recipe = load(
        _write(tmp_path, OWN + "corpus: {languages: [no, en], max_bytes: {code: 1e3, text: 2E+3}}\n")
    )
    assert recipe.corpus
    assert recipe.corpus.languages == ("no", "en")
    assert (recipe.corpus.max_bytes.code, recipe.corpus.max_bytes.text) == (1000, 2000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1\n", "a recipe is a mapping of sections, got list"),
        ("", "got NoneType"),
        ("a: &x [1]\nb: *x\n", "no aliases"),
        ("name: a\nname: b\n", "'name' twice"),
        ("a: !!python/object:os.system x\n", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("1: 2\n", "a recipe is a mapping of sections"),
        ("model: {? [1, 2] : 3}\n", "not valid YAML"),
    ],
)
def test_malformed_files_are_clear_errors(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message):
        load(_write(tmp_path, text))


def test_bytes_that_are_no_text_are_a_clear_error(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load(str(path))


def test_the_recipe_is_frozen():
    recipe = load()
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_the_json_schema_knows_units_scales_and_empty_sections():
    made = json.loads(json.dumps(schema.json_schema()))
    assert made["additionalProperties"] is False
    tokens = made["$defs"]["Pretrain"]["properties"]["tokens"]["anyOf"]
    assert any("pattern" in str(option) for option in tokens)
    assert any(set(option.get("properties", {})) == set(SCALES) for option in tokens)
    assert {"type": "null"} in made["properties"]["eval"]["anyOf"]
    names = set(made["properties"])
    assert set(yaml.safe_load((BUILT_IN / "phi4.yaml").read_text(encoding="utf-8"))) <= names


def test_every_key_of_the_file_is_a_known_key():
    assert "pretrain.lr" in schema.known_keys()
    assert "mixture.phases.until" in schema.known_keys()
    assert schema.model_at(("mixture", "phases", 0)) is schema.Phase


def test_a_stage_may_have_a_seed_of_its_own():
    r = load("phi4", settings=["seed=5", "sft.seed=0"])
    assert [r.seed_of(s) for s in ("pretrain", "sft", "eval")] == [5, 0, 5]
