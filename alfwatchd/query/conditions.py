"""Which sessions a person asks for."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase

from alfwatchd.alf.patterns import DatasetPattern

_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?")


@dataclass(frozen=True, slots=True)
class Dates:
    """Days from the first to the last, both included; None for no limit."""

    first: date | None = None
    last: date | None = None

    @classmethod
    def parse(cls, text: str) -> Dates:
        """Return the days that a text means.

        Parameters
        ----------
        text : str
            ``2021-02-01``, ``2021-02-01..2021-02-28``, ``2021-02-01..`` or ``..2021-02-28``. A year or a month, as
            ``2021`` and ``2021-02``, stands for all its days.

        Raises
        ------
        ValueError
            It is none of these, or ends before it begins.
        """
        begin, dots, end = text.partition("..")
        if not (begin or end):
            raise ValueError(
                f"{text!r} is no date; write a date as 2021-02-01, or two of them as 2021-02-01..2021-03-01"
            )
        first = _first_day(begin) if begin else None
        last = _last_day(end if dots else begin) if end or not dots else None
        if first and last and first > last:
            raise ValueError(f"{text!r} ends before it begins; write {end}..{begin}")
        return cls(first, last)


@dataclass(frozen=True, slots=True)
class Conditions:
    """A session is meant if it fits each list that is not empty, has all of `having` and none of `lacking`.

    Parameters
    ----------
    labs, subjects, projects : tuple of str
        Names, or globs as ``SL-*``. A session has any number of projects; one that fits is enough.
    dates : Dates
    numbers : tuple of int
    having, lacking : tuple of DatasetPattern
        Matched with the datasets that are here. More than one of `lacking`: the session must lack each.
    """

    labs: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    dates: Dates = Dates()
    numbers: tuple[int, ...] = ()
    having: tuple[DatasetPattern, ...] = ()
    lacking: tuple[DatasetPattern, ...] = ()


def fits(name: str, wanted: str) -> bool:
    """Tell whether a name is the wanted one, or fits it as a glob."""
    return name == wanted or fnmatchcase(name, wanted)


def split_projects(text: str) -> list[str]:
    """Return the projects of a session from the text in the table, which separates them by commas."""
    return [name for each in text.split(",") if (name := each.strip())]


def _first_day(text: str) -> date:
    year, month, day = _parts(text)
    return _make_date(text, year, month or 1, day or 1)


def _last_day(text: str) -> date:
    year, month, day = _parts(text)
    first = _make_date(text, year, month or 12, day or 1)
    return first if day else first.replace(day=calendar.monthrange(first.year, first.month)[1])


def _parts(text: str) -> tuple[int, int | None, int | None]:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no date; write it as 2021-02-01")
    year, month, day = (int(part) if part else None for part in match.groups())
    assert year is not None
    return year, month, day


def _make_date(text: str, year: int, month: int, day: int) -> date:
    try:
        return date(year, month, day)
    except ValueError as error:
        raise ValueError(f"{text!r}: there is no such day ({error})") from error
