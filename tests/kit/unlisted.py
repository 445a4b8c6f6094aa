"""Sessions and references made of names alone: what is on disk, what is listed, and what of it may go."""

from __future__ import annotations

import unicodedata
import uuid

from alfwatchd.alf import ids
from alfwatchd.prune.near_miss import NearMisses
from alfwatchd.prune.unlisted import Kept, find_unlisted
from alfwatchd.tree.packed import Signature, pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.prune import COMMON, reference_of
from kit.rows import folder_rows

FILE = Signature(file_size=10, mtime_ns=1_700_000_000_000_000_000, inode=7, is_link=False)
LINK = FILE._replace(inode=8, is_link=True)
SPIKES, CLUSTERS, REVISED = "alf/spikes.times.npy", "clusters.depths.npy", "alf/#2021-01-01#/spikes.times.npy"
S1, S2, UNPADDED = "s/2020-01-01/001", "s/2020-01-01/002", "s/2020-01-01/1"
LAB_S1 = "lab/Subjects/s/2020-01-01/001"
U1, U2, U3 = (str(uuid.UUID(int=number, version=4)) for number in (1, 2, 3))
E1, E2 = (str(uuid.UUID(int=number, version=4)) for number in (11, 12))


def nfc(text):
    """Return a text in composed form, as Linux and Windows write names."""
    return unicodedata.normalize("NFC", text)


def nfd(text):
    """Return a text in decomposed form, as macOS writes names."""
    return unicodedata.normalize("NFD", text)


KOREAN = "\ud55c\uae00"
"""Its parts in decomposed form are letters as well, so that both forms are names of subjects, labs and files."""


def with_uuid(rel_path, own_id):
    """Return a rel_path with a UUID before its extension, as files from the web server have it."""
    stem, _, extension = rel_path.rpartition(".")
    return f"{stem}.{own_id}.{extension}"


def session(path, rel_paths, *, is_link=False, size=10):
    """Make a session; a rel_path that ends in `@` is a link to a file."""
    folders = {}
    for rel_path in rel_paths:
        folder, _, name = rel_path.removesuffix("@").rpartition("/")
        signature = LINK if rel_path.endswith("@") else FILE._replace(file_size=size)
        folders.setdefault(folder, {})[name] = pack_signature(*signature)
    rows = tuple(folder_rows(folder, files) for folder, files in folders.items())
    return Session(path, rows, is_link)


def find(disk, reference, *, remove_empty_sessions=True, eids=None, common=True):
    """Return files to go, folders to go, and path -> reason of what is kept; all but a session that all have."""
    sessions = {path: each if isinstance(each, Session) else session(path, each) for path, each in disk.items()}
    if common:
        sessions[COMMON] = Session(COMMON)
    near = NearMisses(reference, sessions, eids or {}, ids.NAMESPACE)
    kept = Kept()
    found = [*find_unlisted(Snapshot(1, sessions), reference, near, kept, remove_empty_sessions=remove_empty_sessions)]
    files = [f"{each.path}/{rel_path}" for each in found for rel_path, _ in each.files]
    return files, [each.path for each in found if each.is_removable], {item.path: item.reason for item in kept.items}


def listed(reference):
    """Make a reference that also has the session that all have."""
    return reference_of({COMMON: {"a.b.c"}, **reference})


KOREAN_LAB, KOREAN_SUBJECT = f"{KOREAN}/s/2020-01-01/001", f"lab/{KOREAN}/2020-01-01/001"
KOREAN_FILE = f"alf/{KOREAN}.times.npy"
