"""What must outlive a restart and is not in the tables: identity of the root, md5 digests, new sessions; in SQLite.

The file may be deleted at any time: the next start scans, hashes and takes the root as it finds it. A daemon that runs
makes it anew.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from alfwatchd.core.guard import Place
from alfwatchd.errors import StateError

_log = logging.getLogger(__name__)

_SCHEMA_VERSION = 3
_MOST_PARAMETERS = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS places (
    path BLOB PRIMARY KEY, fsid TEXT, dev TEXT, ino TEXT, mount_id TEXT, fs_type TEXT, seal BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS digests (
    fsid TEXT, signature BLOB, md5 BLOB, seal BLOB, PRIMARY KEY (fsid, signature)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS first_seen (path BLOB PRIMARY KEY, seen REAL, seal BLOB) WITHOUT ROWID;
"""
_EXPECTED = (
    "SELECT path, fsid, dev, ino, mount_id, fs_type, seal FROM places",
    "SELECT fsid, signature, md5, seal FROM digests",
    "SELECT path, seen, seal FROM first_seen",
)


class State:
    """The state file of one daemon. Any thread may call; each method may raise `StateError`.

    Parameters
    ----------
    state_dir : Path
        Made if missing.

    Raises
    ------
    StateError
        The folder cannot be made or the file cannot be opened.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "state.sqlite"
        self._lock = threading.Lock()
        self._places: dict[str, Place] | None = None
        """What the file is known to hold."""
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
            self.is_new = not self.path.exists()
            self._db = self._open()
            self._mark: tuple[int, int] | None = _mark(self.path)
        except (OSError, sqlite3.Error) as error:
            raise StateError(
                f"{state_dir}: cannot keep state here ({error}); choose another folder with --state-dir"
            ) from error

    def load_places(self) -> dict[str, Place]:
        """Return the recorded places by path relative to the root; the root itself is ''."""
        with self._transaction():
            rows = self._db.execute(_EXPECTED[0]).fetchall()
        sound = [row for *row, seal in rows if seal == _seal(*row)]
        if len(sound) < len(rows):
            _log.warning("the recorded identity of root and mounts is damaged and not used path=%s", self.path)
        self._places = {
            os.fsdecode(path): Place(int(fsid), int(dev), int(ino), int(mount_id), fs_type)
            for path, fsid, dev, ino, mount_id, fs_type in sound
        }
        return dict(self._places)

    def save_places(self, places: Mapping[str, Place]) -> None:
        """Record the places, replacing what was recorded; cheap where the file has them already."""
        if places == self._places and self._is_in_place():
            return
        # Identities can be larger than SQLite's integers, and paths need not be UTF-8.
        rows = [
            (os.fsencode(path), *map(str, (place.fsid, place.dev, place.ino, place.mount_id)), place.fs_type)
            for path, place in places.items()
        ]
        with self._transaction():
            self._db.execute("DELETE FROM places")
            sealed = [(*row, _seal(*row)) for row in rows]
            self._db.executemany("INSERT INTO places VALUES (?, ?, ?, ?, ?, ?, ?)", sealed)
        self._places = dict(places)

    def load_first_seen(self) -> dict[str, float]:
        """Return session path -> when it was first seen, in seconds since 1970."""
        with self._access():
            rows = self._db.execute("SELECT path, seen, seal FROM first_seen").fetchall()
        return {os.fsdecode(path): seen for path, seen, seal in rows if seal == _seal(path, seen)}

    def save_first_seen(self, times: Mapping[str, float], gone: Iterable[str] = ()) -> None:
        """Record when sessions were first seen, and forget those that are gone; others stay recorded."""
        rows = [(os.fsencode(path), seen, _seal(os.fsencode(path), seen)) for path, seen in times.items()]
        with self._transaction():
            self._db.executemany("DELETE FROM first_seen WHERE path = ?", [(os.fsencode(path),) for path in gone])
            self._db.executemany("INSERT OR REPLACE INTO first_seen VALUES (?, ?, ?)", rows)

    def find_digest(self, fsid: int, signature: bytes) -> bytes | None:
        """Return the md5 digest, 16 bytes, of a file with this signature on this file system, or None."""
        with self._access():  # no transaction: each file is looked up, and to end one takes as long as the look
            row = self._db.execute(
                "SELECT md5, seal FROM digests WHERE fsid = ? AND signature = ?", (str(fsid), signature)
            ).fetchone()
        return row[0] if row and row[1] == _seal(str(fsid), signature, row[0]) else None

    def find_digests(self, fsid: int, signatures: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return signature -> md5 digest, 16 bytes, of those files on one file system whose digest is recorded."""
        found: dict[bytes, bytes] = {}
        with self._access():
            for start in range(0, len(signatures), _MOST_PARAMETERS):
                some = signatures[start : start + _MOST_PARAMETERS]
                marks = ",".join("?" * len(some))
                rows = self._db.execute(
                    f"SELECT signature, md5, seal FROM digests WHERE fsid = ? AND signature IN ({marks})",
                    (str(fsid), *some),
                )
                found.update((each, digest) for each, digest, seal in rows if seal == _seal(str(fsid), each, digest))
        return found

    def save_digests(self, rows: Iterable[tuple[int, bytes, bytes]]) -> None:
        """Record (fsid, packed signature, md5 digest) of files."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)",
                [(str(fsid), signature, md5, _seal(str(fsid), signature, md5)) for fsid, signature, md5 in rows],
            )

    def forget_digests(self, signatures: Iterable[bytes]) -> None:
        """Forget the digests of files that were rewritten without any change of their signature."""
        with self._transaction():
            self._db.executemany("DELETE FROM digests WHERE signature = ?", [(each,) for each in signatures])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._access():
            if not self._is_in_place():
                self._make_anew()
            with self._db:
                yield

    @contextmanager
    def _access(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (OSError, sqlite3.Error) as error:
            if _is_damage(error):
                self._mark = None  # made anew by the next transaction
            raise StateError(f"{self.path}: {error}; it may be deleted while no daemon runs") from error

    def _is_in_place(self) -> bool:
        """Tell whether the file that is open is the one that the next start will find."""
        try:
            return self._mark == _mark(self.path)
        except OSError:
            return False

    def _make_anew(self) -> None:
        """Make a file that somebody has removed or damaged: what is written to the one that is open would be lost."""
        self._db.close()  # first of all, as it removes the other files that belong to it, by their names
        self._places = None
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._db = self._open()
        self._mark = _mark(self.path)
        _log.warning("the state was removed or damaged and is made anew path=%s", self.path)

    def _open(self) -> sqlite3.Connection:
        """Open the file; one that is damaged or of another version is made anew, as it holds nothing but shortcuts."""
        files = [Path(f"{self.path}{end}") for end in ("", "-wal", "-shm")]
        try:
            if not all(_is_usable(each) for each in files):
                raise sqlite3.DatabaseError("not a file that can be read and written")
            return _connect(self.path)
        except sqlite3.Error as error:
            if not _is_damage(error):  # locked, full, not readable: nothing is wrong with what it holds
                raise
            _log.warning(
                "the state is damaged, or of another version, and made anew path=%s error=%s", self.path, error
            )
        self.is_new = True
        for each in files:
            if each.is_dir() and not each.is_symlink():
                each.rmdir()
            each.unlink(missing_ok=True)
        return _connect(self.path)


def _seal(*values: object) -> bytes:
    """Return what tells a row from one that is damaged, as SQLite does not."""
    packed = b"\0".join(value if isinstance(value, bytes) else str(value).encode() for value in values)
    return zlib.crc32(packed).to_bytes(4)


def _is_damage(error: Exception) -> bool:
    is_short = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHORT_READ
    return is_short or type(error) is sqlite3.DatabaseError  # which has more special classes for all else


def _is_usable(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode) and os.access(path, os.R_OK | os.W_OK)
    except FileNotFoundError:
        return not path.is_symlink()


def _mark(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _SCHEMA_VERSION):
            raise sqlite3.DatabaseError(f"schema version {version}")
        if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):  # 0.1 s for a million digests
            raise sqlite3.DatabaseError("damaged")
        db.executescript(_SCHEMA)
        _check_columns(db)
        db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        db.commit()
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


def _check_columns(db: sqlite3.Connection) -> None:
    try:
        for query in _EXPECTED:
            db.execute(f"{query} LIMIT 0")
    except sqlite3.OperationalError as error:
        raise sqlite3.DatabaseError(f"other tables: {error}") from error
