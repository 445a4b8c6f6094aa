"""Recognises data in another layout than ONE's by the names of folders, and says what would make it readable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from alfwatchd.alf import grammar

LAYOUT = "lab/Subjects/subject/date/number or subject/date/number"
"""What ONE reads."""

_DATE = re.compile(r"(?<!\d)((?:19|20)\d{2})([-_.]?)(\d{2})\2(\d{2})(?!\d)")
_NUMBER = re.compile(r"[_.-]+(\d{1,3})(?![^_.-])")
"""What may follow a date."""


class Sight(NamedTuple):
    """What a bounded look at a root saw; paths are relative to it.

    Parameters
    ----------
    folders : sequence of str
    files : sequence of str
    """

    folders: Sequence[str]
    files: Sequence[str]


def advise(root: str, sight: Sight) -> str:
    """Say why there is no session in a root that is not empty, and what to do.

    Parameters
    ----------
    root : str
        Absolute path: it tells whether the root itself is a subject, a date or a session folder.
    sight : Sight
    """
    return (
        _advise_root(root)
        or next(filter(None, map(_advise_blueprint, sight.folders)), "")
        or next(filter(None, (_advise_flat(path.rpartition("/")[0]) for path in sight.files)), "")
        or _advise_datasets(sight.files)
        or f"nothing in it looks like {LAYOUT}, the layouts that ONE reads; check the spelling of root"
    )


def root_above(root: str) -> str:
    """Return the folder that was probably meant as root, where this one is, or lies in, a subject folder; or ''."""
    parts = [*root.strip("/").split("/"), "001"]
    for end in range(3, len(parts) + 1):
        if grammar.parse_session("/".join(parts[end - 3 : end])) is not None:
            top = end - 5 if parts[end - 4 : end - 3] == ["Subjects"] else end - 3
            return "/" + "/".join(parts[: max(top, 0)])
    return ""


def _advise_root(root: str) -> str:
    above = root_above(root)
    return f"it lies in a subject folder; did you mean root = {above}?" if above else ""


def _advise_blueprint(folder: str) -> str:
    """Recognise ``rawdata/sub-001/ses-001_date-20210105``, the layout of NeuroBlueprint, and of BIDS."""
    *_, subject, session = ("", *folder.split("/"))
    if not (subject.startswith("sub-") and session.startswith("ses-")):
        return ""
    date = _find_date(session) or "2021-01-05"
    return (
        f"{folder} is of the layout of NeuroBlueprint or BIDS, and ONE reads {LAYOUT}: make a tree of that layout "
        f"beside it, with folders such as {subject}/{date}/001 that are copies of, or links to, the sessions, and make "
        "that tree the root"
    )


def _advise_flat(folder: str) -> str:
    """Recognise ``subject_2021-01-05`` and ``2021-01-05_1_subject``: subject, date and number in one name."""
    name = folder.rpartition("/")[2]
    date, found = _find_date(name), _DATE.search(name)
    if not date or found is None:
        return ""
    after = name[found.end() :]
    number = _NUMBER.match(after)
    subject = (name[: found.start()] + after[number.end() if number is not None else 0 :]).strip("_.- ")
    if not subject:
        return ""
    place = f"{subject}/{date}/{int(number[1]) if number is not None else 1:03d}"
    return (
        f"the name {folder!r} holds subject and date, and ONE reads a folder for each: {LAYOUT}; move what is in it to "
        f"{place}, and all others likewise"
    )


def _find_date(name: str) -> str:
    found = _DATE.search(name)
    date = f"{found[1]}-{found[3]}-{found[4]}" if found is not None else ""
    return date if grammar.parse_date(date) is not None else ""


def _advise_datasets(files: Sequence[str]) -> str:
    """Recognise datasets that no session folder holds."""
    for path in files:
        folder, _, name = path.rpartition("/")
        if grammar.is_dataset_name(name):
            where = f"in {folder}" if folder else "in the root itself"
            return (
                f"there are datasets {where}, and no session folder above them: ONE reads {LAYOUT}. If the root is a "
                "session folder, make the folder above the subject, or above the lab, the root"
            )
    return ""
