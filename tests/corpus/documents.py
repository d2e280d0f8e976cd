"""Writers of documents that write whatever they are told, right or wrong."""

from __future__ import annotations

import struct


def pdf(*objects: bytes, trailer: bytes = b"", version: bytes = b"1.7", start: int | None = None) -> bytes:
    """Return a document of objects, numbered from 1, the first one its catalog.

    Args:
        objects: What stands between `obj` and `endobj`.
        trailer: Further entries of the trailer.
        version: Of the header.
        start: Where it says that the table of objects begins.
    """
    body = bytearray(b"%PDF-" + version + b"\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    at = len(body)
    body += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    body += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    body += b"trailer\n<< /Size %d /Root 1 0 R %b >>\n" % (len(objects) + 1, trailer)
    return bytes(body) + b"startxref\n%d\n%%%%EOF\n" % (at if start is None else start)


def pdf_stream(content: bytes, entries: bytes = b"") -> bytes:
    """Return a stream object."""
    return b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(content), entries, content)


def pdf_in_a_stream(*objects: bytes, said: int | None = None, entries: bytes = b"", count: int | None = None) -> bytes:
    """Return a document whose objects are in a stream, and so is their table (ISO 32000-1, 7.5.7, 7.5.8).

    Args:
        objects: What stands between `obj` and `endobj`, numbered from 1, the first one its catalog; no streams.
        said: The number of the stream that they are in, and the stream as well, as the table says; by default the
            truth: they are in the one behind the last of them, which is in none.
        entries: Further entries of the stream.
        count: How many objects are in the stream, as it says.
    """
    head = b"%PDF-1.7\n"
    own = len(objects) + 1
    offsets, at = [], 0
    for number, content in enumerate(objects, start=1):
        offsets.append(b"%d %d" % (number, at))
        at += len(content) + 1
    first = b" ".join(offsets) + b" "
    length = b"/Type /ObjStm /N %d /First %d " % (len(objects) if count is None else count, len(first))
    stream = b"%d 0 obj\n%b\nendobj\n" % (own, pdf_stream(first + b"\n".join(objects), length + entries))
    place = len(head) + len(stream)
    inside = [(2, own if said is None else said, number) for number in range(len(objects))]
    own_row = (1, len(head), 0) if said is None else (2, said, len(objects))
    rows = [(0, 0, 255), *inside, own_row, (1, place, 0)]
    table = b"".join(struct.pack(">BIB", *row) for row in rows)
    index = pdf_stream(table, b"/Type /XRef /Size %d /W [1 4 1] /Root 1 0 R" % len(rows))
    return head + stream + b"%d 0 obj\n%b\nendobj\nstartxref\n%d\n%%%%EOF\n" % (own + 1, index, place)
