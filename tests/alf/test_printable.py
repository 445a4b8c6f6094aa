"""No name of a file can end a line of the log, or write to a terminal what its reader takes for a message."""

import os

import pytest

from alfwatchd.alf.printable import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"s/2020-01-01/001", "s/2020-01-01/001"),
        ("é/한글".encode(), "é/한글"),
        (b"two\nlines\t", r"two\nlines\t"),
        (b"\x1b[31mred", r"\x1b[31mred"),
        (b"latin-\xe9", r"latin-\udce9"),
        ("a\u2028b\u202ec".encode(), r"a\u2028b\u202ec"),
    ],
)
def test_what_is_shown_is_one_line_of_text(name, shown):
    found = printable(os.fsdecode(name))
    assert found == shown
    assert found.isprintable()
    assert printable(found) == found
