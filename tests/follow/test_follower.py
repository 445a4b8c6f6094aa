"""No completion is lost, and each is told at least once, whatever fails, restarts or is lost.

The property test plays a lab whose sessions grow, shrink and go, a daemon whose journal gets lost, and a follower whose
command fails and which is killed: it then goes on from an older file.
"""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest

from alfwatchd.changes import Change, Fresh
from alfwatchd.follow.completeness import Criteria, Dataset, Digest
from alfwatchd.follow.follower import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Follower, Session
from alfwatchd.follow.saved import pack, unpack
from kit.follow import RAW, SPIKES, TRIALS, complete, eid_of, make_change, make_session, path_of, stamp

NOW = 1000.0
QUIET = 10.0
SORTING = complete("ephysData.raw", "spikes.times", quiet=QUIET)


def tell_due(follower: Follower, sessions: dict[str, Session], now: float) -> list[str]:
    """Tell what is due and complete; return the paths."""
    told = []
    for pending in follower.due(now):
        if not follower.criteria.tells_complete or follower.judge(pending, sessions) is not None:
            told.append(pending.path)
            follower.start(pending)
            follower.succeed(pending)
    return told


def tables(*sessions: Session) -> dict[str, Session]:
    return {each.eid: each for each in sessions}


# Changes.


def test_each_change_is_told():
    follower = Follower(Criteria())
    follower.take(make_change(1, "added"), NOW)
    follower.take(make_change(2, "removed"), NOW)
    assert tell_due(follower, {}, NOW) == [path_of(1), path_of(2)]
    assert tell_due(follower, {}, NOW) == []


def test_changes_while_the_command_runs_are_told_as_one_afterwards():
    follower = Follower(Criteria())
    follower.take(make_change(1, "added", n_added=1, added=[SPIKES]), NOW)
    (running,) = follower.due(NOW)
    follower.start(running)
    follower.take(make_change(1, n_added=1, added=[TRIALS]), NOW)
    follower.take(make_change(1, n_removed=1, removed=[SPIKES]), NOW)
    assert follower.due(NOW) == []
    follower.succeed(running)
    (later,) = follower.due(NOW)
    assert isinstance(later.item, Change)
    assert (later.item.added, later.item.removed) == ([TRIALS], [SPIKES])


def test_a_change_that_came_while_a_command_failed_says_what_it_failed_for_too():
    follower = Follower(Criteria())
    follower.take(make_change(1, "added", n_added=1, added=[SPIKES]), NOW)
    (running,) = follower.due(NOW)
    follower.start(running)
    follower.take(make_change(1, n_added=1, added=[TRIALS]), NOW)
    follower.fail(running, "exit code 1", NOW)
    (again,) = follower.due(NOW)
    assert isinstance(again.item, Change)
    assert (again.item.change, again.item.added) == ("added", [SPIKES, TRIALS])


def test_what_the_feed_cannot_tell_stands_for_all_that_waits():
    follower = Follower(Criteria())
    follower.take(make_change(1), NOW)
    (running,) = follower.due(NOW)
    follower.start(running)
    follower.take(make_change(2), NOW)
    follower.take(Fresh(9, "0000beef", "0000beef.9"), NOW)
    assert tell_due(follower, {}, NOW) == [""]
    follower.succeed(running)
    assert not follower.pending


def test_sessions_of_other_labs_are_not_told():
    follower = Follower(Criteria(labs=("other",)))
    follower.take(make_change(1), NOW)
    assert follower.due(NOW) == []


# Complete sessions.


def test_a_session_is_told_when_it_is_complete_and_quiet():
    follower = Follower(SORTING)
    whole = tables(make_session(1, RAW, SPIKES))
    follower.take(make_change(1, "added", at=NOW), NOW + 1)
    assert follower.due(NOW + QUIET - 1) == []
    assert follower.next_due() == NOW + QUIET
    follower.take(make_change(1, at=NOW + 5), NOW + 6)
    assert follower.due(NOW + QUIET) == []
    assert tell_due(follower, whole, NOW + 5 + QUIET) == [path_of(1)]


def test_a_session_that_lacks_a_dataset_waits_for_its_next_change():
    follower = Follower(SORTING)
    follower.take(make_change(1, at=NOW), NOW)
    assert tell_due(follower, tables(make_session(1, RAW)), NOW + QUIET) == []
    assert follower.next_due() == float("inf")


def test_results_that_the_command_writes_do_not_make_it_run_again():
    """Else a command that sorts spikes would sort them for ever."""
    follower = Follower(complete("ephysData.raw"))
    follower.take(make_change(1, "added"), NOW)
    assert tell_due(follower, tables(make_session(1, RAW)), NOW) == [path_of(1)]
    follower.take(make_change(1, n_added=1, added=[SPIKES]), NOW)
    assert tell_due(follower, tables(make_session(1, RAW, SPIKES)), NOW) == []


def test_an_md5_that_becomes_known_is_no_change_and_another_one_is():
    follower = Follower(complete("ephysData.raw"))
    for digest, told in ((None, [path_of(1)]), ("aa", []), ("bb", [path_of(1)]), (None, []), ("bb", [])):
        follower.take(make_change(1, columns=["hash"]), NOW)
        assert tell_due(follower, tables(make_session(1, Dataset(RAW, 8, digest))), NOW) == told, digest


def test_a_change_of_columns_alone_does_not_end_the_quiet():
    follower = Follower(SORTING)
    follower.take(make_change(1, "added", at=NOW), NOW)
    follower.take(make_change(1, at=NOW + 5, columns=["qc", "hash"]), NOW + 5)
    assert follower.next_due() == NOW + QUIET


@pytest.mark.parametrize("seen_at", [NOW - 3600, NOW + 3600])
def test_a_clock_that_is_set_does_not_make_a_session_quiet_too_early_or_never(seen_at):
    """The feed had not told of the change a second ago, whatever the clock of the daemon says."""
    follower = Follower(SORTING)
    follower.take(make_change(1, at=seen_at), NOW, NOW - 1)
    assert NOW - 1 + QUIET <= follower.next_due() <= NOW + QUIET


def test_what_is_complete_when_the_follower_begins_is_not_told():
    follower = Follower(SORTING)
    follower.take(make_change(3, generation=4, at=NOW), NOW)
    follower.begin([make_session(number, RAW, SPIKES) for number in (1, 2, 3)] + [make_session(4, RAW)], 5)
    follower.take(make_change(2, generation=5, at=NOW), NOW)  # between the feed and the look at the tables
    whole = tables(*(make_session(number, RAW, SPIKES) for number in (1, 2, 3, 4)))
    follower.take(make_change(4, generation=6, at=NOW), NOW)
    follower.take(make_change(1, generation=6, at=NOW), NOW)
    assert tell_due(follower, whole, NOW + QUIET) == [path_of(3), path_of(2), path_of(4)]


def test_after_a_lost_journal_only_what_differs_is_told():
    follower = Follower(SORTING)
    sessions = [make_session(number, RAW, SPIKES) for number in range(5)]
    follower.begin(sessions, 1)
    sessions[2] = make_session(2, Dataset(RAW, 9, None), SPIKES)
    sessions[4] = make_session(4, RAW)
    follower.take_all([*sessions, make_session(7, RAW, SPIKES)], NOW, 3, stamp(NOW))
    assert sorted(follower.pending) == [path_of(2), path_of(7)]
    assert follower.due(NOW) == []
    follower.take_all(sessions[:2], NOW, 4, stamp(NOW))
    assert sorted(follower.told) == [eid_of(0), eid_of(1)]


def test_all_complete_sessions_are_told_from_the_start():
    follower = Follower(SORTING)
    sessions = [make_session(1, RAW, SPIKES), make_session(2, RAW)]
    follower.take_all(sessions, NOW, 3, stamp(NOW))
    assert tell_due(follower, tables(*sessions), NOW + QUIET) == [path_of(1)]


def test_a_renamed_session_is_not_told_again():
    follower = Follower(complete("ephysData.raw"))
    follower.begin([make_session(1, RAW)], 1)
    follower.take(make_change(1, "removed", generation=2, renamed_to=path_of(2), n_removed=1), NOW)
    follower.take(make_change(2, "added", generation=2, renamed_from=path_of(1), n_added=1), NOW)
    assert tell_due(follower, tables(make_session(2, RAW)), NOW) == []


def test_a_session_with_another_eid_is_not_told_again():
    follower = Follower(complete("ephysData.raw"))
    follower.begin([make_session(1, RAW)], 1)
    follower.take(replace(make_change(1, generation=2, columns=["id"], eid=eid_of(9)), eid_before=eid_of(1)), NOW)
    other = replace(make_session(1, RAW), eid=eid_of(9))
    assert tell_due(follower, tables(other), NOW) == []


def test_a_session_that_was_removed_and_copied_again_is_told_again():
    follower = Follower(complete("ephysData.raw"))
    follower.begin([make_session(1, RAW)], 1)
    follower.take(make_change(1, "removed", generation=2, n_removed=1), NOW)
    follower.take(make_change(1, "added", generation=3, n_added=1), NOW)
    assert tell_due(follower, tables(make_session(1, RAW)), NOW) == [path_of(1)]


# Failures.


def test_a_failure_is_tried_again_later_and_later():
    follower = Follower(Criteria(), retries=12)
    follower.take(make_change(1), NOW)
    (pending,) = follower.due(NOW)
    now, pauses = NOW, []
    for _ in range(12):
        follower.start(pending)
        follower.fail(pending, "exit code 3", now)
        pauses.append(follower.next_due() - now)
        assert follower.due(now) == []
        now = follower.next_due()
        assert follower.due(now) == [pending]
    assert pauses[:3] == [FIRST_PAUSE_SECONDS, 4 * FIRST_PAUSE_SECONDS, 16 * FIRST_PAUSE_SECONDS]
    assert max(pauses) == LONGEST_PAUSE_SECONDS
    assert [(each.path, each.error, each.n_failed) for each in follower.failed] == [(path_of(1), "exit code 3", 12)]
    follower.start(pending)
    follower.fail(pending, "exit code 3", now)
    assert follower.next_due() == float("inf")
    follower.take(make_change(1), now)
    assert len(follower.due(now)) == 1
    assert follower.failed == []


def test_what_was_given_up_is_tried_again_after_a_restart():
    follower = Follower(SORTING)
    follower.take(make_change(1, at=NOW), NOW)
    (pending,) = follower.due(NOW + QUIET)
    follower.start(pending)
    follower.fail(pending, "exit code 3", NOW + QUIET)
    assert follower.due(NOW + 1e9) == []
    again = Follower(SORTING)
    unpack(json.loads(pack(follower, "/data")), again, "/data")
    assert [each.path for each in again.due(NOW + QUIET)] == [path_of(1)]


def test_a_command_that_was_stopped_counts_as_not_run():
    follower = Follower(Criteria())
    follower.take(make_change(1), NOW)
    (pending,) = follower.due(NOW)
    follower.start(pending)
    follower.interrupt(pending)
    assert follower.due(NOW) == [pending]
    assert follower.failed == []


# All of it at once.


class Lab:
    """The world around a follower; `now` is the only clock."""

    def __init__(self) -> None:
        self.now = NOW
        self.sessions: dict[int, dict[str, int]] = {0: {RAW: 1, SPIKES: 1}}
        self.generation, self.floor = 1, 1
        self.journal: list[Change] = []
        self.follower = Follower(SORTING, retries=1)
        self.follower.begin(self.rows().values(), 1)
        self.place = 1
        """Generation up to which the follower has read."""
        self.running: list[tuple[int, Digest]] = []
        self.told = {0: [Digest.of(self.rows()[eid_of(0)].datasets)]}
        """What was told last of each session; after a kill, also what the file says."""
        self.excused: set[int] = set()
        """Sessions that may be told: after a change of required datasets, a kill, a failure, a lost journal."""
        self.save()

    def rows(self) -> dict[str, Session]:
        return {
            eid_of(number): Session(
                path_of(number), eid_of(number), tuple(Dataset(name, size, None) for name, size in held.items())
            )
            for number, held in self.sessions.items()
        }

    def excuse(self) -> None:
        self.excused |= {0, 1}

    def change(self, number: int, datasets: dict[str, int]) -> None:
        before = self.sessions.get(number)
        if datasets == before:
            return
        self.sessions[number] = datasets
        kept = before is not None and all(before.get(name) == datasets.get(name) for name in (RAW, SPIKES))
        self.excused |= set() if kept else {number}
        self.note(number, "changed" if before is not None else "added")

    def remove(self, number: int) -> None:
        if self.sessions.pop(number, None) is not None:
            self.excused.add(number)
            self.note(number, "removed")

    def note(self, number: int, kind: str) -> None:
        self.generation += 1
        self.journal.append(make_change(number, kind, generation=self.generation, at=self.now, n_changed=1))

    def wait(self) -> None:
        self.now += 0.7 * QUIET

    def lose_the_journal(self) -> None:
        self.journal.clear()
        self.floor = self.generation

    def read(self) -> None:
        if self.place < self.floor:
            self.follower.take_all(self.rows().values(), self.now, self.generation, stamp(self.now))
            self.excuse()
        for change in self.journal:
            if change.generation is not None and change.generation > max(self.place, self.floor):
                self.follower.take(change, self.now)
        self.place = self.generation

    def tell(self) -> None:
        self.read()  # as the loop does, before it looks at the tables
        for pending in self.follower.due(self.now):
            assert self.now - pending.changed_at >= QUIET
            required = self.follower.judge(pending, self.rows())
            if required is not None:
                number = int(pending.path[-3:])
                assert {each.rel_path for each in required} == {RAW, SPIKES}
                self.follower.start(pending)
                assert number in self.excused
                self.excused.remove(number)
                self.running.append((number, Digest.of(required)))

    def change_what_runs(self, datasets: dict[str, int]) -> None:
        if not self.running:
            return
        self.change(self.running[0][0], datasets)
        self.read()

    def end(self) -> None:
        if self.running:
            number, digest = self.running.pop(0)
            self.follower.succeed(self.follower.pending[path_of(number)])
            self.told[number] = [digest]

    def fail(self) -> None:
        if self.running:
            number, _ = self.running.pop(0)
            self.excused.add(number)
            self.follower.fail(self.follower.pending[path_of(number)], "exit code 1", self.now)

    def save(self) -> None:
        self.saved = (pack(self.follower, "/data"), self.place, dict(self.told))

    def kill(self) -> None:
        content, self.place, told = self.saved
        self.told = {number: self.told.get(number, []) + told.get(number, []) for number in (0, 1)}
        self.follower = Follower(SORTING, retries=1)
        unpack(json.loads(content), self.follower, "/data")
        self.running.clear()
        self.excuse()

    def settle(self) -> None:
        """Let time pass until nothing is left to do: then each complete session was told as it is."""
        self.save()
        self.kill()  # what was given up is tried again
        for _ in range(3):
            self.now += LONGEST_PAUSE_SECONDS
            self.tell()
            while self.running:
                self.end()
        for each in self.rows().values():
            number, required = int(each.path[-3:]), SORTING.find_required(each.datasets)
            if required is not None:
                assert Digest.of(required) in self.told.get(number, []), number
        assert not self.follower.pending
        self.excused.clear()


STEPS = {"change": 4, "change_what_runs": 4, "wait": 6, "tell": 6, "end": 4, "fail": 2, "read": 2, "save": 2, "kill": 1,
         "lose_the_journal": 1, "remove": 1, "settle": 1}  # fmt: skip
"""What happens, and how often."""


@pytest.mark.parametrize("seed", range(60))
def test_no_completion_is_lost_and_none_is_told_for_nothing(seed):
    chance, lab = Random(seed), Lab()
    for name in chance.choices([*STEPS], [*STEPS.values()], k=300):
        number, datasets = chance.randrange(2), {RAW: chance.randint(1, 3)}
        datasets |= {SPIKES: 1} if chance.random() < 0.8 else {}
        datasets |= {TRIALS: chance.randint(1, 2)} if chance.random() < 0.5 else {}
        match name:
            case "change":
                lab.change(number, datasets)
            case "change_what_runs":
                lab.change_what_runs(datasets)
            case "remove":
                lab.remove(number)
            case _:
                getattr(lab, name)()
    lab.settle()
