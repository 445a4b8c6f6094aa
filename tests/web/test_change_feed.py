"""What changed reaches clients, once and in order, and never what they did not ask for.

If one of these fails, a program misses a session, or waits for ever.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alfwatchd.journal.entries import Cursor
from alfwatchd.web import change_feed, connections
from kit.control import WAIT_SECONDS, control_box, open_files, read_all, wait
from kit.feed import FeedBox, feed_box
from kit.journal import JournalBox, change

pytestmark = pytest.mark.usefixtures("no_readers")


@pytest.fixture(scope="module")
def server():
    with control_box() as box:
        yield box


@pytest.fixture
def box(server):
    """One server for many tests; its journal begins again for each."""
    yield FeedBox(server)
    wait(lambda: not server.server.connections, "a client keeps its place")


def numbers(answer):
    return [each["path"][-3:] for each in answer["changes"]]


# Pages.


def test_a_page_tells_what_changed_since(box):
    box.add(change(1), change(2))
    box.add(change(3, "removed"))
    answer = box.get(since=box.begun)
    assert numbers(answer) == ["001", "002", "003"]
    assert (answer["is_fresh"], answer["is_last"], answer["generation"]) == (False, True, box.begun + 2)
    assert answer["journal"] == box.journal_id
    assert box.get(since=answer["next"])["changes"] == []
    assert numbers(box.get(since=box.begun + 1)) == ["003"]


def test_a_change_has_all_that_the_journal_knows(box):
    names = ("+alf/a.b.npy", "+alf/\udcff.b.npy", "~c.d.npy", "-e.f.npy")
    box.add(
        change(
            1, "added", added=2, changed=1, removed=1, columns=("hash",), names=names, eid="new", eid_before="old",
            renamed_from="lab/Subjects/s/2020-01-01/009",
        )
    )  # fmt: skip
    (told,) = box.get(since=box.begun)["changes"]
    assert told == {
        "change": "added", "path": "lab/Subjects/s/2020-01-01/001", "eid": "new", "eid_before": "old",
        "generation": box.begun + 1, "seen_at": "2026-01-02T12:00:00.000+00:00",
        "cursor": f"{box.journal_id}.{box.begun + 1}",
        "renamed_from": "lab/Subjects/s/2020-01-01/009", "renamed_to": None,
        "n_added": 2, "n_changed": 1, "n_removed": 1, "added": ["alf/a.b.npy", "alf/\\udcff.b.npy"],
        "changed": ["c.d.npy"], "removed": ["e.f.npy"], "bytes_before": 0, "bytes_after": 10, "columns": ["hash"],
    }  # fmt: skip


def test_without_since_nothing_is_told_but_where_to_read_on(box):
    box.add(change(1))
    answer = box.get()
    assert (answer["changes"], answer["is_fresh"]) == ([], False)
    box.add(change(2))
    assert numbers(box.get(since=answer["next"])) == ["002"]


def test_from_the_start(box):
    box.add(change(1))
    assert numbers(box.get(since="start")) == ["001"]


FRESH = ["0", "999999", "00000000.1", "00000000.1.1"]


@pytest.mark.parametrize("since", FRESH)
def test_what_the_journal_cannot_tell(box, since):
    box.add(change(1))
    answer = box.get(since=since)
    assert (answer["is_fresh"], answer["changes"], answer["is_last"]) == (True, [], True)
    assert not box.get(since=answer["next"])["is_fresh"]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_of_a_limit_tell_everything_once(box, limit):
    for number in range(1, 6):
        box.add(change(number), change(number + 100))
    place, told = box.begun, []
    while True:
        answer = box.get(since=place, limit=limit)
        assert len(answer["changes"]) <= limit
        told += numbers(answer)
        place = answer["next"]
        if answer["is_last"]:
            break
    assert sorted(told) == sorted(f"{each:03d}" for number in range(1, 6) for each in (number, number + 100))


FILTERS = [
    ({}, ["001", "002", "003", "004"]),
    ({"lab": "lab"}, ["001", "003"]),
    ({"lab": "other"}, ["002"]),
    ({"subject": "t"}, ["003"]),
    ({"lab": "lab", "subject": "s"}, ["001"]),
    ({"lab": "own"}, ["004"]),
    ({"lab": "la"}, []),
]


@pytest.mark.parametrize(("query", "expected"), FILTERS)
def test_sessions_of_one_lab_or_subject(query, expected):
    with feed_box(lab="own") as box:
        box.add(change(1), change(2, lab="other"), change(3, subject="t"), change(4, lab=""))
        assert sorted(numbers(box.get(since=box.begun, **query))) == expected


@pytest.fixture
def restarted(tmp_path):
    """A server of the process after that which wrote the journal."""
    first = JournalBox(tmp_path)
    for number in range(4):
        first.add(*[change(number)] * (number > 0))
    with control_box(state_dir=str(tmp_path)) as server:
        assert server.journal.journal.feed.page_in_memory(Cursor("", 1), 10) is None
        server.journal.generation = first.generation
        yield server


def test_after_a_restart_files_tell_what_memory_does_not(restarted):
    box = FeedBox(restarted, begins=False)
    assert numbers(box.get(since=1)) == ["001", "002", "003"]
    box.add(change(4))
    assert numbers(box.get(since=2)) == ["002", "003", "004"]
    with box.stream(since=1) as stream:
        assert [stream.next()[1]["path"][-3:] for _ in range(4)] == ["001", "002", "003", "004"]


def test_a_journal_that_cannot_be_read(restarted):
    for each in restarted.journal.journal.folder.iterdir():
        each.unlink()
        each.mkdir()
    status, answer = restarted.ask("GET", "/v1/changes?since=1")
    assert (status, answer["error"]) == (500, "StateError")
    assert "the journal cannot be read" in answer["message"]


# Waiting.


def test_an_answer_is_held_until_something_changes(box):
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(box.get, wait=60)
        wait(lambda: any(each.is_follower for each in box.box.server.connections))
        box.add(change(1))
        assert numbers(waiting.result(WAIT_SECONDS)) == ["001"]


def test_what_is_not_wanted_does_not_end_the_wait(box):
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(box.get, wait=60, lab="other")
        wait(lambda: any(each.is_follower for each in box.box.server.connections))
        box.add(change(1))
        box.add(change(2, lab="other"))
        assert numbers(waiting.result(WAIT_SECONDS)) == ["002"]


def test_after_the_time_the_answer_is_empty(box):
    answer = box.get(wait="0.05")
    assert (answer["changes"], answer["is_fresh"], answer["is_last"]) == ([], False, True)


def test_before_anything_was_written_clients_wait():
    with control_box() as server:
        box = FeedBox(server, begins=False)
        answer = box.get()
        assert (answer["is_fresh"], answer["journal"], answer["next"]) == (False, "", "0")
        assert not box.get(since="0", wait="0.05")["is_fresh"]
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(box.get, since=answer["next"], wait=60)
            wait(lambda: any(each.is_follower for each in server.server.connections))
            box.add()
            assert waiting.result(WAIT_SECONDS)["is_fresh"]


def test_a_client_that_comes_back_too_early_is_told_once_to_take_everything():
    """The state folder was lost. A client that asked before the first flush was told twice."""
    with control_box() as server:
        box = FeedBox(server, begins=False)
        early = box.get(since="00000000.7")
        assert (early["is_fresh"], early["next"], early["generation"], early["changes"]) == (False, "00000000.7", 0, [])
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(box.get, since=early["next"], wait=60)
            wait(lambda: any(each.is_follower for each in server.server.connections))
            box.add()
            told = waiting.result(WAIT_SECONDS)
        assert told["is_fresh"]
        assert not box.get(since=told["next"])["is_fresh"]


def test_a_client_that_leaves_frees_its_place(box, monkeypatch):
    monkeypatch.setattr(change_feed, "MOST_FOLLOWERS", 2)
    for _ in range(5):
        with box.stream(), box.box.connect() as asking:
            asking.sendall(b"GET /v1/changes?wait=60 HTTP/1.0\r\nHost: d\r\n\r\n")
            wait(lambda: sum(each.is_follower for each in box.box.server.connections) == 2)
        wait(lambda: not box.box.server.connections)


# Places.


def test_there_are_places_for_so_many_and_others_are_told(box, monkeypatch):
    monkeypatch.setattr(change_feed, "MOST_FOLLOWERS", 2)
    with box.stream(), box.stream():
        for path in ("/v1/changes/stream", "/v1/changes?wait=1"):
            status, answer = box.box.ask("GET", path)
            assert (status, answer["error"]) == (409, "Busy")
            assert answer["message"].startswith("2 clients wait for changes already")
        assert box.get()["is_last"]
    wait(lambda: not box.box.server.connections)
    with box.stream():
        pass


def test_no_user_takes_all_places(box, monkeypatch):
    monkeypatch.setattr(change_feed, "MOST_FOLLOWERS_OF_A_USER", 1)
    with box.stream():
        status, answer = box.box.ask("GET", "/v1/changes/stream")
        assert (status, answer["error"]) == (409, "Busy")
        assert answer["message"].startswith("1 clients of this user wait for changes already")


def test_followers_leave_the_places_of_other_requests(monkeypatch):
    monkeypatch.setattr(connections, "room", lambda: 8)
    monkeypatch.setattr(change_feed, "MOST_FOLLOWERS", 2)
    with feed_box() as box, box.stream() as first, box.stream() as second:
        silent = [box.box.connect() for _ in range(20)]
        assert box.box.is_alive()
        box.add(change(1))
        assert first.next()[1] == second.next()[1]
        for each in silent:
            each.close()


# Streams.


def test_a_stream_tells_each_change_with_its_place(box):
    with box.stream() as stream:
        assert b"content-type: text/event-stream" in stream.head
        assert b"Alfwatchd-Root: ".lower() in stream.head.lower()
        box.add(change(1), change(2))
        first, second = stream.next(), stream.next()
        assert [(name, told["path"][-3:], told["change"]) for name, told in (first, second)] == [
            ("change", "001", "added"), ("change", "002", "added"),
        ]  # fmt: skip
        assert stream.last_id == second[1]["cursor"]
    with box.stream(last_event_id=first[1]["cursor"], since="now") as stream:
        assert stream.next() == second
    (page,) = box.get(since=first[1]["cursor"])["changes"]
    assert page == second[1]


def test_a_stream_tells_also_what_happened_in_between(box):
    """It can be cut off behind each event, so an event must not stand for others before it."""
    box.add(change(1))
    box.add(change(2))
    box.add(change(1, "changed"))
    with box.stream(since=box.begun) as stream:
        assert [(told["path"][-3:], told["change"]) for _, told in (stream.next() for _ in range(3))] == [
            ("001", "added"), ("002", "added"), ("001", "changed"),
        ]  # fmt: skip
    assert [(each["path"][-3:], each["change"]) for each in box.get(since=box.begun)["changes"]] == [
        ("002", "added"), ("001", "added"),
    ]  # fmt: skip


def test_a_stream_tells_that_the_whole_tables_must_be_taken(box):
    with box.stream(since=0) as stream:
        name, told = stream.next()
        assert (name, told["generation"], told["cursor"]) == ("fresh", box.begun, f"{box.journal_id}.{box.begun}")
        box.add(change(1))
        assert stream.next()[0] == "change"
        box.box.journal.begin_again()
        assert stream.next()[0] == "fresh"


def test_a_stream_moves_on_without_wanted_changes(box, monkeypatch):
    """A reader that waits for a rare subject must not find, after a month, that its place is too old."""
    monkeypatch.setattr(change_feed, "KEEP_ALIVE_SECONDS", 0.05)
    with box.stream(lab="other") as stream:
        generation = box.add(change(1))
        stream.read_until(f"id: {box.journal_id}.{generation}\n")
        assert stream.n_alive


@pytest.mark.parametrize("path", ["/v1/changes/stream", "/v1/changes?wait=60"])
def test_the_server_ends_without_waiting_for_followers(path):
    with control_box() as server, server.connect() as connection:
        box = FeedBox(server)
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: d\r\n\r\n".encode())
        wait(lambda: any(each.is_follower for each in box.box.server.connections))
        box.box.server.end()
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")
        wait(lambda: not box.box.server.is_alive)


def test_a_client_that_does_not_read_is_dropped(impatient, monkeypatch):
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.4)
    with feed_box() as box:
        before = open_files()
        with box.box.connect() as connection:
            connection.sendall(b"GET /v1/changes/stream HTTP/1.0\r\nHost: d\r\n\r\n")
            wait(lambda: len(open_files()) == len(before) + 2)
            wait(lambda: len(open_files()) == len(before) + 1, "a client that does not read is kept for ever")


def test_a_client_that_reads_is_kept(impatient, monkeypatch):
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 1.5)
    monkeypatch.setattr(change_feed, "KEEP_ALIVE_SECONDS", 0.1)
    with feed_box() as box, box.stream() as stream:
        threading.Timer(2.5, box.add, [change(1)]).start()
        assert stream.next()[0] == "change"
        assert stream.n_alive > 3


# What is not on disk yet.


@pytest.fixture
def pending(box):
    found = box.box.journal.journal.feed.pending
    yield found
    found.clear()


def test_only_those_who_ask_are_told_what_is_not_on_disk():
    with feed_box() as box:
        pending = box.box.journal.journal.feed.pending
        pending.tell([change(1)], "2026-01-02T03:04:05+00:00")
        assert box.get(since=box.begun)["changes"] == []
        assert not pending.is_asked(time.monotonic())
        (told,) = box.get(since=box.begun, flushed="false")["changes"]
        assert (told["path"][-3:], told["generation"], told["eid"]) == ("001", None, "")
        assert told["seen_at"] == "2026-01-02T03:04:05+00:00"
        assert pending.is_asked(time.monotonic())


def test_the_same_is_not_told_again_until_it_changes(box, pending):
    pending.tell([change(1)], "")
    first = box.get(since=box.begun, flushed="false")
    assert first["next"] == first["changes"][0]["cursor"]
    assert box.get(since=first["next"], flushed="false", wait="0.05")["changes"] == []
    pending.tell([change(1)], "")
    second = box.get(since=first["next"], flushed="false")
    assert numbers(second) == ["001"]
    box.add(change(1))
    pending.forget([change(1).path])
    (third,) = box.get(since=second["next"], flushed="false")["changes"]
    assert third["generation"] == box.begun + 1
    assert box.get(since=second["next"])["changes"] == [third]


def test_what_is_not_on_disk_comes_last_and_counts_for_the_limit(box, pending):
    box.add(change(1), change(2))
    pending.tell([change(3), change(4)], "")
    place, told = box.begun, []
    for is_last in (False, True):
        answer = box.get(since=place, flushed="false", limit=3)
        place, told = answer["next"], told + numbers(answer)
        assert answer["is_last"] == is_last
    assert told == ["001", "002", "003", "004"]


def test_a_stream_tells_at_once_what_is_not_on_disk(box, pending):
    pending.tell([change(8)], "")
    with box.stream(flushed="false") as stream:
        pending.tell([change(1)], "")
        _, early = stream.next()
        assert (early["path"][-3:], early["generation"]) == ("001", None)
        box.add(change(1))
        pending.forget([change(1).path])
        _, late = stream.next()
        assert (late["path"][-3:], late["generation"]) == ("001", box.begun + 1)
        last_id = stream.last_id
    pending.tell([change(2)], "")
    with box.stream(flushed="false", last_event_id=last_id) as stream:
        assert stream.next()[1]["path"][-3:] == "002"


BAD_QUERIES = [
    ("since=1&since=2", 400, "a name is given twice"),
    ("since=", 400, "since is empty"),
    ("=1", 400, "a name is empty"),
    ("since", 400, "name=value pairs"),
    ("since=%ff", 400, "name=value pairs"),
    ("since=1&&lab=a", 400, "name=value pairs"),
    ("sinc=1", 422, "query.sinc: Extra inputs are not permitted"),
    ("since=yesterday", 422, "query.since: 'yesterday' is no place in the feed: give now, start, a generation, or an"),
    ("since=now%0a", 422, "query.since: "),
    ("since=1~5", 422, "query.since: "),
    ("limit=1_0", 422, "query.limit: '1_0' is no number"),
    ("limit=%205", 422, "query.limit: "),
    ("limit=1.5", 422, "query.limit: "),
    ("wait=%2B1", 422, "query.wait: "),
    ("wait=inf", 422, "query.wait: "),
    ("since=1.2", 422, "query.since: "),
    ("since=-1", 422, "query.since: "),
    ("wait=61", 422, "query.wait: "),
    ("wait=nan", 422, "query.wait: "),
    ("wait=-1", 422, "query.wait: "),
    ("limit=0", 422, "query.limit: "),
    ("limit=10001", 422, "query.limit: "),
    ("flushed=maybe", 422, "query.flushed: "),
    ("lab=" + "x" * 256, 422, "query.lab: "),
]


@pytest.mark.parametrize(("query", "status", "text"), BAD_QUERIES)
def test_bad_queries(box, query, status, text):
    found, answer = box.box.ask("GET", f"/v1/changes?{query}")
    assert (found, answer["error"]) == (status, "UsageError")
    assert text in answer["message"]


@pytest.mark.parametrize("given", ["x", "", "1.2"])
def test_a_last_event_id_that_makes_no_sense(box, given):
    status, answer = box.box.ask("GET", "/v1/changes/stream", **{"Last-Event-ID": given or "\t?"})
    assert (status, answer["error"]) == (400, "UsageError")
