"""Users without control rights cannot take the room of others, whatever they do with their connections.

If one of these fails, any user of the machine can keep the daemon from answering its administrator.
"""

import os
import select
import socket
from dataclasses import replace

import pytest

from alfwatchd import api
from alfwatchd.api import StatusRequest, SyncRequest
from alfwatchd.web import connections
from kit.children import in_child, needs_root
from kit.control import GET_STATUS, HOLD, STATUS, WAIT_SECONDS, control_box, give, read_all, wait

pytestmark = [
    pytest.mark.usefixtures("no_readers"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    needs_root,
]
SYNC = GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync")


@pytest.fixture
def box(monkeypatch):
    """Room for 16: four for each user, and eight for all without control rights."""
    monkeypatch.setattr(connections, "room", lambda: 16)
    with control_box({SyncRequest: HOLD}, for_all=True) as made:
        make_tables(made)
        yield made


def make_tables(box):
    box.settings.root.mkdir()
    for name in ("sessions.pqt", "datasets.pqt"):
        (box.settings.root / name).touch()


def connect_as(box, uid, count, request=b""):
    """Return connections that a user made; the kernel knows them by it, whatever process has them."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def connect():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        for _ in range(count):
            with box.connect() as connection:
                connection.sendall(request)
                socket.send_fds(far, [b"x"], [connection.fileno()])

    with near, far:
        in_child(connect)
        made = [socket.socket(fileno=socket.recv_fds(near, 1, 1)[1][0]) for _ in range(count)]
    for each in made:
        each.settimeout(WAIT_SECONDS)
    return made


def is_open(connection):
    return not select.select([connection], [], [], 0)[0]


def close(*groups):
    for connection in (each for group in groups for each in group):
        connection.close()


def test_silent_connections_of_a_user_push_out_only_their_like(box):
    first = connect_as(box, 4001, 3)
    other = connect_as(box, 4002, 3)
    second = connect_as(box, 4001, 3)
    wait(lambda: sum(map(is_open, [*first, *second])) == 4)
    assert [is_open(each) for each in first] == [False, False, True]
    assert all(map(is_open, [*other, *second]))
    assert box.is_alive()
    close(first, other, second)


def test_many_users_push_out_each_other_and_nobody_with_control_rights(box):
    mine = [box.connect() for _ in range(4)]
    wait(lambda: len(box.server.connections) == 4)
    theirs = [connect_as(box, uid, 2) for uid in range(4001, 4013)]
    wait(lambda: sum(is_open(each) for group in theirs for each in group) == 8)
    assert all(map(is_open, mine))
    assert box.is_alive()
    close(mine, *theirs)


def test_requests_that_wait_leave_room_for_others(box):
    """None is silent, so the further ones of this user are refused; everybody else is answered."""
    waiting = connect_as(box, 4001, 1, SYNC)
    held = box.engine.held.get(timeout=60)
    asked = connect_as(box, 4001, 3, b"POST /v1/sync HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\n\r\n{")
    wait(lambda: len(box.server.connections) == 4)
    more = connect_as(box, 4001, 1, GET_STATUS)
    assert b" 200 " in read_all(more[0])[:16]  # one that never sent all of its request had to go
    assert box.is_alive()
    close(connect_as(box, 4002, 4))
    give(held, api.SyncReply(1, "exact", 0.0))
    assert b" 200 " in read_all(waiting[0])[:16]
    close(waiting, asked, more)


def test_one_with_control_rights_may_take_all(box):
    mine = [box.connect() for _ in range(16)]
    wait(lambda: len(box.server.connections) == 16)
    assert all(map(is_open, mine))
    close(mine)


def test_clients_that_wait_for_changes_leave_a_place_for_one_with_control_rights(box):
    """They do not count as connections that ask, of a user or in all."""
    follow = GET_STATUS.replace(b"/v1/status", b"/v1/changes/stream")
    theirs = [connect_as(box, uid, 1, follow) for uid in (4001, 4002, 4003)]
    wait(lambda: sum(each.is_follower for each in box.server.connections) == 3)
    refused = connect_as(box, 4004, 1, follow)
    assert b'"Busy"' in read_all(refused[0])
    mine = connect_as(box, 0, 1, follow)
    wait(lambda: sum(each.is_follower for each in box.server.connections) == 4)
    asked = connect_as(box, 4001, 4)
    wait(lambda: len(box.server.connections) == 8)
    assert all(map(is_open, asked))
    close(*theirs, refused, mine, asked)


def test_unread_answers_of_others_go_first(monkeypatch):
    """Else any user could have the answers of an administrator dropped."""
    monkeypatch.setattr(connections, "MOST_UNREAD_BYTES", 14_000_000)
    with control_box({StatusRequest: replace(STATUS, detail="x" * 4_000_000)}, for_all=True) as box:
        make_tables(box)
        asked = []
        for count, uid in enumerate((0, 4001, 4002, 4002), 1):  # the oldest has control rights; 4002 takes most
            asked += connect_as(box, uid, 1, GET_STATUS)
            wait(lambda count=count: len(box.engine.taken) == count)
        assert [len(read_all(each)) > 4_000_000 for each in asked] == [True, True, False, True]
        close(asked)
