"""Real trees for tests: the path cases of ``tests/data/alf_paths.jsonl``, and how to index a tree without a daemon."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alfwatchd.alf.exclude import compile_exclude
from alfwatchd.index.indexer import Indexer
from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.scan.scanner import Scanner
from alfwatchd.watch.supervisor import WatchSupervisor

CASES_FILE = Path(__file__).parents[1] / "data/alf_paths.jsonl"

_TARGETS = (
    "file.txt",
    "dir/in.side.npy",
    "sess/alf/v.w.npy",
    "sess/y.z.npy",
    "date/001/o.a.npy",
    "subj/2020-01-01/001/o.a.npy",
    "lab/Subjects/sub/2020-01-01/001/o.a.npy",
)


@dataclass(frozen=True)
class Case:
    """One path, to be made alone in an empty tree, and what the tables must hold.

    Parameters
    ----------
    category : str
        What the case is about.
    path : str
        Relative to the root; bytes that are not UTF-8 are surrogate escapes.
    kind : str
        file, dir, symlink, fifo or socket.
    target : str or None
        Of a symlink: ``target/...`` lies beside the root, others are taken as they stand.
    session : str or None
        The one session that must be listed, relative to the root.
    rel_paths : frozenset of str
        Its datasets.
    """

    category: str
    path: str
    kind: str
    target: str | None
    session: str | None
    rel_paths: frozenset[str]

    @property
    def expected(self) -> dict[str, frozenset[str]]:
        """Session path -> rel_paths, as `listed` returns it."""
        return {} if self.session is None else {self.session: self.rel_paths}


def read_cases() -> list[Case]:
    """Read all path cases."""
    cases = []
    for line in CASES_FILE.read_text().splitlines():
        case = json.loads(line)
        rel_paths = case["expect"]["rel_path"] or []
        cases.append(
            Case(
                case["category"],
                case["path"],
                case["kind"],
                case["target"],
                case["expect"]["session"],
                frozenset([rel_paths] if isinstance(rel_paths, str) else rel_paths),
            )
        )
    return cases


def make_targets(folder: Path) -> None:
    """Make the tree ``target`` that links of cases lead to, in the folder that holds the roots."""
    write(folder / "target", *_TARGETS)


def make_case(case: Case, root: Path) -> None:
    """Make the path of a case below a root; `make_targets` must have been called for its parent."""
    path = os.fsencode(root / case.path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    match case.kind:
        case "file":
            with open(path, "xb") as file:
                file.write(b"content")
        case "dir":
            os.mkdir(path)
        case "symlink":
            assert case.target is not None
            beside = case.target.startswith("target/")
            os.symlink(root.parent / case.target if beside else case.target, path)
        case "fifo":
            os.mkfifo(path)
        case "socket":
            make_socket(path)


def make_socket(path: bytes | str) -> None:
    """Make a socket file, however long its path is."""
    folder, name = os.path.split(os.fsencode(path))
    fd = os.open(folder, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(b"/proc/self/fd/%d/%s" % (fd, name))
    finally:
        os.close(fd)


ODD = (
    "s/2020-01-01/001/alf/a.b.c",
    "s/2020-01-01/001/alf/probe00/d.e.f",
    "s/2020-01-01/001/notes.txt",
    "s/2020-01-01/001/bad (1)/g.h.i",
    "s/2020-01-01/002/#2021-01-01#/a.b.c",
)
"""Files of `write_odd_tree`: datasets at all depths, and what is none."""


def write_odd_tree(root: Path) -> None:
    """Make two sessions with what few trees have: revisions, bad names, hard links, links to files and sessions."""
    first, second = root / "s/2020-01-01/001", root / "s/2020-01-01/002"
    write(root, *ODD)
    os.link(first / "alf/a.b.c", second / "a.b.c")
    (second / "d.e.f").symlink_to("a.b.c")
    (root / "s/2020-01-01/003").symlink_to("001")


IN_THE_WAY = {
    "file": lambda path: path.write_text("of a process that was killed"),
    "pipe": os.mkfifo,
    "socket": make_socket,
    "empty folder": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("precious"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
}
"""What somebody, or a process that was killed, may have left where a file belongs; the links want a file `precious`."""


def write(root: Path, *paths: str) -> None:
    """Write small files, with the folders that they need; a path that ends in a slash is a folder."""
    for path in paths:
        place = root / path
        if path.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"content of " + os.fsencode(path))


@contextmanager
def fast_folder() -> Iterator[Path]:
    """Yield a new folder, in memory where there is a tmpfs; every user can reach it."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else "/tmp"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def indexing(root: Path, *, exclude: Iterable[str] = (), follow_links: bool = False) -> Iterator[Indexer]:
    """Yield the indexer of a root, which has looked at nothing yet; nothing is watched and nothing is written."""
    path = str(root.resolve())
    guard = RootGuard(path, {}, follow_links=follow_links)
    scanner = Scanner(path, compile_exclude(exclude), follow_links=follow_links)
    try:
        yield Indexer(scanner, guard, WatchSupervisor(), settle_seconds=0.1, longest_wait_seconds=1.0)
    finally:
        guard.close()


def scan_all(indexer: Indexer) -> None:
    """Scan the whole root, as ``alfwatchd --once`` does."""
    indexer.open_root()
    indexer.start_scan("test", 0.0)
    while indexer.queue.is_waiting:
        indexer.scan(0.0)


def index_tree(root: Path, *, exclude: Iterable[str] = ()) -> Indexer:
    """Index a root and return the indexer, at rest."""
    with indexing(root, exclude=exclude) as indexer:
        scan_all(indexer)
    return indexer


def listed(indexer: Indexer) -> dict[str, frozenset[str]]:
    """Return session path -> rel_paths of the rows."""
    sessions = indexer.tables.snapshot().sessions
    return {path: frozenset(rel_path for rel_path, _ in session.datasets()) for path, session in sessions.items()}


def problems(indexer: Indexer) -> dict[str, str]:
    """Return path -> kind of the problems."""
    found = indexer.problems()
    assert len({problem.path for problem in found}) == len(found)
    return {problem.path: problem.kind for problem in found}
