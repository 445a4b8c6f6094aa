"""The rights of real users, over a real socket.

If one of these fails, a user without the right can read or delete data, or one with the right cannot.
"""

import grp
import os
import pwd
import stat
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from alfwatchd import errors
from alfwatchd.api import StatusRequest, SyncRequest
from alfwatchd.figures import FiguresRequest
from alfwatchd.service.configuration import load
from alfwatchd.web import control_rights
from alfwatchd.web.control_rights import RULES, ControlRights, Right
from alfwatchd.web.sync_limit import SYNC_SECONDS
from kit.children import in_child
from kit.control import Box, control_box

pytestmark = [
    pytest.mark.usefixtures("no_readers"),
    # The child only talks to the socket.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")

ADA, LAB = 4242, 4343
"""A user and a group without a name."""
NOBODY = pwd.getpwnam("nobody")
NOBODY_GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name
PRUNE = {"prune.enabled": True}
PLAN = {"plan_id": "0" * 16}


@contextmanager
def lab_box(mode=0o644, group=0, folder_mode=0o711, **flags):
    """A control server that all users may connect to, with two tables of this mode and group."""
    with control_box(for_all=True, **flags) as box:
        box.settings.root.mkdir()
        os.chown(box.settings.root, -1, group)
        box.settings.root.chmod(folder_mode)
        for table in tables(box):
            table.touch()
            os.chown(table, -1, group)
            table.chmod(mode)
        yield box


def tables(box) -> tuple[Path, Path]:
    return box.settings.root / "sessions.pqt", box.settings.root / "datasets.pqt"


def as_user(function, uid=ADA, gid=ADA, groups=()):
    """Run a function as another user; it returns something picklable."""

    def run():
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        return function()

    return in_child(run)


def ask(box: Box, method="GET", path="/v1/status", body=None, **user):
    return as_user(lambda: box.ask(method, path, body), **user)


def may_read(box: Box, **user):
    status, answer = ask(box, **user)
    assert (status, answer.get("error")) in [(200, None), (403, "NotAllowed")]
    return status == 200


# The table of rights.


def test_each_request_has_a_rule(box: Box):
    """A new endpoint has to say who may use it: without that, it is answered with 404."""
    described = box.ask("GET", "/openapi.json")[1]["paths"]
    requests = {(method.upper(), path) for path, methods in described.items() for method in methods}
    assert requests <= RULES.keys()
    assert {method for (method, _), rule in RULES.items() if rule.right is Right.READ} == {"GET"}
    assert {path for (_, path), rule in RULES.items() if rule.right is Right.SYNC} == {"/v1/sync"}


@as_root
def test_requests_of_one_who_may_read():
    with lab_box(**PRUNE) as box:
        for (method, path), rule in RULES.items():
            status, answer = ask(box, method, path.replace("{old}", "x"), None)
            assert (status == 403) == (rule.right is Right.CONTROL), path
            if status == 403:
                assert f"uid={ADA} " in answer["message"]
                assert f"may not {rule.action}: the root user and the daemon's user may; no group" in answer["message"]
        assert {type(message) for message in box.engine.taken} == {FiguresRequest, StatusRequest, SyncRequest}


@as_root
def test_requests_of_one_who_may_not_read():
    with lab_box(mode=0o640, **PRUNE) as box:
        for method, path in RULES:
            status, answer = ask(box, method, path.replace("{old}", "x"), None)
            assert (status, answer["error"]) == (403, "NotAllowed")
        assert box.engine.taken == []


@as_root
def test_other_paths_say_nothing_of_rights():
    with lab_box(mode=0o640) as box:
        assert ask(box, path="/v1/stats")[0] == 404
        assert ask(box, method="DELETE")[0] == 405


# control.read = "tables".


CASES = {
    "all may read": (0o644, ADA, [], True),
    "the group may": (0o640, ADA, [LAB], True),
    "and its primary members": (0o640, LAB, [], True),
    "others may not": (0o640, ADA, [LAB + 1], False),
    "only the owner may": (0o600, LAB, [LAB], False),
    "the group is kept out": (0o604, ADA, [LAB], False),
    "writing is not reading": (0o622, LAB, [], False),
}


@as_root
def test_the_mode_of_the_tables_decides():
    with lab_box(group=LAB) as box:
        for name, (mode, gid, groups, expected) in CASES.items():
            for table in tables(box):
                table.chmod(mode)
            assert may_read(box, gid=gid, groups=groups) == expected, name


def setfacl(entries, *paths):
    done = subprocess.run(["setfacl", "-m", entries, *paths], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("this file system has no ACLs")


@as_root
def test_a_right_that_is_taken_away_ends_at_once():
    with lab_box(0o600) as box:
        for _ in range(3):
            setfacl(f"u:{ADA}:r", *tables(box))
            assert may_read(box)
            setfacl(f"u:{ADA}:-", tables(box)[1])
            assert not may_read(box)
            tables(box)[0].chmod(0o600)
            tables(box)[0].rename(tables(box)[0].with_name("old"))
            tables(box)[0].touch(mode=0o644)


@as_root
def test_tables_that_are_not_there_let_nobody_read():
    with lab_box() as box:
        tables(box)[1].unlink()
        status, answer = ask(box)
        assert status == 403
        assert f"{tables(box)[1]}: it is not there" in answer["message"]
        assert box.is_alive()  # for the root user


@as_root
def test_nobody_owns_nothing():
    """The number of nobody stands for all users whom the kernel does not know."""
    with lab_box(0o600) as box:
        for table in tables(box):
            os.chown(table, NOBODY.pw_uid, NOBODY.pw_gid)
        assert not may_read(box, uid=NOBODY.pw_uid, gid=NOBODY.pw_gid)
        for table in tables(box):
            table.chmod(0o644)
        assert may_read(box, uid=NOBODY.pw_uid, gid=NOBODY.pw_gid)


# Other settings.


@as_root
@pytest.mark.parametrize(("read", "member", "other"), [("group", True, False), ("owner", False, False)])
def test_who_may_read_and_control(read, member, other):
    lab = {"gid": NOBODY.pw_gid}
    with lab_box(**{"control.read": read, "control.group": NOBODY_GROUP}) as box:
        assert (may_read(box, **lab), may_read(box)) == (member, other)
        assert [ask(box, "POST", "/v1/flush", **user)[0] for user in (lab, {})] == [200, 403]
        assert [ask(box, "POST", "/v1/sync", **user)[0] for user in (lab, {})] == [200, 403]
        assert box.ask("GET", "/v1/status")[0] == 200


@as_root
def test_members_of_the_group_read_also_without_tables():
    with lab_box(0o600, **{"control.group": NOBODY_GROUP}) as box:
        tables(box)[0].unlink()
        assert may_read(box, groups=[NOBODY.pw_gid])
        assert not may_read(box)


@as_root
def test_members_of_the_group_may_prune():
    with control_box(group=NOBODY_GROUP, **PRUNE, **{"control.group": NOBODY_GROUP}) as box:
        about = box.path.stat()
        assert (stat.S_IMODE(about.st_mode), about.st_gid) == (0o660, NOBODY.pw_gid)
        status, answer = ask(box, "POST", "/v1/prune/apply", {"plan_id": "x"}, groups=[NOBODY.pw_gid])
        assert (status, "no such plan" in answer["message"]) == (400, True)


@as_root
def test_what_a_request_says_of_its_sender_does_not_count():
    forged = {"X-Forwarded-For": "[1, 0, 0]", "Forwarded": "for=0", "Authorization": "root"}
    with lab_box(0o600, **PRUNE) as box:
        assert as_user(lambda: box.ask("POST", "/v1/prune/apply", PLAN, **forged))[0] == 403
        assert box.ask("POST", "/v1/prune/apply", PLAN, **forged)[0] == 400  # the test's own user may


def test_pruning_is_refused_unless_it_is_enabled(box: Box):
    status, answer = box.ask("POST", "/v1/prune/apply", {"plan_id": "x"})
    assert (status, answer["error"]) == (403, "NotAllowed")
    assert "prune.enabled" in answer["message"]


def test_a_group_that_is_not_there():
    settings = load({"root": "/srv/alf", "control.group": "no-such-group"}, environ={}).settings
    with pytest.raises(errors.ConfigError, match="no-such-group"):
        ControlRights(lambda: settings)


# Sync.


@as_root
def test_a_user_syncs_once_in_ten_seconds_and_others_meanwhile():
    with lab_box(**{"control.group": NOBODY_GROUP}) as box:
        assert ask(box, "POST", "/v1/sync")[0] == 200
        status, answer = ask(box, "POST", "/v1/sync")
        assert (status, answer["error"]) == (429, "TooOften")
        assert "control.group" in answer["message"]
        assert ask(box, "POST", "/v1/sync", uid=ADA + 1)[0] == 200
        for _ in range(3):
            assert ask(box, "POST", "/v1/sync", groups=[NOBODY.pw_gid])[0] == 200
            assert box.ask("POST", "/v1/sync")[0] == 200


@as_root
def test_the_client_is_told_when_to_ask_again():
    with lab_box() as box:
        assert ask(box, "POST", "/v1/sync")[0] == 200
        head = as_user(lambda: box.exchange(b"POST /v1/sync HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"))
    (told,) = [line for line in head.lower().splitlines() if line.startswith(b"retry-after:")]
    assert 1 <= int(told.partition(b":")[2]) <= SYNC_SECONDS


# A disk that does not answer.


@as_root
def test_a_dead_mount_keeps_only_those_waiting_whose_rights_depend_on_it(monkeypatch):
    is_dead = threading.Event()

    def hang(*_):
        is_dead.wait()

    monkeypatch.setattr(control_rights, "find_obstacle", hang)
    monkeypatch.setattr(control_rights, "LOOK_SECONDS", 0.2)
    try:
        with lab_box() as box:
            for _ in range(control_rights.MOST_LOOKS + 2):
                status, answer = ask(box)
                assert (status, answer["error"]) == (409, "Busy")
            assert "which users may read the tables" in answer["message"]
            assert box.is_alive()
            is_dead.set()
            while ask(box)[0] == 409:
                pass
            assert may_read(box)
    finally:
        is_dead.set()
