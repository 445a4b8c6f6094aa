"""What is in an archive: rows of one generation, those that were asked for, and nothing left on disk."""

import threading
import zipfile
from pathlib import Path

import pytest
from one.api import One

from alfwatchd.alf.file_names import SESSIONS, ZIP
from alfwatchd.errors import TablesError
from alfwatchd.publish import archive, publication
from alfwatchd.publish.publication import publish
from alfwatchd.settings import Subset
from kit.published import LOCATION, entry, folder_reader, look, unpack, write_tables


@pytest.mark.parametrize(
    ("subset", "subjects"),
    [
        ({"labs": ("lab",)}, {"s1", "s2"}),
        ({"labs": ("other",)}, {"o1"}),
        ({"subjects": ("s2", "o1")}, {"s2", "o1"}),
        ({"projects": (" brain", "y")}, {"s1", "o1"}),
        ({"projects": ("brain",), "labs": ("lab",), "tag": "mine"}, {"s1"}),
        ({"subjects": ("nobody",), "tag": "none"}, set()),
        ({"tag": "all"}, {"s1", "s2", "o1"}),
    ],
)
def test_sub_tables(places, tmp_path, subset, subjects):
    out_dir, target = places
    projects = {"s1": "brain,x", "o1": "brain"}
    write_tables(out_dir, 2, ["s1", "s2", "other/Subjects/o1/2020-01-01/001"], projects)
    publish(out_dir, entry(target, subset=Subset(**subset)))
    tag = subset.get("tag", "")
    where = target / tag
    assert look(folder_reader(where), LOCATION + (f"/{tag}" if tag else ""))[2] == subjects
    assert not tag or sorted(path.name for path in target.iterdir()) == [tag]
    info, _ = unpack((where / ZIP).read_bytes())
    assert info.get("database_tags") == ([tag] if tag else None)
    # A change elsewhere is none here.
    if "s9" not in subjects and (subset.get("labs") or subset.get("subjects")) and subset.get("labs") != ("lab",):
        write_tables(out_dir, 3, ["s1", "s2", "other/Subjects/o1/2020-01-01/001", "s9"], projects)
        assert not publish(out_dir, entry(target, subset=Subset(**subset))).published
    # One opens and searches it.
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(where / ZIP).extractall(unpacked)
    one = One(cache_dir=tmp_path, tables_dir=unpacked)
    eids = one.search()
    assert {one.eid2path(eid).subject for eid in eids} == subjects
    for eid in eids:
        assert one.list_datasets(eid) == ["alf/spikes.clusters.npy", "alf/spikes.times.npy"]
    assert len(one.search(datasets=["spikes.times.npy"])) == len(subjects) if subjects else one.list_datasets() == []


def test_tables_that_do_not_belong_together_are_not_published(places, tmp_path, monkeypatch):
    out_dir, target = places
    monkeypatch.setattr(archive, "PATIENCE_SECONDS", 0.3)
    write_tables(tmp_path / "later", 2, ["s3"])
    (out_dir / SESSIONS).write_bytes((tmp_path / "later" / SESSIONS).read_bytes())
    with pytest.raises(TablesError, match="not of one generation"):
        publish(out_dir, entry(target))
    assert list(target.iterdir()) == []
    mend = threading.Timer(0.1, lambda: write_tables(out_dir, 3, ["s3"]))
    mend.start()
    assert publish(out_dir, entry(target)).published
    mend.join()


def test_no_file_is_left_in_the_temporary_folder(places, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with archive.open_bundle(places[0], publication.Selection()) as ours, ours.zipped("2026-01-01 00:00", "n"):
        assert list(Path(tmp_path / "tmp").iterdir()) == []
