"""Keeps the files of a folder in few bytes: all signatures in one string, and names shared between folders."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

_SIGNATURE = struct.Struct("<QqQq?")
_SIZE = struct.Struct("<Q25x")
_INODE, _CTIME = slice(16, 24), slice(24, 32)
_HALF_OF_TIME = 1 << 63
_MOST_SHARED = 64
SIGNATURE_SIZE = _SIGNATURE.size
"""Bytes of a signature. In a row value the md5 digest follows it, 16 bytes, if it is known."""
FILE_SIZE_BYTES = 8
"""Bytes at the start of a signature that hold the file size."""
DIGEST_SIZE = 16
NO_DIGEST = bytes(DIGEST_SIZE)
"""Stands for a digest that is not known, in `PackedFiles.digests`."""


class Signature(NamedTuple):
    """What a row says about its file.

    A million of them live in memory, so they are kept packed (`pack_signature`) and opened only where needed.
    """

    file_size: int
    """Bytes; of the target for a link."""
    mtime_ns: int
    """Modification time in nanoseconds since 1970, UTC, as `wrap_time` returns it; of the target for a link."""
    inode: int
    is_link: bool
    ctime_ns: int = 0
    """Change time, likewise; 0 if it is not known. No program can set it: as long as it stays, so does the content. A
    rename of a folder above does not change it."""


def pack_signature(file_size: int, mtime_ns: int, inode: int, is_link: bool, ctime_ns: int = 0) -> bytes:  # noqa: FBT001 - as a struct
    """Return a signature as `SIGNATURE_SIZE` bytes; parameters as the fields of `Signature`."""
    try:
        return _SIGNATURE.pack(file_size, mtime_ns, inode, ctime_ns, is_link)
    except struct.error:
        return _SIGNATURE.pack(file_size, wrap_time(mtime_ns), inode, wrap_time(ctime_ns), is_link)


def wrap_time(time_ns: int) -> int:
    """Return a time in ns as a signature holds it, modulo 2**64: times before 1677 and after 2262 need more bits."""
    return (time_ns + _HALF_OF_TIME) % (2 * _HALF_OF_TIME) - _HALF_OF_TIME


def unpack_signature(value: bytes) -> Signature:
    """Return the signature at the start of a row value."""
    file_size, mtime_ns, inode, ctime_ns, is_link = _SIGNATURE.unpack_from(value)
    return Signature(file_size, mtime_ns, inode, is_link, ctime_ns)


def inode_of(value: bytes) -> bytes:
    """Return the inode in a row value as 8 packed bytes, to compare many in little time."""
    return value[_INODE]


def either_way(signature: bytes) -> tuple[bytes, bytes]:
    """Return the signatures that a file has when it is reached by its own name, and through a symbolic link."""
    return signature[:-1] + b"\0", signature[:-1] + b"\1"


def without_inode(signature: bytes) -> bytes:
    """Return a signature with the inode 0, for file systems whose inode numbers do not last."""
    return signature[: _INODE.start] + bytes(8) + signature[_CTIME.start : SIGNATURE_SIZE]


def is_of_link(value: bytes) -> bool:
    """Tell whether the file of a row value was reached through a symbolic link."""
    return value[SIGNATURE_SIZE - 1] != 0


def is_same_content(value: bytes, other: bytes) -> bool:
    """Tell whether two signatures are of the same file and content; one may be reached through a symbolic link."""
    return value[: _CTIME.stop] == other[: _CTIME.stop]


def differs_in_ctime(value: bytes, other: bytes) -> bool:
    """Tell whether the signatures of two row values differ in nothing but the change time."""
    same = value[: _CTIME.start] == other[: _CTIME.start] and is_of_link(value) == is_of_link(other)
    return same and value[_CTIME] != other[_CTIME]


def differs_in_inode(value: bytes, other: bytes) -> bool:
    """Tell whether the signatures of two row values differ in nothing but the inode."""
    return without_inode(value) == without_inode(other) and inode_of(value) != inode_of(other)


def has_change_time(value: bytes) -> bool:
    """Tell whether the change time in a row value is one. Some file systems tell the modification time in its place."""
    about = unpack_signature(value)
    return about.ctime_ns not in (0, about.mtime_ns)


def digest_of(value: bytes) -> bytes:
    """Return the md5 digest in a row value: 16 bytes, or none where it is not known."""
    return value[SIGNATURE_SIZE:]


class PackedFiles(NamedTuple):
    """Datasets of one folder, packed: as dicts of small objects they would take four times the memory.

    Parameters
    ----------
    names : tuple of str
        File names, sorted.
    signatures : bytes
        Packed signatures, `SIGNATURE_SIZE` bytes each, in the order of `names`.
    n_bytes : int
        Sum of the file sizes.
    digests : bytes
        md5 digests, 16 bytes each, in the order of `names`, zeros where one is not known; empty if none is.
    """

    names: tuple[str, ...] = ()
    signatures: bytes = b""
    n_bytes: int = 0
    digests: bytes = b""

    @classmethod
    def pack(cls, files: Mapping[str, bytes]) -> PackedFiles:
        """Pack file name -> row value: a packed signature, then the md5 digest where it is known."""
        names = shared_names(tuple(sorted(files)))
        signatures, digests = b"".join(map(files.__getitem__, names)), b""
        if len(signatures) != SIGNATURE_SIZE * len(names):
            values = [files[name] for name in names]
            signatures = b"".join([value[:SIGNATURE_SIZE] for value in values])
            digests = b"".join([digest_of(value) or NO_DIGEST for value in values])
        return cls(names, signatures, sum(size for (size,) in _SIZE.iter_unpack(signatures)), digests)

    @classmethod
    def pack_plain(cls, files: Mapping[str, bytes], n_bytes: int) -> PackedFiles:
        """Pack files without digests; `n_bytes` is the sum of their sizes."""
        names = shared_names(tuple(sorted(files)))
        return cls(names, b"".join(map(files.__getitem__, names)), n_bytes)

    def unpack(self) -> dict[str, bytes]:
        """Return what `pack` was given."""
        return {name: self._value(place) for place, name in enumerate(self.names)}

    def get(self, name: str) -> bytes | None:
        """Return the row value of a file, or None if it is not here."""
        place = bisect_left(self.names, name)
        return self._value(place) if place < len(self.names) and self.names[place] == name else None

    def patch(self, changes: Mapping[str, bytes | None]) -> PackedFiles:
        """Return a copy with other row values for some names; None removes a name.

        Copies slices between the names, so that the other files are not looked at, however many they are.
        """
        names: list[str] = []
        kept: list[tuple[int, int, bytes]] = []
        done, n_bytes = 0, self.n_bytes
        for name in sorted(changes):
            place = bisect_left(self.names, name, done)
            names += self.names[done:place]
            value = changes[name]
            kept.append((done, place, value or b""))
            done = place
            if place < len(self.names) and self.names[place] == name:
                done += 1
                n_bytes -= unpack_signature(self._value(place)).file_size
            if value is not None:
                names.append(name)
                n_bytes += unpack_signature(value).file_size
        names += self.names[done:]
        kept.append((done, len(self.names), b""))
        signatures = _splice(self.signatures, SIGNATURE_SIZE, kept, lambda value: value[:SIGNATURE_SIZE])
        digests = b""
        if self.digests or any(digest_of(value) for _, _, value in kept):
            old = self.digests or bytes(DIGEST_SIZE * len(self.names))
            digests = _splice(old, DIGEST_SIZE, kept, lambda value: value and (digest_of(value) or NO_DIGEST))
        return PackedFiles(shared_names(tuple(names)), signatures, n_bytes, digests if any(digests) else b"")

    def inodes(self) -> list[bytes]:
        """Return the inode of each file as `inode_of` does, in the order of `names`."""
        return [self.signatures[at : at + 8] for at in range(16, len(self.signatures), SIGNATURE_SIZE)]

    def as_shown(self) -> PackedFiles:
        """Return a copy with what tables may show of files: in place of inodes and change times, there are zeros."""
        none = bytes(_CTIME.stop - _INODE.start)
        parts = [
            self.signatures[at : at + _INODE.start] + none + self.signatures[at + _CTIME.stop : at + SIGNATURE_SIZE]
            for at in range(0, len(self.signatures), SIGNATURE_SIZE)
        ]
        return self._replace(signatures=b"".join(parts))

    @property
    def has_links(self) -> bool:
        """Whether any file was reached through a symbolic link."""
        return any(self.signatures[SIGNATURE_SIZE - 1 :: SIGNATURE_SIZE])

    def _value(self, place: int) -> bytes:
        value = self.signatures[place * SIGNATURE_SIZE : (place + 1) * SIGNATURE_SIZE]
        digest = self.digests[place * DIGEST_SIZE : (place + 1) * DIGEST_SIZE]
        return value + digest if any(digest) else value


# The same names of datasets and folders occur in each session. One object for all that are equal saves 80 MB with a
# million datasets.
@lru_cache(maxsize=1 << 14)
def shared(text: str) -> str:
    """Return a text that is equal, and the same object at each call as long as it is in use."""
    return text


@lru_cache(maxsize=1 << 10)
def _shared_tuple(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(shared, names))


def shared_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names that are equal, and mostly the same objects at each call."""
    return _shared_tuple(names) if len(names) <= _MOST_SHARED else names


def _splice(old: bytes, size: int, kept: Sequence[tuple[int, int, bytes]], cut: Callable[[bytes], bytes]) -> bytes:
    """Join slices of `old`, given as first and last item, and what follows each of them."""
    view = memoryview(old)
    return b"".join([part for first, last, value in kept for part in (view[first * size : last * size], cut(value))])


pack_inode = struct.Struct("<Q").pack
"""``pack_inode(inode) -> bytes`` as `inode_of` returns them."""


NO_FILES = PackedFiles()
