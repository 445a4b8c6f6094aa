"""A stock client of ONE, elsewhere, gets the tables that the program keeps."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections import Counter
from contextlib import contextmanager

import pytest
import requests
from one.api import One

from kit.program import PROGRAM, make_ibl_tree, make_small_tree, program, write_dataset
from kit.serve import connect, served

# ruff: noqa: S105, S106 - passwords that nobody else has
TOKEN = "correct-horse-battery"
CHOICE = "_ibl_trials.choice.npy"
NEW = "lab/Subjects/s1/2020-01-01/001/alf/probe.name.npy"

pytestmark = pytest.mark.filterwarnings("ignore:No cache tables found", "ignore:The copy keyword is deprecated")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Where ONE writes its parameters."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def made(tmp_path):
    with program(make_small_tree(tmp_path / "root")) as made:
        made.make_tables()
        yield made


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """For tests that change neither tree nor tables."""
    with program(make_small_tree(tmp_path_factory.mktemp("lasting") / "root")) as made:
        made.make_tables()
        yield made


def rows(one):
    """All that a client knows, by session path."""
    details = one.list_datasets(details=True, query_type="local")
    names = {str(eid): one.eid2path(eid).session_path_short(include_lab=True) for eid in one.search(query_type="local")}
    return sorted(
        (names[str(eid)], str(id_), row["rel_path"], row["file_size"], bool(row["exists"]))
        for (eid, id_), row in details.iterrows()
    )


@pytest.mark.timeout(60)
def test_a_client_knows_what_a_local_one_does(tmp_path):
    root = make_ibl_tree(tmp_path / "root")
    with program(root) as made:
        made.make_tables()
        with served(made) as site:
            one = connect(site, tmp_path / "cache")
            one.load_cache()
            local = One(cache_dir=root, mode="local")
            assert rows(one) == rows(local)
            assert len(rows(one)) == 693
            for terms in ({}, {"lab": "cortexlab"}, {"subject": "KS005", "number": 3}, {"datasets": CHOICE}):
                assert sorted(map(str, one.search(**terms))) == sorted(map(str, local.search(**terms)))
            eid = one.search(subject="KS005")[0]
            assert one.list_datasets(eid) == local.list_datasets(eid)
            online = connect(site, tmp_path / "cache", mode="remote")
            online.load_cache()
            assert sorted(map(str, online.search(lab="cortexlab", query_type="local"))) == sorted(
                map(str, local.search(lab="cortexlab"))
            )
            assert len(site.downloads()) == 1
            with pytest.raises(requests.HTTPError, match="only the tables, not a database"):
                online.search(lab="cortexlab")


def test_a_client_notices_what_is_newer_and_else_gets_nothing(made, tmp_path):
    with served(made) as site:
        one = connect(site, tmp_path / "cache")
        one.load_cache()
        first = site.ask("GET", "/cache/info").json["date_created"]
        assert len(rows(one)) == 12
        made.run_once()  # finds nothing new
        for _ in range(3):
            one.load_cache()
            one.load_cache(clobber=True)
            connect(site, tmp_path / "cache").load_cache()  # a later session of the same user
        assert len(site.downloads()) == site.n_new == 1
        asked = Counter(site.requests())
        assert (asked["POST path=/auth-token"], asked["GET path=/cache/info"]) == (1 + 3, 1 + 3 * 3 + 1)  # one is ours

        for number in range(2):  # within the same minute
            write_dataset(made.root / f"{NEW}.{number}.npy", 5)
            made.run_once()
            site.wait(" new=yes ", number + 2)
            one.load_cache()
            assert len(rows(one)) == 13 + number
            assert len(site.downloads()) == 2 + number
        assert site.ask("GET", "/cache/info").json["date_created"] > first
        site.stop()
    with served(made) as site:  # after a restart, all is as it was
        one = connect(site, tmp_path / "cache")
        one.load_cache()
        assert len(rows(one)) == 14
        assert (site.downloads(), site.n_new) == ([], 0)


@pytest.mark.heavy
def test_beside_the_daemon(made, tmp_path):
    made.start("--socket", str(made.socket))
    with served(made) as site:
        one = connect(site, tmp_path / "cache")
        one.load_cache()
        write_dataset(made.root / NEW, 5)
        made.run("sync")
        site.wait(" new=yes ", 2)
        one.load_cache()
        assert rows(one) == rows(One(cache_dir=made.root, mode="local"))
        assert len(rows(one)) == 13
    made.stop()


SUBSETS = """
root = "root"
[[publish]]
target = "one"
subset = { subjects = ["s1"], tag = "first" }
[[publish]]
target = "two"
subset = { subjects = ["s1"], tag = "first" }
[[publish]]
target = "three"
subset = { subjects = ["s2", "s3"], tag = "zweite_ä" }
[[publish]]
target = "four"
subset = { subjects = ["s3"] }
"""


@pytest.mark.heavy
def test_subsets_have_tags(lasting, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(SUBSETS)
    with served(lasting, f"--config={config}") as site:
        site.wait(" tables published ", 3)
        one = connect(site, tmp_path / "cache")
        one.load_cache()
        assert len(rows(one)) == 12
        for tag, subjects in (("first", ["s1"]), ("zweite_ä", ["s2", "s3"])):
            one.load_cache(tag=tag)
            assert sorted(set(one.list_subjects())) == subjects
            assert len(rows(one)) == 4 * len(subjects)
        assert site.ask("GET", "/cache/info/third").status == 404
        n_downloads = len(site.downloads())
        one.load_cache()  # goes on with the tag that it has
        assert len(site.downloads()) == n_downloads == 3
    assert not any((tmp_path / name).exists() for name in ("one", "two", "three", "four"))


def test_only_a_client_with_the_token_gets_the_tables(lasting, tmp_path):
    with served(lasting, serve_token=TOKEN) as site:
        with pytest.raises(requests.HTTPError, match="authentication failed"):
            connect(site, tmp_path / "cache", password="wrong")
        with pytest.raises(requests.HTTPError, match="rejected the API token"):
            connect(site, tmp_path / "cache", password=None, token="wrong")
        for given in ({"password": TOKEN}, {"password": None, "token": TOKEN}, {"password": None}):  # last: remembered
            cache = tmp_path / f"cache-{len(given)}-{given['password']}"
            one = connect(site, cache, **given)
            one.load_cache()
            assert len(rows(one)) == 12
        assert len(site.downloads()) == 3
        assert TOKEN not in site.log
        assert "wrong" not in site.log


@pytest.mark.heavy
def test_a_client_with_an_old_token_logs_in_again(lasting, tmp_path):
    with served(lasting, serve_token="an-old-token") as site:
        connect(site, tmp_path / "cache", password="an-old-token")
        port = site.port
        site.stop()
    with served(lasting, f"--port={port}", serve_token=TOKEN) as site:
        one = connect(site, tmp_path / "cache", password=None)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            one.load_cache()
        assert [each for each in told if "No password, token or cached token" in str(each.message)]
        assert site.requests()[-1] == "POST path=/auth-token"
        assert site.downloads() == []
        one = connect(site, tmp_path / "cache", password=TOKEN)
        one.load_cache()
        assert len(rows(one)) == 12


@contextmanager
def proxy():
    """A web server in front, which takes a path off, as nginx does: yields its address, and a list for the way on."""
    way_on = []

    class Forward(http.server.BaseHTTPRequestHandler):
        def _forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Content-Length")}
            path = self.path.removeprefix("/deep/tables")
            answer = requests.request(self.command, way_on[0] + path, headers=headers, data=body, timeout=120)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = _forward  # noqa: N815 - the names are those of http.server

        def log_message(self, *_):
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forward) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}/deep/tables", way_on
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.heavy
def test_behind_a_web_server(lasting, tmp_path, monkeypatch):
    with proxy() as (address, way_on):
        monkeypatch.setitem(lasting.added, "ALFWATCHD_SERVE__BASE_URL", address)
        with served(lasting, serve_token=TOKEN) as site:
            way_on.append(site.address)
            one = connect(site, tmp_path / "cache", password=TOKEN, base_url=address)
            one.load_cache()
            assert len(rows(one)) == 12
            assert len(site.downloads()) == 1


# The process.


def run(made, *flags, code):
    command = [PROGRAM, "serve", *made.places, *flags]
    ended = subprocess.run(command, env=made.environment(), capture_output=True, text=True, timeout=120)
    assert ended.returncode == code, ended.stderr
    return ended.stderr


@pytest.mark.heavy
def test_what_cannot_be_served(lasting, monkeypatch):
    lasting.break_it("from alfwatchd.web import connections\nconnections.REQUEST_SECONDS = 1e4\n")
    monkeypatch.setitem(lasting.added, "PYTHONPATH", lasting.added.pop("PYTHONPATH"))
    with served(lasting) as site:
        said = run(lasting, f"--port={site.port}", code=1)
        assert f"127.0.0.1, port {site.port}: cannot listen there (Address already in use)" in said
        said = run(lasting, "--port=0", code=75)
        assert f"process {site.process.pid} serves from here" in said
        # It ends in order, though somebody is connected who says nothing.
        with socket.create_connection(("127.0.0.1", site.port)):
            site.stop(signal.SIGINT)
        assert site.log.rstrip().endswith("serving ended")
        assert not any(level in site.log for level in (" WARNING ", " ERROR ", " CRITICAL ")), site.log
    assert "serve.port = 65536 (flag --port)" in run(lasting, "--port=65536", code=78)


@pytest.mark.heavy
def test_where_the_state_folder_cannot_be_written_archives_are_kept_elsewhere(lasting, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setitem(lasting.added, "TMPDIR", str(tmp_path / "tmp"))
    with served(lasting, f"--state-dir={tmp_path / 'file/state'}") as site:
        assert "archives are kept for this run only" in site.log
        one = connect(site, tmp_path / "cache")
        one.load_cache()
        assert len(rows(one)) == 12
        assert len(os.listdir(tmp_path / "tmp")) == 1
        site.stop(signal.SIGHUP)  # of a terminal that is closed
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.heavy
def test_on_all_networks_without_a_token_it_warns(lasting):
    warning = "everybody who can reach this address can read the tables: there is no token host=0.0.0.0"
    with served(lasting, "--host=0.0.0.0") as site:
        assert warning in site.log
        assert site.ask("GET", "/cache/info", Host="lab.example.org").status == 200
    with served(lasting, "--host=0.0.0.0", serve_token=TOKEN) as site:
        assert "WARNING" not in site.log


def test_the_command_starts_without_heavy_imports_until_it_is_needed():
    code = "import sys, alfwatchd.cli.main; assert not {'pyarrow', 'uvicorn', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
