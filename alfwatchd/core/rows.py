"""The values that rows are made of: file signatures, folders of datasets, sessions. All are frozen once made."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from alfwatchd.core import alf

_SIGNATURE = struct.Struct("<QqQ?")
SIGNATURE_SIZE = _SIGNATURE.size
"""Bytes of a signature; what follows it in a row value is the md5 digest, 16 bytes, where it is known."""


class Signature(NamedTuple):
    """What a row knows about its file.

    A million of them live in memory, so they are kept packed (`pack_signature`) and opened only where needed.
    """

    file_size: int
    """Bytes; of the target for a link."""
    mtime_ns: int
    """Modification time in nanoseconds since 1970, UTC; of the target for a link."""
    inode: int
    is_link: bool


pack_signature = _SIGNATURE.pack
"""``pack_signature(file_size, mtime_ns, inode, is_link) -> bytes`` of length `SIGNATURE_SIZE`."""


def unpack_signature(value: bytes) -> Signature:
    """Open the signature at the start of a row value."""
    return Signature(*_SIGNATURE.unpack_from(value))


pack_inode = struct.Struct("<Q").pack
"""``pack_inode(inode) -> bytes`` as `inode_of` returns them."""


def inode_of(value: bytes) -> bytes:
    """Return the inode in a row value as it is packed, to compare many in little time."""
    return value[16:24]


def is_same_content(value: bytes, other: bytes) -> bool:
    """Tell whether two row values tell the same of one file; one may be reached through a symbolic link."""
    return value[:24] == other[:24]


def total_size(signatures: Mapping[str, bytes]) -> int:
    """Return the sum of the file sizes, in bytes, of signatures without digests."""
    return sum(row[0] for row in _SIGNATURE.iter_unpack(b"".join(signatures.values())))


def digest_of(value: bytes) -> bytes:
    """Return the md5 digest in a row value: 16 bytes, or none where it is not known."""
    return value[SIGNATURE_SIZE:]


Files = Mapping[str, bytes]
"""Dataset file name -> row value: a packed signature, then the md5 digest where it is known."""


@dataclass(frozen=True, slots=True)
class FolderRows:
    """The datasets of one folder of a session.

    Parameters
    ----------
    folder : str
        Relative to the session; empty for the session folder itself.
    files : Files
        At least one dataset.
    n_bytes : int
        Sum of the file sizes.
    """

    folder: str
    files: Files
    n_bytes: int


@dataclass(frozen=True)
class Session:
    """One session and all its datasets, as last seen on disk.

    Parameters
    ----------
    path : str
        Relative to the root, spelled as on disk.
    folders : tuple of FolderRows
    is_link : bool
        Whether the session folder is a symbolic link; prune leaves such a session alone.
    """

    path: str
    folders: tuple[FolderRows, ...] = ()
    is_link: bool = False

    @cached_property
    def key(self) -> alf.SessionKey:
        """Lab, subject, date and number."""
        key = alf.parse_session(self.path)
        assert key is not None, f"not a session path: {self.path!r}"
        return key

    @cached_property
    def n_datasets(self) -> int:
        """Number of datasets."""
        return sum(len(folder.files) for folder in self.folders)

    @property
    def n_bytes(self) -> int:
        """Sum of the file sizes, in bytes."""
        return sum(folder.n_bytes for folder in self.folders)

    def datasets(self) -> Iterator[tuple[str, bytes]]:
        """Yield rel_path and row value of each dataset."""
        for folder in self.folders:
            prefix = f"{folder.folder}/" if folder.folder else ""
            for name, value in folder.files.items():
                yield prefix + name, value


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a person should act on.

    Parameters
    ----------
    kind : str
        A constant word per cause, for example ``unreadable`` or ``misplaced``.
    path : str
        Relative to the root; empty for the root itself.
    message : str
        What is wrong and what to do.
    """

    kind: str
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What earlier tables in the output folder know that cannot be derived from the disk.

    Parameters
    ----------
    sessions : mapping of str to KeptSession
        By `SessionKey.eid_path`.
    datasets : mapping of str to mapping of str to KeptDataset
        By `SessionKey.eid_path`, then rel_path. Only what differs from the default is here.
    lab : str
        Lab that the earlier tables hold for sessions in no lab folder, whatever the `lab` setting is now.
    """

    sessions: Mapping[str, KeptSession]
    datasets: Mapping[str, Mapping[str, KeptDataset]]
    lab: str = ""


@dataclass(frozen=True, slots=True)
class KeptSession:
    """Columns of a session that are carried over.

    Parameters
    ----------
    eid : bytes or None
        16 bytes; None where it is the id that the path gives anyway.
    task_protocol, projects : str
    """

    eid: bytes | None
    task_protocol: str
    projects: str


@dataclass(frozen=True, slots=True)
class KeptDataset:
    """Columns of a dataset that are carried over.

    Parameters
    ----------
    id : bytes or None
        16 bytes; None where it is the id that the path gives anyway.
    qc : int
        Index into `encode.QC_CATEGORIES`.
    file_size : int or None
        Size in bytes that `digest` was made for.
    digest : bytes
        md5, 16 bytes; empty where unknown.
    """

    id: bytes | None
    qc: int
    file_size: int | None
    digest: bytes


NOTHING_KEPT = Kept({}, {})
