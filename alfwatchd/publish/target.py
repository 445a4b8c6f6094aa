"""A place to which tables are published, and what it must be able to do."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

Token = str
"""Stands for one version of one file at a target; equal only for the same version."""


class Target(Protocol):
    """A place with files by key: paths with ``/``. All raise `TargetError` where the place cannot be reached.

    A key is replaced at once: whoever reads finds the old version or the new one, whole.
    """

    address: str
    """For people, and without secrets."""
    location: str
    """Where clients find it, if that follows from where it is; else empty."""

    def token(self, key: str) -> Token | None:
        """Return the version of a file; None if there is none."""

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open a file, to be read at any place in it."""

    def create(self, key: str, content: BinaryIO) -> None:
        """Write a file that is not there yet; raises `TargetChanged` if it is."""

    def replace(self, key: str, content: BinaryIO, token: Token | None) -> None:
        """Write a file if it still is the version of the token, or still is not there; else raise `TargetChanged`."""

    def generations(self) -> set[str]:
        """Return the names of folders below ``tables``, of such as have nothing in them yet, too."""

    def remove(self, generation: str) -> None:
        """Remove a folder below ``tables`` with all that is in it; nothing if it is not there."""

    def close(self) -> None:
        """Let go of connections."""
