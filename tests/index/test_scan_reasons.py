"""The kinds of reasons of scans. If one of these fails, a scan is shown under a reason that it did not have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import alfwatchd
from alfwatchd.index.scan_reasons import KINDS, kind_of

CASES = [
    ("start", "start"),
    ("once", "start"),
    ("reconcile", "reconcile"),
    ("sync", "sync"),
    ("rescan", "rescan"),
    ("rescan lab/Subjects/sync", "rescan"),
    ("a sync cookie did not come back", "lost_cookie"),
    ("sessions are gone that no event told of", "gone_sessions"),
    ("overflow of the kernel's event queue", "lost_events"),
    ("the reader of events died: OSError(5)", "lost_events"),
]


@pytest.mark.parametrize(("reason", "kind"), CASES)
def test_a_reason_has_a_kind(reason, kind):
    assert kind_of(reason) == kind


def test_there_is_no_other_kind():
    """Each kind is a series: there are as many as this list says."""
    assert set(KINDS) >= {kind for _, kind in CASES}
    assert {kind_of(reason) for reason in ("root is back", "mounts changed", "exclude changed")} <= set(KINDS)
    assert len(KINDS) == len(set(KINDS)) == 10


def test_each_reason_in_the_program_has_a_kind_of_its_own():
    """A new reason that nobody lists would count as lost events."""
    sources = "".join(file.read_text() for file in Path(alfwatchd.__file__).parent.rglob("*.py"))
    begun = re.findall(r'(?:start_scan|want_scan)\(\s*"([^"]+)"', sources)
    begun += re.findall(r'start_scan\("root is back" if \w+\.scans_done else "(\w+)"', sources)
    assert {"reconcile", "sync", "start", "mounts changed", "root is back"} <= set(begun)
    assert [reason for reason in begun if kind_of(reason) == "lost_events"] == []
