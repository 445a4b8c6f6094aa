"""The database itself as the source of ids: over REST, with ONE's own client, which leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import logging
import os
import tempfile
import uuid

import pyarrow.parquet as pq
import pytest

from alfwatchd.database import alyx as alyx_rest
from alfwatchd.database.alyx import read_database
from alfwatchd.database.sources import read_source
from alfwatchd.errors import ConfigError, SourceError
from kit.alyx import FIXTURES, PASSWORD, TOKEN, USER, alyx_server, texts_of


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home folder that is new."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def as_user(monkeypatch):
    monkeypatch.setenv("ALFWATCHD_CREDENTIAL_ALYX_USERNAME", USER)
    monkeypatch.setenv("ALFWATCHD_CREDENTIAL_ALYX_PASSWORD", PASSWORD)


def test_all_rows_come_over_many_pages_as_in_the_tables(as_user):
    sessions, datasets = (pq.read_table(FIXTURES / f"{name}.pqt") for name in ("sessions", "datasets"))
    with alyx_server() as alyx:
        alyx.page_rows = 100
        found = read_source(f"alyx+{alyx.address}", None)
        assert [path for path in alyx.asked if path.startswith("/datasets")][-1].endswith("offset=600")
    eids = texts_of(sessions["id_0"], sessions["id_1"])
    columns = (sessions[name].to_pylist() for name in ("subject", "date", "number", "project"))
    rows = found.sessions.select(["id", "subject", "date", "number", "projects"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == sorted(zip(eids, *columns, strict=True))
    both = zip(*(texts_of(datasets[f"{name}_0"], datasets[f"{name}_1"]) for name in ("id", "eid")), strict=True)
    by_id = {own: (eid, path) for (own, eid), path in zip(both, datasets["rel_path"].to_pylist(), strict=True)}
    rows = found.datasets.to_pylist()
    assert {row["id"]: (row["eid"], row["rel_path"]) for row in rows} == by_id
    assert [row["id"] for row in rows] == sorted(by_id)
    assert {(row["qc"], row["default_revision"], row["exists"]) for row in rows} == {("PASS", True, True)}


def test_nothing_is_left_in_the_home_and_temporary_folders(home, tmp_path, monkeypatch, caplog):
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    caplog.set_level(logging.DEBUG)
    with alyx_server() as alyx:
        read_database(alyx.address, USER, PASSWORD, None)
        with pytest.raises(SourceError):
            read_database(alyx.address, USER, "another-password", None)
    assert [*home.iterdir(), *scratch.iterdir()] == []
    assert "password" not in caplog.text


def test_the_database_is_the_same_until_it_changes(as_user):
    with alyx_server() as alyx:
        source = f"alyx+{alyx.address}/"
        version = json.loads(json.dumps(read_source(source, None).version))
        alyx.datasets.reverse()  # no order is promised
        assert read_source(source, version) is None
        alyx.datasets[0]["qc"] = "FAIL"
        changed = read_source(source, version)
        assert changed.version != version
        assert changed.datasets["qc"].to_pylist().count("FAIL") == 1


def test_revisions_are_part_of_the_path_and_base_sessions_are_left_out():
    with alyx_server() as alyx:
        alyx.datasets[0] |= {"collection": "alf/probe00", "revision": "2024-01-01", "name": "spikes.times.npy"}
        alyx.datasets[1] |= {
            "collection": None,
            "revision": "r2",
            "name": "a.b.npy",
            "qc": None,
            "default_dataset": False,
        }
        alyx.datasets[2]["session"] = None
        alyx.datasets[3]["file_records"] = []
        alyx.sessions[0]["number"] = None
        alyx.sessions[1]["start_time"] = None
        alyx.sessions[2]["projects"] = ["one", "two"]
        sessions, datasets = read_database(alyx.address, None, None, TOKEN)
        ids = [record["url"][-36:] for record in alyx.datasets]
        gone, shared = {session["id"] for session in alyx.sessions[:2]}, alyx.sessions[2]["id"]
    found = {row["id"]: row for row in datasets.to_pylist()}
    assert found[ids[0]]["rel_path"] == "alf/probe00/#2024-01-01#/spikes.times.npy"
    assert found[ids[1]]["rel_path"] == "#r2#/a.b.npy"
    assert (found[ids[1]]["qc"], found[ids[1]]["default_revision"]) == ("NOT_SET", False)
    assert ids[2] not in found
    assert [row["id"] for row in found.values() if not row["exists"]] == [ids[3]]
    assert not gone & set(sessions["id"].to_pylist())
    assert {row["id"]: row["projects"] for row in sessions.to_pylist()}[shared] == "one,two"


def test_rows_that_slip_through_between_two_pages_are_read_again():
    with alyx_server() as alyx:
        whole = sorted(record["url"][-36:] for record in alyx.datasets[1:])

        def remove_first(path):
            if path.endswith("offset=250") and len(alyx.datasets) > len(whole):
                del alyx.datasets[0]  # the one that was at 250 is at 249 now

        alyx.before = remove_first
        _, datasets = read_database(alyx.address, None, None, TOKEN)
        assert datasets["id"].to_pylist() == whole
        alyx.before = lambda path: alyx.datasets.pop(0) if "offset=250" in path else None
        with pytest.raises(SourceError, match="datasets changed all the time while they were read"):
            read_database(alyx.address, None, None, TOKEN)


@pytest.mark.heavy
def test_sessions_that_start_at_one_time_are_all_read():
    # ONE registers a session at midnight unless it is told the time. Such sessions changed places between two pages, so
    # some were never shown, and no look at the database ever succeeded.
    with alyx_server() as alyx:
        alyx.page_rows = 80
        first = alyx.sessions[0]
        for day, number in itertools.product(range(3), range(130)):
            eid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{day} {number}"))
            start = {"number": number, "start_time": f"2020-01-{day + 1:02}T00:00:00"}
            alyx.sessions.append(first | start | {"id": eid, "url": f"/sessions/{eid}"})
        sessions, _ = read_database(alyx.address, None, None, TOKEN)
    assert sessions["id"].to_pylist() == sorted(each["id"] for each in alyx.sessions)


@pytest.mark.heavy
def test_sessions_that_alyx_never_shows_are_told_as_they_are():
    with alyx_server() as alyx:
        alyx.page_rows, alyx.filters = 10, ("date_range",)
        for session in alyx.sessions:
            session["start_time"] = "2020-01-01T00:00:00"
        shown = alyx.page
        alyx.page = lambda *asked: ([each for each in shown(*asked)[0] if each["number"] != 1], shown(*asked)[1])
        with pytest.raises(SourceError, match=r"sessions of 2020-01-01: Alyx has 26 and shows \d+ .*name the tables"):
            read_database(alyx.address, None, None, TOKEN)


def test_a_token_that_is_revoked_while_it_is_used_is_told():
    # ONE's client answers an invalid token by another login, without a password, and passes on the 400 which that gets.
    with alyx_server() as alyx:

        def revoke(path):
            if path.startswith("/datasets"):
                alyx.token = alyx.token[::-1]

        alyx.before = revoke
        with pytest.raises(SourceError, match="reading datasets: Alyx does not accept the token"):
            read_database(alyx.address, None, None, TOKEN)


@pytest.mark.heavy
def test_a_token_serves_where_the_database_does_not_tell_whose_it_is():
    with alyx_server() as alyx:
        alyx.knows_me = False
        assert len(read_database(alyx.address, None, None, TOKEN)[0]) == len(alyx.sessions)
        assert "/auth-token" not in alyx.asked


REFUSALS = [
    ({}, (None, None, None), "give the credential alyx_token, or alyx_username and alyx_password"),
    ({}, (USER, "wrong", None), "logging in: Alyx answered 400: it does not accept the user name and password"),
    ({}, (None, None, "wrong"), "logging in: Alyx does not accept the token .*its page /me shows a valid one"),
    ({"knows_me": False}, (None, None, "wrong"), "Alyx does not accept the token"),
    ({"broken": 403}, (None, None, TOKEN), "Alyx answered 403: the user may not read this: check the rights"),
    ({"broken": 400}, (None, None, TOKEN), "Alyx answered 400: check the address, or try again"),
    ({"broken": 500}, (None, None, TOKEN), "reading sessions: Alyx answered 500: check the address, or try again"),
    ({"datasets": [{"url": "x" * 36}]}, (None, None, TOKEN), r"datasets are not what Alyx answers \(KeyError"),
]


@pytest.mark.parametrize(
    ("change", "credentials", "says"),
    [*REFUSALS[:2], *(pytest.param(*each, marks=pytest.mark.heavy) for each in REFUSALS[2:])],
)
def test_what_is_wrong_is_said_without_secrets(change, credentials, says):
    with alyx_server() as alyx:
        for name, value in change.items():
            setattr(alyx, name, value)
        with pytest.raises(SourceError, match=says) as caught:
            read_database(alyx.address, *credentials)
    assert alyx.address in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_a_server_that_does_not_answer_is_named():
    with alyx_server() as alyx:
        pass
    with pytest.raises(SourceError, match="logging in: ConnectionError; check address and network"):
        read_database(alyx.address, USER, PASSWORD, None)


def test_a_server_that_says_nothing_is_left(monkeypatch):
    monkeypatch.setattr(alyx_rest, "SILENCE_SECONDS", 0.05)
    with alyx_server() as alyx, pytest.raises(SourceError, match="no answer for 0 s"):
        read_database(alyx.address, USER, PASSWORD, None)


def test_without_one_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "one/__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with pytest.raises(ConfigError, match=r"ONE-api is not there, or too old .*pip install 'alfwatchd\[alyx\]'"):
        read_database("http://127.0.0.1:9", USER, PASSWORD, None)
