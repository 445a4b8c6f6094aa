"""What the next process needs beside the tables: identities, some inodes, md5 digests, new sessions; in SQLite.

The file may be deleted at any time: the next start scans, hashes and accepts the root as it is. A running daemon
makes it again.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import stat
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from alfwatchd import linux
from alfwatchd.atomic import replace_file
from alfwatchd.errors import StateError, StateLocked
from alfwatchd.scan.place import Identity, Place
from alfwatchd.tree.content import Recorded, forgotten
from alfwatchd.users import this_user

_log = logging.getLogger(__name__)

_SCHEMA_VERSION = 5
_MOST_PARAMETERS = 500
_SQLITE_LOCKED_FROM, _SQLITE_LOCKS = 0x40000000, 512
"""Where SQLite locks a file: pending, reserved and shared bytes (os_unix.c)."""
_CODES_OF_DAMAGE = (
    sqlite3.SQLITE_IOERR_SHORT_READ,
    sqlite3.SQLITE_ERROR,  # our statements are sound, so the file has another format, or lacks a table
    sqlite3.SQLITE_READONLY,  # `_is_usable` found it writable, so its header names a format of the future
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS places (
    path BLOB PRIMARY KEY, fsid TEXT, dev TEXT, ino TEXT, mount_id TEXT, fs_type TEXT,
    identity_kind TEXT, identity TEXT, source BLOB, keeps_inodes TEXT, is_link TEXT, seal BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions_seen (path BLOB PRIMARY KEY, ino TEXT, seal BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS digests (
    place BLOB, fsid TEXT, stamp BLOB, born TEXT, md5 BLOB, seal BLOB, PRIMARY KEY (place, fsid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS first_seen (path BLOB PRIMARY KEY, seen REAL, seal BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held (is_held INTEGER, seal BLOB);
"""
_INDEX = "CREATE INDEX IF NOT EXISTS digests_by_path ON digests (stamp) WHERE length(place) > 8"
"""For `StateDb.forget_digests`, of files that are recorded by path; see `tree.content.Key`."""
_EXPECTED = (
    "SELECT path, fsid, dev, ino, mount_id, fs_type, identity_kind, identity, source, keeps_inodes, is_link, seal "
    "FROM places",
    "SELECT place, fsid, stamp, born, md5, seal FROM digests",
    "SELECT path, ino, seal FROM sessions_seen",
    "SELECT path, seen, seal FROM first_seen",
    "SELECT is_held, seal FROM held",
)


def no_state(state_dir: Path, error: Exception) -> StateError:
    """Return what to raise where no state can be kept in a folder."""
    if isinstance(error, OSError) and error.errno == errno.ENOTEMPTY:
        return StateError(
            f"{error.filename}: a folder that is not empty is in the place of a file; move it away, or choose another "
            "folder with --state-dir"
        )
    reason = error.strerror if isinstance(error, OSError) else error
    return StateError(
        f"{state_dir}: {this_user()} cannot keep state here ({reason}): give this user write access, or choose another "
        "folder with --state-dir"
    )


def state_file(state_dir: Path) -> Path:
    """Return the path of the state file in a state folder."""
    return state_dir / "state.sqlite"


class StateDb:
    """The state file of one daemon. Any thread may call; each method may raise `StateError`.

    Parameters
    ----------
    state_dir : Path
        Made if missing.

    Raises
    ------
    StateError
        The folder cannot be made or the file cannot be opened.
    StateLocked
        Another process has it open: one at a time.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_file(state_dir)
        self._lock = threading.Lock()
        self._places: dict[str, Place] | None = None
        """What the file is known to hold."""
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
            self.is_new = not self.path.exists()
            self._db = self._open()
            self._inode: tuple[int, int] | None = _inode(self.path)
        except (OSError, sqlite3.Error) as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY or _is_in_use(error):
                raise StateLocked(
                    f"{state_dir}: the state is locked by another process; stop that process, or choose another "
                    "folder with --state-dir"
                ) from error
            raise no_state(state_dir, error) from error

    def load_places(self) -> dict[str, Place]:
        """Return the recorded places by path relative to the root; the root itself is ''."""
        with self._transaction():
            rows = self._db.execute(_EXPECTED[0]).fetchall()
        sound = [row for *row, seal in rows if seal == _seal(*row)]
        if len(sound) < len(rows):
            _log.warning("the recorded identity of root and mounts is damaged and not used path=%s", self.path)
        self._places = {os.fsdecode(path): _unpack_place(*values) for path, *values in sound}
        return dict(self._places)

    def save_places(self, places: Mapping[str, Place]) -> None:
        """Record the places, replacing what was recorded; cheap where the file has them already."""
        if places == self._places and self._is_in_place():
            return
        rows = [(os.fsencode(path), *_pack_place(place)) for path, place in places.items()]
        with self._transaction():
            self._db.execute("DELETE FROM places")
            sealed = [(*row, _seal(*row)) for row in rows]
            self._db.executemany("INSERT INTO places VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", sealed)
        self._places = dict(places)

    def load_seen(self) -> dict[str, int]:
        """Return session path -> inode of its folder, of the sessions that were last recorded."""
        with self._transaction():
            rows = self._db.execute(_EXPECTED[2]).fetchall()
        return {os.fsdecode(path): int(ino) for path, ino, seal in rows if seal == _seal(path, ino)}

    def save_seen(self, seen: Mapping[str, int]) -> None:
        """Record inodes of session folders, replacing what was recorded."""
        rows = [(os.fsencode(path), str(ino)) for path, ino in seen.items()]
        with self._transaction():
            self._db.execute("DELETE FROM sessions_seen")
            self._db.executemany("INSERT INTO sessions_seen VALUES (?, ?, ?)", [(*row, _seal(*row)) for row in rows])

    def load_held(self) -> bool:
        """Tell whether the tables hold rows of sessions that are gone, and no person has accepted the loss."""
        with self._access():
            rows = self._db.execute("SELECT is_held, seal FROM held").fetchall()
        return any(is_held for is_held, seal in rows if seal == _seal(is_held))

    def save_held(self, *, is_held: bool) -> None:
        """Record whether rows are held."""
        with self._transaction():
            self._db.execute("DELETE FROM held")
            self._db.execute("INSERT INTO held VALUES (?, ?)", (int(is_held), _seal(int(is_held))))

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

    def find_recorded(self, fsid: int, places: Sequence[bytes]) -> dict[bytes, Recorded]:
        """Return `Key.place` -> what is recorded for it, of files on one file system."""
        found: dict[bytes, Recorded] = {}
        with self._access():  # no transaction: to end one takes as long as a look-up
            for start in range(0, len(places), _MOST_PARAMETERS):
                some = places[start : start + _MOST_PARAMETERS]
                marks = ",".join("?" * len(some))
                rows = self._db.execute(
                    f"SELECT place, stamp, born, md5, seal FROM digests WHERE fsid = ? AND place IN ({marks})",
                    (str(fsid), *some),
                )
                found |= {
                    place: Recorded(stamp, int(born), md5)
                    for place, stamp, born, md5, seal in rows
                    if seal == _seal(str(fsid), place, stamp, born, md5)
                }
        return found

    def save_digests(self, rows: Iterable[tuple[int, bytes, Recorded]]) -> None:
        """Record (fsid, `Key.place`, record) of files; each replaces what was recorded for its place."""
        values = [(place, str(fsid), each.stamp, str(each.born_ns), each.digest) for fsid, place, each in rows]
        if not values:
            return
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)",
                [(*row, _seal(row[1], row[0], *row[2:])) for row in values],
            )

    def forget_digests(self, signatures: Iterable[bytes]) -> None:
        """Forget what is recorded of files that were written to: of their inodes, and of these signatures by path."""
        keys = [forgotten(each) for each in signatures]
        with self._transaction():
            self._db.executemany("DELETE FROM digests WHERE place = ?", [(place,) for place, _ in keys])
            self._db.executemany(
                "DELETE FROM digests WHERE stamp = ? AND length(place) > 8", [(stamp,) for _, stamp in keys]
            )

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
                self._inode = None  # the next transaction makes it again
            raise StateError(f"{self.path}: {error}; it may be deleted while no daemon runs") from error

    def _is_in_place(self) -> bool:
        """Tell whether the file that is open is the one that the next start will find."""
        try:
            return self._inode == _inode(self.path)
        except OSError:
            return False

    def _make_anew(self) -> None:
        """Replace a file that was removed or damaged: what is written to the one that is open would be lost."""
        self._db.close()  # first of all, as it removes the other files that belong to it, by their names
        self._places = None
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._db = self._open()
        self._inode = _inode(self.path)
        _log.warning("the state was removed or damaged and is made again path=%s", self.path)

    def _open(self) -> sqlite3.Connection:
        """Open the file. One that is damaged or of another version is replaced by a new one: it only saves time."""
        files = [Path(f"{self.path}{end}") for end in ("", "-wal", "-shm", "-journal")]
        try:
            for each in files:
                _unshare(each)
            if not all(_is_usable(each) for each in files):
                raise sqlite3.DatabaseError("not a file that can be read and written")
            return _connect(self.path)
        except sqlite3.Error as error:
            if not _is_damage(error):  # locked, full, not readable: nothing is wrong with what it holds
                raise
            _log.warning(
                "the state is damaged or of another version, and is made again path=%s error=%s", self.path, error
            )
        self.is_new = True
        for each in files:
            if each.is_dir() and not each.is_symlink():
                each.rmdir()
            each.unlink(missing_ok=True)
        return _connect(self.path)


def _pack_place(place: Place) -> tuple[str | bytes, ...]:
    """Return the columns of a place: its numbers can be larger than SQLite's, and its source need not be UTF-8.

    Not `unique_id`, which the next boot gives again.
    """
    numbers = map(str, (place.fsid, place.dev, place.ino, place.mount_id))
    identity = (place.identity.kind, place.identity.value) if place.identity is not None else ("", "")
    flags = map(str, map(int, (place.keeps_inodes, place.is_link)))
    return (*numbers, place.fs_type, *identity, os.fsencode(place.source), *flags)


def _unpack_place(
    fsid: str, dev: str, ino: str, mount_id: str, fs_type: str, kind: str, value: str, source: bytes, *flags: str
) -> Place:
    identity = Identity(kind, value) if kind else None
    numbers = int(fsid), int(dev), int(ino), int(mount_id)
    keeps_inodes, is_link = (flag == "1" for flag in flags)
    return Place(*numbers, fs_type, identity, os.fsdecode(source), keeps_inodes=keeps_inodes, is_link=is_link)


def _seal(*values: object) -> bytes:
    """Return what tells a row from one that is damaged, as SQLite does not."""
    packed = b"\0".join(value if isinstance(value, bytes) else str(value).encode() for value in values)
    return zlib.crc32(packed).to_bytes(4)


def _is_damage(error: Exception) -> bool:
    """Tell whether what the file holds makes no sense. A full, busy or failing disk raises other codes."""
    return type(error) is sqlite3.DatabaseError or getattr(error, "sqlite_errorcode", None) in _CODES_OF_DAMAGE


def _is_usable(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode) and os.access(path, os.R_OK | os.W_OK)
    except FileNotFoundError:
        return True


def _unshare(path: Path) -> None:
    """Put a copy in the place of a file with other names: SQLite would write to what these lead to as well."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(about.st_mode) or about.st_nlink == 1 or not os.access(path, os.R_OK | os.W_OK):
        return
    with path.open("r+b") as shared:
        linux.lock_bytes(shared.fileno(), _SQLITE_LOCKED_FROM, _SQLITE_LOCKS)
        # Not durable: after a power cut, a damaged state is made again.
        replace_file(path, partial(shutil.copyfileobj, shared, length=1 << 20), is_durable=False)


def _is_in_use(error: Exception) -> bool:
    """Tell whether `_unshare` failed because another process has the file open."""
    return isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.EACCES) and error.filename is None


def _inode(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file; raises `sqlite3.DatabaseError` if it is damaged or of another version."""
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        # Before WAL, so that there is no shared memory file: another program could truncate it and end us by SIGBUS.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA mmap_size = 0")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _SCHEMA_VERSION):
            raise sqlite3.DatabaseError(f"schema version {version}")
        if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):  # 0.1 s for a million digests
            raise sqlite3.DatabaseError("damaged")
        db.executescript(_SCHEMA)
        _check_columns(db)
        db.execute(_INDEX)
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
