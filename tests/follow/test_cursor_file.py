"""A follower goes on where it was; two of them never share a file, and no damaged one is taken for an empty one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from alfwatchd.errors import Locked, StateError, UsageError
from alfwatchd.follow.cursor_file import CursorFile
from alfwatchd.follow.follower import Follower
from kit.children import as_nobody
from kit.follow import RAW, complete, make_session

SORTING = complete("ephysData.raw")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sort.cursor"


def make_follower() -> Follower:
    follower = Follower(SORTING, cursor="0000abcd.7")
    follower.begin([make_session(1, RAW)], 6)
    return follower


def test_it_goes_on_where_it_was(path):
    file = CursorFile(path, "/data")
    assert not file.load(Follower(SORTING))
    file.save(make_follower())
    file.close()
    file, again = CursorFile(path, "/data"), Follower(SORTING)
    assert file.load(again)
    assert again == make_follower()
    file.close()


def test_two_followers_never_use_one_file(path):
    file = CursorFile(path, "/data")
    with pytest.raises(
        Locked, match=re.escape(f"{path}: another follower uses this cursor file (process {os.getpid()})")
    ):
        CursorFile(path, "/data")
    file.close()
    CursorFile(path, "/data").close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"{}", "is no cursor file"),
        (b"a recording of a day", "is damaged"),
    ],
)
def test_a_damaged_file_is_no_empty_one(path, content, words):
    """Else all that was told would be told again, or what was missed stays missed."""
    path.write_bytes(content)
    file = CursorFile(path, "/data")
    with pytest.raises(StateError, match=f"{words}.*name another file with --cursor, or remove this one"):
        file.load(Follower(SORTING))
    file.close()
    assert path.read_bytes() == content


def test_a_folder_or_a_pipe_in_its_place_is_an_error(path):
    os.mkfifo(path)
    file = CursorFile(path, "/data")
    with pytest.raises(StateError, match="cannot be read"):
        file.load(Follower(SORTING))
    file.close()
    with pytest.raises(StateError, match="cannot be used as cursor file"):
        CursorFile(path.parent / "missing" / "file", "/data")


@pytest.mark.parametrize("path", [".", "/"])
def test_a_path_that_has_no_name_is_refused(path):
    with pytest.raises(UsageError, match="is a folder; name a file in it"):
        CursorFile(Path(path), "/data")


def test_a_file_that_cannot_be_written_is_an_error_and_the_old_one_stays(path):
    file = CursorFile(path, "/data")
    file.save(make_follower())
    before = path.read_bytes()
    path.parent.chmod(0o755)

    def save() -> str:
        try:
            file.save(Follower(SORTING, cursor="0000abcd.8"))
        except StateError as error:
            return str(error)
        return "written"

    assert "cannot be written" in as_nobody(save)
    assert path.read_bytes() == before
    file.close()


def test_only_the_user_and_the_group_can_read_it(path):
    file = CursorFile(path, "/data")
    file.save(make_follower())
    assert path.stat().st_mode & 0o027 == 0
    file.close()
