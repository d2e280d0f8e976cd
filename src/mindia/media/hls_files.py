"""Which files a stream has, and whether its playlists lead to these alone: for what comes from elsewhere. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mindia.errors import InvalidError
from mindia.media.hls import INDEX, MASTER

MAX_PLAYLIST_BYTES = 1 << 22
HEAD_BYTES = 8
"""Of a segment, by which it is known."""

_PACKET_BYTES = 188
_NAME = re.compile(r"[0-9A-Za-z_-]{1,40}/(index\.m3u8|segment_[0-9]{1,9}\.(ts|m4s)|init(_[0-9]{1,3})?\.mp4)", re.ASCII)
# What is written, and nothing else: there are tags by which a player is sent to another site. No attribute that is
# let in can hold an address, since none has a colon or a slash.
_MASTER_TAG = re.compile(r'#EXTM3U|#EXT-X-VERSION:\d{1,2}|#EXT-X-INDEPENDENT-SEGMENTS|#EXT-X-STREAM-INF:[\w=,."-]+')
_INDEX_TAG = re.compile(
    r"#EXTM3U|#EXT-X-VERSION:\d{1,2}|#EXT-X-INDEPENDENT-SEGMENTS|#EXT-X-TARGETDURATION:\d{1,9}"
    r"|#EXT-X-MEDIA-SEQUENCE:\d{1,9}|#EXT-X-PLAYLIST-TYPE:VOD|#EXT-X-DISCONTINUITY|#EXTINF:\d{1,9}(\.\d{1,9})?,"
    r"|#EXT-X-ENDLIST"
)
_INIT_TAG = re.compile(r'#EXT-X-MAP:URI="([^"]*)"')
# A line ends with a line feed: players differ in what else ends one.
_PLAIN = re.compile(r"[\x20-\x7e\n]*")
_BOXES = (b"ftyp", b"styp", b"moof", b"sidx", b"emsg", b"prft")


def is_playlist(name: str) -> bool:
    """Tell whether a file of a stream is a playlist."""
    return name.endswith(".m3u8")


class StreamFiles:
    """The files of a stream, by their names, of which the playlists are read one after the other.

    Args:
        names: Of all files, below the prefix of the stream.

    Raises:
        InvalidError: One is none that a stream of ours has, or is there twice, or is missing.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names: set[str] = set()
        self._reached = {MASTER}
        for name in names:
            if name != MASTER and not _NAME.fullmatch(name):
                raise InvalidError(f"a stream has no file {name[:100]!r}")
            if name in self._names:
                raise InvalidError(f"the file {name!r} was there before")
            self._names.add(name)
        if MASTER not in self._names:
            raise InvalidError(f"the stream has no {MASTER}")

    def read(self, name: str, content: bytes) -> None:
        """Read a playlist.

        Raises:
            InvalidError: It has more than those that we write, leads elsewhere, or is cut off.
        """
        text = content.decode("ascii", "replace")
        if not _PLAIN.fullmatch(text) or not text.startswith("#EXTM3U\n"):
            raise InvalidError(f"{name} is no playlist")
        folder = name.rpartition("/")[0]
        is_master = not folder
        tag = _MASTER_TAG if is_master else _INDEX_TAG
        for line in filter(None, text.split("\n")):
            if line[0] != "#":
                self._lead(name, line if is_master else f"{folder}/{line}", INDEX if is_master else "segment_")
            elif not is_master and (init := _INIT_TAG.fullmatch(line)):
                self._lead(name, f"{folder}/{init[1]}", "init")
            elif not tag.fullmatch(line):
                raise InvalidError(f"{name} has a line that is none of ours: {line[:100]!r}")
        if not is_master and not text.endswith("#EXT-X-ENDLIST\n"):
            raise InvalidError(f"{name} is cut off")

    def _lead(self, playlist: str, name: str, kind: str) -> None:
        if name not in self._names or not name.rpartition("/")[2].startswith(kind):
            raise InvalidError(f"{playlist} leads to {name[:100]!r}, which is none of its files")
        self._reached.add(name)

    def finish(self) -> None:
        """Look whether the playlists, which have all been read, lead to all files.

        Raises:
            InvalidError: There is a file that none leads to.
        """
        left = self._names - self._reached
        if left:
            raise InvalidError(f"no playlist leads to {min(left)}")


def check_segment(name: str, head: bytes, size: int) -> None:
    """Refuse what does not begin as the segment that its name says.

    Args:
        name: Of the file.
        head: The first `HEAD_BYTES`.
        size: Of all of it.

    Raises:
        InvalidError: It is none.
    """
    is_one = head[:1] == b"\x47" and size % _PACKET_BYTES == 0 if name.endswith(".ts") else head[4:8] in _BOXES
    if not is_one:
        raise InvalidError(f"{name} is no segment of a video")
