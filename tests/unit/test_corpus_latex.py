from __future__ import annotations

import time

import pytest

from phikit.corpus.latex import latex_text, project

SOURCE = r"""\documentclass{article}
\newcommand{\R}{\mathbb{R}}
\newcommand{\norm}[1]{\left\|#1\right\|}
\newcommand{\odd}[2][x]{#1#2}
\DeclareMathOperator{\tr}{tr}
\def\half{\frac12}
\title{On \emph{Norms}}
\begin{document}
\maketitle
\section{Start}\label{s} % a comment with $x$
Let $x\in\R$ and 50\% of \textbf{it}~\cite{a}, by Erd\H{o}s and na\"{\i}ve caf\'e; see \ref{s}.
\begin{equation}\label{e}
 \norm{x} = \half \tr(A) % why
\end{equation}
\begin{align*} a &= b \\ c &= d \label{x} \end{align*}
\[ \int_0^1 f \] First line\\[2pt] second \verb|a%b|.
\begin{itemize}\item one \item[two] second \begin{enumerate}\item inner\end{enumerate}\end{itemize}
\begin{theorem}[Zorn] Every chain. \end{theorem}
\begin{verbatim}
  x = 1  % kept
\end{verbatim}
\begin{tabular}{lr} name & $x$ \\ \hline a\&b & 2 \end{tabular}
\begin{tikzpicture}\draw (0,0);\end{tikzpicture}
\odd{y}
\end{document} after
"""


def test_equations_and_structure_are_kept():
    text = latex_text(SOURCE)
    assert text.startswith("# On Norms\n")
    for part in (
        "## Start",
        r"Let $x\in\mathbb{R}$ and 50% of it, by Erdős and naïve café; see.",
        r"$$\left\|x\right\| = \frac12 \operatorname{tr}(A)$$",
        "\\begin{align*}\na &= b \\\\ c &= d\n\\end{align*}",
        r"$$\int_0^1 f$$",
        "First line\nsecond `a%b`.",
        "- one\n- two: second\n1. inner",
        "Theorem (Zorn). Every chain.",
        "```\n  x = 1  % kept\n```",
        "| name | $x$ |\n| --- | --- |\n| a&b | 2 |",
    ):
        assert part in text, part
    for gone in ("comment", "draw", "after", "cite", "label", "why"):
        assert gone not in text


def test_inputs_are_put_in_place_and_missing_ones_named():
    files = {"a": "A \\input{b} % \\input{never}\n", "b": "B"}
    source, missing = project("\\include{a} end \\input{gone}", files.get)
    assert "A B" in source
    assert "never" not in source
    assert missing == ["gone"]
    with pytest.raises(ValueError, match="circle: a -> b -> a"):
        project("\\input{a}", {"a": "\\input{b}", "b": "\\input{a}"}.get)


def test_macros_that_explode_are_an_error():
    doubling = "".join(
        f"\\newcommand{{\\m{chr(97 + i)}}}{{{(chr(92) + 'm' + chr(98 + i)) * 40}}}\n" for i in range(8)
    )
    with pytest.raises(ValueError, match="macros make"):
        latex_text(doubling + "\\begin{document}" + "\\ma " * 50 + "\\end{document}")


def test_time_grows_with_length_not_its_square():
    body = "Some text \\label{a} with $x_1$ and \\cite{b} in \\emph{it}.\n\\section{S} \\footnote{n}\n"
    assert len(latex_text("\\begin{document}" + body * 4000 + "\\end{document}")) > 100_000  # 320 kB
    begin = time.process_time()
    latex_text("\\begin{document}" + body * 4000 + "\\end{document}")
    assert time.process_time() - begin < 6
