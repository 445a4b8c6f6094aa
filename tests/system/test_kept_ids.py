"""Ids and what only tables hold, whatever happens in a lab: removed and restored, renamed, other labs and disks."""

import shutil
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from one.api import One

from alfwatchd.alf import ids
from alfwatchd.store.id_history import find_id
from kit.database import dataset, session, write_database
from kit.program import make_small_tree, program, read_tables, write_dataset

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")]  # in ONE itself

S1, S2, S3, S9 = (f"lab/Subjects/s{number}/2020-01-01/001" for number in (1, 2, 3, 9))
FIRST = "2020-01-01/001"
TIMES, CHOICE = "alf/spikes.times.npy", "_ibl_trials.choice.npy"
NOTED = {"task_protocol": "ephysChoiceWorld", "projects": "a,b", "qc": "FAIL"}


@pytest.fixture
def small(tmp_path):
    """A program of a small tree."""
    with program(make_small_tree(tmp_path / "data")) as made:
        made.added["ALFWATCHD_FLUSH_INTERVAL_SECONDS"] = "0.05"
        yield made


def own(path, number=1):
    """Return the eid that a path gives: the first one, the second one."""
    raw = next(eid for n, eid in enumerate(ids.session_ids(path), 1) if n == number)
    return str(uuid.UUID(bytes=raw))


def eids_of(out_dir):
    """Return subject/date/number, with the lab in front -> eid; no eid may be there twice."""
    rows = read_tables(out_dir)[0].to_pylist()
    found = {f"{row['lab']}/{row['subject']}/{row['date']}/{row['number']:03d}".lstrip("/"): row["id"] for row in rows}
    assert len({row["id"] for row in rows}) == len(rows)
    return found


def rows_of(out_dir):
    """Return all that tables hold of each dataset, by lab, subject, day and rel_path; no (eid, id) may be twice."""
    sessions, datasets = (table.to_pylist() for table in read_tables(out_dir))
    by_eid = {row.pop("id"): row for row in sessions}
    assert len({(row["eid"], row["id"]) for row in datasets}) == len(datasets)
    return {
        (row["lab"], row["subject"], f"{row['date']}/{row['number']:03d}", each["rel_path"]): {**row, **each}
        for each in datasets
        for row in [by_eid[each["eid"]]]
    }


def write_notes(out_dir: Path) -> None:
    """Replace the tables as another program would: with random ids, and all that only tables can hold."""
    sessions, datasets = (table.to_pylist() for table in read_tables(out_dir))
    eids = {row["id"]: str(uuid.uuid4()) for row in sessions}
    for row in sessions:
        row |= {"id": eids[row["id"]], "task_protocol": NOTED["task_protocol"], "projects": NOTED["projects"]}
    for row in datasets:
        row |= {"id": str(uuid.uuid4()), "eid": eids[row["eid"]], "qc": NOTED["qc"], "hash": None}
    for name, rows in (("sessions", sessions), ("datasets", datasets)):
        pq.write_table(pa.Table.from_pylist(rows), out_dir / f"{name}.pqt")


# What only earlier tables knew.


@pytest.mark.parametrize("how", ["the daemon", "a restart", "a kill", "once"])
@pytest.mark.parametrize("what", [S1, f"{S1}/{TIMES}"])
def test_what_only_tables_held_is_back_when_its_path_is(small, how, what):
    write_first(small)
    before = rows_of(small.root)
    assert {key: before["lab", "s1", FIRST, TIMES][key] for key in NOTED} == NOTED
    if how != "once":
        small.start()
    away = small.home / "away"
    shutil.move(small.root / what, away)
    settle(small, how)
    gone = before.keys() - rows_of(small.root).keys()
    assert gone
    if how == "once":  # a second run without it
        small.run_once("--accept-root")
    shutil.move(away, small.root / what)
    settle(small, how)
    assert rows_of(small.root) == before
    sessions = {row["id"]: row for row in read_tables(small.root)[0].to_pylist()}
    assert {row["task_protocol"] for row in sessions.values()} == {NOTED["task_protocol"]}


def write_first(small):
    small.run_once()
    write_notes(small.root)
    small.run_once()


def settle(small, how):
    """Let the program see what is on disk."""
    if how == "once":
        small.run_once("--accept-root")
        return
    small.client.sync()
    if how == "a restart":
        small.stop()
        small.start()
    elif how == "a kill":
        small.kill()
        small.start()
    small.client.sync()


def test_it_is_noted_before_the_tables_are_replaced(small):
    write_first(small)
    before = rows_of(small.root)
    small.break_it(
        "import atexit\n"
        "def audit(event, arguments):\n"
        "    if event == 'os.rename' and str(arguments[1]).endswith('.pqt'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "if '--once' in sys.argv or 'alfwatchd' in sys.argv[0]: sys.addaudithook(audit)\n"
    )
    shutil.move(small.root / S1, small.home / "away")
    small.run_once(code=-9)
    del small.added["PYTHONPATH"]
    shutil.rmtree(small.root / S2)
    small.run_once()
    small.run_once()
    shutil.move(small.home / "away", small.root / S1)
    small.run_once()
    gone = {key for key in before if key[1:3] == ("s2", FIRST)}
    assert rows_of(small.root) == {key: row for key, row in before.items() if key not in gone}


def test_notes_that_cannot_be_written_keep_the_tables_as_they_are(small):
    write_first(small)
    (small.home / "state/notes.jsonl").mkdir()
    before = rows_of(small.root)
    shutil.rmtree(small.root / S1)
    assert "notes.jsonl" in small.run_once(code=1).stderr
    assert rows_of(small.root) == before


def test_what_a_database_loses_has_what_earlier_tables_knew(small):
    write_first(small)
    before = rows_of(small.root)["lab", "s1", FIRST, TIMES]
    known = session(S1, task_protocol="of the database")
    small.source = small.home / "source"
    small.added["ALFWATCHD_ADOPT__SOURCE"] = str(small.source)
    small.added["ALFWATCHD_ADOPT__INTERVAL_SECONDS"] = "0.05"
    write_database(small.source, [known, session(S2)], [dataset(known["id"], TIMES, qc="PASS")])
    small.start()
    small.client.sync()
    assert rows_of(small.root)["lab", "s1", FIRST, TIMES]["task_protocol"] == "of the database"
    write_database(small.source, [session(S2)], [])
    small.wait(lambda: rows_of(small.root)["lab", "s1", FIRST, TIMES]["task_protocol"] != "of the database")
    small.client.sync()
    assert rows_of(small.root)["lab", "s1", FIRST, TIMES] == before


def test_one_finds_a_session_that_was_removed_and_restored(small):
    write_first(small)
    eid = eids_of(small.root)["lab/s1/2020-01-01/001"]
    shutil.move(small.root / S1, small.home / "away")
    small.run_once()
    shutil.move(small.home / "away", small.root / S1)
    small.run_once()
    one = One(cache_dir=small.root, mode="local")
    assert [str(each) for each in one.search(task_protocol="ephysChoice", subject="s1", number=1)] == [eid]
    assert one.load_dataset(eid, TIMES, download_only=True).is_file()


# No id twice.


@pytest.mark.parametrize("with_daemon", [False, True])
def test_the_old_path_of_a_session_that_the_database_renamed_is_another_session(small, with_daemon):
    # Alyx renames s1 to s9; the folder follows; then somebody records under the old name.
    eid = own("lab/s1/2020-01-01/001")
    small.added["ALFWATCHD_ADOPT__SOURCE"] = str(write_database(small.home / "source", [session(S9, eid)], []))
    small.run_once()
    assert eids_of(small.root)["lab/s1/2020-01-01/001"] == eid, "nobody else has it"
    if with_daemon:
        small.start()

    def settle():
        small.client.sync() if with_daemon else small.run_once()

    (small.root / "lab/Subjects/s1").rename(small.root / "lab/Subjects/s9")
    settle()
    assert eids_of(small.root)["lab/s9/2020-01-01/001"] == eid
    shutil.copytree(small.root / S2, small.root / S1)
    settle()
    found = eids_of(small.root)
    assert found["lab/s9/2020-01-01/001"] == eid
    second = found["lab/s1/2020-01-01/001"]
    assert second == own("lab/s1/2020-01-01/001", 2)
    rows_of(small.root)
    one = One(cache_dir=small.root, mode="local")
    assert one.eid2path(eid) == small.root / S9
    assert one.eid2path(second) == small.root / S1
    shutil.rmtree(small.root / S9)
    settle()
    assert eids_of(small.root)["lab/s1/2020-01-01/001"] == second, "a given id never changes back"
    if with_daemon:
        small.stop()
    small.added["ALFWATCHD_ADOPT__SOURCE"] = ""
    for _ in range(2):
        small.run_once()
        assert eids_of(small.root)["lab/s1/2020-01-01/001"] == second


@pytest.mark.parametrize("with_daemon", [False, True])
def test_an_id_that_goes_from_one_folder_to_another_is_announced_for_both(small, with_daemon):
    # The database has the id of s1 for s9, of which nothing is here until later; and that of s3 for s2.
    eid, second = own("lab/s1/2020-01-01/001"), own("lab/s1/2020-01-01/001", 2)
    small.run_once()
    small.added["ALFWATCHD_ADOPT__SOURCE"] = str(
        write_database(small.home / "source", [session(S9, eid), session(S2, own("lab/s3/2020-01-01/001"))], [])
    )
    small.run_once()
    dataset_id = rows_of(small.root)["lab", "s1", FIRST, TIMES]["id"]
    if with_daemon:
        small.start()
    shutil.copytree(small.root / S3, small.root / S9)
    small.client.sync() if with_daemon else small.run_once()
    found = eids_of(small.root)
    assert (found["lab/s9/2020-01-01/001"], found["lab/s1/2020-01-01/001"]) == (eid, second)
    changes = pq.read_table(small.home / "state/id_changes.parquet").to_pylist()
    told = {(row["old"], row["new"], row["path"]) for row in changes}
    assert (eid, second, S1) in told
    assert (dataset_id, rows_of(small.root)["lab", "s1", FIRST, TIMES]["id"], f"{S1}/{TIMES}") in told
    third = own("lab/s3/2020-01-01/001")
    assert (own("lab/s2/2020-01-01/001"), third, S2) in told
    assert (third, own("lab/s3/2020-01-01/001", 2), S3) in told
    assert (found["lab/s2/2020-01-01/001"], found["lab/s3/2020-01-01/001"]) == (third, own("lab/s3/2020-01-01/001", 2))


# Labs.


@pytest.fixture
def flat(tmp_path):
    """A program of a tree without lab folders."""
    root = tmp_path / "data"
    for subject in ("s1", "s2"):
        (root / subject / "2020-01-01/001/alf").mkdir(parents=True)
        write_dataset(root / subject / "2020-01-01/001" / TIMES, len(subject))
    with program(root, tmp_path / "out") as made:
        made.out_dir.mkdir()
        yield made


def test_servers_of_two_labs_give_different_ids(flat, tmp_path):
    found = {}
    for lab in ("labA", "labB"):
        flat.out_dir = tmp_path / lab
        flat.out_dir.mkdir()
        flat.run_once(f"--lab={lab}", f"--state-dir={tmp_path / lab}")
        found[lab] = eids_of(flat.out_dir), {row["id"] for row in rows_of(flat.out_dir).values()}
        assert found[lab][0] == {path: own(path) for path in found[lab][0]}
    assert not {*found["labA"][0].values()} & {*found["labB"][0].values()}
    assert not found["labA"][1] & found["labB"][1]


def test_ids_of_earlier_tables_stay_whatever_the_lab_is_and_are_made_again_on_request(flat):
    # Tables as they were made when the lab was no part of the ids.
    flat.run_once()
    old = eids_of(flat.out_dir)
    for name in ("sessions", "datasets"):
        table = pq.read_table(flat.out_dir / f"{name}.pqt")
        if name == "sessions":
            table = table.set_column(0, "lab", pa.array(["labA"] * len(table)))
        own_metadata = table.schema.metadata[b"alfwatchd"].replace(b'"lab": ""', b'"lab": "labA"')
        own_metadata = own_metadata.replace(b', "ids_with_lab": true', b"")
        metadata = {**table.schema.metadata, b"alfwatchd": own_metadata}
        pq.write_table(table.replace_schema_metadata(metadata), flat.out_dir / f"{name}.pqt")
    shutil.rmtree(flat.home / "state")
    for lab in ("labA", "labA", "labB", ""):
        flat.run_once(f"--lab={lab}")
        assert sorted(eids_of(flat.out_dir).values()) == sorted(old.values()), lab
    shutil.copytree(flat.root / "s1", flat.root / "s3")
    flat.run_once("--lab=labB")
    assert eids_of(flat.out_dir)["labB/s3/2020-01-01/001"] == own("labB/s3/2020-01-01/001")
    before = rows_of(flat.out_dir)
    shown = flat.run_bare("ids", "--recompute", *flat.places, "--lab=labB").stdout
    assert "4 ids changed" in shown
    new = eids_of(flat.out_dir)
    assert new == {path: own(path) for path in new}
    flat.run_once("--lab=labB")
    assert eids_of(flat.out_dir) == new
    for path, eid in old.items():
        assert find_id(flat.home / "state", flat.out_dir, eid).new == new[f"labB/{path}"]
    after = rows_of(flat.out_dir)
    for key, row in before.items():
        assert find_id(flat.home / "state", flat.out_dir, row["id"]).new == after[key]["id"]


def test_the_lab_of_a_running_daemon_changes_no_id(flat, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('lab = "labA"\n')
    flat.start(f"--config={config}")
    before = eids_of(flat.out_dir)
    config.write_text('lab = "labB"\n')
    flat.process.send_signal(1)
    flat.wait(lambda: next(iter(eids_of(flat.out_dir))).startswith("labB/"))
    flat.client.sync()
    assert sorted(eids_of(flat.out_dir).values()) == sorted(before.values())
    reply = flat.client.recompute_ids()
    assert reply.n_changes == 4
    new = eids_of(flat.out_dir)
    assert new == {path: own(path) for path in new}
    assert flat.client.ids(before["labA/s1/2020-01-01/001"]).new == new["labB/s1/2020-01-01/001"]
    assert flat.client.ids(before["labA/s1/2020-01-01/001"]).steps[-1].reason == "recomputed"
    assert "0 ids changed" in flat.run("ids", "--recompute").stdout
    flat.run("ids", code=2)
    flat.run("ids", "--recompute", before["labA/s1/2020-01-01/001"], code=2)
    flat.stop()
    flat.run_once("--lab=labB")
    assert eids_of(flat.out_dir) == new


# Renames.


@pytest.mark.parametrize("with_daemon", [False, True])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (S1, "lab/Subjects/s1/2020-01-01/007"),
        ("lab/Subjects/s1/2020-01-01", "lab/Subjects/s1/2021-02-03"),
        ("lab/Subjects/s1", "lab/Subjects/mouse-1"),
        ("lab", "otherlab"),
    ],
)
def test_a_renamed_folder_is_found_by_its_old_ids(small, with_daemon, old, new):
    small.run_once()
    if with_daemon:
        small.start()
    before = rows_of(small.root)
    (small.root / new).parent.mkdir(parents=True, exist_ok=True)
    (small.root / old).rename(small.root / new)
    small.client.sync() if with_daemon else small.run_once("--accept-root")
    after = rows_of(small.root)
    gone = before.keys() - after.keys()
    assert gone
    assert len(before) == len(after)
    find = small.client.ids if with_daemon else lambda each: find_id(small.home / "state", small.root, each)
    for key in gone:
        reply = find(before[key]["id"])
        assert [step.reason for step in reply.steps] == ["renamed"]
        (other,) = (row for row in after.values() if row["id"] == reply.new)
        assert other["rel_path"] == key[3]
        assert find(before[key]["eid"]).new == other["eid"]
        assert reply.steps[0].path.startswith(new)


@pytest.mark.parametrize("way", ["once", "daemon", "daemon, restarted"])
def test_renames_that_no_event_reported_are_recorded_when_a_person_gives_up_the_old_names(small, way):
    """All subjects are renamed while nothing runs: the rows are held, and the ids would be lost with them."""
    small.run_once()
    before = rows_of(small.root)
    (small.root / "lab").rename(small.root / "otherlab")
    if way == "once":
        small.run_once(code=1)
        small.run_once(code=1)
        small.run_once("--accept-root")
    else:
        small.start(wait=False)
        small.wait(lambda: small.state == "held")
        assert small.run("sync", code=1).stdout.startswith("held: ")
        if "restarted" in way:
            small.stop()
            small.start(wait=False)
            small.wait(lambda: small.state == "held")
        assert "sessions are gone" in small.run("rescan", code=1).stderr
        small.run("rescan", "--accept-root")
        small.stop()
    after = rows_of(small.root)
    assert len(before) == len(after)
    for row in before.values():
        reply = find_id(small.home / "state", small.root, row["id"])
        assert [step.reason for step in reply.steps] == ["renamed"]
        (other,) = (each for each in after.values() if each["id"] == reply.new)
        assert other["rel_path"] == row["rel_path"]


def test_a_folder_that_went_and_another_one_that_came_are_not_taken_for_one(small):
    small.start()
    before = eids_of(small.root)["lab/s1/2020-01-01/001"]
    shutil.rmtree(small.root / "lab/Subjects/s1")
    (small.root / S9 / "alf").mkdir(parents=True)
    write_dataset(small.root / S9 / TIMES, 1)
    write_dataset(small.root / S9 / CHOICE, 11)
    small.client.sync()
    assert small.client.ids(before).steps == []


def test_columns_that_another_program_changed_are_taken_over_whatever_metadata_say(tmp_path):
    """pyarrow keeps the metadata of a table whose columns are set, and with them what we said of them."""
    root = tmp_path / "root"
    with program(make_small_tree(root)) as made:
        made.run_once()
        path = root / "sessions.pqt"
        table = pq.read_table(path)
        column = pa.array(["ephysChoiceWorld"] * len(table))
        place = table.schema.get_field_index("task_protocol")
        changed = table.set_column(place, "task_protocol", column)
        assert b"alfwatchd" in changed.schema.metadata
        pq.write_table(changed, path)
        made.run_once()
        assert set(pq.read_table(path)["task_protocol"].to_pylist()) == {"ephysChoiceWorld"}
