"""Good documents and good names that are out of the ordinary."""

from __future__ import annotations

from tests.corpus.documents import pdf, pdf_in_a_stream
from tests.corpus.encrypted import encrypted_pdf
from tests.corpus.odd import OddFile

from mindia.testing import samples

_CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
_PDF = "application/pdf"


def _pages(*entries: bytes) -> tuple[bytes, ...]:
    """The catalog, the tree and a page for each of these entries."""
    kids = b" ".join(b"%d 0 R" % number for number in range(3, 3 + len(entries)))
    tree = b"<< /Type /Pages /Kids [%b] /Count %d /MediaBox [0 0 612 792] >>" % (kids, len(entries))
    return _CATALOG, tree, *(b"<< /Type /Page /Parent 2 0 R %b >>" % entry for entry in entries)


def _changed() -> bytes:
    """A document that was changed after it was written: its page is there a second time (ISO 32000-1, 7.5.6)."""
    content = samples.pdf()
    start = content.index(b"xref\n0 ")
    tree = b"2 0 obj\n<< /Type /Pages /Kids [4 0 R 4 0 R] /Count 2 >>\nendobj\n"
    table = b"xref\n2 1\n%010d 00000 n \n" % len(content)
    trailer = b"trailer\n<< /Size 6 /Root 1 0 R /Prev %d >>\nstartxref\n%d\n%%%%EOF\n" % (
        start,
        len(content) + len(tree),
    )
    return content + tree + table + trailer


DOCUMENTS: dict[str, OddFile] = {
    "PDF of 300 pages": OddFile(
        "x.pdf", _PDF, lambda: samples.pdf(f"Page {number}" for number in range(300)), {"page_count": 300}
    ),
    "PDF of turned and cropped pages": OddFile(
        "x.pdf",
        _PDF,
        lambda: pdf(*_pages(b"/Rotate 90", b"/Rotate -90 /CropBox [9 9 99 99]", b"/CropBox [0 0 1 1] /UserUnit 10")),
        {"page_count": 3},
    ),
    "PDF of a page of 200 inches": OddFile(
        "x.pdf", _PDF, lambda: pdf(*_pages(b"/MediaBox [0 0 14400 14400]")), {"page_count": 1}
    ),
    "PDF of pages in a tree": OddFile(
        "x.pdf",
        _PDF,
        lambda: pdf(
            _CATALOG,
            b"<< /Type /Pages /Kids [3 0 R 5 0 R] /Count 3 /MediaBox [0 0 9 9] >>",
            b"<< /Type /Pages /Parent 2 0 R /Kids [4 0 R 6 0 R] /Count 2 >>",
            *[b"<< /Type /Page /Parent 2 0 R >>"] * 3,
        ),
        {"page_count": 3},
    ),
    "PDF whose objects are in a stream": OddFile(
        "x.pdf", _PDF, lambda: pdf_in_a_stream(*_pages(b"", b"/Rotate 180")), {"page_count": 2}
    ),
    "PDF of version 2.0": OddFile("x.pdf", _PDF, lambda: pdf(*_pages(b""), version=b"2.0"), {"page_count": 1}),
    "PDF with lines that end as on Windows": OddFile(
        "x.pdf",
        _PDF,
        lambda: samples.pdf().replace(b"%PDF-1.4\n", b"%PDF-1.4\r\n%\xe2\xe3\xcf\xd3\r\n"),
        {"page_count": 1},
    ),
    "PDF with zeros behind it": OddFile("x.pdf", _PDF, lambda: samples.pdf() + bytes(900), {"page_count": 1}),
    "PDF that was changed": OddFile("x.pdf", _PDF, _changed, {"page_count": 2}),
    "PDF that everybody may open, encrypted": OddFile("x.pdf", _PDF, lambda: encrypted_pdf(b""), {"page_count": 1}),
    "PDF with a title": OddFile(
        "x.pdf", _PDF, lambda: samples.pdf(title="Bericht über 猫"), {"page_count": 1, "title": "Bericht über 猫"}
    ),
}
