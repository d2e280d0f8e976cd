"""Documents that are encrypted."""

from __future__ import annotations

import hashlib
import struct

from tests.corpus.documents import pdf

_PADDING = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")


def encrypted_pdf(password: bytes) -> bytes:
    """Return a document of a page that opens with a password (ISO 32000-1, 7.6.3, revision 2)."""
    padded = (password + _PADDING)[:32]
    owner = _rc4(hashlib.md5(padded).digest()[:5], padded)
    key = hashlib.md5(padded + owner + struct.pack("<i", -4) + bytes(16)).digest()[:5]
    user = _rc4(key, _PADDING)
    return encrypted_by(
        b"/Filter /Standard /V 1 /R 2 /P -4 /O <%b> /U <%b>" % (owner.hex().encode(), user.hex().encode())
    )


def encrypted_by(handler: bytes) -> bytes:
    """Return a document of a page with a dictionary of encryption of these entries."""
    identifier = b"<%b>" % (b"00" * 16)
    return pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>",
        trailer=b"/Encrypt << %b >> /ID [%b %b]" % (handler, identifier, identifier),
    )


def _rc4(key: bytes, content: bytes) -> bytes:
    box = list(range(256))
    other = 0
    for at in range(256):
        other = (other + box[at] + key[at % len(key)]) % 256
        box[at], box[other] = box[other], box[at]
    out = bytearray()
    at = other = 0
    for byte in content:
        at = (at + 1) % 256
        other = (other + box[at]) % 256
        box[at], box[other] = box[other], box[at]
        out.append(byte ^ box[(box[at] + box[other]) % 256])
    return bytes(out)
