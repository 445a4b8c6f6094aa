"""The date of tables, by which ONE tells whether other tables are newer."""

from __future__ import annotations

from datetime import datetime, timedelta

from alfwatchd.alf.file_names import INFO, ZIP
from alfwatchd.errors import TargetError

_MINUTE = timedelta(minutes=1)
_MOST_AHEAD, _MARGIN = timedelta(days=36525), timedelta(days=1)


def next_date(now: datetime, *seen: str) -> str:
    """Return a date for new tables: now, but at least a minute after all dates that were seen at the target.

    Clients tell tables apart by the minute, and take only those that are newer by one. A date more than a hundred years
    ahead does not count, because no publisher wrote it. After the last date that can be written, there would be no
    later one.

    Parameters
    ----------
    now : datetime
        Local time without a zone, as ONE writes it.
    seen : str
        Dates, as ONE writes them; other texts do not count.

    Raises
    ------
    TargetError
        A date is at the very end of the hundred years: the next one would not count, and dates would go back.
    """
    earlier = [date for date in map(parse_date, seen) if date is not None and date - now <= _MOST_AHEAD + _MARGIN]
    if earlier and max(earlier) - now > _MOST_AHEAD:
        raise TargetError(
            f"the tables there are dated {max(earlier)}, so no later date can be given; set the clock of this "
            f"computer, or remove {INFO} and {ZIP} there"
        )
    dates = [now.replace(second=0, microsecond=0), *(date + _MINUTE for date in earlier)]
    return max(dates).isoformat(sep=" ", timespec="minutes")


def parse_date(text: str) -> datetime | None:
    """Return a date that ONE or Alyx wrote, rounded up to minutes; None for other texts and the last possible date."""
    try:
        date = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    date = date.replace(tzinfo=None)
    if date > datetime.max - 3 * _MINUTE:  # nothing could be newer
        return None
    whole = date.replace(second=0, microsecond=0)
    return whole if whole == date else whole + _MINUTE


def is_believable(date: datetime, now: datetime) -> bool:
    """Tell whether a date can be that of tables: not more than a hundred years ahead."""
    return date - now <= _MOST_AHEAD
