"""Where `remove_missing_datasets` differs from ONE-api's on purpose; docs/reference/upstream.md explains each name."""

import datetime
import os
import re
import stat
import subprocess
import sys

import one.alf.cache
import one.alf.path
import pandas as pd
import pytest
from one.alf.cache import load_tables

import alfwatchd
from alfwatchd.errors import Locked, PruneRefused, RootOffline
from alfwatchd.service.locks import hold_out_dir
from kit.upstream import OURS, S1, S2, SPIKES, THEIRS, files, folder_of_nobody, tables, write

pytestmark = pytest.mark.usefixtures("no_readers")

differs = pytest.mark.differs


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@differs("tables with UUIDs")
def test_listed_datasets_stay(root):
    write(root, f"{S1}/a.b.c", f"{S2}/{SPIKES}")
    THEIRS.make(root)
    assert OURS.remove(root) == []
    assert OURS.remove(root, load_tables(root)) == []
    assert THEIRS.remove(root) == [root / S1 / "a.b.c"]
    OURS.make(root)
    assert OURS.remove(root, dry=False) == []
    assert (root / S1 / "a.b.c").exists()


@differs("tables with rows by number")
def test_paths_are_compared_whole(root):
    write(root, f"{S1}/long_foo.bar.npy")
    THEIRS.make(root, hash_ids=False)
    frames = dict(zip(("sessions", "datasets"), tables(root), strict=False))
    write(root, f"{S1}/foo.bar.npy")
    assert OURS.remove(root, frames) == [root / S1 / "foo.bar.npy"]
    assert THEIRS.remove(root, frames) == []  # a part of the other's name


@differs("datasets in collections")
def test_unlisted_datasets_are_found_at_any_depth(root):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    deep = [f"{S1}/alf/probe00/a.b.c", f"{S1}/alf/#2020-01-01#/spikes.times.npy", f"{S1}/.hidden/a.b.c"]
    write(root, *deep)
    assert OURS.remove(root, dry=False) == sorted(root / path for path in deep)
    assert not any((root / path).exists() for path in deep)
    assert (root / S1 / "alf/probe00").is_dir()  # a session that is in the tables keeps its folders
    write(root, *deep)
    assert [path for path in THEIRS.remove(root) if "alf" in path.parts] == []


@differs("files that are no datasets")
def test_files_that_are_no_datasets_stay(root):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    others = [f"{S1}/.secret.notes.txt", f"{S1}/my thesis.v2.docx", f"{S1}/alf/._spikes.times.npy", f"{S2}/a+b.c.d"]
    write(root, *others)
    would = set(THEIRS.remove(root))
    assert OURS.remove(root, dry=False) == []
    assert all((root / path).exists() for path in others)
    assert root / others[0] in would


@differs("folders that hold something")
def test_only_what_goes_is_returned(root):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    holding, empty = "lab/Subjects/s/2020-01-03/001", "lab/Subjects/t/2020-01-03/001"
    write(root, f"{holding}/notes", f"{empty}/alf/probe00/")
    assert OURS.remove(root) == OURS.remove(root, dry=False) == [root / path for path in (
        "lab/Subjects/t", "lab/Subjects/t/2020-01-03", empty)]  # fmt: skip
    assert (root / holding / "notes").exists()
    assert not (root / "lab/Subjects/t").exists()
    write(root, f"{empty}/alf/probe00/")
    assert THEIRS.remove(root, dry=False) == [root / holding, root / empty]
    assert (root / empty).exists()  # an empty folder in it is enough


@differs("folders that hold something")
def test_folders_left_empty_go_up_to_the_first_below_the_root(root):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    for top in ("other/Subjects/s", "t"):
        write(root, f"{top}/2020-01-03/001/{SPIKES}", f"{top}/2020-01-04/")
        removed = OURS.remove(root, dry=False)
        assert removed == [root / top / path for path in ("2020-01-03", "2020-01-03/001", f"2020-01-03/001/{SPIKES}")]
        assert (root / top / "2020-01-04").is_dir()  # it was no session's
        (root / top / "2020-01-04").rmdir()
        write(root, f"{top}/2020-01-03/001/{SPIKES}")
        OURS.remove(root, dry=False)
        assert (root / top.split("/")[0]).is_dir()
        assert not (root / top).exists() or top == "t"


@differs("folders above the root")
def test_nothing_goes_above_the_root(tmp_path):
    for side in (OURS, THEIRS):
        root = tmp_path / side.name / S1
        write(tmp_path / side.name, f"{S1}/", "keep/")
        frames = {"sessions": one.alf.cache.EMPTY_SESSIONS_FRAME, "datasets": one.alf.cache.EMPTY_DATASETS_FRAME}
        side.remove(root, frames, dry=False)
    assert files(tmp_path / "alfwatchd") == {"keep", *("/".join(S1.split("/")[:end]) for end in range(1, 6))}
    assert files(tmp_path / "one") == {"keep"}


@differs("numbers without zeros")
@pytest.mark.parametrize("number", ["1", "01"])
def test_sessions_with_unpadded_numbers_are_found_in_the_tables(root, number):
    write(root, f"s/2020-01-01/{number}/a.b.c", f"s/2020-01-01/{number}/alf/a.b.c")
    for side in (OURS, THEIRS):
        side.make(root)
        assert OURS.remove(root) == []
        assert THEIRS.remove(root, remove_empty_sessions=False) == [root / f"s/2020-01-01/{number}/a.b.c"]


@differs("lab")
@pytest.mark.parametrize("hash_ids", [False, True])
def test_sessions_in_no_lab_folder_are_found_in_tables_with_a_lab(root, hash_ids):
    write(root, "s/2020-01-01/001/a.b.c", "s/2020-01-01/001/alf/a.b.c", "s/2020-01-02/001/")
    for side in (OURS, THEIRS):
        if hash_ids and side is THEIRS:
            continue  # it would stumble over the empty session
        side.make(root, hash_ids=hash_ids, lab="mylab")
        write(root, "s/2020-01-01/001/x.y.z")
        assert OURS.remove(root, dry=False) == [root / "s/2020-01-01/001/x.y.z"]
        assert root / "s/2020-01-01/001/a.b.c" in THEIRS.remove(root)
    write(root, "other/Subjects/s/2020-01-01/001/a.b.c")
    assert OURS.remove(root) == []  # nobody knows whether this is another session


@differs("links")
def test_nothing_goes_through_a_link(root):
    precious = root.parent / "precious"
    write(precious, "session/a.b.c", "collection/a.b.c", "file.b.c")
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    (root / S2).parent.mkdir()
    (root / S2).symlink_to(precious / "session")
    (root / S1 / "linked").symlink_to(precious / "collection")
    (root / S1 / "link.b.c").symlink_to(precious / "file.b.c")
    (root / "t").symlink_to(precious)
    before = files(root)
    would = THEIRS.remove(root)
    assert OURS.remove(root, dry=False) == []
    assert files(root) == before
    assert files(precious) == {"session", "collection", "session/a.b.c", "collection/a.b.c", "file.b.c"}
    assert root / S2 / "a.b.c" in would


@differs("links")
@pytest.mark.parametrize("kind", ["dangling", "fifo"])
def test_what_is_neither_file_nor_folder_is_left_alone(root, kind):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    write(root, f"{S2}/a.b.c")
    if kind == "fifo":
        os.mkfifo(root / S2 / "odd.b.c")
    else:
        (root / S2 / "odd.b.c").symlink_to("nowhere")
    assert OURS.remove(root, dry=False) == [root / S2 / "a.b.c"]
    assert (root / S2 / "odd.b.c").is_symlink() or stat.S_ISFIFO((root / S2 / "odd.b.c").stat().st_mode)
    with pytest.raises(NotADirectoryError):
        THEIRS.remove(root, dry=False)


@differs("no tables")
def test_without_tables_nothing_is_removed(root):
    write(root, f"{S1}/a.b.c")
    for found in ({}, {"sessions": pd.DataFrame()}):
        with pytest.raises(PruneRefused, match="the given tables lack datasets"):
            OURS.remove(root, found)
    with pytest.raises(PruneRefused, match=f"{re.escape(str(root))}: no reference tables here"):
        OURS.remove(root)
    with pytest.raises(PruneRefused, match=r"the given tables .* lists no dataset"):
        OURS.remove(root, load_tables(root), dry=False)
    (root / "sessions.pqt").write_bytes(b"PAR1")
    (root / "datasets.pqt").write_bytes(b"PAR1")
    with pytest.raises(PruneRefused, match=r"sessions\.pqt: not a readable Parquet file"):
        OURS.remove(root)
    for name in ("sessions", "datasets"):
        (root / f"{name}.pqt").unlink()
    assert THEIRS.remove(root) == [root / S1, root / S1 / "a.b.c"]


@differs("tables of another folder")
def test_tables_of_another_folder_remove_nothing(root):
    other = root.parent / "other"
    write(root, *(f"s/2020-01-{day:02d}/001/a.b.c" for day in range(1, 13)))
    write(other, "t/2020-02-01/001/a.b.c")
    OURS.make(root)
    OURS.make(other)
    before = files(root)
    with pytest.raises(PruneRefused, match="has none of the 12 sessions here"):
        OURS.remove(root, load_tables(other), dry=False)
    assert files(root) == before
    assert len(THEIRS.remove(root, load_tables(other))) == 24


@differs("newer files")
def test_what_is_newer_than_the_tables_stays(root):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    write(root, f"{S1}/a.b.c", f"{S2}/a.b.c")
    ours = alfwatchd.remove_missing_datasets
    assert ours(root) == ours(root, load_tables(root), dry=False) == []
    assert root / S1 / "a.b.c" in THEIRS.remove(root)
    removed = [root / S1 / "a.b.c", root / "lab/Subjects/s/2020-01-02", root / S2, root / S2 / "a.b.c"]
    assert ours(root, newer=True) == ours(root, dry=False, newer=True) == removed


@differs("newer files")
def test_tables_of_unknown_age_remove_nothing(root):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    frames = load_tables(root)
    write(root, f"{S1}/a.b.c")
    for name in ("sessions", "datasets"):
        (root / f"{name}.pqt").unlink()
    ours = alfwatchd.remove_missing_datasets
    assert ours(root, frames) == [root / S1 / "a.b.c"]  # a list is no harm
    with pytest.raises(PruneRefused, match="nothing tells how old the given ones are"):
        ours(root, frames, dry=False)
    assert (root / S1 / "a.b.c").exists()
    assert ours(root, frames, dry=False, newer=True) == [root / S1 / "a.b.c"]


@differs("while a daemon runs")
def test_nothing_is_removed_while_a_daemon_keeps_the_tables(root):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    write(root, f"{S1}/a.b.c")
    with hold_out_dir(root, is_daemon=True):
        assert OURS.remove(root) == [root / S1 / "a.b.c"]
        with pytest.raises(Locked, match=f"process {os.getpid()} keeps the tables"):
            OURS.remove(root, dry=False)
        assert (root / S1 / "a.b.c").exists()
    assert OURS.remove(root, dry=False) == [root / S1 / "a.b.c"]


@differs("near misses")
def test_what_is_nearly_listed_stays(root):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    own_id = str(load_tables(root)["datasets"].index.get_level_values("id")[0])
    named = SPIKES.replace("npy", f"{own_id}.npy")
    (root / S1 / SPIKES).rename(root / S1 / named)
    write(
        root,
        f"{S1.replace('/s/', '/S/')}/{SPIKES}",
        f"{S1.replace('lab', 'other')}/{SPIKES}",
        f"{S1}/alf/Spikes.times.npy",
    )
    assert OURS.remove(root, dry=False) == []
    assert len(THEIRS.remove(root, remove_empty_sessions=True)) >= 2


@differs("no tables")
def test_a_root_that_is_not_there(root):
    with pytest.raises(RootOffline, match="the folder does not exist; check its path, or mount it"):
        OURS.remove(root / "missing")
    assert THEIRS.remove(root / "missing") == []


BROKEN = {
    "sessions of another run": lambda sessions, datasets: (sessions.iloc[1:], datasets),
    "no subject": lambda sessions, datasets: (sessions.assign(subject=None), datasets),
    "no date": lambda sessions, datasets: (sessions.assign(date="yesterday"), datasets),
    "dates and words": lambda sessions, datasets: (
        sessions.assign(date=[datetime.date(2020, 1, 1), "yesterday"]),
        datasets,
    ),
    "no number": lambda sessions, datasets: (sessions.assign(number=float("nan")), datasets),
    "a column less": lambda sessions, datasets: (sessions.drop(columns="number"), datasets),
    "no paths": lambda sessions, datasets: (sessions, datasets.drop(columns="rel_path")),
    "no eids": lambda sessions, datasets: (sessions, datasets.reset_index("eid", drop=True)),
}


@differs("tables that make no sense")
@pytest.mark.parametrize("break_it", BROKEN.values(), ids=BROKEN)
def test_rows_that_make_no_sense_do_not_stand_for_nothing(root, break_it):
    write(root, f"{S1}/a.b.c", f"{S2}/a.b.c")
    OURS.make(root)
    found = load_tables(root)
    sessions, datasets = break_it(found["sessions"], found["datasets"])
    with pytest.raises(PruneRefused):
        OURS.remove(root, {"sessions": sessions, "datasets": datasets}, dry=False)
    assert (root / S1 / "a.b.c").exists()
    assert (root / S2 / "a.b.c").exists()


SHAPES = {
    "text dates": lambda sessions, datasets: (sessions.assign(date=sessions["date"].map(str)), datasets),
    "time stamps": lambda sessions, datasets: (sessions.assign(date=pd.to_datetime(sessions["date"])), datasets),
    "floats": lambda sessions, datasets: (sessions.assign(number=sessions["number"].astype(float)), datasets),
    "categories": lambda sessions, datasets: (
        sessions.astype({"subject": "category"}),
        datasets.astype({"rel_path": "category"}),
    ),
    "index as columns": lambda sessions, datasets: (sessions.reset_index(), datasets.reset_index()),
    "filtered rows": lambda sessions, datasets: (
        sessions.reset_index().iloc[[1, 0]],
        datasets.reset_index().sort_values("rel_path"),
    ),
    "text ids": lambda sessions, datasets: (
        sessions.set_index(sessions.index.map(str).rename("id")),
        datasets.reset_index().astype({"eid": str, "id": str}),
    ),
    "lab is missing": lambda sessions, datasets: (sessions.assign(lab=None), datasets),
    "rows without a path": lambda sessions, datasets: (
        sessions,
        pd.concat([datasets, datasets.iloc[:1].assign(rel_path=None)]),
    ),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tables_of_all_shapes(root, shape):
    write(root, "s/2020-01-01/001/a.b.c", "t/2020-01-02/001/alf/a.b.c")
    OURS.make(root)
    found = load_tables(root)
    sessions, datasets = shape(found["sessions"], found["datasets"])
    write(root, "s/2020-01-01/001/x.y.z")
    removed = OURS.remove(root, {"sessions": sessions, "datasets": datasets}, dry=False)
    assert removed == [root / "s/2020-01-01/001/x.y.z"]


@differs("types")
def test_what_is_returned_are_plain_paths(root):
    write(root, f"{S1}/{SPIKES}")
    OURS.make(root)
    write(root, f"{S1}/a.b.c")
    (ours,), (theirs, *_) = OURS.remove(root), THEIRS.remove(root)
    assert ours == theirs == root / S1 / "a.b.c"
    assert (type(ours), type(theirs)) == (type(root), one.alf.path.PosixALFPath)


@differs("chance")
def test_what_goes_does_not_depend_on_the_hash_seed(root):
    program = (
        "import sys, alfwatchd; from one.alf.cache import load_tables\n"
        "tables = load_tables(sys.argv[1])\n"
        "for path in alfwatchd.remove_missing_datasets(sys.argv[1], tables, dry=False, newer=True): print(path)"
    )
    seen = set()
    for seed in ("0", "2", "5"):
        write(root, "keep/2020-01-01/001/a.b.c")
        OURS.make(root)
        write(root, *(f"s{n}/2020-01-01/001/{name}.b.c" for n in range(4) for name in "abc"))
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", program, root], env=environ, capture_output=True, text=True, check=True
        )
        seen.add((done.stdout, frozenset(files(root))))
    ((printed, left),) = seen
    assert len(printed.splitlines()) == 4 * (3 + 2)
    assert left == {
        "keep",
        "keep/2020-01-01",
        "keep/2020-01-01/001",
        "keep/2020-01-01/001/a.b.c",
        "s0",
        "s1",
        "s2",
        "s3",
    }


@differs("what cannot be read")
def test_nothing_is_removed_where_a_part_cannot_be_read():
    with folder_of_nobody() as nobody:
        with nobody.become():
            write(nobody.root, f"{S1}/{SPIKES}")
            OURS.make(nobody.root)
            write(nobody.root, f"{S1}/x.y.z", f"{S2}/{SPIKES}")
        os.chown(nobody.root / S2 / "alf", 0, 0)
        (nobody.root / S2 / "alf").chmod(0)
        with nobody.become():
            with pytest.raises(PruneRefused, match=f"{S2}/alf: cannot be read, so nothing is removed"):
                OURS.remove(nobody.root)
            assert nobody.root / S1 / "x.y.z" in THEIRS.remove(nobody.root)
