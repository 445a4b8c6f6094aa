"""ONE-api's `make_parquet_db` and `remove_missing_datasets`, ours beside them, and what tests of both need."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import one.alf.cache
import pytest
from iblutil.io import parquet
from one.api import One

import alfwatchd

THEIRS, OURS = (
    SimpleNamespace(
        make=module.make_parquet_db, remove=module.remove_missing_datasets, name=module.__name__.partition(".")[0]
    )
    for module in (one.alf.cache, alfwatchd)
)
# Files of a test are newer than any tables: what ours does with these has tests of its own.
OURS.remove = functools.partial(alfwatchd.remove_missing_datasets, newer=True)
S1, S2 = "lab/Subjects/s/2020-01-01/001", "lab/Subjects/s/2020-01-02/001"
SPIKES = "alf/spikes.times.npy"


def write(root, *paths):
    """Make files, and folders for paths that end in a slash."""
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(os.fsencode(f"content of {path}"))


def files(root):
    """Return all below a folder but tables and locks; links are not followed."""
    found = set()
    for folder, folders, names in os.walk(root):
        found |= {os.path.relpath(os.path.join(folder, name), root) for name in folders + names}
    return {path for path in found if not path.endswith((".pqt", ".lock"))}


def tables(folder):
    """Return sessions, datasets and the metadata that ONE reads."""
    (sessions, metadata), (datasets, same) = (parquet.load(folder / f"{name}.pqt") for name in ("sessions", "datasets"))
    assert metadata["origin"] == same["origin"]
    return sessions, datasets, metadata


def by_path(folder):
    """Return the tables in words, whatever the ids are: session -> its rel_paths."""
    sessions, datasets, _ = tables(folder)
    sessions, datasets = sessions.reset_index(), datasets.reset_index()
    keys = {row.id: f"{row.lab}/{row.subject}/{row.date}/{row.number:03d}".lstrip("/") for row in sessions.itertuples()}
    found = {key: set() for key in keys.values()}
    for row in datasets.itertuples():
        found[keys[row.eid]].add(row.rel_path)
    return found


def make(side, root, *arguments, **options):
    """Run one of the two functions; the tables go to a folder of its own beside the root."""
    out_dir = root.parent / side.name
    out_dir.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        side.make(root, out_dir, *arguments, **options)
    return out_dir


def open_one(root, out_dir):
    return One(cache_dir=root, tables_dir=out_dir, mode="local")


def plant(root, paths):
    """Make a tree; `a -> b` is a link."""
    for path in paths:
        path, arrow, target = path.partition(" -> ")
        if arrow:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(target)
        else:
            write(root, path)


@contextlib.contextmanager
def folder_of_nobody() -> Iterator[SimpleNamespace]:
    """Make a folder in which the user nobody can work; `become` is a context manager in which we are that user."""
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    user = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp(prefix="alfwatchd-", dir="/tmp"))
    folder.chmod(0o777)

    @contextlib.contextmanager
    def become():
        os.seteuid(user.pw_uid)
        try:
            yield
        finally:
            os.seteuid(0)

    try:
        yield SimpleNamespace(root=folder, become=become)
    finally:
        shutil.rmtree(folder)
