"""Which users may connect, and which may prune.

If one of these fails, a user without the right can delete data, or one with the right cannot.
"""

import grp
import json
import os
import pwd
import stat

import pytest

from alfwatchd.api import (
    StatusRequest,
)
from kit.control import Box, control_box

pytestmark = pytest.mark.usefixtures("no_readers")


def ask_as_nobody(box: Box, method, path, body):
    """Ask from a process of the user nobody; return the answer, or the name of the error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
            answer = box.ask(method, path, body)
        except BaseException as error:  # noqa: BLE001 - the child must not go on with the tests
            answer = type(error).__name__
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


NOBODY = pwd.getpwnam("nobody")


NOBODY_GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name


PRUNE = {"prune.enabled": True}


as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")


# The child only talks to the socket.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@as_root
@forks
def test_a_user_outside_of_the_group_cannot_connect():
    with control_box() as box:
        assert stat.S_IMODE(box.path.stat().st_mode) == 0o600
        assert ask_as_nobody(box, "GET", "/v1/status", None) == "PermissionError"


@as_root
@forks
def test_another_user_may_ask_but_not_prune():
    with control_box(**PRUNE) as box:
        box.path.chmod(0o666)
        assert ask_as_nobody(box, "GET", "/v1/status", None)[0] == 200
        status, answer = ask_as_nobody(box, "POST", "/v1/prune/apply", {"plan_id": "x"})
        assert (status, answer["error"]) == (403, "NotAllowed")
        assert f"user=nobody uid={NOBODY.pw_uid} " in answer["message"]
        forged = {"X-Forwarded-For": "[1, 0, 0]", "Forwarded": "for=0"}
        assert box.ask("POST", "/v1/prune/apply", {"plan_id": "x"}, **forged)[0] == 400  # the test's own user may
        for what in ("undo", "empty"):
            status, answer = ask_as_nobody(box, "POST", f"/v1/prune/{what}", {"plan_id": "0" * 16})
            assert (status, answer["error"]) == (403, "NotAllowed")
        assert [type(message) for message in box.engine.taken] == [StatusRequest]


@as_root
@forks
def test_members_of_the_group_may_prune():
    with control_box(group=NOBODY_GROUP, **PRUNE, **{"control.group": NOBODY_GROUP}) as box:
        about = box.path.stat()
        assert (stat.S_IMODE(about.st_mode), about.st_gid) == (0o660, NOBODY.pw_gid)
        status, answer = ask_as_nobody(box, "POST", "/v1/prune/apply", {"plan_id": "x"})
        assert (status, "no such plan" in answer["message"]) == (400, True)


def test_pruning_is_refused_unless_it_is_enabled(box: Box):
    status, answer = box.ask("POST", "/v1/prune/apply", {"plan_id": "x"})
    assert (status, answer["error"]) == (403, "NotAllowed")
    assert "prune.enabled" in answer["message"]
