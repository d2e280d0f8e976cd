"""GIF without what is not needed to display it (Graphics Interchange Format, Version 89a)."""

from __future__ import annotations

from mindia.media._structure import MalformedError, exactly

_HEADER_SIZE = 13
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_CONTROL, _PLAIN_TEXT, _APPLICATION = 0xF9, 0x01, 0xFF
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_ICC = b"ICCRGBG1012"


def stripped(content: bytes) -> bytes:
    """Return the same picture with its profile and its animation.

    Raises:
        MalformedError: Blocks are cut off, or there is no picture.
    """
    if not content.startswith((b"GIF87a", b"GIF89a")):
        raise MalformedError("it has no header")
    at = _HEADER_SIZE + _table_size(exactly(content, 0, _HEADER_SIZE)[10])
    parts = [exactly(content, 0, at)]
    control = b""
    has_image = False
    # Writers forget the trailer, and readers do not mind.
    while at < len(content) and content[at] != _TRAILER:
        start = at
        if content[at] == _IMAGE:
            at += 10 + _table_size(exactly(content, at, 10)[9]) + 1
            at = _behind_blocks(content, at)
            parts += [control, content[start:at]]
            control = b""
            has_image = True
        elif content[at] == _EXTENSION:
            label = exactly(content, at + 1, 1)[0]
            at = _behind_blocks(content, at + 2)
            if label == _CONTROL:
                control = content[start : start + 7] + b"\0"
            elif label == _PLAIN_TEXT:
                control = b""  # it was meant for the text
            elif label == _APPLICATION:
                parts.append(_application(content[start:at]))
        else:
            at += 1  # padding, which readers pass over
    if not has_image:
        raise MalformedError("it has no picture")
    return b"".join([*parts, bytes([_TRAILER])])


def _table_size(flags: int) -> int:
    """Return the size of the colour table that the flags of a descriptor announce (18 and 20)."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind_blocks(content: bytes, at: int) -> int:
    """Return where a chain of data sub-blocks ends (15)."""
    while size := exactly(content, at, 1)[0]:
        at += 1 + size
    return at + 1


def _application(extension: bytes) -> bytes:
    """Return what displaying needs of the extension of an application, which may be nothing."""
    size, name, blocks = extension[2], extension[3:14], extension[14:]
    if size != len(_ICC):
        return b""
    if name in _LOOPS and blocks[:2] == b"\3\1":  # so often, the rest is of a buffer
        return extension[:14] + blocks[:4] + b"\0"
    return extension if name == _ICC else b""
