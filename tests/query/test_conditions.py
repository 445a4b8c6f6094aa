"""Dates as a person writes them."""

import datetime
import re

import pytest

from alfwatchd.query.conditions import Dates, fits, split_projects

DAY = datetime.date

RIGHT = [
    ("2021-02-01", DAY(2021, 2, 1), DAY(2021, 2, 1)),
    ("2021-02-01..2021-02-03", DAY(2021, 2, 1), DAY(2021, 2, 3)),
    ("2021-02-01..", DAY(2021, 2, 1), None),
    ("..2021-02-01", None, DAY(2021, 2, 1)),
    ("2024-02", DAY(2024, 2, 1), DAY(2024, 2, 29)),
    ("2021", DAY(2021, 1, 1), DAY(2021, 12, 31)),
    ("2020-12..2021-02", DAY(2020, 12, 1), DAY(2021, 2, 28)),
]


@pytest.mark.parametrize(("text", "first", "last"), RIGHT)
def test_dates(text, first, last):
    assert Dates.parse(text) == Dates(first, last)


WRONG = [
    ("..", "is no date"),
    ("", "is no date"),
    ("yesterday", "write it as 2021-02-01"),
    ("2021-2-1", "write it as 2021-02-01"),
    ("٢٠٢١-02-01", "write it as 2021-02-01"),
    ("2021-02-30", "there is no such day"),
    ("0000-01-01", "there is no such day"),
    ("2021-03-01..2021-02-01", "write 2021-02-01..2021-03-01"),
    ("2021-02-01...2021-02-03", "write it as 2021-02-01"),
]


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_what_is_no_date_is_told(text, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        Dates.parse(text)


def test_a_name_fits_itself_whatever_is_in_it():
    assert fits("a[1]", "a[1]")
    assert fits("SL-017", "SL-*")
    assert not fits("SL-017", "sl-*")


def test_projects_are_separated_by_commas():
    assert split_projects("b, a,,") == ["b", "a"]
    assert split_projects("") == []
