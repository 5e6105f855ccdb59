from __future__ import annotations

import json
import sys

import pytest

from phikit import cli
from phikit.recipe import bench


def call(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["phikit", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_schema_is_json(monkeypatch, capsys):
    assert call(monkeypatch, "recipe", "schema") == 0
    assert "pretrain" in json.loads(capsys.readouterr().out)["properties"]


def test_keys_show_the_values_of_a_scale(monkeypatch, capsys):
    assert call(monkeypatch, "recipe", "keys", "--scale", "phi4", "--set", "sft.lr=2e-6") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "pretrain.tokens = 10000000000000" in lines
    assert "sft.lr = 2e-06" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--set", "pretrian.lr=1"], "pretrian: unknown key; did you mean pretrain?"),
        (["run", "nothing.yaml"], "no recipe 'nothing.yaml'"),
        (["plan", "--scale", "huge"], "unknown scale 'huge' (known: nano, mini, phi4)"),
        (["show", "nowhere"], "no run here"),
        (["trace", "nowhere", "0"], "no such run folder"),
        (["export", "nowhere", "to"], "the export stage is not finished"),
    ],
)
def test_errors_are_one_line_without_a_traceback(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_benchmarks_are_listed_and_run(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    script = (
        '"""Counts to n.\n\nMore."""\nimport sys\nprint("log", sys.argv[1:])\nprint(\'{"name": "count"}\')\n'
    )
    (tmp_path / "benchmarks" / "count.py").write_text(script, encoding="utf-8")
    (tmp_path / "benchmarks" / "_shared.py").write_text("", encoding="utf-8")
    assert bench.benchmarks() == {"count": "Counts to n."}
    assert call(monkeypatch, "bench") == 0
    assert "Counts to n." in capfd.readouterr().out
    assert call(monkeypatch, "bench", "count", "--json", "--pairs", "3") == 0
    said = capfd.readouterr()
    assert json.loads(said.out) == {"name": "count"}
    assert "['--pairs', '3']" in said.err
    assert call(monkeypatch, "bench", "cuont") == 2
    assert "no benchmark 'cuont' (known: count)" in capfd.readouterr().err
