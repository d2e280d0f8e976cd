"""Facts and text of PDF documents, by pdfium."""

from __future__ import annotations

import threading
import time
from typing import Any, BinaryIO

from mindia.config import Settings
from mindia.domain.media import DocumentFacts
from mindia.errors import CorruptMediaError, MissingExtraError, TooLargeError
from mindia.media.text import one_line

MAX_TITLE_CHARS = 500
PAGE_BREAK = "\f"
"""Stands between the texts of two pages."""

_TEXT_SHARE = 0.2
"""Of `Settings.parser_timeout`, which taking out the text may last: what was found until then is kept."""

PDFIUM = threading.Lock()
"""pdfium is not thread-safe, not even with a document a thread."""


def probe_pdf(file: BinaryIO, *, filename: str, settings: Settings) -> DocumentFacts:
    """Open a PDF and return its page count, title and text: of the first pages, where all would take too long.

    Raises:
        TooLargeError: It has more pages than allowed.
        CorruptMediaError: It cannot be opened, is encrypted, or has no page.
        MissingExtraError: pypdfium2 is not installed.
    """
    try:
        import pypdfium2 as pdfium
    except ImportError as error:
        raise MissingExtraError("reading PDF documents", extra="pdf") from error

    with PDFIUM:
        try:
            document = pdfium.PdfDocument(file)
        except pdfium.PdfiumError as error:
            reason = "it is encrypted: store it without a password" if "password" in str(error).lower() else error
            raise CorruptMediaError(f"{filename!r} cannot be read as application/pdf: {reason}") from error
        try:
            page_count = len(document)
            if page_count == 0:
                raise CorruptMediaError(f"{filename!r} has no page")
            if page_count > settings.max_document_pages:
                raise TooLargeError(
                    f"{filename!r} has {page_count} pages; the limit is {settings.max_document_pages} "
                    "(Settings.max_document_pages)"
                )
            return DocumentFacts(
                page_count=page_count,
                text=_text(document, page_count, settings),
                title=_title(document),
            )
        except pdfium.PdfiumError as error:
            raise CorruptMediaError(f"{filename!r} has a page that cannot be read: {error}") from error
        finally:
            document.close()


def _title(document: Any) -> str | None:
    try:
        return one_line(document.get_metadata_value("Title"), max_chars=MAX_TITLE_CHARS)
    except UnicodeDecodeError:  # half a surrogate pair
        return None


def _text(document: Any, page_count: int, settings: Settings) -> str:
    deadline = time.monotonic() + settings.parser_timeout.total_seconds() * _TEXT_SHARE
    parts: list[str] = []
    left = settings.max_text_chars
    for number in range(page_count):
        page = document[number]
        text_page = page.get_textpage()
        part: str = text_page.get_text_bounded()
        text_page.close()
        page.close()
        # A NUL cannot be stored, and lone surrogates cannot be encoded.
        clean = part.replace("\0", " ").replace(PAGE_BREAK, " ").strip().encode("utf-8", "replace").decode()
        parts.append(clean[:left])
        left -= len(clean)
        if left <= 0 or time.monotonic() >= deadline:
            break
    return PAGE_BREAK.join(parts)[: settings.max_text_chars].rstrip()
