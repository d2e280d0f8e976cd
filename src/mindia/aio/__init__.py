"""Mindia for asyncio hosts: the same services, whose calls run in threads of the application's own."""

from __future__ import annotations

from mindia.aio.app import AsyncMindia, connect
from mindia.aio.files import AsyncFile
from mindia.aio.library import AsyncLibrary, AsyncLibraryTransaction

__all__ = ["AsyncFile", "AsyncLibrary", "AsyncLibraryTransaction", "AsyncMindia", "connect"]
