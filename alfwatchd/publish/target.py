"""What a target, a place to which tables are published, must be able to do."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

Token = str
"""Stands for one version of one file at a target; two tokens are equal only for the same version."""


class Target(Protocol):
    """A place with files, whose keys are relative paths with ``/``.

    A file is replaced at once: a reader finds the old version or the new one, whole. All methods raise `TargetError`
    where the place cannot be reached. One thread at a time may use an object.
    """

    address: str
    """Where it is, for people; holds no secrets."""
    location: str
    """Address at which clients find it, if it follows from `address`; else empty."""

    def token(self, key: str) -> Token | None:
        """Return the version of a file; None if there is no such file."""

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading and seeking; raises `TargetChanged` if it was removed."""

    def create(self, key: str, content: BinaryIO) -> None:
        """Write a new file; raise `TargetChanged` if one with this key is there."""

    def replace(self, key: str, content: BinaryIO, token: Token | None) -> None:
        """Write a file if its version is still `token` (None: it is not there); else raise `TargetChanged`."""

    def generations(self) -> set[str]:
        """Return the names of the folders below ``tables``; at some targets also of empty ones."""

    def remove(self, generation: str) -> None:
        """Remove a folder below ``tables`` with the archive in it; do nothing if it is not there."""

    def close(self) -> None:
        """Close connections."""
