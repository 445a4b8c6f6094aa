"""The ids of a database: all of them taken over from each kind of source, kept, announced, and never by a guess."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from one.api import One, OneAlyx

import alfwatchd
from alfwatchd.settings import Adopt
from alfwatchd.store.id_history import find_id
from kit.alyx import PASSWORD, USER, alyx_server
from kit.database import (
    copy_fixture,
    dataset,
    fixture_tables,
    make_tree,
    pack,
    session,
    write_database,
)
from kit.program import make_ibl_tree, make_small_tree, program, read_tables
from kit.serve import connect, served
from kit.web import web_server

pytestmark = [
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),  # in ONE itself
    pytest.mark.usefixtures("no_readers"),
]

S1, S2, S3, S9 = (f"lab/Subjects/s{number}/2020-01-01/001" for number in (1, 2, 3, 9))
TIMES, CHOICE = "alf/spikes.times.npy", "_ibl_trials.choice.npy"


def path_of(row: dict[str, Any]) -> str:
    return f"{row['lab']}/Subjects/{row['subject']}/{row['date']}/{row['number']:03d}"


def eids_of(out_dir: Path) -> dict[str, str]:
    """Session path -> eid, as the tables in a folder have it."""
    return {path_of(row): row["id"] for row in read_tables(out_dir)[0].to_pylist()}


def rows_of(out_dir: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(session path, rel_path) -> row of the dataset."""
    sessions, datasets = read_tables(out_dir)
    # While a flush goes on, a session may be there with its old and its new eid.
    paths = {row["id"]: path_of(row) for row in sessions.to_pylist()}
    return {(paths[row["eid"]], row["rel_path"]): row for row in datasets.to_pylist()}


def has_adopted(out_dir: Path) -> tuple[int, int]:
    """Count the sessions and datasets whose ids are those of the database inside ONE-api; there are no others."""
    sessions, datasets = fixture_tables()
    eids = {row["path"]: row["id"] for row in sessions}
    paths = {row["id"]: row["path"] for row in sessions}
    found, rows = eids_of(out_dir), rows_of(out_dir)
    assert (len(found), len(rows)) == (len(sessions), len(datasets))
    n_sessions = sum(found[paths[eid]] == eid for eid in {row["eid"] for row in datasets})
    assert sum(found[path] == eid for path, eid in eids.items()) == 26  # with those without datasets
    return n_sessions, sum(rows[paths[row["eid"]], row["rel_path"]]["id"] == row["id"] for row in datasets)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("adopt") / "data")


@pytest.fixture(scope="module")
def adopted(tree, tmp_path_factory):
    """The tables of the tree, with what the database inside ONE-api knows."""
    out_dir = tmp_path_factory.mktemp("tables")
    with program(tree, out_dir) as made:
        made.added["ALFWATCHD_ADOPT__SOURCE"] = str(copy_fixture(out_dir.parent / "folder source"))
        made.make_tables()
    return out_dir


@pytest.fixture
def small(tmp_path):
    """A program of a small tree, and the folder that it adopts from."""
    with program(make_small_tree(tmp_path / "data")) as made:
        made.added["ALFWATCHD_FLUSH_INTERVAL_SECONDS"] = "0.05"
        made.source = tmp_path / "source"
        made.added["ALFWATCHD_ADOPT__SOURCE"] = str(made.source)
        made.added["ALFWATCHD_ADOPT__INTERVAL_SECONDS"] = "0.05"
        yield made


# All of it, from everywhere.


def test_every_session_and_dataset_of_a_folder_of_tables_is_matched(adopted):
    assert has_adopted(adopted) == (23, 693)
    row = rows_of(adopted)["cortexlab/Subjects/KS005/2019-04-01/001", "alf/_ibl_trials.choice.npy"]
    assert row["exists"] is True
    protocols = {each["id"]: each["task_protocol"] for each in read_tables(adopted)[0].to_pylist()}
    assert protocols == {each["id"]: each["task_protocol"] for each in fixture_tables()[0]}


def test_files_are_matched_where_the_database_says_that_they_lie(tmp_path):
    # Of two sessions, the database tells another folder for the files than for the session.
    root = make_ibl_tree(tmp_path / "data")
    with program(root) as made:
        made.added["ALFWATCHD_ADOPT__SOURCE"] = str(copy_fixture(tmp_path / "source"))
        made.make_tables()
    _, known = fixture_tables()
    found = [(row["eid"], row["rel_path"], row["id"]) for row in rows_of(root).values()]
    assert sorted(found) == sorted((row["eid"], row["rel_path"], row["id"]) for row in known)
    assert (len(found), len({eid for eid, *_ in found})) == (693, 23)


@pytest.mark.parametrize("kind", [*(pytest.param(each, marks=pytest.mark.heavy) for each in ("zip", "http")), "rest"])
def test_other_sources_give_the_same_rows(tree, adopted, tmp_path, kind):
    archive = pack(copy_fixture(tmp_path / "source"), tmp_path / "cache.zip")
    with (
        web_server({"/cache.zip": archive.read_bytes()}) as web,
        alyx_server() as alyx,
        program(tree, tmp_path) as made,
    ):
        source = {"zip": str(archive), "http": web.address, "rest": f"alyx+{alyx.address}"}[kind]
        made.added["ALFWATCHD_ADOPT__SOURCE"] = source
        made.added |= {"ALFWATCHD_CREDENTIAL_ALYX_USERNAME": USER, "ALFWATCHD_CREDENTIAL_ALYX_PASSWORD": PASSWORD}
        said = made.run_once()
        assert PASSWORD not in said.stdout + said.stderr
        assert not (made.home / ".one").exists()
        found, expected = rows_of(tmp_path), rows_of(adopted)
        if kind == "rest":  # a database has each id once, its old tables have one twice; it tells qc, which these lack
            assert {row.pop("qc") for row in found.values()} == {"PASS", "NOT_SET"}
            assert sum(found.pop(key)["id"] != expected.pop(key)["id"] for key in [*_twins(expected)]) == 1
            assert {row.pop("qc") for row in expected.values()} == {"NOT_SET"}
            found = {key: {**row, "qc": None} for key, row in found.items()}
            expected = {key: {**row, "qc": None} for key, row in expected.items()}
        assert found == expected
        assert eids_of(tmp_path) == eids_of(adopted)


def _twins(rows):
    """The two datasets to which the tables inside ONE-api give one id."""
    by_id = {}
    for key, row in rows.items():
        by_id.setdefault(row["id"], []).append(key)
    (keys,) = (keys for keys in by_id.values() if len(keys) > 1)
    return keys


@pytest.fixture(params=["One", "OneAlyx", "OneAlyx with tables that are served"])
def client(request, tree, adopted, tmp_path, monkeypatch):
    """A client that finds the files in the tree, and knows of them by tables with adopted ids."""
    monkeypatch.setenv("HOME", str(tmp_path))
    if request.param == "One":
        yield One(cache_dir=tree, tables_dir=adopted, mode="local")
    elif request.param == "OneAlyx":
        options = {"cache_dir": tree, "tables_dir": adopted, "mode": "local"}
        yield OneAlyx(base_url="https://alyx.invalid", silent=True, cache_rest=None, **options)
    else:
        with program(tree, adopted) as made, served(made) as site:
            fetched = tmp_path / "fetched"
            remote = connect(site, fetched, cache_dir=tree, cache_rest=None, mode="remote")
            remote.load_cache()
            assert len(site.downloads()) == 1
            remote.mode = "local"
            yield remote


def test_one_finds_by_the_ids_of_the_database_what_is_on_disk(tree, client):
    sessions, datasets = fixture_tables()
    assert {str(eid) for eid in client.search()} == {row["id"] for row in sessions}
    for row in sessions[::5]:
        assert client.eid2path(row["id"]) == tree / row["path"]
        assert str(client.path2eid(tree / row["path"])) == row["id"]
    paths = {row["id"]: row["path"] for row in sessions}
    for row in datasets[::99]:
        file = tree / paths[row["eid"]] / row["rel_path"]
        assert client.load_dataset(row["eid"], row["rel_path"], download_only=True) == file
        assert str(client.path2record(file).name[-1]) == row["id"]


# What changes, and what goes wrong, while a daemon runs.


def test_new_ids_are_taken_announced_and_found_and_a_source_that_fails_changes_nothing(small):
    with_times = session(S1, task_protocol="old protocol")
    spikes = dataset(with_times["id"], TIMES)
    write_database(small.source, [with_times], [spikes])
    small.start()
    assert eids_of(small.root)[S1] == with_times["id"]
    row = rows_of(small.root)[S1, TIMES]
    assert row["id"] == spikes["id"]
    own = rows_of(small.root)[S1, CHOICE]["id"]  # unknown there
    newer, news = session(S1, task_protocol="new protocol"), dataset("", TIMES, qc="FAIL")
    write_database(small.source, [newer, session(S2)], [{**news, "eid": newer["id"]}])
    small.wait(lambda: eids_of(small.root)[S1] == newer["id"])
    small.client.sync()
    assert rows_of(small.root)[S1, TIMES]["id"] == news["id"]
    assert rows_of(small.root)[S1, TIMES]["qc"] == "FAIL"
    changes = {change["old"]: change for change in pq.read_table(small.home / "state/id_changes.parquet").to_pylist()}
    assert changes[with_times["id"]]["new"] == newer["id"]
    assert changes[spikes["id"]]["new"] == news["id"]
    assert f"id changed old={with_times['id']} new={newer['id']}" in small.log
    assert small.run("ids", with_times["id"]).stdout.splitlines()[-1] == newer["id"]
    assert small.client.ids(spikes["id"]).new == news["id"]
    assert rows_of(small.root)[S1, CHOICE]["id"] == own
    small.run("ids", newer["id"], code=1)
    before = rows_of(small.root)

    def complaint():
        return [problem.message for problem in small.client.status().problems if problem.kind == "adopt_source"]

    (small.source / "datasets.pqt").write_bytes(b"PAR1 no more")
    small.wait(lambda: any("datasets.pqt: is damaged" in message for message in complaint()))
    shutil.rmtree(small.source)
    small.wait(lambda: any("is not there" in message for message in complaint()))
    assert "is not there" in small.client.status().adopt.last_error
    small.client.sync()
    assert rows_of(small.root) == before
    small.stop()
    small.start()
    assert rows_of(small.root) == before
    write_database(small.source, [newer, session(S2)], [])
    small.wait(lambda: not complaint())
    small.wait(lambda: rows_of(small.root)[S1, TIMES]["id"] != news["id"])
    assert eids_of(small.root)[S1] == newer["id"]


@pytest.mark.heavy
def test_a_source_that_takes_its_time_at_a_restart_changes_no_ids(small, tmp_path):
    here, later = session(S1), session(S9)
    known, answer = dataset(later["id"], TIMES), threading.Event()
    archive = pack(write_database(small.source, [here, later], [known]), tmp_path / "cache.zip")
    with web_server({"/cache.zip": archive.read_bytes()}) as web:
        small.added["ALFWATCHD_ADOPT__SOURCE"] = f"{web.address}/cache.zip"
        small.make_tables()
        web.before = lambda _: answer.wait()
        try:
            shutil.copytree(small.root / S1, small.root / S9)
            small.start()  # and flush
            assert small.client.status().adopt.read_at is None
            assert eids_of(small.root)[S1] == here["id"]
            # A folder that the database knew before it came.
            assert eids_of(small.root)[S9] == later["id"]
            assert rows_of(small.root)[S9, TIMES]["id"] == known["id"]
        finally:
            answer.set()
        small.wait(lambda: small.client.status().adopt.read_at is not None)
        assert small.client.status().adopt.n_sessions == 2
        assert "id changed" not in small.log


@pytest.mark.heavy
def test_the_first_tables_wait_for_a_source_that_takes_its_time(small, tmp_path):
    known, answer = session(S1), threading.Event()
    archive = pack(write_database(small.source, [known], [dataset(known["id"], TIMES)]), tmp_path / "cache.zip")
    with web_server({"/cache.zip": archive.read_bytes()}) as web:
        small.added["ALFWATCHD_ADOPT__SOURCE"] = f"{web.address}/cache.zip"
        web.before = lambda _: answer.wait()
        try:
            small.start(wait=False)
            small.wait(lambda: "daemon started" in small.log)
            small.wait(lambda: "the tables wait for the database" in small.client.status().detail)
            assert small.client.status().state == "starting"
            assert not (small.root / "sessions.pqt").exists()
        finally:
            answer.set()
        small.client.sync()
        assert eids_of(small.root)[S1] == known["id"]
        assert small.client.status().state == "live"
        assert "id changed" not in small.log


def test_ids_that_change_with_the_lab_setting_are_announced_and_ids_that_the_database_no_longer_has_go(small):
    flat = "s7/2020-01-01/001"
    shutil.copytree(small.root / S1, small.root / flat)
    known = session("lab/Subjects/s7/2020-01-01/001")
    other = session("other/Subjects/s7/2020-01-01/001")  # so it needs the setting to say which one is meant
    write_database(small.source, [known, other, session(S2)], [times := dataset(known["id"], TIMES)])
    small.make_tables()

    def flat_row():
        sessions, datasets = read_tables(small.root)
        (eid,) = (row["id"] for row in sessions.to_pylist() if row["subject"] == "s7")
        (own,) = (row["id"] for row in datasets.to_pylist() if (row["eid"], row["rel_path"]) == (eid, TIMES))
        return eid, own

    before = flat_row()
    small.added["ALFWATCHD_LAB"] = "lab"
    small.make_tables()
    assert flat_row() == (known["id"], times["id"])
    places = small.home / "state", small.root
    assert [find_id(*places, old).new for old in before] == [known["id"], times["id"]]
    write_database(small.source, [session(S2)], [])
    small.make_tables()
    assert flat_row() == before
    assert find_id(*places, known["id"]).new == before[0]


@pytest.mark.heavy
def test_a_hash_of_the_database_is_never_taken_for_one_that_was_computed(small):
    size = (small.root / S1 / TIMES).stat().st_size
    one = session(S1)
    wrong = dataset(one["id"], TIMES, file_size=size, hash="0" * 31 + "1")
    write_database(small.source, [one], [wrong])
    small.make_tables()
    assert rows_of(small.root)[S1, TIMES]["hash"] == wrong["hash"]
    shutil.rmtree(small.home / "state")  # with it goes what was computed
    small.added["ALFWATCHD_ADOPT__SOURCE"] = ""
    small.make_tables("--hash-files")
    row = rows_of(small.root)[S1, TIMES]
    assert row["hash"] == hashlib.md5((small.root / S1 / TIMES).read_bytes()).hexdigest()
    assert row["id"] == wrong["id"]


def test_ids_stay_where_adoption_is_switched_off_also_of_folders_without_files(small):
    for file in (path for path in (small.root / S1).rglob("*") if path.is_file()):
        file.unlink()
    empty, full = session(S1), session(S2)
    away = dataset(empty["id"], TIMES)
    write_database(small.source, [empty, full], [away, here := dataset(full["id"], TIMES)])
    small.added["ALFWATCHD_ADOPT__KEEP_MISSING"] = "true"
    small.make_tables()
    assert rows_of(small.root)[S1, TIMES]["exists"] is False
    small.added["ALFWATCHD_ADOPT__SOURCE"] = ""
    for _ in range(2):
        small.make_tables()
        assert (eids_of(small.root)[S1], eids_of(small.root)[S2]) == (empty["id"], full["id"])
        assert rows_of(small.root)[S2, TIMES]["id"] == here["id"]
        assert (S1, TIMES) not in rows_of(small.root)


def test_tables_that_make_no_sense_change_nothing_and_are_told(small):
    one = session(S1)
    write_database(small.source, [one], [dataset(one["id"], TIMES)])
    small.make_tables()
    before = rows_of(small.root)
    sessions = pq.read_table(small.source / "sessions.pqt")
    in_30000_years = pa.array([10**7], pa.int32()).cast(pa.date32())
    sessions = sessions.set_column(sessions.column_names.index("date"), "date", in_30000_years)
    pq.write_table(sessions, small.source / "sessions.pqt")
    assert "its tables make no sense" in small.run_once(code=1).stderr
    assert rows_of(small.root) == before


def test_a_size_that_makes_no_sense_counts_as_no_size(small):
    one = session(S1)
    row = dataset(one["id"], TIMES, file_size=2**64 - 1, hash="0" * 32)
    write_database(small.source, [one], [row])
    small.make_tables()
    found = rows_of(small.root)[S1, TIMES]
    assert (found["id"], found["file_size"], found["hash"]) == (
        row["id"],
        (small.root / S1 / TIMES).stat().st_size,
        None,
    )


# What is matched, and what is not.


def test_columns_come_with_the_ids_and_a_hash_only_where_the_size_agrees(small):
    size = (small.root / S1 / TIMES).stat().st_size
    content = (small.root / S1 / TIMES).read_bytes()
    digest = hashlib.md5(content).hexdigest()
    one = session(S1, task_protocol="training", projects="brainwide,maps")
    rows = [
        dataset(one["id"], TIMES, file_size=size, hash=digest, qc="PASS"),
        dataset(one["id"], CHOICE, file_size=1, hash="0" * 31 + "1", qc="CRITICAL"),
    ]
    write_database(small.source, [one], rows)
    small.make_tables("--hash-files")
    found = rows_of(small.root)
    assert [found[S1, name]["qc"] for name in (TIMES, CHOICE)] == ["PASS", "CRITICAL"]
    assert found[S1, TIMES]["hash"] == digest
    assert found[S1, CHOICE]["hash"] == hashlib.md5((small.root / S1 / CHOICE).read_bytes()).hexdigest()
    (first,) = (row for row in read_tables(small.root)[0].to_pylist() if row["id"] == one["id"])
    assert (first["task_protocol"], first["projects"]) == ("training", "brainwide,maps")


def test_files_match_also_where_one_name_has_a_uuid(small):
    one = session(S1)
    here, there = (dataset(one["id"], name) for name in ("alf/a.b.npy", "alf/c.d.npy"))
    there["rel_path"] = f"alf/c.d.{there['id']}.npy"
    write_database(small.source, [one], [here, there, dataset(one["id"], "alf/e.f.npy")])
    (small.root / S1 / f"alf/a.b.{here['id']}.npy").touch()
    (small.root / S1 / "alf/c.d.npy").touch()
    stranger = dataset(one["id"], "alf/e.f.npy")["id"]
    (small.root / S1 / f"alf/e.f.{stranger}.npy").touch()
    small.make_tables()
    found = {path: row["id"] for (folder, path), row in rows_of(small.root).items() if folder == S1}
    assert found[f"alf/a.b.{here['id']}.npy"] == here["id"]
    assert found["alf/c.d.npy"] == there["id"]
    assert found[f"alf/e.f.{stranger}.npy"] not in {row["id"] for row in (here, there)}


def test_conflicts_are_problems_and_never_a_choice(small):
    small.added["ALFWATCHD_ADOPT__SOURCE"] = ""
    small.make_tables()
    own = eids_of(small.root)
    small.added["ALFWATCHD_ADOPT__SOURCE"] = str(small.source)
    twins, other_case = [session(S1), session(S1)], session(S2.replace("lab/", "LAB/"))
    fine = session(S3)
    two = [dataset(fine["id"], TIMES), dataset(fine["id"], TIMES)]
    write_database(small.source, [*twins, other_case, fine], [dataset(row["id"], TIMES) for row in twins] + two)
    before = rows_of(small.root)
    said = small.run_once().stderr
    found = eids_of(small.root)
    assert (found[S1], found[S2], found[S3]) == (own[S1], own[S2], fine["id"])
    assert rows_of(small.root)[S1, TIMES]["id"] == before[S1, TIMES]["id"]
    assert rows_of(small.root)[S3, TIMES]["id"] not in {row["id"] for row in two}
    assert "the database has 2 sessions of this path" in said
    assert "the database has 2 datasets of this path" in said
    assert "the database spells it LAB/s2/2020-01-01/001" in said


def test_rows_of_files_that_are_elsewhere_are_kept_if_wanted_and_prune_minds_them_not(small):
    one, elsewhere = session(S1), session("lab/Subjects/s7/2020-01-01/001")
    gone = dataset(one["id"], "alf/spikes.depths.npy", file_size=77)
    away = dataset(elsewhere["id"], TIMES, file_size=78)
    write_database(small.source, [one, elsewhere], [dataset(one["id"], TIMES), gone, away])
    small.make_tables()
    n_rows = len(rows_of(small.root))
    small.added["ALFWATCHD_ADOPT__KEEP_MISSING"] = "true"
    small.start()
    found = rows_of(small.root)
    missing = {key: row for key, row in found.items() if not row["exists"]}
    assert {key: (row["id"], row["file_size"]) for key, row in missing.items()} == {
        (S1, gone["rel_path"]): (gone["id"], 77),
        ("lab/Subjects/s7/2020-01-01/001", TIMES): (away["id"], 78),
    }
    assert len(found) == n_rows + 2
    assert eids_of(small.root)["lab/Subjects/s7/2020-01-01/001"] == elsewhere["id"]
    said = small.run("prune").stdout
    assert "0 files and 0 folders" in said
    (small.root / S1 / gone["rel_path"]).write_bytes(b"x" * 77)  # it comes
    small.client.sync()
    row = rows_of(small.root)[S1, gone["rel_path"]]
    assert (row["exists"], row["id"]) == (True, gone["id"])
    (small.root / S1 / TIMES).unlink()  # and one goes
    small.client.sync()
    assert rows_of(small.root)[S1, TIMES]["exists"] is False
    client = One(cache_dir=small.root, mode="local")
    assert set(map(str, client.search(datasets="spikes.times.npy"))) == set(eids_of(small.root).values()) - {
        elsewhere["id"],
        one["id"],
    }


def test_the_manual_names_all_settings_problems_and_credentials():
    text = (Path(__file__).parents[2] / "docs/guide/adopt.md").read_text()
    assert re.findall(r"^\| `(\w+)` \| `?[^|]+`? \| ", text, re.MULTILINE)[:3] == [*Adopt.model_fields]
    code = "".join(path.read_text() for path in Path(alfwatchd.__file__).parent.rglob("*.py"))
    kinds = set(re.findall(r'"(adopt_(?!token)\w+)"', code))
    assert kinds == {"adopt_conflict", "adopt_spelling", "adopt_lab", "adopt_source", "adopt_unmatched"}
    names = {"adopt_token", "alyx_token", "alyx_username", "alyx_password"}
    assert names <= set(re.findall(r'"(\w+)"', code))
    assert kinds | names <= set(re.findall(r"`(\w+)`", text))
