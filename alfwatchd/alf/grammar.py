"""The ALF path grammar: says whether a path relative to the root is a session, a dataset, or neither.

The grammar is that of ``one.alf.spec`` (``SESSION_SPEC``, ``COLLECTION_SPEC``, ``FILE_SPEC``, ``_DEFAULT``), with two
differences that make it safe to rely on: a session is anchored at the root, and a name matches as a whole or not at
all (upstream cuts names at the first odd character). ``tests/alf/test_grammar.py`` compares both on generated names.

Names are ``str`` as `os.fsdecode` gives them: a byte that is not UTF-8 becomes a lone surrogate, which no pattern
below accepts.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

# one.alf.spec._DEFAULT['lab'], ['subject']. Dates and numbers are ASCII digits here: upstream's `\d` also takes other
# scripts' digits, whose dates it then cannot parse.
_LAB = re.compile(r"\w+")
_SUBJECT = re.compile(r"[\w.-]+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[0-9]{1,3}")

# one.alf.spec.SESSION_SPEC, whole.
_SESSION = re.compile(
    rf"(?:(?P<lab>{_LAB.pattern})/Subjects/)?(?P<subject>{_SUBJECT.pattern})"
    rf"/(?P<date>{_DATE.pattern})/(?P<number>{_NUMBER.pattern})"
)

# one.alf.spec.COLLECTION_SPEC without its closing slash: a collection, a revision, or both, the revision last.
_FOLDER = re.compile(r"[\w./-]+(?:/#[\w.-]+#)?|#[\w.-]+#")

# one.alf.spec.FILE_SPEC, reduced to the same language without nested repetition: upstream's `(?:\.{extra})*` takes
# exponential time on a name with many dots. The namespace is part of `\w+`, the `_times` and `_intervals` suffixes
# are part of the timescale, and one extra part may hold dots. `$` accepts one newline at the end.
_FILE = re.compile(r"\w+\.(?:_[a-z]+_)?[a-zA-Z0-9]+(?:_\w+)?(?:\.[.\w-]+)?\.\w+\n?")


TRASH = ".alfwatchd-trash"
"""Folder at the top of the root into which prune moves files. It never counts as a subject."""


class Kind(IntEnum):
    """The part that a folder plays in the layout ``[lab/Subjects/]subject/date/number/[collection/]``."""

    ROOT = 0
    TOP = 1
    """A lab or a subject: its children tell."""
    SUBJECTS = 2
    SUBJECT = 3
    DATE = 4
    SESSION = 5
    COLLECTION = 6
    """Any folder below a session that may hold datasets, revisions included."""


@dataclass(frozen=True, slots=True)
class SessionKey:
    """What identifies a session.

    Parameters
    ----------
    lab : str
        Name of the lab folder; empty if the tree has none.
    subject : str
    date : datetime.date
    number : int
        0 to 999.
    """

    lab: str
    subject: str
    date: datetime.date
    number: int

    @property
    def eid_path(self) -> str:
        """``(lab/)subject/date/number`` with the number padded to three digits: what the eid is made from."""
        path = f"{self.subject}/{self.date.isoformat()}/{self.number:03d}"
        return f"{self.lab}/{path}" if self.lab else path


def parse_session(path: str) -> SessionKey | None:
    """Parse a root-relative session path.

    Parameters
    ----------
    path : str
        For example ``lab/Subjects/subject/2020-01-01/001`` or ``subject/2020-01-01/1``.

    Returns
    -------
    SessionKey or None
        None if the path is not exactly a session path, or its date does not exist.
    """
    match = _SESSION.fullmatch(path)
    date = parse_date(match["date"]) if match else None
    if match is None or date is None or (match["subject"] == TRASH and not match["lab"]):
        return None
    return SessionKey(match["lab"] or "", match["subject"], date, int(match["number"]))


@lru_cache(maxsize=65536)
def parse_date(name: str) -> datetime.date | None:
    """Return the date that a folder name stands for; None for other names, also for ``2020-02-30``."""
    if not _DATE.fullmatch(name):
        return None
    try:
        return datetime.date.fromisoformat(name)
    except ValueError:
        return None


def child_kind(parent: Kind, parent_name: str, name: str) -> Kind | None:
    """Tell what a folder is from its parent and its name.

    Parameters
    ----------
    parent : Kind
        Kind of the parent, at most `Kind.DATE`; `is_collection` answers for folders inside a session.
    parent_name : str
        Name of the parent; decides whether it can be a lab.
    name : str
        Name of the folder itself.

    Returns
    -------
    Kind or None
        None if the layout has no place for such a folder.
    """
    match parent:
        case Kind.ROOT:
            return Kind.TOP if _SUBJECT.fullmatch(name) and name != TRASH else None
        case Kind.TOP:
            if name == "Subjects":
                return Kind.SUBJECTS if _LAB.fullmatch(parent_name) else None
            return Kind.DATE if parse_date(name) else None
        case Kind.SUBJECTS:
            return Kind.SUBJECT if _SUBJECT.fullmatch(name) else None
        case Kind.SUBJECT:
            return Kind.DATE if parse_date(name) else None
        case Kind.DATE:
            return Kind.SESSION if _NUMBER.fullmatch(name) else None
        case _:
            raise ValueError(f"child_kind answers above a session, not for {parent!r}")


@lru_cache(maxsize=65536)
def is_collection(path: str) -> bool:
    """Tell whether a folder, given relative to its session, may hold datasets (`alf/probe00`, `alf/#2020-01-01#`)."""
    return _FOLDER.fullmatch(path) is not None


@lru_cache(maxsize=1 << 14)  # names that occur in many sessions stay in it; unique names must not fill the memory
def is_dataset_name(name: str) -> bool:
    """Tell whether a file name is a valid ALF dataset name (``one.alf.spec.is_valid``, whole name)."""
    return _FILE.fullmatch(name) is not None


def split_dataset(path: str) -> tuple[str, str] | None:
    """Split a root-relative file path into session path and dataset rel_path.

    Parameters
    ----------
    path : str
        For example ``subject/2020-01-01/001/alf/spikes.times.npy``.

    Returns
    -------
    tuple of str or None
        ``('subject/2020-01-01/001', 'alf/spikes.times.npy')``; None if the path is not a dataset of a session.
    """
    parts = path.split("/")
    for depth in (3, 5):
        session, rel_path = "/".join(parts[:depth]), "/".join(parts[depth:])
        if rel_path and parse_session(session):
            return (session, rel_path) if is_rel_path(rel_path) else None
    return None


def is_rel_path(rel_path: str) -> bool:
    """Tell whether a session-relative path is a valid dataset path (``one.alf.spec.REL_PATH_SPEC``, whole)."""
    folder, slash, name = rel_path.rpartition("/")
    return is_dataset_name(name) and (not slash or is_collection(folder))


@lru_cache(maxsize=1 << 12)
def split_revision(folder: str) -> tuple[str, str]:
    """Split a session-relative folder into collection and revision, both possibly empty.

    ``alf/#2020-01-01#`` gives ``('alf', '2020-01-01')``.
    """
    collection, _, last = folder.rpartition("/")
    return (collection, last[1:-1]) if last.startswith("#") else (folder, "")
