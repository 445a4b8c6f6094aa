"""ONE-api's `make_parquet_db` and `remove_missing_datasets` beside ours: plain trees give the same.

Where ours differs on purpose, a test in the modules beside this one is marked with `differs("...")`, the name of the
difference in docs/reference/upstream.md, and states what each of the two does.
"""

import datetime
import re
import tempfile
import uuid
import warnings
from pathlib import Path

import one.alf.cache
import pandas as pd
import pytest
from one.alf.cache import QC_TYPE, load_tables
from pandas.testing import assert_frame_equal

from kit.upstream import OURS, S1, S2, SPIKES, THEIRS, by_path, files, make, open_one, plant, tables, write

pytestmark = pytest.mark.usefixtures("no_readers")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


# Where both do the same.

PLAIN = {
    "one session": [f"{S1}/{SPIKES}"],
    "without lab folders": ["s/2020-01-01/001/alf/a.b.npy", "s/2020-01-01/002/a.b.npy", "t/2019-12-31/010/alf/a.b.npy"],
    "two labs and none": [f"{S1}/{SPIKES}", f"other{S1}/{SPIKES}", "s/2020-01-01/001/a.b.npy"],
    "revisions": [f"{S1}/alf/{revision}a.b.npy" for revision in ("", "#2020-01-01#/", "#x#/")] + [f"{S1}/#r#/a.b.npy"],
    "order of components": [
        f"{subject}/2020-01-01/001/{folder}/a.b.npy"
        for subject in ("s1", "s1-a", "s.1", "S1", "s1_", "é")
        for folder in ("alf", "alf-x", "alf.x", "alf/x", "ALF", "alf_x", "alf/#1#", "ünïcode")
    ],
    "numbers": [f"s/2020-01-0{n + 1}/{name}/a.b.c" for n, name in enumerate(["1", "01", "001", "999", "0", "000"])],
    "dates": [f"s/{date}/001/a.b.c" for date in ("0001-01-01", "1900-02-28", "2020-02-29", "9999-12-31")],
    "names": [
        f"{S1}/{name}"
        for name in (
            "_ibl_a.b.c", "__x.b.c", "_.b.c", "a.b_times.c", "a.b_x.c", "a._ibl_b.c", "a.b.raw.ephys.c",
            f"a.b.{uuid.UUID(int=1)}.c", ".hidden/a.b.c", "raw.zarr/0.0.0", "a.b.c",
        )
    ],
    "what is no dataset": [f"{S1}/{SPIKES}", f"{S1}/README", f"{S1}/a.b", f"{S1}/x.zarr/", "notes.x.txt", "lab/x.y.z"],
    "a link to a file": [f"{S1}/{SPIKES}", f"{S1}/alf/link.times.npy -> spikes.times.npy"],
    "a link to a session": [f"{S1}/{SPIKES}", f"elsewhere/{SPIKES}", f"{S2} -> ../../../../elsewhere"],
    "links to other folders": [
        f"{S1}/{SPIKES}", f"elsewhere/{SPIKES}", f"{S1}/linked -> ../../../../../elsewhere", "t -> lab/Subjects/s",
        f"{S1}/loop -> .",
    ],
    "an empty session": [f"{S1}/{SPIKES}", f"{S2}/"],
    "only empty sessions": [f"{S1}/", f"{S2}/alf/"],
    "nothing": [],
}  # fmt: skip


@pytest.mark.parametrize("paths", PLAIN.values(), ids=PLAIN)
def test_tables_with_paths_as_ids_are_equal(root, paths):
    plant(root, paths)
    (sessions, datasets, metadata), (their_sessions, their_datasets, their_metadata) = (
        tables(make(side, root, hash_ids=False)) for side in (OURS, THEIRS)
    )
    assert (metadata.keys(), metadata["origin"]) == (their_metadata.keys(), their_metadata["origin"])
    assert list(sessions.columns) == ["id", "lab", "subject", "date", "number", "task_protocol", "projects"]
    assert isinstance(sessions.index, pd.RangeIndex)
    if their_datasets.empty:
        assert (len(datasets), list(datasets.columns)) == (0, list(their_datasets.columns.drop("qc")))
    else:
        assert set(datasets["hash"]) == {None}
        assert set(their_datasets["hash"]) == {""}
        assert_frame_equal(datasets.drop(columns="hash"), their_datasets.drop(columns="hash"))
        assert list(datasets.columns) == list(their_datasets.columns)
    assert_frame_equal(sessions, their_sessions, check_dtype=bool(paths))  # their empty columns have no type


@pytest.mark.parametrize("paths", [paths for name, paths in PLAIN.items() if "empty" not in name and paths])
def test_tables_with_uuids_say_the_same(root, paths):
    plant(root, paths)
    ours, theirs = (make(side, root) for side in (OURS, THEIRS))
    assert by_path(ours) == by_path(theirs)
    (sessions, datasets, metadata), (their_sessions, their_datasets, their_metadata) = map(tables, (ours, theirs))
    assert (metadata.keys(), metadata["origin"]) == (their_metadata.keys(), their_metadata["origin"])
    assert list(datasets.columns) == [*their_datasets.columns, "default_revision"]
    for mine, other in ((sessions, their_sessions), (datasets[their_datasets.columns], their_datasets)):
        assert mine.index.names == other.index.names
        assert mine.index.is_monotonic_increasing
        types, their_types = (frame.dtypes.drop("hash", errors="ignore") for frame in (mine, other))
        assert types.to_dict() == their_types.to_dict()
    assert datasets["qc"].dtype == QC_TYPE


@pytest.mark.parametrize("hash_ids", [False, True])
def test_hashes_are_equal(root, hash_ids):
    write(root, f"{S1}/{SPIKES}", f"{S1}/a.b.c", f"{S2}/{SPIKES}")
    (root / f"{S1}/empty.b.c").write_bytes(b"")
    hashes = [
        tables(make(side, root, hash_ids=hash_ids, hash_files=True))[1].set_index("rel_path", append=True)["hash"]
        for side in (OURS, THEIRS)
    ]
    ours, theirs = (sorted((index[-1], value) for index, value in each.items()) for each in hashes)
    assert ours == theirs
    assert dict(ours)["empty.b.c"] == "d41d8cd98f00b204e9800998ecf8427e"  # pragma: allowlist secret


@pytest.mark.parametrize("lab", ["mylab", "Labor_1"])
@pytest.mark.parametrize("hash_ids", [False, True])
def test_lab_of_a_tree_without_lab_folders(root, lab, hash_ids):
    write(root, "s/2020-01-01/001/a.b.c", "t/2020-01-01/001/a.b.c")
    ours, theirs = (tables(make(side, root, hash_ids=hash_ids, lab=lab)) for side in (OURS, THEIRS))
    assert set(ours[0]["lab"]) == set(theirs[0]["lab"]) == {lab}
    if not hash_ids:
        assert_frame_equal(ours[0], theirs[0])  # ids are made without it
        assert list(ours[1]["eid"]) == list(theirs[1]["eid"])


def index(root):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        THEIRS.make(root, hash_ids=False)


def check_remove(root, side, kind, capsys):
    """Go through what upstream's own test of the function does, and some more."""
    write(root, f"{S1}/{SPIKES}", f"{S1}/a.b.c", f"{S2}/trials.intervals.npy", f"{S2}/.invalid", "x/2021-01-30/001/")
    index(root)
    given = {"tables": load_tables(root)} if kind == "load_tables" else {}
    if kind == "rows by number":
        given = {"tables": dict(zip(("sessions", "datasets"), tables(root)[:2], strict=True))}
    empty, missing, ghost = "lab/Subjects/s/2020-01-03/001/", f"{S1}/foo.bar.npy", "x/2021-01-30/001/foo.bar.npy"
    write(root, empty, missing, ghost)
    before = files(root)

    found = side.remove(root, **given, remove_empty_sessions=False)
    assert found == sorted(root / path for path in (missing, ghost))
    lines = "\n\t".join(sorted(map(str, found)))
    assert capsys.readouterr().out == f"The following session and datasets would be removed:\n\t{lines}\n"
    assert root / empty in side.remove(root, **given)
    assert files(root) == before

    removed = side.remove(root, dry=False, **given)
    assert set(removed) >= {root / missing, root / ghost, root / empty}
    assert removed == sorted(removed)
    assert root / "x/2021-01-30/001" not in removed  # it is in the sessions table
    assert before - files(root) == {missing, ghost, empty.rstrip("/"), "lab/Subjects/s/2020-01-03"}
    assert side.remove(root, dry=False, **given) == []


def test_remove_by_tables_with_rows_by_number(root, capsys):
    check_remove(root, OURS, "rows by number", capsys)


@pytest.mark.parametrize("side", [OURS, THEIRS], ids=["ours", "theirs"])
class TestOfEither:
    """What a replacement must do too; our own words for what upstream's test module asks of these functions."""

    def test_results_lie_in_the_root(self, root, side):
        write(root, f"{S1}/{SPIKES}")
        assert side.make(root) == (root / "sessions.pqt", root / "datasets.pqt")
        assert by_path(root).keys() == {"lab/s/2020-01-01/001"}

    def test_paths_may_be_relative_or_text(self, root, side, monkeypatch):
        write(root, f"{S1}/{SPIKES}")
        (root.parent / "out").mkdir()
        monkeypatch.chdir(root.parent)
        assert side.make("root") == (root / "sessions.pqt", root / "datasets.pqt")
        assert side.make("root", "out") == (Path("out/sessions.pqt"), Path("out/datasets.pqt"))
        assert side.make(Path("root"), "") == (root / "sessions.pqt", root / "datasets.pqt")
        monkeypatch.chdir(root)
        assert side.make(".") == (root / "sessions.pqt", root / "datasets.pqt")

    def test_a_linked_root_is_resolved(self, root, side):
        write(root, f"{S1}/{SPIKES}")
        link = root.parent / "link"
        link.symlink_to(root)
        before = one.alf.cache._metadata(root)
        assert side.make(link, hash_ids=False) == (root / "sessions.pqt", root / "datasets.pqt")
        assert tables(root)[2] in (before, one.alf.cache._metadata(root))  # to the minute

    def test_rows_of_a_session(self, root, side):
        write(root, f"{S1}/{SPIKES}", f"{S1}/alf/spikes.clusters.npy", f"{S2}/trials.intervals.npy", f"{S2}/.invalid")
        sessions, datasets, _ = tables(make(side, root, hash_ids=False))
        assert sessions.loc[0].to_dict() == {
            "id": "lab/s/2020-01-01/001", "lab": "lab", "subject": "s", "date": datetime.date(2020, 1, 1), "number": 1,
            "task_protocol": "", "projects": "",
        }  # fmt: skip
        assert list(datasets["rel_path"]) == ["alf/spikes.clusters.npy", SPIKES, "trials.intervals.npy"]
        assert datasets.loc[1, "file_size"] == (root / S1 / SPIKES).stat().st_size

    def test_index_of_uuids(self, root, side):
        write(root, f"{S1}/{SPIKES}")
        sessions, datasets, _ = tables(make(side, root))
        assert (sessions.index.name, list(datasets.index.names)) == ("id", ["eid", "id"])
        assert uuid.UUID(datasets.index[0][1]).version == 3
        assert datasets.index[0][0] == sessions.index[0]

    @pytest.mark.parametrize(("paths", "what"), [([], "sessions"), ([f"{S1}/"], "datasets")])
    def test_a_warning_if_nothing_is_found(self, root, side, paths, what):
        plant(root, paths)
        with pytest.warns(RuntimeWarning, match=f"^No {what} found") as caught:
            side.make(root, hash_ids=False)
        assert caught[0].filename == __file__ or side is THEIRS
        sessions, datasets, _ = tables(root)
        assert (len(sessions), len(datasets)) == (len(paths), 0)

    @pytest.mark.parametrize("name", ["missing", "file"])
    def test_an_output_folder_that_is_a_file_or_missing(self, root, side, name):
        write(root, f"{S1}/{SPIKES}", "file")
        with pytest.raises(AssertionError):
            side.make(root, root / name)
        with pytest.raises(AssertionError), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            side.make(root / name)

    def test_another_lab_than_the_folder(self, root, side):
        write(root, f"my{S1}/{SPIKES}")
        with pytest.raises(AssertionError, match="lab name conflict"):
            side.make(root, hash_ids=False, lab="another")
        assert not (root / "sessions.pqt").exists()

    def test_a_missing_root_is_as_good_as_an_empty_one(self, root, side):
        with pytest.warns(RuntimeWarning, match="^No sessions found"):
            side.make(root / "missing", root, hash_ids=False)
        assert tables(root)[0].empty

    def test_one_opens_the_tables(self, root, side):
        write(root, f"{S1}/{SPIKES}", f"{S1}/alf/spikes.clusters.npy", f"{S2}/{SPIKES}")
        api = open_one(root, make(side, root))
        (eid,) = api.search(subject="s", date_range=["2020-01-01", "2020-01-01"])
        assert api.list_datasets(eid) == ["alf/spikes.clusters.npy", SPIKES]
        assert api.eid2path(eid) == root / S1
        assert api.load_dataset(eid, SPIKES, download_only=True) == root / S1 / SPIKES

    # remove_missing_datasets

    @pytest.mark.parametrize("kind", ["load_tables", "in the folder"])
    def test_remove(self, root, side, kind, capsys):
        check_remove(root, side, kind, capsys)

    def test_paths_are_as_given(self, root, side, monkeypatch):
        write(root, f"{S1}/{SPIKES}")
        index(root)
        write(root, f"{S1}/a.b.c")
        link = root.parent / "link"
        link.symlink_to(root)
        monkeypatch.chdir(root.parent)
        assert side.remove(str(root)) == [root / S1 / "a.b.c"]
        assert side.remove("link") == [Path("link") / S1 / "a.b.c"]
        assert side.remove(Path("root")) == [Path("root") / S1 / "a.b.c"]

    def test_nothing_to_remove(self, root, side, capsys):
        write(root, f"{S1}/{SPIKES}", f"{S2}/")
        index(root)
        assert side.remove(root) == []
        assert capsys.readouterr().out == "The following session and datasets would be removed:\n\t\n"


@pytest.mark.parametrize("hash_ids", [False, True])
@pytest.mark.parametrize("name", ["caf\udce9", "a b#c", "file:x", "s3:", "ünï"])
def test_a_root_of_any_name(root, name, hash_ids):
    root = root / name  # not UTF-8, or what Arrow would take for a URI
    write(root, f"{S1}/{SPIKES}")
    for _ in range(2):  # the second time with tables to read
        sessions, datasets = OURS.make(root, hash_ids=hash_ids)
    with sessions.open("rb") as first, datasets.open("rb") as second:
        assert len(pd.read_parquet(first)) == len(pd.read_parquet(second)) == 1
    write(root, f"{S1}/a.b.c")
    assert OURS.remove(root, dry=False) == [root / S1 / "a.b.c"]


def test_it_runs_with_a_long_temporary_folder(root, monkeypatch):
    # The default place of a control socket would lie there, too long to be one.
    write(root, f"{S1}/{SPIKES}")
    long = root.parent / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    OURS.make(root, hash_files=True)
    assert OURS.remove(root) == []
    assert list(long.iterdir()) == []


def test_every_difference_is_in_the_document():
    here = Path(__file__)
    text = (here.parents[2] / "docs/reference/upstream.md").read_text()
    rows = re.findall(r"^\| \*\*(.*?)\*\*", text, re.MULTILINE)
    modules = [file.read_text() for file in here.parent.glob("test_upstream_*.py")]
    tested = {name for module in modules for name in re.findall(r'@differs\("(.*?)"\)', module)}
    assert sorted(tested) == sorted(rows)
