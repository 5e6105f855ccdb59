"""Pages of our own making: every form of mathematics, code, tables, lists, threads, boilerplate."""

from __future__ import annotations

import random

import pytest

from phikit.corpus.asciimath import asciimath_tex
from phikit.corpus.html_text import html_text

PROSE = "The area under a curve is found by adding up thin strips, and the sum tends to a limit as they grow thinner."
MATHML = "<mfrac><msup><mi>x</mi><mn>2</mn></msup><msqrt><mi>α</mi></msqrt></mfrac>"


def page(inner: str, head: str = "") -> str:
    return f"<html><head>{head}</head><body><h1>Title</h1><p>{PROSE}</p>{inner}<p>{PROSE} Again.</p></body></html>"


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (f"<p>so <math>{MATHML}</math> is</p>", r"so $\frac{x^2}{\sqrt{\alpha}}$ is"),
        (f"<math display=block>{MATHML}</math>", r"$$\frac{x^2}{\sqrt{\alpha}}$$"),
        (
            "<p><math><semantics><mi>y</mi><annotation encoding='application/x-tex'>\\hat y % note\n+1</annotation>"
            "</semantics></math></p>",
            r"$\hat y +1$",
        ),
        ("<p><math alttext='\\frac{1}{n}' class=ltx_Math><mi>q</mi></math></p>", r"$\frac{1}{n}$"),
        (
            "<p>a <span class=katex><span class=katex-mathml><math><semantics><mi>c</mi>"
            "<annotation encoding='application/x-tex'>c_1</annotation></semantics></math></span>"
            "<span class=katex-html aria-hidden=true><span>c</span><span>1</span></span></span> b</p>",
            "a $c_1$ b",
        ),
        (
            "<p><span class=katex-display><span class=katex><math><annotation encoding='application/x-tex'>z^2"
            "</annotation></math></span></span></p>",
            "$$z^2$$",
        ),
        (
            "<p>m <span class=MathJax_Preview>ab</span><span class=MathJax><span>a &lt; b</span></span>"
            "<script type='math/tex'>a < b</script> n</p>",
            "m $a < b$ n",
        ),
        ("<script type='math/tex; mode=display'>\\int f</script>", r"$$\int f$$"),
        (
            "<p><mjx-container display=true><mjx-math></mjx-math><mjx-assistive-mml><math><mi>π</mi></math>"
            "</mjx-assistive-mml></mjx-container></p>",
            r"$$\pi$$",
        ),
        (f"<p>k <span class=MathJax data-mathml='<math>{MATHML}</math>'><i>glyphs</i></span></p>",
         r"k $\frac{x^2}{\sqrt{\alpha}}$"),
        ("<p>t <script type='math/asciimath'>sqrt(x)/2</script></p>", r"t $\frac{\sqrt{x}}{2}$"),
        ("<p>s <script type='math/mml'><math><mi>β</mi></math></script></p>", r"s $\beta$"),
        ("<p>p <img class=latex alt='$x+y$' src=a.png> q</p>", "p $x+y$ q"),
        ("<p>p <img class=latexcenter alt='\\[x+y\\]' src=a.png></p>", "$$x+y$$"),
        ("<p>p <img alt='n!' src='https://latex.codecogs.com/gif.latex?n!'></p>", "p $n!$"),
        (
            "<p>e <span class=mwe-math-element><span style='display: none'><math alttext='{\\displaystyle E=mc^{2}}'>"
            "<mi>E</mi></math></span>"
            "<img class=mwe-math-fallback-image-inline alt='{\\displaystyle E=mc^{2}}'></span></p>",
            "e $E=mc^{2}$",
        ),
        ("<p>w <span class='math notranslate'>\\(a_i\\)</span></p>", "w $a_i$"),
        ("<p>Water is H<sub>2</sub>O and 10<sup>-3</sup>, on the 1<sup>st</sup></p>", "H_2O and 10^{-3}, on the 1st"),
    ],
)  # fmt: skip
def test_every_form_of_mathematics_becomes_tex_once(inner, expected):
    text = html_text(page(inner))
    assert expected in text
    assert text.count(expected) == 1
    between = text.partition(PROSE)[2].partition(PROSE)[0]
    assert between.count("$") == expected.count("$")  # no second form of the same formula
    assert "glyphs" not in text


def test_delimiters_in_text_are_formulas_only_where_the_page_typesets_them():
    inner = r"<p>a \(x^2\) b</p><pre>grep '\(x\)'</pre>"
    assert r"a \(x^2\) b" in html_text(page(inner))
    text = html_text(page(inner, "<script src=/MathJax.js></script>"))
    assert "a $x^2$ b" in text
    assert r"grep '\(x\)'" in text


@pytest.mark.parametrize(
    ("source", "tex"),
    [
        ("x^2/3", r"\frac{x^{2}}{3}"),
        ("[[1,0],[0,1]]", r"\begin{bmatrix}1 & 0 \\ 0 & 1\end{bmatrix}"),
        ("lim_(x->oo) f(x)", r"\lim_{x \to \infty} f (x)"),
        ('abs(a) "if" root(3)(b)', r"|a| \text{if} \sqrt[3]{b}"),
        ("(" * 5000, "(" * 5000),
    ],
)
def test_asciimath(source, tex):
    assert asciimath_tex(source) == tex


def test_code_is_kept_byte_for_byte():
    rng = random.Random(3)
    for _ in range(30):
        code = "x" + "".join(rng.choice(" \t\n`~$\\|<>&ab") for _ in range(60)) + "y\n"
        escaped = code.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        for inner in (f"<pre>{escaped}</pre>", f"<ul><li>item<pre><code class=language-c>{escaped}</code></pre></ul>",
                      f"<blockquote><pre>{escaped}</pre></blockquote>"):  # fmt: skip
            assert f"\n{code}```" in html_text(page(inner, "<script src=katex.js></script>"))


def test_tables_lists_and_headings_are_markdown():
    text = html_text(
        page(
            "<h2>Sizes<a class=headerlink href=#s>¶</a></h2>"
            "<table><tr><th>a</th><th>b|c</th></tr><tr><td colspan=2>1</td></tr>"
            "<tr><td>2<td><math><mi>γ</mi></math></table><ol start=3><li>three<ul><li>inner</ul><li>four</ol>"
        )
    )
    assert "## Sizes\n\n| a | b\\|c |\n| --- | --- |\n| 1 |  |\n| 2 | $\\gamma$ |" in text
    assert "3. three\n   - inner\n4. four" in text


def test_boilerplate_goes_and_sentences_stay():
    links = "".join(f"<li><a href=/{i}>Section {i}</a></li>" for i in range(12))
    html = (
        f"<html><body><div class=topnav>Menu bar</div><div id=sidebar><ul>{links}</ul></div><ul>{links}</ul>"
        f"<div class=content><h1>Strips</h1><p>{PROSE}</p><p>See <a href=x>the other page on limits</a>.</p>"
        f"<div style='display:none'>secret text</div><p>{PROSE} More.</p></div>"
        "<p>Copyright 2020 The Authors</p><footer>Imprint and terms</footer></body></html>"
    )
    text = html_text(html)
    assert text.startswith("# Strips\n\n" + PROSE)
    assert "the other page on limits" in text
    for gone in ("Menu", "Section 3", "secret", "Copyright", "Imprint"):
        assert gone not in text


def test_a_class_name_never_drops_the_body_of_a_page():
    assert PROSE in html_text(f"<html><body><div class='sidebar nav menu'><p>{PROSE}</p></div></body></html>")


def test_posts_of_a_thread_stand_under_their_authors():
    posts = "".join(
        f"<div class=post><div class=avatar>pic</div><span class=author>user{i}</span> <time>2020-01-0{i}</time>"
        f"<div class=body><p>Answer number {i}: {PROSE}</p></div><div class=signature>sig {i}</div></div>"
        for i in (1, 2, 3)
    )
    text = html_text(f"<html><body><h1>How?</h1><div class=thread>{posts}</div></body></html>")
    assert text.startswith("# How?")
    for i in (1, 2, 3):
        assert f"---\n\nuser{i}, 2020-01-0{i}:\n\nAnswer number {i}: {PROSE}" in text
        assert text.count(f"user{i}") == 1
    assert "sig" not in text


def test_hostile_pages_have_an_outcome():
    assert "deep" in html_text("<div>" * 20_000 + f"<p>deep {PROSE}")
    assert html_text("") == ""
    assert html_text("<html><body></body></html>") == ""
    assert PROSE in html_text(f"<math>{'<mrow>' * 5000}<mi>x</mi></math><p>{PROSE}</p>")


def test_nested_scripts_take_time_linear_in_their_depth():
    inner = "<mi>x</mi>"
    for _ in range(40):
        inner = f"<mmultiscripts><mi>a</mi><mprescripts/>{inner}<none/></mmultiscripts>"
    assert html_text(page(f"<p>t <math>{inner}</math></p>")).count("{}_") == 40
