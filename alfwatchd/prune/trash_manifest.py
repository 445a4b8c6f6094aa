"""The manifest: what lies in the trash of one prune, as lines of text, and which paths it may name. Values only.

Files lie flat, under numbers, so that no program takes them for data of a session: ``000/000123`` is number 123.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alfwatchd.alf import grammar
from alfwatchd.prune.plan import FileState, PlannedFile

MANIFEST = "manifest"
"""Name of its file, beside the folders of numbered files."""
_VERSION = 1
_PER_FOLDER = 1000
_PLAN = re.compile(r"([0-9a-f]{8,64})(?:-[0-9]{1,6})?")
_SLOT = re.compile(r"[0-9]{6,9}")


class ManifestError(ValueError):
    """A manifest is damaged, or names something that no prune can have moved."""


@dataclass(frozen=True, slots=True)
class FolderState:
    """A folder as it was before the prune.

    Parameters
    ----------
    path : str
        Relative to the root.
    goes : bool
        Whether the prune may remove it.
    ino, mode, uid, gid : int
        As ``stat`` tells them; only the permission bits of the mode.
    atime_ns, mtime_ns : int
        Nanoseconds since 1970, UTC.
    acls : mapping of str to bytes
        Name -> value of the extended attributes with POSIX ACLs; empty if it has none.
    """

    path: str
    goes: bool
    ino: int
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    acls: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a prune was about to move and to remove.

    Parameters
    ----------
    plan_id : str
    root : str
        Path of the root, for people.
    moved_at, freed_at : float
        When the prune began and when its trash is to be emptied, in seconds since 1970.
    files : tuple of PlannedFile
        The number of a file is its place in this tuple. Only the trash itself tells which of them lie there.
    folders : tuple of FolderState
        All folders that lead to `files`, and those that may be removed; a folder comes after the one it lies in.
    """

    plan_id: str
    root: str
    moved_at: float
    freed_at: float
    files: tuple[PlannedFile, ...]
    folders: tuple[FolderState, ...]

    @property
    def n_bytes(self) -> int:
        """Sum of the sizes of `files`, in bytes."""
        return sum(file.state.size for file in self.files)


def slot_of(number: int) -> tuple[str, str]:
    """Return the folder and the name that the file of this number has in the trash."""
    return f"{number // _PER_FOLDER:03d}", f"{number:06d}"


def number_of(folder: str, name: str) -> int | None:
    """Return the number of a file in the trash; None for a name that no prune gives."""
    if not _SLOT.fullmatch(name):
        return None
    number = int(name)
    return number if slot_of(number) == (folder, name) else None


def plan_of(folder: str) -> str | None:
    """Return the id of the plan whose files lie in a folder of this name in the trash; None for other folders.

    A plan that is carried out twice has a second folder: ``0123456789abcdef-2``.
    """
    match = _PLAN.fullmatch(folder)
    return match[1] if match else None


def write_lines(manifest: Manifest) -> Iterator[bytes]:
    """Yield the lines of a manifest; each begins with a checksum, and the first one says how many follow."""
    head = {
        "version": _VERSION,
        "plan_id": manifest.plan_id,
        "root": manifest.root,
        "moved_at": manifest.moved_at,
        "freed_at": manifest.freed_at,
        "n_files": len(manifest.files),
        "n_folders": len(manifest.folders),
    }
    yield seal(head)
    for file in manifest.files:
        state = file.state
        yield seal([file.path, state.dev, state.ino, state.size, state.mtime_ns, state.ctime_ns, state.btime_ns])
    for folder in manifest.folders:
        acls = {name: base64.b64encode(value).decode() for name, value in folder.acls.items()}
        yield seal(
            [
                folder.path, folder.goes, folder.ino, folder.mode, folder.uid, folder.gid,
                folder.atime_ns, folder.mtime_ns, acls,
            ]
        )  # fmt: skip


def read_lines(lines: Iterable[bytes]) -> Manifest:
    """Read a manifest from its lines.

    Raises
    ------
    ManifestError
        A line is damaged or missing, or names a path that no prune may move or remove.
    """
    values = iter([unseal(line) for line in lines])
    try:
        head = next(values)
        if head["version"] != _VERSION:
            raise ManifestError(f"is of version {head['version']}, and this program knows {_VERSION}")
        files = tuple(_file(next(values)) for _ in range(head["n_files"]))
        folders = tuple(_folder(next(values)) for _ in range(head["n_folders"]))
        more = sum(1 for _ in values)
        found = Manifest(
            str(head["plan_id"]), str(head["root"]), float(head["moved_at"]), float(head["freed_at"]), files, folders
        )
    except ManifestError:
        raise
    except (StopIteration, RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise ManifestError("is cut off or damaged") from error
    if more:
        raise ManifestError("has more lines than it says")
    return found


def seal(value: object) -> bytes:
    """Return a JSON value as a line with a checksum. Names that are not UTF-8 survive."""
    text = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def unseal(line: bytes) -> Any:
    """Return the value of a line that `seal` has made.

    Raises
    ------
    ManifestError
        It is damaged.
    """
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        raise ManifestError("is cut off or damaged")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError("is damaged") from error


def _file(value: Any) -> PlannedFile:
    path, dev, ino, size, mtime_ns, ctime_ns, btime_ns = value
    if not is_file_path(path):
        raise ManifestError(f"names {path!r}, which is not a dataset below the root")
    return PlannedFile(path, FileState(dev, ino, size, mtime_ns, ctime_ns, btime_ns))


def _folder(value: Any) -> FolderState:
    path, goes, ino, mode, uid, gid, atime_ns, mtime_ns, acls = value
    if not is_folder_path(path):
        raise ManifestError(f"names {path!r}, which is not a folder of a session below the root")
    decoded = {name: base64.b64decode(text) for name, text in acls.items()}
    return FolderState(path, bool(goes), ino, mode, uid, gid, atime_ns, mtime_ns, decoded)


def is_file_path(path: object) -> bool:
    """Tell whether this is the path of a dataset of a session, without ``..`` and the like."""
    return isinstance(path, str) and _is_plain(path) and grammar.split_dataset(path) is not None


def is_folder_path(path: object) -> bool:
    """Tell whether this is the path of a session folder, of a folder in it, or of a folder that sessions lie in."""
    if not isinstance(path, str) or not _is_plain(path):
        return False
    kind, above = grammar.Kind.ROOT, ""
    for name in path.split("/"):
        if kind >= grammar.Kind.SESSION:
            return True
        child = grammar.child_kind(kind, above, name)
        if child is None:
            return False
        kind, above = child, name
    return True


def _is_plain(path: str) -> bool:
    # The grammar alone would accept `..` as a subject.
    return {"", ".", ".."}.isdisjoint(path.split("/")) and "\0" not in path
