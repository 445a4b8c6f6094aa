"""The progress bar of a scan."""

from __future__ import annotations

from alfwatchd.cli.progress import ScanProgress


def test_nothing_is_drawn_where_no_person_looks(capsys):
    """A log file full of bars cannot be read."""
    with ScanProgress() as progress:
        progress.update(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_person_sees_the_numbers_grow(capsys, monkeypatch):
    """A first scan takes minutes; without numbers it looks as if it hung."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with ScanProgress() as progress:
        progress.update(3, 40)
    assert "scanning" in capsys.readouterr().err
