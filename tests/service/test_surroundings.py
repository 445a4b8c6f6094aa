"""What is checked before the program begins to work: folders, and what a sandbox may lack."""

import logging
import os
from pathlib import Path

import pytest

from alfwatchd.errors import ConfigError, OutDirError
from alfwatchd.service.configuration import load
from alfwatchd.service.surroundings import require, require_out_dir, warn_of_places
from kit.trees import fast_folder


def test_here_nothing_is_missing():
    require()


def test_names_in_another_encoding_are_refused(monkeypatch):
    """`make_parquet_db` in a notebook cannot begin again in another encoding; other ids would follow, in silence."""
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "iso8859-1")
    with pytest.raises(ConfigError, match=r"as iso8859-1 here.* set PYTHONUTF8=1 "):
        require()


def test_without_proc_the_message_says_what_to_mount(monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _: not path.startswith("/proc"))
    with pytest.raises(ConfigError, match=r"/proc/self/fd: is not there.*\(mount -t proc proc /proc\)"):
        require()


CASES = [
    ("root/missing", "root/missing", "root/missing: the root does not exist: check how it is spelled"),
    ("root/file", "root/file", "root/file: the root is a file"),
    ("root/missing", "root/missing/out", "root/missing: the root does not exist"),
    ("root", "root/missing", "root/missing: the output folder does not exist or is not a folder"),
    ("root", "root/file", "root/file: the output folder does not exist or is not a folder"),
    ("root/missing", "elsewhere", "elsewhere: the output folder does not exist"),
]


@pytest.mark.parametrize(("root", "out_dir", "message"), CASES)
def test_the_message_is_about_the_folder_that_is_wrong(tmp_path, root, out_dir, message):
    """A typing error in --root was answered with the advice to make an output folder: a new, empty root."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").touch()
    with pytest.raises(OutDirError) as caught:
        require_out_dir(tmp_path / out_dir, tmp_path / root)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
    assert isinstance(caught.value, AssertionError)  # as upstream's


def test_folders_that_are_right(tmp_path):
    (tmp_path / "out").mkdir()
    require_out_dir(tmp_path, tmp_path)
    require_out_dir(tmp_path / "out", tmp_path)
    require_out_dir(tmp_path / "out", tmp_path / "missing")  # the scan tells what that means


def test_an_output_folder_must_be_writable():
    if os.geteuid() == 0:
        # Nothing is closed to root but what the kernel itself keeps closed.
        with pytest.raises(OutDirError, match=r"not writable for user root \(uid 0\): give"):
            require_out_dir(Path("/proc/self"), Path("/data"))
        return
    with fast_folder() as folder:
        folder.chmod(0o555)
        with pytest.raises(OutDirError, match=r"not writable for user .* \(uid \d+\): give"):
            require_out_dir(folder, folder)


PLACES = [
    ("lab", True),
    ("lab/tables", True),
    ("lab/Subjects/s1", True),
    ("s1/2020-01-01/001/alf", True),
    ("", False),
    ("tables", False),
    ("../elsewhere", False),
]


@pytest.mark.parametrize("key", ["out_dir", "publish"])
@pytest.mark.parametrize(("place", "is_among_data"), PLACES)
def test_tables_among_the_data_are_told(tmp_path, caplog, key, place, is_among_data):
    """`One(cache_dir=LAB)` would find tables that list other folders than are there."""
    root = tmp_path / "root"
    (root / "lab/Subjects").mkdir(parents=True)
    folder = root / place if place or key == "out_dir" else root / "own"
    given = {"out_dir": folder} if key == "out_dir" else {"publish": [{"target": str(folder)}]}
    settings = load({"root": root, "state_dir": "/state", "socket": "/s", **given}, {}).settings
    with caplog.at_level(logging.WARNING):
        warn_of_places(settings)
    assert ("lies among the data" in caplog.text) is is_among_data
