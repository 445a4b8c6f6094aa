"""Zip files that any program may have made: opened and unpacked so that none takes all memory or the whole disk."""

from __future__ import annotations

import zipfile
from typing import BinaryIO, cast

_MOST_LIST_BYTES = 1 << 22
"""Longest read at once: zipfile reads the list of contents in one piece, however long the file says that it is."""
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""As Alyx and alfwatchd write them. Of the others, Python unpacks without a bound what it has read."""
_FREE_BYTES = 1 << 26
_BYTES_PER_BYTE = 100
"""How many bytes one byte may become: tables are packed already, and get a tenth smaller at best."""


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip file, whose list of contents must be of a usual length.

    Raises
    ------
    zipfile.BadZipFile, OSError
        It is not a zip file, or it is damaged.
    """
    return zipfile.ZipFile(cast(BinaryIO, _Bounded(file)))


def check_member(member: zipfile.ZipInfo) -> None:
    """Make sure that a file in a zip file can be unpacked.

    Raises
    ------
    zipfile.BadZipFile
        It is packed in an unusual way, or would be far larger than tables become.
    """
    if member.compress_type not in _KINDS:
        raise zipfile.BadZipFile(f"{member.filename} is packed with a method that is not used for tables")
    if member.file_size > max(_FREE_BYTES, _BYTES_PER_BYTE * member.compress_size):
        raise zipfile.BadZipFile(
            f"{member.filename} has {member.compress_size} bytes, and would have {member.file_size} unpacked"
        )


class _Bounded:
    """A file of which no more than a piece is read at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, n_bytes: int = -1) -> bytes:
        if n_bytes > _MOST_LIST_BYTES:
            raise zipfile.BadZipFile(f"its list of contents claims to have {n_bytes} bytes")
        content = self._file.read(_MOST_LIST_BYTES + 1 if n_bytes < 0 else n_bytes)
        if len(content) > _MOST_LIST_BYTES:
            raise zipfile.BadZipFile("its end makes no sense")
        return content

    def close(self) -> None:
        """Leave the file open: it belongs to the caller."""
