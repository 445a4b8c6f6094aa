"""An answer that takes long ends when its reader loses the right; nothing else of an answer changes."""

import asyncio
from dataclasses import replace

import pytest
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse

from alfwatchd.errors import NotAllowed
from alfwatchd.web import rights_guard
from alfwatchd.web.control_rights import RULES, Right
from alfwatchd.web.peer import Peer
from alfwatchd.web.rights_guard import RightsGuard, find_rule

PEER = Peer(1, 4242, 4242, frozenset())


class Rights:
    """Allows the first request, and then what the test says."""

    def __init__(self):
        self.still = True
        self.n_looks = 0

    async def check(self, peer, rule):
        assert (peer, rule.right) == (PEER, Right.READ)

    async def check_again(self, peer, rule):
        self.n_looks += 1
        return self.still


async def refuse(_request, error):
    return JSONResponse({"error": type(error).__name__}, 403)


def ask(app, rights, path="/v1/status"):
    """Return the messages that the server is given."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        await asyncio.Event().wait()

    scope = {"type": "http", "method": "GET", "path": path, "state": {"peer": PEER}, "headers": []}
    asyncio.run(RightsGuard(app, rights, refuse)(scope, receive, send))
    return sent


@pytest.fixture
def looks_always(monkeypatch):
    monkeypatch.setattr(rights_guard, "LOOK_AGAIN_SECONDS", 0)


def bodies(sent):
    return [message["body"] for message in sent if message["type"] == "http.response.body"]


def streaming(rights, *, lost_after):
    async def events():
        for number in range(6):
            if number == lost_after:
                rights.still = False
            yield f"{number};"
            await asyncio.sleep(0)

    return StreamingResponse(events())


def test_a_stream_ends_when_the_right_is_lost(looks_always):
    rights = Rights()
    sent = ask(streaming(rights, lost_after=3), rights, "/v1/changes/stream")
    assert bodies(sent) == [b"0;", b"1;", b"2;", b""]
    assert [message["more_body"] for message in sent[1:]] == [True, True, True, False]


def test_a_stream_of_one_who_may_read_is_whole(looks_always):
    rights = Rights()
    assert b"".join(bodies(ask(streaming(rights, lost_after=None), rights))) == b"0;1;2;3;4;5;"
    assert rights.n_looks > 6


def test_an_answer_that_has_not_begun_becomes_a_refusal(looks_always):
    rights = Rights()
    rights.still = False
    sent = ask(JSONResponse({"secret": 1}), rights)
    assert sent[0]["status"] == 403
    assert bodies(sent) == [b'{"error":"NotAllowed"}']


def test_a_short_answer_is_not_looked_at_twice():
    rights = Rights()
    rights.still = False
    assert ask(JSONResponse({"state": 1}), rights)[0]["status"] == 200
    assert rights.n_looks == 0


def test_an_error_of_the_application_is_its_own(looks_always):
    async def broken(_scope, _receive, _send):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(broken, Rights())


def test_what_is_not_allowed_does_not_reach_the_application():
    class Strict(Rights):
        async def check(self, peer, rule):
            raise NotAllowed("no")

    async def never(_scope, _receive, _send):
        raise AssertionError

    assert ask(never, Strict())[0]["status"] == 403
    assert ask(never, Rights(), "/v1/secrets")[0]["status"] == 403  # the answer of this `refuse` to a 404


def test_rules_are_found_by_path():
    assert find_rule("GET", "/v1/ids/a%2Fb") is RULES["GET", "/v1/ids/{old}"]
    assert find_rule("GET", "/v1/changes/stream").action == "follow changes"
    for method, path, status in (
        ("GET", "/v1/ids/", 404), ("GET", "/v1/ids/a/b", 404), ("GET", "/v1/status/", 404), ("GET", "//v1/status", 404),
        ("GET", "/V1/status", 404), ("GET", "/v1/sync", 405), ("get", "/v1/status", 405), ("HEAD", "/v1/status", 405),
    ):  # fmt: skip
        with pytest.raises(HTTPException) as caught:
            find_rule(method, path)
        assert caught.value.status_code == status, path
    assert replace(find_rule("POST", "/v1/sync"), action="sync").right is Right.SYNC
