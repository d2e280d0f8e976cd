"""Facts and text of PDF documents, by pdfium."""

from __future__ import annotations

import threading
from typing import BinaryIO

from mindia.domain.media import DocumentFacts
from mindia.errors import CorruptMediaError, MissingExtraError

_PDFIUM = threading.Lock()
"""pdfium is not thread-safe, not even with a document a thread."""


def probe_pdf(file: BinaryIO, *, filename: str, max_text_chars: int) -> DocumentFacts:
    """Open a PDF and return its page count and text.

    Raises:
        CorruptMediaError: It cannot be opened, is encrypted, or has no page.
        MissingExtraError: pypdfium2 is not installed.
    """
    try:
        import pypdfium2 as pdfium
    except ImportError as error:
        raise MissingExtraError("reading PDF documents", extra="pdf") from error

    with _PDFIUM:
        try:
            document = pdfium.PdfDocument(file)
        except pdfium.PdfiumError as error:
            reason = "it is encrypted: store it without a password" if "password" in str(error).lower() else error
            raise CorruptMediaError(f"{filename!r} cannot be read as application/pdf: {reason}") from error
        try:
            page_count = len(document)
            if page_count == 0:
                raise CorruptMediaError(f"{filename!r} has no page")
            return DocumentFacts(page_count=page_count, text=_text(document, page_count, max_text_chars))
        except pdfium.PdfiumError as error:
            raise CorruptMediaError(f"{filename!r} has a page that cannot be read: {error}") from error
        finally:
            document.close()


def _text(document: object, page_count: int, max_chars: int) -> str:
    parts: list[str] = []
    left = max_chars
    for number in range(page_count):
        page = document[number]  # type: ignore[index]  # pypdfium2 has no types
        text_page = page.get_textpage()
        part: str = text_page.get_text_bounded()
        text_page.close()
        page.close()
        # A NUL cannot be stored, and lone surrogates cannot be encoded.
        clean = part.replace("\0", " ").encode("utf-8", "replace").decode()
        parts.append(clean[:left])
        left -= len(clean)
        if left <= 0:
            break
    return "\n".join(parts)[:max_chars].strip()
