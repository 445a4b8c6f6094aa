"""Tables that ONE itself made are taken over, by a whole run, and stay what they are in the next."""

import hashlib
import shutil
from pathlib import Path

import one
import pyarrow.parquet as pq
import pytest
from iblutil.io import parquet
from one.alf.cache import load_tables, make_parquet_db

from alfwatchd.errors import RootOffline
from alfwatchd.service.once import run_once
from alfwatchd.settings import Settings
from kit.trees import fast_folder, write

S1, S2, T1 = "lab/Subjects/s/2020-01-01/001", "lab/Subjects/s/2020-01-01/002", "t/2020-01-02/3"
FILES = [f"{S1}/alf/a.b.c", f"{S1}/alf/d.e.f", f"{S2}/alf/a.b.c", f"{T1}/x.y.z"]


@pytest.fixture
def top():
    with fast_folder() as folder:
        write(folder / "root", *FILES)
        yield folder


def run(top, *, accept_root=False, **more):
    root = top / "root"
    places = {"root": root, "out_dir": root, "state_dir": top / "state", "socket": top / "socket"}
    return run_once(Settings(**places, **more), accept_root=accept_root)


def load(top, *, by_path=True):
    """Return the frames as One has them; by session path and rel_path rather than by id."""
    cache = load_tables(top / "root")
    sessions, datasets = cache.sessions.reset_index(), cache.datasets.reset_index()
    sessions["path"] = sessions[["subject", "date", "number"]].astype(str).agg("/".join, axis=1)
    datasets = datasets.merge(sessions[["id", "path"]].rename(columns={"id": "eid"}), on="eid")
    return sessions.set_index("path").sort_index(), datasets.set_index(["path", "rel_path"]).sort_index()


def rewrite(top, name, change):
    """Change a table as One.save_cache would."""
    frame, metadata = parquet.load(top / "root" / f"{name}.pqt")
    frame = frame.copy()
    change(frame)
    parquet.save(top / "root" / f"{name}.pqt", frame, metadata)


def test_random_ids_are_kept(top):
    make_parquet_db(top / "root")
    before, before_datasets = load(top)
    for _ in range(2):
        summary = run(top)
        after, after_datasets = load(top)
        assert list(after["id"]) == list(before["id"])
        assert list(after_datasets["eid"]) == list(before_datasets["eid"])
        # ONE gives datasets of the same rel_path the same id: those are made anew, and are unique then.
        kept = after_datasets["id"] == before_datasets["id"]
        assert list(kept) == [False, True, False, True]
        assert after_datasets["id"].is_unique
    assert (summary.added, summary.changed, summary.removed) == (0, 0, 0)
    write(top / "root", f"{S1}/alf/new.b.c")
    run(top)
    assert load(top)[1].loc[("s/2020-01-01/1", "alf/new.b.c"), "eid"] == before.loc["s/2020-01-01/1", "id"]


def test_ids_that_are_paths_are_replaced(top):
    make_parquet_db(top / "root", hash_ids=False)
    run(top)
    first, first_datasets = load(top)
    assert all(len(str(each)) == 36 for each in [*first["id"], *first_datasets["id"]])
    shutil.rmtree(top / "state")
    for name in ("sessions.pqt", "datasets.pqt"):
        (top / "root" / name).unlink()
    run(top)
    second, second_datasets = load(top)
    assert list(first["id"]) == list(second["id"])
    assert list(first_datasets["id"]) == list(second_datasets["id"])


def test_columns_that_people_filled_are_kept(top):
    make_parquet_db(top / "root")

    def fill_sessions(frame):
        frame.loc[frame["number"] == 2, ["task_protocol", "projects"]] = ["_iblrig_task", "one,two"]

    def fill_datasets(frame):
        frame.loc[frame["rel_path"] == "alf/d.e.f", "qc"] = "FAIL"

    rewrite(top, "sessions", fill_sessions)
    rewrite(top, "datasets", fill_datasets)
    for _ in range(2):
        run(top)
        sessions, datasets = load(top)
        assert list(sessions["task_protocol"]) == ["", "_iblrig_task", ""]
        assert list(sessions["projects"]) == ["", "one,two", ""]
        assert list(datasets["qc"]) == ["NOT_SET", "FAIL", "NOT_SET", "NOT_SET"]
    (top / "root" / S1 / "alf/d.e.f").write_text("changed")
    run(top)
    assert list(load(top)[1]["qc"]) == ["NOT_SET", "FAIL", "NOT_SET", "NOT_SET"]


def test_digests_of_earlier_tables_are_made_again(top):
    """Nothing in a table proves of which file its hash is: folders may have changed places since."""
    make_parquet_db(top / "root")

    def fill(frame):
        frame["hash"] = hashlib.md5(b"of another file").hexdigest()

    rewrite(top, "datasets", fill)
    run(top, hash_files=True)
    found = load(top)[1]["hash"]
    for key, path in {
        ("s/2020-01-01/1", "alf/a.b.c"): f"{S1}/alf/a.b.c",
        ("t/2020-01-02/3", "x.y.z"): f"{T1}/x.y.z",
    }.items():
        assert found[key] == hashlib.md5((top / "root" / path).read_bytes()).hexdigest()


def test_a_lab_setting_that_comes_and_goes_changes_no_id(top):
    make_parquet_db(top / "root")
    first, first_datasets = load(top)
    for lab in ("lab", "", "lab"):
        run(top, lab=lab)
        sessions, datasets = load(top)
        assert list(sessions["lab"]) == ["lab", "lab", lab]
        assert list(sessions["id"]) == list(first["id"])
        assert (datasets["id"] == first_datasets["id"]).sum() == 2


def test_tables_of_an_old_one_are_no_obstacle(top):
    """The tables of 2021 that ship with ONE: ids as pairs of numbers, file sizes as floats, no qc."""
    fixtures = Path(one.__file__).parent / "tests/fixtures"
    for name in ("sessions.pqt", "datasets.pqt"):
        shutil.copy(fixtures / name, top / "root" / name)
    real = pq.read_table(fixtures / "sessions.pqt").to_pylist()[0]
    path = f"{real['lab']}/Subjects/{real['subject']}/{real['date']}/{real['number']:03d}"
    write(top / "root", f"{path}/alf/a.b.c")
    with pytest.raises(RootOffline, match="only 1 of 26 known sessions"):  # they are of another tree
        run(top)
    assert run(top, accept_root=True).n_sessions == 4
    sessions, _ = load(top)
    row = sessions.loc[f"{real['subject']}/{real['date']}/{real['number']}"]
    assert (row["task_protocol"], row["projects"]) == (real["task_protocol"], real["project"])
    assert (sessions["projects"] == "").sum() == 3
