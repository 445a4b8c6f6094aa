"""Session-like folders that ONE could not open, and the root or the rename that would fix them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from alfwatchd.core import alf

# Wider than any valid layout: what a person would take for a date or a number at a glance.
_DATE_LIKE = re.compile(r"\d{4}[-_.]?\d{1,2}[-_.]?\d{1,2}")
_NUMBER_LIKE = re.compile(r"\d{1,4}")


@dataclass(frozen=True, slots=True)
class Misplaced:
    """Why a session-like folder is not indexed.

    Parameters
    ----------
    where : str
        Root-relative folder that the advice is about; ``..`` where the root itself lies too low.
    advice : str
        One sentence that says what to do.
    """

    where: str
    advice: str


def looks_like_session(path: str) -> bool:
    """Tell whether a root-relative folder ends like a session does, in a date and a number, valid or not."""
    parts = path.split("/")
    return len(parts) >= 2 and bool(_DATE_LIKE.fullmatch(parts[-2]) and _NUMBER_LIKE.fullmatch(parts[-1]))


def diagnose(path: str) -> Misplaced:
    """Say why a folder for which `looks_like_session` holds is not a session, and what would make it one.

    Parameters
    ----------
    path : str
        Root-relative path of the folder.

    Returns
    -------
    Misplaced
        The advice is the same for all folders with the same cause, so that they can be counted together.
    """
    parts = path.split("/")
    if alf.parse_date(parts[-2]) is None:
        return Misplaced("/".join(parts[:-1]), "the date is not a valid yyyy-mm-dd: rename the folder")
    if alf.child_kind(alf.Kind.DATE, parts[-2], parts[-1]) is None:
        return Misplaced(path, "the session number has more than three digits: rename the folder")
    if len(parts) == 2 or (len(parts) == 4 and parts[0] == "Subjects"):
        return Misplaced("..", "the root lies too low: make the folder above it the root")
    subject = parts[-3]
    if alf.child_kind(alf.Kind.ROOT, "", subject) is None:
        where = "/".join(parts[:-2])
        return Misplaced(where, "a subject name may hold letters, digits, '_', '.' and '-': rename the folder")
    if len(parts) >= 5 and parts[-4].lower() == "subjects":
        return _diagnose_lab(parts)
    above = "/".join(parts[:-3])
    return Misplaced(above, f"did you mean root = .../{above}?")


def _diagnose_lab(parts: list[str]) -> Misplaced:
    """Diagnose ``.../lab/Subjects/subject/date/number``, whose subject, date and number are valid."""
    if parts[-4] != "Subjects":
        return Misplaced("/".join(parts[:-3]), "the folder must be called 'Subjects', capital S: rename it")
    lab_folder = "/".join(parts[:-4])
    if alf.child_kind(alf.Kind.TOP, parts[-5], "Subjects") is None:
        return Misplaced(lab_folder, "a lab name may hold letters, digits and '_': rename the folder")
    above = "/".join(parts[:-5])
    return Misplaced(above, f"did you mean root = .../{above}?")
