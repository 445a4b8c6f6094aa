"""How a file is replaced where others may write to the folder, too."""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from alfwatchd.atomic import replace_file, write_atomically
from alfwatchd.files import file_version
from kit.trees import IN_THE_WAY, fast_folder

NAME = "a.pqt"
CASES = pytest.mark.parametrize("make", IN_THE_WAY.values(), ids=IN_THE_WAY)


@pytest.fixture
def folder():
    with fast_folder() as folder:
        (folder / "precious").write_text("precious")
        yield folder
        assert (folder / "precious").read_text() == "precious"


@CASES
def test_what_stands_where_the_file_belongs_is_replaced(folder, make):
    make(folder / NAME)
    replace(folder)
    assert only_new(folder)


def replace(folder):
    return write_atomically(folder / NAME, lambda target: target.write_text("new"))


def only_new(folder):
    return {path.name: path.read_text() for path in folder.iterdir()} == {"precious": "precious", NAME: "new"}


@CASES
def test_what_stands_where_the_new_file_is_written_is_replaced(folder, make):
    make(folder / f".{NAME}.tmp")
    assert replace(folder) == file_version(folder / NAME)
    assert only_new(folder)


def test_a_link_put_in_place_of_the_file_that_is_written_leads_nothing_elsewhere(folder):
    temporary = folder / f".{NAME}.tmp"

    def write(target):
        temporary.unlink()
        temporary.symlink_to("precious")
        target.write_text("new")

    write_atomically(folder / NAME, write)


def test_a_folder_that_holds_something_is_told_by_the_name_of_the_file(folder):
    (folder / NAME / "kept").mkdir(parents=True)
    with pytest.raises(OSError, match=NAME):
        replace(folder)
    assert (folder / NAME / "kept").is_dir()
    assert not (folder / f".{NAME}.tmp").exists()


def test_an_error_names_the_file(folder):
    def fail(target):
        raise OSError(28, "No space left on device", str(target))

    with pytest.raises(OSError, match=NAME) as caught:
        write_atomically(folder / NAME, fail)
    assert caught.value.filename == str(folder / NAME)


def test_a_file_that_is_not_to_be_durable_is_not_waited_for(folder, monkeypatch):
    """The layout is written after each flush; waiting for the disk would make each one slower for no gain."""
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_atomically(folder / NAME, lambda target: target.write_text("new"), is_durable=False)
    assert (only_new(folder), synced) == (True, [])
    replace(folder)
    assert len(synced) == 2


def test_a_file_in_an_open_folder_is_replaced_there(folder, tmp_path):
    """A folder that is moved meanwhile must not lead a publication elsewhere."""
    (folder / "old").mkdir()
    folder_fd = os.open(folder / "old", os.O_RDONLY)
    (folder / "old").rename(folder / "new")
    try:
        replace_file(Path(NAME), lambda file: file.write(b"new"), dir_fd=folder_fd)
        assert os.listdir(folder_fd) == [NAME]
    finally:
        os.close(folder_fd)
    assert (folder / "new" / NAME).read_text() == "new"


def test_what_prevents_the_renaming_leaves_the_file_of_before(folder):
    """Another publisher was faster: its file stays, and nothing is left beside it."""

    @contextmanager
    def refuse():
        raise FileExistsError
        yield

    (folder / NAME).write_text("of another process")
    with pytest.raises(FileExistsError):
        replace_file(folder / NAME, lambda file: file.write(b"new"), replacing=refuse)
    assert {path.name for path in folder.iterdir()} == {"precious", NAME}
    assert (folder / NAME).read_text() == "of another process"
