"""Every kind of file a folder may hold, made here."""

from __future__ import annotations

import gzip
import json
import mailbox
import zipfile
from email.message import EmailMessage

import pytest

from phikit.corpus import mail
from phikit.corpus.extract import extract
from phikit.corpus.folders import Folder, folder_documents
from phikit.corpus.rejection import Rejection

W = 'xmlns:w="urn:w" xmlns:m="urn:m"'
DOCX = f"""<?xml version="1.0"?><w:document {W}><w:body>
<w:p><w:pPr><w:pStyle w:val="Heading2"/></w:pPr><w:r><w:t>Head</w:t></w:r></w:p>
<w:p><w:r><w:t>Let </w:t></w:r><m:oMath><m:f><m:num><m:r><m:t>α</m:t></m:r></m:num><m:den><m:sSup><m:e><m:r><m:t>x</m:t>
</m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup></m:den></m:f></m:oMath><w:del><w:r><w:t>gone</w:t></w:r></w:del></w:p>
<w:p><w:pPr><w:numPr/></w:pPr><w:r><w:t>item</w:t></w:r></w:p>
<w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc></w:tr></w:tbl>
</w:body></w:document>"""


def write_zip(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in entries.items():
            z.writestr(name, data)


def warc_record(kind, body, address="http://e.org/a", media="application/http; msgtype=response"):
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {address}\r\nContent-Type: {media}\r\n"
    return (head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body + b"\r\n\r\n"


def http(body, *fields):
    return (
        "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: text/html; charset=utf-8", *fields, "", ""]).encode()
        + body
    )


def read(folder):
    items = list(folder_documents(Folder(folder, "x")))
    good = {i.meta["path"].split("/", 1)[1]: i for i in items if not isinstance(i, Rejection)}
    return good, {i.path.split("/", 1)[1]: i.detail for i in items if isinstance(i, Rejection)}


def test_word_documents_and_books(tmp_path):
    write_zip(tmp_path / "a.docx", {"word/document.xml": DOCX})
    write_zip(
        tmp_path / "b.epub",
        {
            "META-INF/container.xml": '<container><rootfiles><rootfile full-path="O/p.opf"/></rootfiles></container>',
            "O/p.opf": '<package><manifest><item id="2" href="two.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="1" href="o%20ne.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="1"/><itemref idref="2"/></spine></package>',
            "O/o ne.xhtml": "<?xml version='1.0'?><html><head><title/></head><body><p>Chapter one</p></body></html>",
            "O/two.xhtml": "<html><body><p>Two <m:math xmlns:m='u'><m:mi>δ</m:mi></m:math></p></body></html>",
        },
    )
    good, bad = read(tmp_path)
    assert not bad
    text = good["a.docx"].text
    assert text == "## Head\n\nLet $\\frac{\\alpha}{x^{2}}$\n\n- item\n\n| a | b |\n| --- | --- |"
    assert list(good) == ["a.docx", "b.epub#O/o ne.xhtml", "b.epub#O/two.xhtml"]
    texts = [d.text for i in list(good.values())[1:] for d in extract(i)]
    assert texts == ["Chapter one", "Two $\\delta$"]
    assert good["b.epub#O/two.xhtml"].meta["origin"].endswith("b.epub")


def test_nested_formulas_of_word_take_time_linear_in_their_depth(tmp_path):
    inner = "<m:r><m:t>x</m:t></m:r>"
    for _ in range(60):
        inner = f"<m:nary><m:sub>{inner}</m:sub><m:e><m:r><m:t>y</m:t></m:r></m:e></m:nary>"
    document = f"<w:document {W}><w:body><w:p><m:oMath>{inner}</m:oMath></w:p></w:body></w:document>"
    write_zip(tmp_path / "a.docx", {"word/document.xml": document})
    good, bad = read(tmp_path)
    assert not bad
    assert good["a.docx"].text.count("\\int_{") == 60


def test_mail_tables_and_packed_text(tmp_path):
    box = mailbox.mbox(tmp_path / "m.mbox")
    for i in (1, 2):
        message = EmailMessage()
        message["From"], message["Subject"] = f"p{i}@e.org", "Grüße"
        message.set_content(f"Body {i}\n")
        message.add_alternative("<p>html</p>", subtype="html")
        box.add(message)
    box.close()
    (tmp_path / "n.eml").write_bytes(b"Subject: s\nContent-Type: text/plain; charset=no-such\n\nx")
    (tmp_path / "r.json").write_text(json.dumps({"rows": [{"text": "one"}, 3]}))
    (tmp_path / "s.csv").write_text('text,n\n"a, ""b""\nc",1\n')
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(b"packed"))
    good, bad = read(tmp_path)
    assert good["m.mbox#2"].text == "From: p2@e.org\nSubject: Grüße\n\nBody 2"
    assert {k: v.text for k, v in good.items() if k[0] in "rst"} == {
        "r.json#1": "one",
        "s.csv#1": 'a, "b"\nc',
        "t.txt.gz": "packed",
    }
    assert set(bad) == {"r.json#2", "n.eml#1"}
    assert "no object but int" in bad["r.json#2"]


def test_a_mailbox_is_read_message_by_message(tmp_path, monkeypatch):
    monkeypatch.setattr(mail, "MAX_MESSAGE", 1000)
    messages = [f"From a@e.org now\nSubject: {i}\n\nBody {i}\n" for i in range(3)]
    messages[1] += "From" * 1000 + "\n"  # too long, and no line that begins a message
    (tmp_path / "m.mbox").write_text("what comes before\n" + "\n".join(messages))
    (tmp_path / "n.eml").write_text("Subject: n\n\n" + "x" * 1000)
    good, bad = read(tmp_path)
    assert {k: v.text for k, v in good.items()} == {
        "m.mbox#1": "Subject: 0\n\nBody 0",
        "m.mbox#3": "Subject: 2\n\nBody 2",
    }
    assert set(bad) == {"m.mbox#2", "n.eml#1"}
    assert all("a message of more than" in detail for detail in bad.values())


@pytest.mark.parametrize("packed", [False, True])
def test_web_archives(tmp_path, packed):
    page = "<p>café</p>".encode()
    records = [
        warc_record("warcinfo", b"x", media="text/plain"),
        warc_record("response", http(page), "http://e.org/1"),
        warc_record("response", http(gzip.compress(page), "Content-Encoding: gzip"), "http://e.org/2"),
        warc_record(
            "response",
            http(b"c\r\n" + page + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
            "http://e.org/3",
        ),
        warc_record("response", http(page, "Content-Encoding: br"), "http://e.org/4"),
        warc_record("response", b"HTTP/1.1 404 No\r\n\r\n", "http://e.org/5"),
    ]
    name = "w.warc.gz" if packed else "w.warc"
    (tmp_path / name).write_bytes(b"".join(gzip.compress(r) if packed else r for r in records))
    good, bad = read(tmp_path)
    assert {k: v.text for k, v in good.items()} == {
        f"{name}#http://e.org/{i}": "<p>café</p>" for i in (1, 2, 3)
    }
    assert list(bad) == [f"{name}#http://e.org/4"]


def test_latex_projects_are_one_document(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "main.tex").write_text(
        "\\documentclass{a}\\begin{document}\\input{sub/one}\\input{../../etc/passwd}\\end{document}"
    )
    (tmp_path / "sub" / "one.tex").write_text("Part $x$")
    (tmp_path / "zalone.tex").write_bytes(b"Caf\xe9")
    good, bad = read(tmp_path)
    assert not bad
    assert list(good) == ["main.tex", "zalone.tex"]
    (document,) = extract(good["main.tex"])
    assert not isinstance(document, Rejection)
    assert document.text == "Part $x$"
    assert document.meta["missing"] == ["../../etc/passwd"]
    assert good["zalone.tex"].text == "Café"
