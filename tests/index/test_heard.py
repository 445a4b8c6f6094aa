"""What events told of a file decides whether its digest may stay: a wrong one would say that rotten data are whole."""

from alfwatchd.index.dirty import DirtyMark
from alfwatchd.index.heard import Heard
from alfwatchd.index.look_queue import Scan

MARK = DirtyMark(1.0, 1.0, names={"a", "b"}, attributes={"a"})


def test_files_of_which_only_attributes_changed_were_not_written_to():
    assert Heard().unwritten(MARK) == {"a"}
    assert Heard().unwritten(None) == set()


def test_after_events_were_lost_any_file_may_have_been_written_to_until_all_were_looked_at():
    heard, before, part, after = Heard(), Scan("before", 0.0), Scan("part", 0.0, top="s"), Scan("after", 0.0)
    heard.begin(before)
    heard.lose()
    heard.end(before)
    assert heard.unwritten(MARK) == set()
    heard.begin(part)
    heard.end(part)
    assert heard.unwritten(MARK) == set()
    heard.begin(after)
    assert heard.unwritten(MARK) == set()
    heard.end(after)
    assert heard.unwritten(MARK) == {"a"}


def test_events_that_are_lost_during_a_scan_need_another():
    heard, first, second = Heard(), Scan("first", 0.0), Scan("second", 0.0)
    heard.lose()
    heard.begin(first)
    heard.lose()
    heard.begin(second)
    heard.end(first)
    assert heard.unwritten(MARK) == set()
    heard.end(second)
    assert heard.unwritten(MARK) == {"a"}


def test_a_scan_that_is_given_up_for_another_mends_nothing():
    heard, paced, full = Heard(), Scan("paced", 0.0, paced=True), Scan("full", 0.0)
    heard.lose()
    heard.begin(paced)
    heard.begin(full)
    heard.end(full)
    assert heard.unwritten(MARK) == {"a"}
