"""Tables on disk, as tests of their writer make and read them."""

import json
import os
import shutil
import struct
import time
from contextlib import contextmanager, suppress

import pyarrow as pa
import pyarrow.parquet as pq
from watchdog.observers.inotify_c import InotifyConstants, inotify_add_watch, inotify_init

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.store.reader import METADATA_KEY
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import folder_rows
from kit.trees import fast_folder

PATIENCE = 120.0


@contextmanager
def closed_folder():
    """Yield a folder, and make sure that no file in it is left open: other descriptors may be those of pyarrow."""
    with fast_folder() as folder:
        yield folder
        deadline = time.monotonic() + PATIENCE  # Arrow's own threads let go of a file some time after it was read
        while left := [path for path in open_files() if path.startswith(str(folder))]:
            assert time.monotonic() < deadline, left
            time.sleep(0.01)


def ids_and_sizes(out_dir):
    """Return id -> bytes of the datasets; None where no table of them can be read."""
    with suppress(OSError, pa.ArrowException, KeyError):
        rows = read_file(out_dir / DATASETS).select(["id", "file_size"]).to_pylist()
        return {str(row["id"]): row["file_size"] for row in rows}
    return None


def open_files():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def snapshot(subjects, n_changes=1, *, n_datasets=2, size=7):
    """Return a snapshot with one session per letter."""
    names = [f"a{number}.b.c" for number in range(n_datasets)]
    files = {name: pack_signature(size, 1, 2, False) for name in names}
    folders = tuple(filter(None, [folder_rows("alf", files)]))
    sessions = [Session(f"{subject}/2020-01-01/001", folders) for subject in subjects]
    return Snapshot(n_changes, {session.path: session for session in sessions})


def subjects(out_dir):
    return "".join(sorted(read_file(out_dir / SESSIONS)["subject"].to_pylist()))


def read_file(path):
    """Read a table; `pyarrow.parquet.read_table` opens a path twice, and may find two files, and closes it later."""
    with pq.ParquetFile(path) as file:
        return file.read()


def contents(out_dir):
    return {path.name: path.read_bytes() for path in out_dir.iterdir()}


def parse_events(buffer):
    """Yield the kind and the file name of each event; see inotify(7)."""
    place = 0
    while place < len(buffer):
        _, event, _, length = struct.unpack_from("iIII", buffer, place)
        place += struct.calcsize("iIII") + length
        yield event, buffer[place - length : place].rstrip(b"\0").decode()


@contextmanager
def trace(folder):
    """Record what happens in a folder, in order, as (event, file name)."""
    fd = inotify_init()
    steps = []
    words = {
        InotifyConstants.IN_CREATE: "create",
        InotifyConstants.IN_MOVED_TO: "arrive",
        InotifyConstants.IN_MOVED_FROM: "leave",
        InotifyConstants.IN_DELETE: "delete",
        InotifyConstants.IN_MODIFY: "modify",
    }
    mask = 0
    for each in words:
        mask |= each
    try:
        inotify_add_watch(fd, bytes(folder), mask)
        yield steps
        (folder / "end").touch()
        while not steps or steps[-1][1] != "end":
            buffer = os.read(fd, 1 << 20)
            steps += [(words[event], name) for event, name in parse_events(buffer)]
        del steps[-1]
    finally:
        os.close(fd)
        (folder / "end").unlink()


def orphans(out_dir):
    """Return the eids of dataset rows that have no session."""
    datasets, sessions = (read_file(out_dir / name) for name in (DATASETS, SESSIONS))
    return set(datasets["eid"].to_pylist()) - set(sessions["id"].to_pylist())


@contextmanager
def failing(out_dir, name):
    """Let the writing of a file fail: a folder with something in it lies where its temporary file should be."""
    place = out_dir / f".{name}.tmp"
    if name:
        (place / "something").mkdir(parents=True)
    try:
        yield
    finally:
        if name:
            shutil.rmtree(place)


def generation_of(path):
    return json.loads(pq.read_metadata(path).metadata[METADATA_KEY])["generation"]
