"""Dumps of question-and-answer forums in Stack Exchange's form (`Posts.xml`): one document a thread.

Answers stand anywhere after their question, so posts are grouped in a table on disk: memory does not grow with a dump.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from xml.parsers import expat

from phikit.corpus.html_text import html_text
from phikit.records.remote import Place

NAMES = ("Posts.xml", "posts.xml")
MAX_POST, MAX_THREAD = 16 << 20, 64 << 20  # bytes of an element, characters of a thread's posts
_READ = 1 << 20
_QUESTION, _ANSWER = "1", "2"
_FIELDS = ("Id", "Score", "AcceptedAnswerId", "Title", "Body", "OwnerUserId", "OwnerDisplayName", "CreationDate",
           "ContentLicense")  # fmt: skip


def threads(path: Place) -> Iterator[tuple[int, str, str, str]]:
    """(number of the question, text, licence, "") of each thread in the order of their numbers, or (number, "", "",
    what is wrong with it). The question comes first, then the accepted answer, then the others by score. Raises
    ValueError where there is no post, and, after the threads that could be read, where the dump is damaged."""
    with tempfile.TemporaryDirectory(prefix="phikit-") as folder:
        table = sqlite3.connect(Path(folder) / "posts.db")
        try:
            columns = ", ".join(_FIELDS)
            table.execute(f"create table posts (thread integer, answer integer, {columns})")
            damage = ""
            try:
                marks = ", ".join("?" * (2 + len(_FIELDS)))
                table.executemany(f"insert into posts values ({marks})", _posts(path))
            except ValueError as e:
                damage = str(e)
            rows = table.execute(
                "select * from posts order by thread, answer, cast(Score as integer) desc, rowid"
            )
            for number, posts in groupby(rows, key=itemgetter(0)):
                yield number, *_thread(posts)
            if damage:
                raise ValueError(damage)
            if not table.execute("select count(*) from posts").fetchone()[0]:
                raise ValueError("no question or answer in it (rows of Stack Exchange's Posts.xml)")
        finally:
            table.close()


def _posts(path: Place) -> Iterator[tuple[Any, ...]]:
    """(thread, whether an answer, fields) of each question and answer."""
    found: list[Mapping[str, str]] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "row":
            found.append(attributes)

    def refuse(*_: object) -> None:
        raise ValueError("XML with a document type is not read (it could expand entities)")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.StartDoctypeDeclHandler = start, refuse
    read = 0
    with path.open("rb") as f:
        while True:
            data = f.read(_READ)
            read += len(data)
            try:
                parser.Parse(data, not data)
            except expat.ExpatError as e:
                yield from map(_post, filter(_wanted, found))
                raise ValueError(f"damaged at byte {parser.ErrorByteIndex}: {e}") from e
            yield from map(_post, filter(_wanted, found))
            found.clear()
            if not data:
                return
            if read - parser.CurrentByteIndex > MAX_POST:
                raise ValueError(f"a post of more than {MAX_POST >> 20} MB at byte {parser.CurrentByteIndex}")


def _wanted(row: Mapping[str, str]) -> bool:
    number = row.get("Id" if row.get("PostTypeId") == _QUESTION else "ParentId", "")
    return (
        row.get("PostTypeId") in (_QUESTION, _ANSWER)
        and number.isascii()
        and number.isdigit()
        and len(number) < 18
    )


def _post(row: Mapping[str, str]) -> tuple[Any, ...]:
    answer = row["PostTypeId"] == _ANSWER
    return int(row["ParentId" if answer else "Id"]), answer, *(row.get(name, "") for name in _FIELDS)


def _thread(posts: Iterator[tuple[Any, ...]]) -> tuple[str, str, str]:
    """(text, licence, "") or ("", "", what is wrong)."""
    kept: list[dict[str, str]] = []
    answers, size = [], 0
    for _, answer, *fields in posts:
        post: dict[str, str] = dict(zip(_FIELDS, fields))
        size += len(post["Body"])
        if size <= MAX_THREAD:
            kept.append(post)
            answers.append(answer)
    if size > MAX_THREAD:
        return "", "", f"a thread of more than {MAX_THREAD >> 20} MB"
    if answers[0]:
        return "", "", "answers to a question that is not in the dump"
    question, *others = kept
    best = question["AcceptedAnswerId"]
    others.sort(key=lambda p: p["Id"] != best)
    try:
        parts = [f"# {question['Title']}", *map(_written, (question, *others))]
    except ValueError as e:
        return "", "", str(e)
    licences = sorted({p["ContentLicense"] for p in kept} - {""})
    return "\n\n".join(parts), ", ".join(licences), ""


def _written(post: Mapping[str, str]) -> str:
    """As the posts of a thread on a web page are (`html_text`)."""
    who = post["OwnerDisplayName"] or (f"user {post['OwnerUserId']}" if post["OwnerUserId"] else "somebody")
    head = ", ".join(x for x in (who, post["CreationDate"][:10]) if x)
    return f"---\n\n{head}:\n\n{html_text(post['Body']) if post['Body'].strip() else ''}"
