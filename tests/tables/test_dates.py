"""Dates of tables move forward, whatever the clock and other programs do: else ONE would not load the newer ones."""

from datetime import datetime, timedelta

import pytest

from alfwatchd.errors import TargetError
from alfwatchd.tables.dates import next_date

NOW = datetime(2026, 3, 1, 12, 30, 45)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ((), "2026-03-01 12:30"),
        (("", ""), "2026-03-01 12:30"),
        (("2026-03-01 12:28",), "2026-03-01 12:30"),
        (("2026-03-01 12:29",), "2026-03-01 12:30"),
        (("2026-03-01 12:30",), "2026-03-01 12:31"),  # clients see no difference within a minute
        (("2026-03-01 12:30", "2026-03-01 12:40"), "2026-03-01 12:41"),  # the zip of a publisher that died
        (("2026-03-01 13:29",), "2026-03-01 13:30"),  # the clock was put back, as each autumn
        (("2026-03-01T12:30:01",), "2026-03-01 12:32"),  # Alyx writes seconds
        (("2026-03-01 12:30:00.5+00:00",), "2026-03-01 12:32"),
        (("yesterday", None), "2026-03-01 12:30"),
        (("9999-12-31 23:59",), "2026-03-01 12:30"),
        (("9999-12-31 23:59:30",), "2026-03-01 12:30"),
    ],
)
def test_dates_move_forward(seen, expected):
    assert next_date(NOW, *seen) == expected


@pytest.mark.parametrize("planted", ["9999-12-31 23:55", "9999-12-31 23:59", "9000-01-01 00:00", "2126-03-02 12:20"])
def test_dates_of_no_publisher_never_make_dates_go_back(planted):
    """One near the last of all dates was followed by three more, and then by today's."""
    dates = [planted]
    for _ in range(10):
        dates.append(next_date(NOW, *dates[-1:]))
    assert dates[1:] == sorted(set(dates[1:]))
    assert dates[1].startswith("2126" if planted.startswith("2126") else "2026")


def test_there_is_no_date_after_the_last_one_that_counts():
    """Else the one after it would be today's."""
    last = "2126-03-02 12:28"
    with pytest.raises(TargetError, match=r"no later date .* remove cache_info\.json and cache\.zip"):
        for _ in range(10):
            last = next_date(NOW, last)
    assert last > "2126-03-02 12:28"
    assert next_date(NOW + timedelta(minutes=20), last) > last
