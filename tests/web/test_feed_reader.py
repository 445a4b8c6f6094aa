"""What the client of the change feed makes of bytes and errors, without a connection.

If one of these fails, a script hears of a session twice or never, or floods a daemon that is busy.
"""

import json

import pytest

from alfwatchd import changes, errors
from alfwatchd.errors import (
    AlfwatchdError,
    Busy,
    NoDaemon,
    NotAllowed,
    RequestFailed,
    StateError,
    UsageError,
    WrongRoot,
)
from alfwatchd.web import feed_reader
from alfwatchd.web.feed_reader import FeedReader, Wanted


def reader(since="7", **wanted):
    return FeedReader(Wanted(since, **wanted), {"Alfwatchd-Root": "/data"}, "/run/s")


HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"


def page(*told, is_fresh=False, is_last=True, place="j.9"):
    body = {"is_fresh": is_fresh, "journal": "j", "generation": 9, "next": place, "is_last": is_last, "changes": told}
    return HEAD + json.dumps(body).encode()


def told(name, cursor="j.8"):
    more = {"eid": "", "eid_before": None, "generation": 8, "seen_at": "", "cursor": cursor}
    return {"change": "added", "path": name, **more}


def stream(*events):
    return HEAD + b"".join(f"{each}\n\n".encode() for each in events)


def event(name, cursor):
    return f"event: change\nid: {cursor}\ndata: {json.dumps(told(name, cursor))}"


def test_requests():
    made = reader(lab="a b", subject="é", flushed=False)
    assert made.begin().startswith(b"GET /v1/changes?since=7&lab=a+b&subject=%C3%A9&flushed=false HTTP/1.0\r\n")
    assert b"\r\nAlfwatchd-Root: /data\r\n" in made.begin()
    made.receive(page())
    assert made.receive(b"")
    assert made.begin().startswith(b"GET /v1/changes/stream?since=j.9&")
    assert reader("now").begin().startswith(b"GET /v1/changes/stream?since=now ")


@pytest.mark.parametrize("size", [1, 2, 7, 100, 100_000])
def test_an_answer_may_come_in_pieces_of_any_size(size):
    made = reader("now")
    made.begin()
    sent = stream("retry: 1000\nid: j.1", event("a", "j.2"), ": alive\nid: j.3", event("é", "j.4"), "id: j.5")
    items = []
    for start in range(0, len(sent), size):
        made.receive(sent[start : start + size])
        while (item := made.take()) is not None:
            items.append((item.path, made.cursor))
    assert items == [("a", "j.2"), ("é", "j.4")]
    assert made.cursor == "j.5"


def test_what_was_received_is_told_once_though_the_connection_is_lost_before_it_is_taken():
    made = reader("now")
    made.begin()
    made.receive(stream("id: j.1", event("a", "j.2"), event("b", "j.3")) + b"event: change\nid: j.4\ndata: {")
    with pytest.raises(RequestFailed):
        made.receive(b"")
    assert made.begin().startswith(b"GET /v1/changes?since=j.3 ")
    assert (made.take().path, made.cursor) == ("a", "j.2")


def test_events_of_a_newer_daemon_are_left_out():
    made = reader("now")
    made.begin()
    made.receive(stream("event: mood\nid: j.2\ndata: {}", 'event: fresh\nid: j.3\ndata: {"generation": 3, "journal": '
                        '"j", "cursor": "j.3", "mood": "good"}'))  # fmt: skip
    assert made.take() == changes.Fresh(3, "j", "j.3")


STRANGE = [
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    b"HTTP/1.1\r\n\r\n",
    HEAD + b"[]",
    HEAD + b"{",
    HEAD + b"{}",
    b"",
    b"HTTP/1.1 404 Not Found\r\n\r\n{}",
    b"x" * 100_000,
]


@pytest.mark.parametrize("sent", STRANGE, ids=range(len(STRANGE)))
def test_strange_answers(sent):
    made = reader()
    made.begin()
    with pytest.raises(RequestFailed):
        made.receive(sent)
        made.receive(b"")


def test_events_that_are_not_json():
    made = reader("now")
    made.begin()
    with pytest.raises(RequestFailed, match="an event makes no sense"):
        made.receive(stream("event: change\nid: j.1\ndata: {"))


PASSING = [NoDaemon("x"), Busy("x"), RequestFailed("x"), AlfwatchdError("stopping"), ConnectionResetError()]
LASTING = [NotAllowed("x"), WrongRoot("x"), UsageError("x"), StateError("x")]


def answered():
    made = reader()
    made.begin()
    made.receive(page())
    made.receive(b"")
    return made


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_errors_that_pass_are_waited_for_longer_and_longer(error):
    made = answered()
    pauses = [made.fail(error) for _ in range(12)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (feed_reader.FIRST_PAUSE_SECONDS, feed_reader.LONGEST_PAUSE_SECONDS)
    with pytest.raises(errors.AlfwatchdError):
        reader().fail(error)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_errors_that_stay_are_raised(error):
    with pytest.raises(type(error)):
        answered().fail(error)


def test_a_daemon_that_gives_pages_but_no_stream_is_asked_less_and_less_often():
    made, pauses = answered(), []
    for _ in range(4):
        made.begin()
        pauses.append(made.fail(Busy("x")))
        made.begin()
        made.receive(page())
        made.receive(b"")
    assert pauses == sorted(set(pauses))


def test_after_a_change_the_next_attempt_comes_soon():
    made = answered()
    made.begin()
    assert made.fail(Busy("x")) < made.fail(Busy("x"))
    made.begin()
    made.receive(page(told("a")))
    made.receive(b"")
    assert made.fail(Busy("x")) == feed_reader.FIRST_PAUSE_SECONDS
