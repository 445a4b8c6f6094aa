"""Explains why a folder that looks like a session is not one, and which root or rename would make it one."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from alfwatchd.alf import grammar
from alfwatchd.alf.grammar import Kind

# Wider than any valid layout: what a person would take for a date or a number at a glance.
_DATE_LIKE = re.compile(
    r"\d{4}(?P<sep>[-_.])\d{1,2}(?P=sep)\d{1,2}"
    r"|\d{1,2}(?P<sep2>[-_.])\d{1,2}(?P=sep2)(?:19|20)\d{2}"
    r"|(?:19|20)\d{2}[01]\d[0-3]\d"
)
_NUMBER_LIKE = re.compile(r"\d{1,4}")
_SUBJECTS_LIKE = ("subject", "subjects")


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
    return len(parts) >= 2 and bool(_is_date_like(parts[-2]) and _NUMBER_LIKE.fullmatch(parts[-1].strip()))


def leads_to_session(path: str) -> bool:
    """Tell whether the name of a root-relative folder, or of the one that it lies in, promises sessions below it."""
    above, name = ("", *path.split("/"))[-2:]
    return any(_is_date_like(each) or each.strip().lower() in _SUBJECTS_LIKE for each in (above, name))


def nested_session(session: str, collection: str, name: str) -> str | None:
    """Return where a session would lie that was moved into another one by mistake; None for any other folder.

    Parameters
    ----------
    session : str
        Root-relative path of the session that holds the folder.
    collection : str
        Where in it the folder lies; empty for the session folder itself.
    name : str
        Name of the folder.
    """
    *above, subject, day, _ = session.split("/")
    if not collection:
        return _join([*above, subject, day, name]) if re.fullmatch("[0-9]{3}", name) else None
    *others, date = collection.split("/")
    if grammar.parse_date(date) is None or grammar.child_kind(Kind.DATE, date, name) is None:
        return None
    return _join([*above, others[-1] if others else subject, date, name])


def _is_date_like(name: str) -> bool:
    return _DATE_LIKE.fullmatch(name.strip()) is not None


def diagnose(path: str) -> Misplaced:
    """Say why a folder for which `looks_like_session` holds is not a session, and what would make it one.

    Parameters
    ----------
    path : str
        Root-relative path of the folder; not itself a valid session.

    Returns
    -------
    Misplaced
        The advice is the same for all folders with the same cause, so that they can be counted together.
    """
    parts = path.split("/")
    for end, name in enumerate(parts, 1):
        if name != name.strip():
            advice = f"the name {name!r} begins or ends with a space, and no name may hold one: rename the folder"
            return Misplaced(_join(parts[:end]), advice)
    if grammar.parse_session(unicodedata.normalize("NFC", path)):
        end = next(end for end, name in enumerate(parts, 1) if not unicodedata.is_normalized("NFC", name))
        advice = "its accents are signs of their own, as macOS writes them (Unicode NFD), and ONE knows no such name: "
        return Misplaced(_join(parts[:end]), advice + "rename the folder: convmv -f utf8 -t utf8 --nfc --notest FOLDER")
    above, subject, date, number = parts[:-3], "".join(parts[-3:-2]), parts[-2], parts[-1]
    if grammar.parse_date(date) is None:
        return Misplaced(_join(parts[:-1]), "the date is not a valid yyyy-mm-dd: rename the folder")
    if grammar.child_kind(Kind.DATE, date, number) is None:
        return Misplaced(path, "a session number is one to three digits, 0 to 9: rename the folder")
    if not subject:
        return Misplaced("..", "the root is a subject folder: make the folder that holds the subjects or labs the root")
    if subject.lower() in _SUBJECTS_LIKE and above:
        return Misplaced(_join(parts[:-2]), f"there is no subject folder between '{subject}' and the date: add it")
    if "Subjects" in above[:-1]:
        subjects = _join(above[: above.index("Subjects") + 1])
        return Misplaced(subjects, "between 'Subjects' and a date there must be one folder, the subject: move it up")
    if grammar.parse_date(subject):
        return Misplaced(_join(parts[:-2]), "a date folder holds another one: the layout is subject/date/number")
    if grammar.child_kind(Kind.ROOT, "", subject) is None:
        return Misplaced(
            _join(parts[:-2]), "a subject name may hold letters, digits, '_', '.' and '-': rename the folder"
        )
    return _diagnose_above(above)


def _diagnose_above(above: list[str]) -> Misplaced:
    """Diagnose by the folders above the subject, where ``subject/date/number`` is valid."""
    if above == ["Subjects"]:
        return Misplaced("..", "the root is a lab folder: make the folder that holds the labs the root")
    top, folder = above[:-1], above[-1]
    if not top:
        lab = f", or, if {folder} is a lab, move its subjects into {folder}/Subjects" if _is_lab(folder) else ""
        return Misplaced(folder, f"did you mean root = .../{folder}?{lab}")
    if folder != "Subjects":
        if folder.lower() in _SUBJECTS_LIKE:
            return Misplaced(_join(above), "the folder must be called 'Subjects', capital S: rename it")
        return _other_root(above)
    if not _is_lab(top[-1]):
        return Misplaced(_join(top), "a lab name may hold letters, digits and '_': rename the folder")
    return _other_root(top[:-1])


def _other_root(folders: list[str]) -> Misplaced:
    return Misplaced(_join(folders), f"did you mean root = .../{_join(folders)}?")


def _is_lab(name: str) -> bool:
    return grammar.child_kind(Kind.TOP, name, "Subjects") is not None


def _join(parts: list[str]) -> str:
    return "/".join(parts)
