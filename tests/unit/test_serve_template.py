"""Ollama's templates (Go's text/template), and tools in and out of text."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phikit.serve import tools
from phikit.serve.go_parse import TemplateError
from phikit.serve.go_template import GoTemplate
from phikit.serve.tools import AnswerText, Call
from phikit.store.modelfile import modelfile, parse

TALK = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo"},
    {"role": "user", "content": "a"},
]


def test_the_exported_template_is_phi_4s_own_form():
    """The Modelfile of `phikit export --to ollama` renders what the Hugging Face template of the model renders."""
    from jinja2 import Template

    from phikit.text.chat import TEMPLATE

    go = GoTemplate(parse(modelfile("m.gguf")).template or "")
    assert go.render(TALK) == Template(TEMPLATE).render(messages=TALK, add_generation_prompt=True)


def test_the_official_phi4_template_has_newlines():
    source = """{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
<|im_start|>{{ .Role }}<|im_sep|>
{{ .Content }}{{ if not $last }}<|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_end|>
<|im_start|>assistant<|im_sep|>
{{ end }}
{{- end }}"""
    assert GoTemplate(source).render(TALK[1:]) == (
        "<|im_start|>user<|im_sep|>\nhi<|im_end|>\n<|im_start|>assistant<|im_sep|>\nyo<|im_end|>\n"
        "<|im_start|>user<|im_sep|>\na<|im_end|>\n<|im_start|>assistant<|im_sep|>\n"
    )


def test_an_older_template_sees_one_turn_at_a_time():
    source = "{{ if .System }}<s>{{ .System }}</s>{{ end }}{{ if .Prompt }}<u>{{ .Prompt }}</u>{{ end }}"
    source += "<a>{{ .Response }}</a>\n"
    assert GoTemplate(source).render(TALK) == "<s>S</s><u>hi</u><a>yo</a>\n<u>a</u><a>"
    assert GoTemplate("{{ .Prompt }}").render(TALK[1:2]) == "hi"
    assert GoTemplate("{{ .Prompt }} ->").render(TALK[1:]) == "hi ->yoa ->"


def test_turns_of_one_role_are_joined():
    again = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert GoTemplate("{{ range .Messages }}[{{ .Content }}]{{ end }}").render(again) == "[a\n\nb]"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ if .Prompt }}yes{{ else }}no{{ end }}", "yes"),
        ('{{ if not .Prompt }}a{{ else if eq .Prompt "q" }}b{{ else }}c{{ end }}', "b"),
        ("{{ with .Suffix }}x{{ else }}y{{ end }}", "y"),
        ("{{ $x := 1 }}{{ range $i, $c := .List }}{{ $x = $c }}{{ end }}{{ $x }}", "3"),
        ("{{ range .List }}{{ if eq . 2 }}{{ continue }}{{ end }}{{ . }},{{ end }}", "1,3,"),
        ("{{ range .List }}{{ if eq . 2 }}{{ break }}{{ end }}{{ . }},{{ end }}", "1,"),
        ("{{ range .None }}a{{ else }}empty{{ end }}", "empty"),
        ("{{ len .List }} {{ index .List 1 }} {{ (index .List 0) }}", "3 2 1"),
        ("{{ .Map.key }} {{ json .Map }}", 'v {"key":"v"}'),
        ('{{ printf "%s-%d-%v-%q" .Prompt 5 true "a" }}', 'q-5-true-"a"'),
        ("{{ \"}}\" }}{{ `raw` }}{{ '\\n' }}", "}}raw10"),
        ("{{/* a {{ comment }} */}}x", "x"),
        ("a  {{- /* c */ -}}  b", "ab"),
        ("{{ and .Prompt .Suffix }}|{{ or .Suffix .Prompt }}|{{ .Prompt | len | eq 1 }}", "|q|true"),
        ('{{ define "t" }}<{{ . }}>{{ end }}{{ template "t" .Prompt }}', "<q>"),
        ("{{ if and (gt (len .List) 2) (lt 1 2) }}ok{{ end }}", "ok"),
        ("{{ -1 }}{{ 2.5 }}{{ true }}{{ nil }}", "-12.5true"),
    ],
)
def test_actions(source, text):
    values = {"List": [1, 2, 3], "Map": {"key": "v"}, "None": []}
    whole = GoTemplate("{{ if .Messages }}{{ end }}" + source)
    assert whole.render([{"role": "user", "content": "q"}], Prompt="q", **values) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{",
        "{{ if }}",
        "{{ end }}",
        "{{ if .X }}",
        "{{ foo }}",
        "{{ .X | }}",
        "{{ (1 }}",
        "{{ $x }}",
        '{{ template "no" }}',
        '{{ "open }}',
        "{{ range }}{{ end }}",
        "{{ else }}",
        "{{ 1 2 }}",
        "{{ @ }}",
        "{{ index .Messages 99 }}",
        '{{ lt 1 "a" }}',
    ],
)
def test_what_is_no_template_is_an_error_that_says_so(source):
    with pytest.raises(TemplateError):
        GoTemplate(source).render(TALK)


@given(st.text(alphabet='{}-. $"`()|=:ifrangeendelse.Messages\n', max_size=60))
def test_junk_is_a_template_or_a_template_error(source):
    with suppress(TemplateError):
        GoTemplate(source).render(TALK)


TOOLS = tools.check(
    [
        {
            "type": "function",
            "function": {
                "name": "add",
                "parameters": {
                    "type": "object",
                    "properties": {"a": {"$ref": "#/$defs/n"}},
                    "$defs": {"n": {"type": "integer"}},
                },
            },
        }
    ]
)


def test_the_schema_of_an_answer_keeps_definitions_apart():
    form = tools.schema([*TOOLS, *TOOLS], "auto")
    assert set(form["$defs"]) == {"t0_n", "t1_n"}
    first = form["anyOf"][0]["properties"]["tool_calls"]["items"]["anyOf"][0]
    assert first["properties"]["arguments"]["properties"]["a"] == {"$ref": "#/$defs/t0_n"}
    assert "anyOf" not in tools.schema(TOOLS, "required")


@pytest.mark.parametrize(
    ("text", "calls", "rest"),
    [
        ('<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', [Call("add", {"a": 1})], ""),
        (
            'Well.<tool_call>{"name": "add", "arguments": "{\\"a\\": 2}"}</tool_call>',
            [Call("add", {"a": 2})],
            "Well.",
        ),
        ('<|tool_call|>[{"name": "add", "arguments": {}}]<|/tool_call|>', [Call("add", {})], ""),
        ('[TOOL_CALLS] [{"name": "add", "arguments": {}}]', [Call("add", {})], ""),
        ('{"name": "add", "parameters": {"a": 3}}', [Call("add", {"a": 3})], ""),
        ('{"type": "function", "function": {"name": "add", "arguments": {}}}', [Call("add", {})], ""),
        ('{"city": "Paris"}', [], '{"city": "Paris"}'),
        ("<tool_call>junk</tool_call>", [], "<tool_call>junk</tool_call>"),
        ("plain text", [], "plain text"),
    ],
)
def test_calls_in_the_forms_of_models_that_know_tools(text, calls, rest):
    assert tools.read_native(text) == (rest, calls)


@given(st.text(max_size=40), st.lists(st.integers(1, 5), max_size=60))
def test_the_text_of_an_answer_streams(text, sizes):
    """Whatever the pieces, what was told together is the text."""
    whole, reader, said, at = json.dumps({"answer": text}), AnswerText(), "", 0
    for size in [*sizes, len(whole)]:
        said += reader.add(whole[at : at + size])
        at += size
    assert said == text
    assert tools.read_answer(whole) == (text, [])


def test_calls_do_not_stream_as_text():
    reader = AnswerText()
    assert reader.add('{"tool_calls": [{"name": "add", "arguments": {}}]}') == ""
