"""A follower goes on after a restart as if there had been none; a file of another one is refused."""

from __future__ import annotations

import json

import pytest

from alfwatchd.changes import Fresh
from alfwatchd.follow.completeness import Criteria
from alfwatchd.follow.follower import Follower
from alfwatchd.follow.saved import NotSaved, pack, unpack
from kit.follow import RAW, SPIKES, complete, make_change, make_session

SORTING = complete("ephysData.raw", quiet=5)


def make_follower(criteria: Criteria = SORTING) -> Follower:
    follower = Follower(criteria, cursor="0000abcd.7.3")
    follower.begin([make_session(1, RAW)], 6)
    follower.take(make_change(2, "added", generation=7, at=5.0, n_added=1, added=[RAW]), 9.0)
    return follower


def test_all_of_it_comes_back():
    follower = make_follower()
    (running,) = follower.due(10.0)
    follower.start(running)
    follower.take(make_change(2, generation=8, at=6.0, n_added=1, added=[SPIKES]), 9.0)
    again = Follower(SORTING)
    unpack(json.loads(pack(follower, "/data")), again, "/data")
    assert (again.cursor, again.baseline, again.told) == (follower.cursor, 6, follower.told)
    (pending,) = again.pending.values()
    assert (pending.item, pending.later, pending.changed_at) == (running.item, running.later, 6.0)
    assert not pending.is_running
    assert pack(again, "/data") == pack(follower, "/data")


def test_what_stands_for_all_sessions_comes_back():
    follower, again = Follower(Criteria()), Follower(Criteria())
    follower.take(Fresh(9, "0000beef", "0000beef.9"), 3.0)
    unpack(json.loads(pack(follower, "/data")), again, "/data")
    assert again.pending == follower.pending


@pytest.mark.parametrize(
    ("criteria", "root", "words"),
    [
        (SORTING, "/other", "another root, /data"),
        (complete("spikes.times", quiet=5), "/data", "other values of --having"),
        (Criteria(), "/data", "--having and complete sessions"),
        (Criteria(labs=("a",), having=SORTING.having, tells_complete=True), "/data", "other values of --lab"),
    ],
)
def test_a_file_of_another_follower_is_refused(criteria, root, words):
    """Else sessions are missed: those that the other one did not want count as looked at."""
    with pytest.raises(NotSaved, match=words):
        unpack(json.loads(pack(make_follower(), "/data")), Follower(criteria), root)


def test_another_time_of_quiet_is_no_other_follower():
    unpack(json.loads(pack(make_follower(), "/data")), Follower(complete("ephysData.raw", quiet=60)), "/data")


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: [],
        lambda value: {},
        lambda value: {**value, "format": 2},
        lambda value: {key: each for key, each in value.items() if key != "told"},
        lambda value: {**value, "told": {"a": 3}},
        lambda value: {**value, "told": {"a": ["b"]}},
        lambda value: {**value, "pending": [{"item": {"change": "added"}}]},
        lambda value: {**value, "pending": [{"item": {"change": "added"}, "later": None, "changed_at": 0}]},
        lambda value: {**value, "baseline": "x"},
        lambda value: {**value, "pending": None},
    ],
)
def test_a_damaged_file_is_refused_and_the_follower_stays_as_it_was(damage):
    follower = Follower(SORTING)
    with pytest.raises(NotSaved):
        unpack(damage(json.loads(pack(make_follower(), "/data"))), follower, "/data")
    assert not follower.pending
