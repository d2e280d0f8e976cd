"""Mindia for asyncio hosts: the same services, whose calls run in threads of the application's own."""

from __future__ import annotations

from mindia.aio.app import AsyncMindia, Opening, connect, local
from mindia.aio.files import AsyncFile
from mindia.aio.library import AsyncLibrary, AsyncLibraryTransaction, AsyncTransaction

__all__ = [
    "AsyncFile",
    "AsyncLibrary",
    "AsyncLibraryTransaction",
    "AsyncMindia",
    "AsyncTransaction",
    "Opening",
    "connect",
    "local",
]
