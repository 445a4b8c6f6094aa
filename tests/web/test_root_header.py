"""Which root a request means.

If one of these fails, a daemon deletes or accepts something in a root that the client did not mean.
"""

import json
import os
import threading

import pytest

from alfwatchd import errors
from alfwatchd.web import (
    control_service,
    root_header,
)
from alfwatchd.web.client import Client
from alfwatchd.web.root_header import HEADER, encode_root
from kit.control import STATUS, WAIT_SECONDS, Box, control_box, wait

pytestmark = pytest.mark.usefixtures("no_readers")


def naming(path):
    return {HEADER: encode_root(os.fsencode(path))}


def ask_bare(box, method, path, body=b"", *headers):
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: d", b"Content-Length: %d" % len(body), *headers]
    answer = box.exchange(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    head, _, found = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(found)


CHANGING = [
    ("/v1/prune/plan", b"{}"),
    ("/v1/prune/plan", b""),
    ("/v1/prune/apply", b'{"plan_id": "x"}'),
    ("/v1/prune/apply", b'{"nonsense": 1}'),
    ("/v1/rescan", b'{"accept_root": true}'),
]


@pytest.mark.parametrize(("path", "body"), CHANGING)
def test_a_request_that_may_delete_something_must_name_its_root(box: Box, path, body):
    status, answer = ask_bare(box, "POST", path, body)
    assert (status, answer["error"]) == (400, "UsageError")
    assert "curl -H 'Alfwatchd-Root: " in answer["message"]
    assert not box.engine.taken


def test_every_changing_request_below_prune_must_name_its_root(box: Box):
    paths = box.ask("GET", "/openapi.json")[1]["paths"]
    changing = {path for path, methods in paths.items() if path.startswith("/v1/prune/") and "post" in methods}
    assert changing >= {"/v1/prune/plan", "/v1/prune/apply"}
    for path in changing:
        status, answer = ask_bare(box, "POST", path, b"{}")
        assert (status, "which root is meant?" in answer["message"]) == (400, True), path


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/status"), ("POST", "/v1/sync"), ("POST", "/v1/flush"), ("POST", "/v1/rescan")]
)
def test_other_requests_may_name_a_root(box: Box, tmp_path, method, path):
    assert ask_bare(box, method, path)[0] == 200
    assert box.ask(method, path, **naming(box.settings.root))[0] == 200
    box.engine.taken.clear()
    status, answer = box.ask(method, path, **naming(tmp_path))
    assert (status, answer["error"]) == (409, "WrongRoot")
    assert str(tmp_path) in answer["message"]
    assert str(box.settings.root) in answer["message"]
    assert not box.engine.taken


NO_ROOTS = [b"", b"data", b"%", b"~/data", b"%2e", b"/data%00", b'"/data"', b"file:///data"]


@pytest.mark.parametrize("value", NO_ROOTS)
def test_values_that_are_not_a_path_are_refused(box: Box, value):
    status, answer = ask_bare(box, "GET", "/v1/status", b"", b"Alfwatchd-Root: " + value)
    assert (status, answer["error"], "percent-encoded" in answer["message"]) == (400, "UsageError", True)


def test_a_request_that_names_two_roots_is_refused(box: Box):
    lines = [b"Alfwatchd-Root: " + encode_root(os.fsencode(box.settings.root)).encode(), b"alfwatchd-root: /B"]
    for headers in (lines, lines[::-1], lines[:1] * 2):
        status, answer = ask_bare(box, "GET", "/v1/status", b"", *headers)
        assert (status, "given twice" in answer["message"]) == (400, True)


def test_a_root_is_the_same_by_any_path_to_it(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("")
    with control_box(root=str(root)) as box:
        for path in (root, f"{root}/", f"//{root}//", tmp_path / "link", f"{tmp_path}/other/../root"):
            assert box.ask("GET", "/v1/status", **naming(path))[0] == 200, path
        for path in ("/", tmp_path, tmp_path / "other", tmp_path / "gone", tmp_path / "file", root / "below"):
            assert box.ask("GET", "/v1/status", **naming(path))[0] == 409, path
        root.rename(tmp_path / "away")  # the daemon is offline, but answers clients that mean its root
        assert box.ask("GET", "/v1/status", **naming(root))[0] == 200
        assert box.ask("GET", "/v1/status", **naming(tmp_path / "link"))[0] == 200
        assert box.ask("GET", "/v1/status", **naming(tmp_path / "other"))[0] == 409


@pytest.mark.parametrize("name", [b"d\xc3\xa9", b"\xff\xfe", b"a%20b", b" ", b"a\nb", b"?&#:", b"x" * 255])
def test_roots_of_any_name(tmp_path, name):
    root = tmp_path / os.fsdecode(name)
    root.mkdir()
    with control_box(root=str(root)) as box:
        assert box.client.status() == STATUS
        assert Client(box.path).find_root() == root
        (tmp_path / "link").symlink_to(root)
        assert box.ask("GET", "/v1/status", **naming(tmp_path / "link"))[0] == 200
        with pytest.raises(errors.WrongRoot):
            Client(box.path, root=tmp_path).status()


def test_bytes_that_are_not_encoded_are_taken_as_they_are(tmp_path):
    root = tmp_path / "é"
    root.mkdir()
    with control_box(root=str(root)) as box:
        assert ask_bare(box, "GET", "/v1/status", b"", b"Alfwatchd-Root: " + os.fsencode(root))[0] == 200


def test_a_path_that_gives_no_answer_does_not_delay_others(box: Box, monkeypatch):
    """As on a network mount that is away."""
    monkeypatch.setattr(control_service, "LOOK_SECONDS", 0.3)
    reached = threading.Event()
    monkeypatch.setattr(root_header, "check_root", lambda *_: reached.wait(WAIT_SECONDS))
    try:
        for _ in range(control_service.MAX_LOOKING):
            with pytest.raises(errors.WrongRoot, match=r"/net/away: .*gave no answer within"):
                Client(box.path, timeout=WAIT_SECONDS, root="/net/away").status()
        with pytest.raises(errors.Busy, match="are being looked at"):
            Client(box.path, timeout=WAIT_SECONDS, root="/net/away").status()
        assert box.client.status() == STATUS  # its own path needs no look
        assert not reached.is_set()
    finally:
        reached.set()
    wait(lambda: box.ask("GET", "/v1/status", **naming("/"))[0] == 200)
