"""Tables from a web server: fetched when they changed, with a token that no other server sees, and whole."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import one
import pytest

from alfwatchd.database import download, web_source
from alfwatchd.database.download import fetch
from alfwatchd.database.sources import read_source
from alfwatchd.errors import SourceError, SourceMissing, SourceRefused
from kit.web import etag, web_server

FIXTURES = Path(one.__file__).parent / "tests" / "fixtures"
TABLES = {f"/t/{name}": (FIXTURES / name).read_bytes() for name in ("sessions.pqt", "datasets.pqt")}
TOKEN = "a-secret"  # noqa: S105


def fetched(web, path="/a", known=None, token="", **options):
    content = io.BytesIO()
    return fetch(web.address + path, content, known, token, **options), content.getvalue()


@pytest.mark.parametrize(
    ("validators", "heeds_conditions", "sent"),
    [
        (etag, True, [200, 304, 200]),
        (etag, False, [200, 200, 200]),
        (lambda content: {"Last-Modified": f"{hash(content)}"}, True, [200, 304, 200]),
        (lambda content: {"ETag": f'W/"{hash(content)}"', "Last-Modified": "today"}, True, [200, 304, 200]),
        (lambda content: {}, True, [200, 200, 200]),
    ],
)
def test_what_has_not_changed_is_not_told_again(validators, heeds_conditions, sent):
    with web_server({"/a": b"one"}) as web:
        web.validators, web.heeds_conditions = validators, heeds_conditions
        first, content = fetched(web)
        assert content == b"one"
        assert fetched(web, known=first)[0] is first
        web.files["/a"] = b"two"
        second, content = fetched(web, known=first)
        assert (content, second.size) == (b"two", 3)
        assert second != first
        assert web.sent == sent


def test_a_version_of_another_address_counts_for_nothing():
    with web_server({"/a": b"same", "/b": b"same"}) as web:
        first, _ = fetched(web)
        assert fetched(web, "/b", known=first)[1] == b"same"


def test_a_token_goes_to_its_server_only():
    with web_server({"/a": b"x"}) as far, web_server({"/a": "/b", "/b": b"y", "/away": f"{far.address}/back"}) as near:
        assert fetched(near, token=TOKEN)[1] == b"y"
        assert near.asked == [("/a", f"Token {TOKEN}"), ("/b", f"Token {TOKEN}")]
        near.asked.clear()
        far.files["/back"] = f"{near.address}/b"
        assert fetched(near, "/away", token=TOKEN)[1] == b"y"
        assert far.asked == [("/back", None)]
        assert near.asked[-1] == ("/b", None)  # whoever redirects does not choose what it is shown to


def test_the_location_of_tables_gets_the_token_on_the_same_server_only(monkeypatch):
    monkeypatch.setenv("ALFWATCHD_CREDENTIAL_ADOPT_TOKEN", TOKEN)
    with web_server({"/c.zip": b""}) as far, web_server({"/c.zip": b""}) as near:
        for server in (far, near):
            near.files["/cache_info.json"] = b'{"location": "%s/c.zip"}' % server.address.encode()
            with pytest.raises(SourceError, match="damaged"):
                read_source(near.address, None)
        assert far.asked == [("/c.zip", None)]
        assert [token for _, token in near.asked] == [f"Token {TOKEN}"] * 3


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (401, SourceError, "answered 401: it does not accept the token: it may be revoked; give a valid one"),
        (403, SourceRefused, "answered 403: it does not accept the token"),
        (404, SourceMissing, "answered 404: there is no such file"),
        (500, SourceError, "answered 500: try again later"),
        ("ftp://127.0.0.1/x", SourceError, "redirected to an address that is not http or https"),
        ("file:///etc/passwd", SourceError, "answered 302"),
        ("/a", SourceError, "answered 302"),
    ],
)
def test_a_failure_names_address_and_reason_and_no_secret(answer, kind, says):
    with web_server({"/a": answer}) as web:
        with pytest.raises(SourceError, match=says) as caught:
            fetched(web, "/a?key=hidden", token=TOKEN)
        assert type(caught.value) is kind
        assert f"{web.address}/a: " in str(caught.value)
        assert not {"hidden", TOKEN} & set(str(caught.value).replace("?", " ").replace("=", " ").split())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (401, "needs credentials: set a token as the credential adopt_token"),
        (403, "it refuses access: set a token as the credential adopt_token, if it needs one"),
    ],
)
def test_a_server_that_wants_a_token_is_said(answer, says):
    with web_server({"/a": answer}) as web, pytest.raises(SourceError, match=says):
        fetched(web)


def test_a_server_that_does_not_answer_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(SourceError, match=r"cannot be fetched: .*refused; check address, network and disk"):
            fetch(f"http://127.0.0.1:{free.getsockname()[1]}/x?key=hidden", io.BytesIO(), None, "")
    with pytest.raises(SourceError, match="cannot be fetched: InvalidURL"):
        fetch("http://127.0.0.1/a b", io.BytesIO(), None, "")


def test_what_ends_early_or_is_silent_or_too_large_is_not_taken(monkeypatch):
    with web_server({"/a": b"x" * 1000}) as web:
        web.cut_short = 1
        with pytest.raises(SourceError, match="ended after 999 of 1000 bytes"):
            fetched(web)
        with pytest.raises(SourceError, match="has 1000 bytes, more than"):
            fetched(web, most_bytes=999)
        monkeypatch.setattr(download, "MOST_SECONDS", -1.0)
        with pytest.raises(SourceError, match="not fetched in"):
            fetched(web)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setattr(download, "SILENCE_SECONDS", 0.05)
        with pytest.raises(SourceError, match="timed out"):
            fetch(f"http://127.0.0.1:{deaf.getsockname()[1]}/", io.BytesIO(), None, "")


def test_two_files_are_never_taken_while_they_are_replaced(monkeypatch):
    monkeypatch.setattr(web_source, "PAUSE_SECONDS", 0.0)
    with web_server(dict(TABLES)) as web:

        def replace(path):
            if path.endswith("datasets.pqt") and len(web.asked) < 9:  # after the sessions
                web.salt = str(len(web.asked))

        web.before = replace
        found = read_source(f"{web.address}/t", None)
        assert [path for path, _ in web.asked].count("/t/sessions.pqt") > 2
        assert read_source(f"{web.address}/t", found.version) is None
        monkeypatch.setattr(web_source, "TRIES", 2)
        web.before = lambda path: setattr(web, "salt", str(len(web.asked)))
        with pytest.raises(SourceError, match="is being replaced all the time"):
            read_source(f"{web.address}/t", None)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "/t/sessions.pqt: the server answered 404"),
        ({"/t/cache.zip": 403, "/t/cache_info.json": 403, "/t/sessions.pqt": 403}, "sessions.pqt: .* 403: it refuses"),
        ({"/t/cache_info.json": b"[1]"}, "is not a cache_info.json as Alyx writes it"),
        ({"/t/cache_info.json": b'{"location": "s3://bucket/x.zip"}'}, "its location is not an http or https address"),
        ({"/t/cache_info.json": b'{"location": "gone.zip"}'}, "/t/gone.zip: the server answered 404"),
        ({"/t/cache_info.json": b" " * 2_000_000}, "more than tables have"),
    ],
)
def test_what_is_wrong_with_a_folder_of_a_web_server_is_said(files, says):
    with web_server(files) as web, pytest.raises(SourceError, match=says):
        read_source(f"{web.address}/t", None)
