"""The file of notes in the state folder: what only tables held of rows that went.

Lines are added and never changed, and each has a checksum. A process that is killed loses at most the line that it was
adding, and then the tables were not replaced yet. A damaged line does not harm the others.
"""

from __future__ import annotations

import json
import logging
import os
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from alfwatchd.atomic import write_atomically
from alfwatchd.files import NotRegular, add_lines, open_regular_fd, sync_folder
from alfwatchd.tables.earlier import NO_DATASET, NO_SESSION, EarlierDataset, EarlierSession
from alfwatchd.tables.notes import Note, noted

_log = logging.getLogger(__name__)

NAME = "notes.jsonl"
MOST_BYTES = 64_000_000
MOST_DATASETS = 1_000_000
"""Most that the file holds; if there are more notes, the oldest are removed."""
LONGEST_SECONDS = 366 * 86400.0
_LEFT = 0.75
"""Part of the room that stays filled when old notes are removed, so that this does not happen at each note."""


class Notes:
    """The notes of one state folder. One thread at a time.

    Parameters
    ----------
    folder : Path
        Made, with the file, when there is something to note.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / NAME
        self._known: dict[str, tuple[str, EarlierSession, dict[str, EarlierDataset]]] = {}
        """Session key -> what the file holds of it, with the lab."""
        self._removed: set[str] = set()
        """Keys of the sessions whose last note says that a person removed what was set."""

    def load(self) -> list[Note]:
        """Return what was noted within a year, the latest last; lines that are damaged are left out.

        Raises
        ------
        OSError
            The file is there and cannot be read.
        """
        notes, n_damaged = [], 0
        oldest = time.time() - LONGEST_SECONDS
        for line in self._lines():
            try:
                when, note = _parse(line)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                n_damaged += 1
                continue
            if when >= oldest:
                notes.append(note)
                self._remember(note)
        if n_damaged:
            _log.warning("damaged notes of rows that went are lost lines=%d path=%s", n_damaged, self._path)
        return notes

    def add(self, notes: Iterable[Note]) -> None:
        """Add what is not noted yet; it is on disk when this returns.

        Raises
        ------
        OSError
            It could not be written.
        """
        news = [each for each in map(self._news, notes) if each is not None]
        if not news:
            return
        now = time.time()
        added = b"".join([_line(each, now) for each in news])
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        fd = self._open(os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            size = add_lines(fd, added)
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_folder(self.folder)
        for each in news:
            self._remember(each)
        n_datasets = sum(len(datasets) for _, _, datasets in self._known.values())
        if size + len(added) > MOST_BYTES or n_datasets > MOST_DATASETS:
            self._make_room()

    def come_back(self, keys: Iterable[str]) -> None:
        """Forget the notes of sessions that are back; if they go again, they are noted for another year."""
        for key in keys:
            self._known.pop(key, None)

    def forget_ids(self) -> None:
        """Remove the ids from all notes: new ids follow from the paths.

        Raises
        ------
        OSError
            The file could not be read or written; it is as it was.
        """
        kept = []
        for line in self._lines():
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                when, note = _parse(line)
                rows = {path: replace(row, id=None) for path, row in note.datasets.items()}
                # What held nothing but an id goes; what held nothing at all says that a person removed it.
                rows = {path: row for path, row in rows.items() if row != NO_DATASET or note.datasets[path] == row}
                left = replace(note, session=replace(note.session, eid=None), datasets=rows)
                if rows or left.session != NO_SESSION or left.is_removed:
                    kept.append(_line(left, when))
        if kept or self._known:
            self._write_again(kept)

    def _news(self, note: Note) -> Note | None:
        """Return what the file does not hold of a note, or None."""
        _, session, datasets = self._known.get(note.key, ("", NO_SESSION, {}))
        lost = {path: row for path, row in note.datasets.items() if datasets.get(path) != row}
        is_known = note.key in self._removed if note.is_removed else note.session in (NO_SESSION, session)
        return None if is_known and not lost else replace(note, datasets=lost)

    def _remember(self, note: Note) -> None:
        _, session, datasets = self._known.get(note.key, ("", NO_SESSION, {}))
        datasets.update(note.datasets)
        session = note.session if note.session != NO_SESSION or note.is_removed else session
        if note.is_removed:
            self._removed.add(note.key)
        elif note.session != NO_SESSION:
            self._removed.discard(note.key)
        self._known[note.key] = (note.lab, session, datasets)

    def _make_room(self) -> None:
        """Write the file again, without notes that were repeated later and without the oldest ones."""
        lines: dict[bytes, tuple[bytes, int]] = {}
        oldest = time.time() - LONGEST_SECONDS
        for line in self._lines():
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                when, note = _parse(line)
                if when >= oldest:
                    lines.pop(line, None)
                    lines[line] = line + b"\n", len(note.datasets)
        n_bytes, n_datasets, kept = 0, 0, []
        for line, n in reversed(lines.values()):
            n_bytes, n_datasets = n_bytes + len(line), n_datasets + n
            if n_bytes > _LEFT * MOST_BYTES or n_datasets > _LEFT * MOST_DATASETS:
                break
            kept.append(line)
        _log.warning(
            "too many notes of rows that went, the oldest are gone left=%d of=%d path=%s",
            len(kept), len(lines), self._path,
        )  # fmt: skip
        self._write_again(kept[::-1])

    def _write_again(self, lines: list[bytes]) -> None:
        def write(target: Path) -> None:
            with target.open("wb") as file:
                file.writelines(lines)

        write_atomically(self._path, write)
        self._known, self._removed = {}, set()
        for line in lines:
            self._remember(_parse(line.rstrip(b"\n"))[1])

    def _lines(self) -> list[bytes]:
        try:
            fd = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return []
        with os.fdopen(fd, "rb") as file:
            size = os.fstat(fd).st_size
            file.seek(max(0, size - 2 * MOST_BYTES))
            lines = file.read(2 * MOST_BYTES).split(b"\n")
        return [line for line in (lines if size <= 2 * MOST_BYTES else lines[1:]) if line]

    def _open(self, flags: int) -> int:
        if self._path.is_dir() and not self._path.is_symlink():
            raise IsADirectoryError(21, "is a folder; remove it", str(self._path))
        try:
            return open_regular_fd(self._path, flags, 0o640, follow_links=False)
        except NotRegular as error:
            raise NotRegular(error.errno, f"{error.strerror}; remove it", str(self._path)) from error


def _line(note: Note, when: float) -> bytes:
    content: dict[str, Any] = {
        "session": note.key,
        "lab": note.lab,
        "when": int(when),
        "eid": note.session.eid.hex() if note.session.eid is not None else None,
        "task_protocol": note.session.task_protocol,
        "projects": note.session.projects,
        "datasets": {
            path: [row.id.hex() if row.id is not None else None, row.qc] for path, row in note.datasets.items()
        },
    }
    if note.is_removed:
        content["is_removed"] = True
    packed = json.dumps(content, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(packed), packed)


def _parse(line: bytes) -> tuple[float, Note]:
    """Return when a note was made, and the note; raises ValueError and others where the line is damaged."""
    if len(line) < 10 or int(line[:8], 16) != zlib.crc32(line[9:]):
        raise ValueError("damaged")
    content = json.loads(line[9:])
    datasets = {str(path): noted(_parse_id(own_id), int(qc)) for path, (own_id, qc) in content["datasets"].items()}
    session = EarlierSession(_parse_id(content["eid"]), str(content["task_protocol"]), str(content["projects"]))
    note = Note(str(content["session"]), str(content["lab"]), session, datasets, content.get("is_removed") is True)
    return float(content["when"]), note


def _parse_id(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text is not None else None
