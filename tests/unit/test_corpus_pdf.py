import sys

import pytest

from phikit.corpus.folders import Folder, folder_documents
from phikit.corpus.rejection import Rejection

pypdf = pytest.importorskip("pypdf")
from phikit.corpus.pdf import pdf_text  # noqa: E402

PAGE = (
    "A book of rivers",
    "The river begins in the hills above the town and runs to the sea. Its wa-",
    "ter is cold in spring, when the snow melts.",
    "The second paragraph tells of the bridges, of which there are seven, and",
    "who built them.",
)


def write(path, pages, password=""):
    """A PDF of text lines, written by hand: pypdf makes none."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    for lines in pages:
        body = "BT /F1 11 Tf 14 TL 50 780 Td " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
        kids.append(len(objects) + 1)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {len(objects) + 2} 0 R "
            f"/Resources << /Font << /F1 {font} >> >> >>"
        )
        objects.append(f"<< /Length {len(body)} >>\nstream\n{body}\nendstream")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(f'{k} 0 R' for k in kids)}] /Count {len(kids)} >>"
    out, places = "%PDF-1.4\n", []
    for number, value in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{value}\nendobj\n"
    table = "".join(f"{p:010d} 00000 n \n" for p in places)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{out.index('xref')}\n%%EOF\n"
    path.write_bytes(out.encode("latin-1"))
    if password:
        writer = pypdf.PdfWriter(clone_from=path)
        writer.encrypt(password, algorithm="RC4-128")
        writer.write(path)


def test_pages_become_paragraphs_without_headers_and_cut_words(tmp_path):
    path = tmp_path / "a.pdf"
    write(path, [(*PAGE, str(n)) for n in range(1, 6)])
    text = pdf_text(path)
    page = (
        "The river begins in the hills above the town and runs to the sea. Its water is cold in spring, when the snow "
        "melts.\n\nThe second paragraph tells of the bridges, of which there are seven, and who built them."
    )
    assert text == "\n\n".join([page] * 5)


def test_folders_read_pdf_and_name_what_is_wrong(tmp_path):
    write(tmp_path / "good.pdf", [PAGE])
    write(tmp_path / "locked.pdf", [PAGE], password="secret")
    write(tmp_path / "empty.pdf", [()])
    (tmp_path / "cut.pdf").write_bytes((tmp_path / "good.pdf").read_bytes()[:300])
    (tmp_path / "other.pdf").write_bytes(b"GIF89a")
    items = {
        i.path if isinstance(i, Rejection) else i.meta["path"]: i
        for i in folder_documents(Folder(tmp_path, "x"))
    }
    assert len(items) == 5
    bad = {p.rpartition("/")[2]: i.detail for p, i in items.items() if isinstance(i, Rejection)}
    assert set(bad) == {"locked.pdf", "empty.pdf", "cut.pdf", "other.pdf"}
    assert "password" in bad["locked.pdf"]
    assert "pictures" in bad["empty.pdf"]
    assert "not a readable PDF" in bad["other.pdf"]


def test_without_pypdf_it_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "a.pdf", [PAGE])
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(ValueError, match=r"pip install 'phikit\[pdf\]'"):
        pdf_text(tmp_path / "a.pdf")
