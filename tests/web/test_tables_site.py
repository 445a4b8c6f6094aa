"""The site on a real socket, over a folder of tables that is made by hand.

If one of these fails, a remote ONE client gets no tables or wrong ones, or a client without the token gets some.
"""

import gc
import json
import os
import socket
import threading
import time
from urllib.parse import urlencode

import pytest

from alfwatchd.web import connections
from alfwatchd.web.tables_site import OPEN_TOKEN, PublicProtocol, Site
from kit.control import open_files, read_all, wait
from kit.site import SiteBox, make_zip, put_tables, site_box

TOKEN = "correct-horse-battery"  # noqa: S105 - nobody else's
WITH_TOKEN = {"Authorization": f"Token {TOKEN}"}
FORM = "application/x-www-form-urlencoded"
GET_INFO = b"GET /cache/info HTTP/1.1\r\nHost: localhost\r\n\r\n"


def make_folder(folder):
    put_tables(folder, make_zip(b"all"), "g1")
    put_tables(folder, make_zip(b"some"), "g7", tag="mine")
    put_tables(folder, make_zip(b"hidden"), "g9", tag="others")
    (folder / "secret.zip").write_bytes(b"secret")
    return folder


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "tables")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """For tests that change nothing."""
    with site_box(Site(make_folder(tmp_path_factory.mktemp("shared")), frozenset({"mine", "later"}))) as box:
        yield box


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with site_box(Site(make_folder(tmp_path_factory.mktemp("guarded")), frozenset({"mine"}), token=TOKEN)) as box:
        yield box


@pytest.fixture
def box(folder):
    with site_box(Site(folder, frozenset({"mine", "later"}))) as box:
        yield box
        assert box.ask("GET", "/cache/info").status in (200, 503)


# What is given.


def test_info_tells_where_the_tables_are_under_the_address_that_was_asked(box: SiteBox, folder):
    answer = box.ask("GET", "/cache/info")
    published = json.loads((folder / "cache_info.json").read_bytes())
    assert answer.status == 200
    assert answer.json == published | {"location": f"{box.address}/tables/g1/cache.zip"}
    answer = box.ask("GET", "/cache/info", Host="tables.example.org:81")
    assert answer.json["location"] == "http://tables.example.org:81/tables/g1/cache.zip"
    answer = box.ask("GET", "/cache/info/mine", Host="[::1]:81")
    assert answer.json["location"] == "http://[::1]:81/mine/tables/g7/cache.zip"
    assert answer.json["database_tags"] == ["mine"]


@pytest.mark.parametrize("base_url", ["https://tables.example.org", "https://example.org/deep/down"])
def test_info_with_a_base_url(folder, base_url):
    with site_box(Site(folder, frozenset({"mine"}), base_url)) as box:
        assert box.ask("GET", "/cache/info").json["location"] == f"{base_url}/tables/g1/cache.zip"
        assert box.ask("GET", "/cache/info/mine").json["location"] == f"{base_url}/mine/tables/g7/cache.zip"


def test_tables_without_a_place_of_their_own_are_at_the_fixed_one(box: SiteBox, folder):
    (folder / "cache_info.json").write_text('{"date_created": "2024-01-01 00:00"}')
    assert box.ask("GET", "/cache/info").json["location"] == f"{box.address}/cache.zip"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/cache.zip", b"all"),
        ("//cache.zip", b"all"),  # of a client whose address ends in a slash
        ("/tables/g1/cache.zip", b"all"),
        ("/mine/cache.zip", b"some"),
        ("/mine/tables/g7/cache.zip", b"some"),
        ("/tables/g1/cache.zip?x=1", b"all"),
        ("/%6dine/tables/g7/cache.zip", b"some"),
    ],
)
def test_archives(shared: SiteBox, path, content):
    answer, head = shared.ask("GET", path), shared.ask("HEAD", path)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, make_zip(content), "application/zip")
    assert answer.headers["content-length"] == str(len(answer.body))  # the client needs it
    assert (head.status, head.headers, head.body) == (200, answer.headers, b"")


@pytest.mark.parametrize("path", ["/cache/info", "/cache/info/mine", "/cache.zip", "/mine/tables/g7/cache.zip"])
def test_a_file_that_a_client_has_is_not_sent_again(box: SiteBox, folder, path):
    etag = box.ask("GET", path).headers["etag"]
    for known in (etag, f'"x", W/{etag}', "*"):
        answer = box.ask("GET", path, If_None_Match=known)
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    put_tables(folder, make_zip(b"new"), "g1")
    put_tables(folder, make_zip(b"new"), "g7", tag="mine", base="")
    (folder / "cache_info.json").write_text('{"date_created": "2024-01-01 00:09"}')
    (folder / "mine/cache_info.json").write_text('{"date_created": "2024-01-01 00:09"}')
    assert box.ask("GET", path, If_None_Match=etag).status == 200
    assert box.ask("GET", path, If_None_Match='"x"').status == 200


def test_an_address_of_another_host_has_another_etag(shared: SiteBox):
    first, second = (shared.ask("GET", "/cache/info", Host=host) for host in ("a", "b"))
    assert first.headers["etag"] != second.headers["etag"]
    assert "Host" in first.headers["vary"]


def test_before_there_are_tables(shared: SiteBox):
    answer = shared.ask("GET", "/cache/info/later")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")  # the client waits and asks again
    assert answer.json == {"detail": "there are no tables yet; try again in a few seconds"}


NOT_THERE = [
    ("GET", "/", 404),
    ("GET", "/sessions", 404),
    ("GET", "/api/schema", 404),
    ("POST", "/sessions", 404),
    ("GET", "/cache_info.json", 404),
    ("GET", "/secret.zip", 404),
    ("GET", "/tables/g2/cache.zip", 404),
    ("GET", "/tables/g1/", 404),
    ("GET", "/cache/info/others", 404),
    ("GET", "/others/cache.zip", 404),
    ("GET", "/others/tables/g9/cache.zip", 404),
    ("GET", "/later/cache.zip", 404),
    ("GET", "/cache/info/../../cache.zip", 404),
    ("GET", "/../cache.zip", 404),
    ("GET", "/./cache.zip", 404),
    ("GET", "/%2e%2e/cache.zip", 404),
    ("GET", "/tables/../cache.zip", 404),
    ("GET", "/tables/%2e/cache.zip", 404),
    ("GET", "/mine/../../../../etc/passwd", 404),
    ("GET", "/mine%2Ftables%2F..%2Fcache.zip", 404),
    ("GET", "/tables/..%2f..%2fsecret/cache.zip", 404),
    ("GET", "/tables/" + "g" * 300 + "/cache.zip", 404),
    ("GET", "/tables/g1%00/cache.zip", 404),
    ("GET", "/tables/%ff/cache.zip", 404),
    ("GET", "/cache.zip%0a", 404),
    ("POST", "/cache.zip", 405),
    ("PUT", "/tables/g1/cache.zip", 405),
    ("DELETE", "/cache/info", 405),
    ("PATCH", "/cache/info/mine", 405),
    ("OPTIONS", "/cache.zip", 405),
    ("BREW", "/cache.zip", 405),
    ("GET", "/auth-token", 405),
    ("PUT", "/auth-token", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), NOT_THERE)
def test_other_requests_are_refused_and_change_nothing(shared: SiteBox, method, path, status):
    before = {file: file.read_bytes() for file in shared.folder.rglob("*") if file.is_file()}
    answer = shared.ask(method, path, b"x" if method in ("PUT", "POST") else None)
    assert (answer.status, list(answer.json)) == (status, ["detail"])
    assert b"secret" not in answer.body or "secret" in path
    if status == 405:
        assert set(answer.headers["allow"].split(", ")) <= {"GET", "HEAD", "POST"}
    assert {file: file.read_bytes() for file in shared.folder.rglob("*") if file.is_file()} == before


def test_a_client_that_asks_for_a_database_is_told_what_this_is(shared: SiteBox):
    assert "ask with mode='local'" in shared.ask("GET", "/docs").json["detail"]


def test_links_pipes_and_folders_are_not_followed(box: SiteBox, folder, tmp_path):
    outside = tmp_path / "outside"
    put_tables(outside, b"secret", "g1")
    for name in ("g2", "g3", "g4", "g5"):
        (folder / "tables" / name).mkdir()
    (folder / "tables/g2/cache.zip").symlink_to(outside / "cache.zip")
    os.mkfifo(folder / "tables/g3/cache.zip")
    (folder / "tables/g4/cache.zip").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{(fd := os.open(folder / 'tables/g5', os.O_PATH))}/cache.zip")
        os.close(fd)
    (folder / "tables/g6").symlink_to(outside / "tables/g1")
    (folder / "later").symlink_to(outside)
    for path in (*(f"/tables/g{number}/cache.zip" for number in range(2, 7)), "/later/cache.zip"):
        assert box.ask("GET", path).status == 404, path
    assert box.ask("GET", "/cache/info/later").status == 503


def test_an_archive_is_sent_whole_even_if_it_is_replaced_and_removed(box: SiteBox, folder):
    large = os.urandom(8_000_000)
    put_tables(folder, large, "g2")
    with box.connect(receive_bytes=1 << 17) as connection:
        connection.sendall(b"GET /tables/g2/cache.zip HTTP/1.1\r\nHost: localhost\r\n\r\n")
        begun = connection.recv(1000)
        put_tables(folder, b"another", "g2")
        os.unlink(folder / "tables/g2/cache.zip")
        body = (begun + read_all(connection)).partition(b"\r\n\r\n")[2]
    assert body == large
    assert box.ask("GET", "/tables/g2/cache.zip").status == 404


# Who asks.


@pytest.mark.parametrize("kind", [FORM, "application/json", "application/json; charset=utf-8"])
def test_login_with_a_token(guarded: SiteBox, kind):
    def log_in(**given):
        body = json.dumps(given) if "json" in kind else urlencode(given)
        answer = guarded.ask("POST", "/auth-token", body, Content_Type=kind)
        return answer.status, answer.json

    # What Django REST framework says.
    wrong = {"non_field_errors": ["Unable to log in with provided credentials."]}
    assert log_in(username="me", password=TOKEN) == (200, {"token": TOKEN})
    assert log_in(username="me", password=TOKEN[:-1]) == (400, wrong)
    assert log_in(username="me", password=TOKEN + "é") == (400, wrong)
    assert log_in(username=TOKEN) == (400, {"password": ["This field is required."]})
    assert log_in() == (400, {"password": ["This field is required."]})


def test_login_without_a_token_gives_one_that_opens_nothing(shared: SiteBox, guarded: SiteBox):
    for body in (urlencode({"username": "me", "password": "anything"}), urlencode({"username": "me"}), ""):
        answer = shared.ask("POST", "/auth-token", body, Content_Type=FORM)
        assert (answer.status, answer.json) == (200, {"token": OPEN_TOKEN})
    assert guarded.ask("GET", "/cache.zip", Authorization=f"Token {OPEN_TOKEN}").status == 403


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"x" * 10_000, FORM, 413),
        (b"\xff", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"[" * 8000, "application/json", 400),
        (b'{"password": 1}', "application/json", 400),
        (b'{"password": "\\ud800"}', "application/json", 400),
        (b"&".join(b"a=b" for _ in range(1000)), FORM, 400),
        (b"\xff=\xfe", FORM, 400),
    ],
)
def test_nonsense_logins(guarded: SiteBox, body, kind, status):
    assert guarded.ask("POST", "/auth-token", body, Content_Type=kind).status == status


PATHS = ["/cache/info", "/cache/info/mine", "/cache.zip", "/mine/tables/g7/cache.zip", "/nothing", "/me"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", ["", "Token", "Token ", f"Token {TOKEN}x", f"Token {TOKEN[:-1]}", "Token \xe9"])
def test_without_the_token_a_client_learns_nothing(guarded: SiteBox, path, given):
    answer = guarded.ask("GET", path, Authorization=given)
    said = "Invalid token." if given else "Authentication credentials"
    assert (answer.status, list(answer.json)) == (403, ["detail"])
    assert answer.json["detail"].startswith(said)


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"Basic {TOKEN}", TOKEN])
def test_other_schemes_of_authorization_are_refused(guarded: SiteBox, given):
    assert guarded.ask("GET", "/cache.zip", Authorization=given).status == 403


def test_a_wrong_token_is_refused_in_the_words_that_the_client_waits_for(guarded: SiteBox):
    assert b'"Invalid token."' in guarded.ask("GET", "/cache/info", Authorization="Token old").body


def test_with_the_token(guarded: SiteBox):
    assert guarded.ask("GET", "/cache/info", **WITH_TOKEN).status == 200
    assert guarded.ask("GET", "/cache.zip", Authorization=f"token  {TOKEN}").body == make_zip(b"all")
    assert guarded.ask("GET", "/me", **WITH_TOKEN).status == 404  # so the client takes a token that was given


def test_tokens_are_never_logged_and_refused_logins_seldom(folder, caplog):
    with site_box(Site(folder, token=TOKEN)) as guarded, caplog.at_level("DEBUG"):
        guarded.ask("POST", "/auth-token", urlencode({"username": "me", "password": TOKEN}), Content_Type=FORM)
        for _ in range(5):
            guarded.ask("POST", "/auth-token", urlencode({"username": "me", "password": "guess"}), Content_Type=FORM)
        guarded.ask("GET", "/cache.zip", **WITH_TOKEN)
    assert TOKEN not in caplog.text
    assert "guess" not in caplog.text
    assert caplog.text.count("login refused client=127.0.0.1") == 1
    assert "request client=127.0.0.1 method=GET path=/cache.zip status=200" in caplog.text


def test_a_path_cannot_forge_a_line_of_the_log(shared: SiteBox, caplog):
    with caplog.at_level("DEBUG"):
        shared.ask("GET", "/a%0a%1b[31m%e2%80%a8CRITICAL" + "x" * 10_000)
    assert r"path=/a\n\x1b[31m\u2028CRITICALx" in caplog.text
    assert max(map(len, caplog.text.splitlines())) < 500


@pytest.mark.parametrize("host", ["a b", "a/b", "a@b", "a:b", "", "evil.example/x?", "[::1", "x" * 254, "a:123456"])
def test_a_malformed_host_is_refused(shared: SiteBox, host):
    answer = shared.ask("GET", "/cache/info", Host=host)
    assert answer.status == 400
    assert host not in answer.json["detail"] or not host


def test_a_site_for_this_machine_only_has_no_other_name(folder):
    """A page that a browser shows could else ask for the tables, under a name that its owner lets lead here."""
    with site_box(Site(folder, base_url="https://tables.example.org", is_private=True)) as box:
        for host in ("localhost", "LocalHost:1", "127.0.0.1", "[::1]:5", "my.localhost", "tables.example.org"):
            assert box.ask("GET", "/cache.zip", Host=host).status == 200, host
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example"):
            answer = box.ask("GET", "/cache.zip", Host=host)
            assert (answer.status, "serve.base_url" in answer.json["detail"]) == (421, True), host


# Nonsense, floods and dawdling.


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,  # TLS
        b"GET /cache.zip HTTP/1.1\r\n\r\n",  # no Host
        b"GET /cache.zip HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /" + b"x" * 40_000,
        b"GET /cache.zip HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000,
        b"GET /cache.zip HTTP/1.1\r\nHost: a\r\n" + b"X: x\r\n" * 10_000,
    ],
    ids=range(7),
)
def test_nonsense_is_answered_in_json(shared: SiteBox, sent):
    head, _, body = shared.exchange(sent).partition(b"\r\n\r\n")
    if head:  # the system may drop an answer where more was sent than was read
        assert head.startswith(b"HTTP/1.1 400 ")
        assert list(json.loads(body)) == ["detail"]


def test_one_request_per_connection(shared: SiteBox):
    assert shared.exchange(GET_INFO * 50).count(b"HTTP/1.1 200 OK") == 1


def test_slow_clients_are_dropped(folder, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
    with site_box(Site(folder, token=TOKEN)) as box, box.connect() as silent, box.connect() as slow:
        slow.sendall(GET_INFO[:20])
        with box.connect() as login:
            login.sendall(b"POST /auth-token HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nusername=")
            assert read_all(login).startswith(b"HTTP/1.1 408 ")
        assert read_all(slow).startswith(b"HTTP/1.1 408 ")
        assert read_all(silent) == b""


def test_a_client_that_takes_nothing_is_dropped_and_one_that_goes_on_is_not(folder, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 1.0)
    large = os.urandom(24_000_000)
    put_tables(folder, large, "g2")
    with site_box(Site(folder)) as box, box.connect(4096) as stuck, box.connect(1 << 18) as steady:
        for connection in (stuck, steady):
            connection.sendall(b"GET /tables/g2/cache.zip HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait(lambda: len(box.connections) == 2)
        got = b""
        while len(box.connections) == 2:
            got += steady.recv(1 << 14)
            assert len(got) < len(large), "the client that takes nothing still has its connection"
            time.sleep(0.005)  # it takes all that time
        got += read_all(steady)
        assert got.partition(b"\r\n\r\n")[2] == large
        assert len(read_all(stuck)) < len(large)


def test_a_client_that_leaves_during_a_download_costs_nothing_more(box: SiteBox, folder, caplog):
    put_tables(folder, os.urandom(30_000_000), "g2")
    before = open_files()
    for _ in range(5):
        with box.connect(4096) as connection:
            connection.sendall(b"GET /tables/g2/cache.zip HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.recv(100)
    wait(lambda: not box.connections)
    wait(lambda: open_files().items() <= before.items(), "a file was left open")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_the_end_of_the_server_breaks_a_download_off_and_leaves_nothing(folder, monkeypatch, caplog):
    monkeypatch.setattr("alfwatchd.web.http_server.GRACE_SECONDS", 0)
    put_tables(folder, os.urandom(30_000_000), "g2")
    with site_box(Site(folder)) as box, box.connect(4096) as connection:
        connection.sendall(b"GET /tables/g2/cache.zip HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.recv(100)
        box.server.close()
        assert not box.server.is_alive
    assert "Traceback" not in caplog.text


def test_more_clients_than_there_is_room_for(folder):
    with site_box(Site(folder), room=20) as box:
        silent = [box.connect() for _ in range(100)]
        try:
            for _ in range(5):
                assert box.ask("GET", "/cache.zip").body == make_zip(b"all")
            assert len(box.connections) <= 20
        finally:
            for connection in silent:
                connection.close()


def test_when_all_are_busy_others_are_told(folder):
    put_tables(folder, os.urandom(30_000_000), "g2")
    with site_box(Site(folder), room=3) as box:
        busy = [box.connect(4096) for _ in range(3)]
        try:
            for connection in busy:
                connection.sendall(b"GET /tables/g2/cache.zip HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert connection.recv(17) == b"HTTP/1.1 200 OK\r\n"
            assert box.exchange().startswith(b"HTTP/1.1 503 ")
        finally:
            for connection in busy:
                connection.close()
        wait(lambda: not box.connections)
        assert box.ask("GET", "/cache.zip").status == 200


def test_many_at_once_get_whole_archives_while_they_are_replaced(folder):
    stop, problems = threading.Event(), []
    contents = [make_zip(os.urandom(500_000)) for _ in range(3)]
    put_tables(folder, contents[0], "g2")

    def read(box):
        for _ in range(10):
            answer = box.ask("GET", "/cache.zip")
            if answer.status != 200 or answer.body not in contents:
                problems.append(answer.status)

    def write():
        for number in range(10_000):
            if stop.is_set():
                return
            put_tables(folder, contents[number % 3], "g2")

    with site_box(Site(folder)) as box:
        readers = [threading.Thread(target=read, args=(box,)) for _ in range(8)]
        writer = threading.Thread(target=write)
        for thread in (*readers, writer):
            thread.start()
        for thread in readers:
            thread.join()
        stop.set()
        writer.join()
    assert problems == []


def test_connections_leave_nothing_in_memory(shared: SiteBox):
    for _ in range(20):
        shared.ask("GET", "/cache.zip")
    wait(lambda: not shared.connections)
    gc.collect()
    assert sum(isinstance(each, PublicProtocol) for each in gc.get_objects()) <= 2


def test_a_folder_that_cannot_be_read_is_told_and_logged(folder, caplog):
    with site_box(Site(folder / "nowhere")) as box:
        answer = box.ask("GET", "/cache/info")
        assert (answer.status, "retry-after" in answer.headers) == (503, True)
    assert "a request cannot be answered path=/cache/info" in caplog.text
