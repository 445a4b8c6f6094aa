"""Cookies are made in memory, in a folder of the daemon's own: a disk that nobody uses may sleep."""

import os

import pytest

from alfwatchd.service.cookies import choose_folder
from kit.children import NOBODY, needs_root
from kit.trees import fast_folder


@pytest.fixture
def memory():
    """A folder in memory, whatever disk the tests use."""
    with fast_folder() as folder:
        if not str(folder).startswith("/dev/shm"):
            pytest.skip("there is no tmpfs here")
        yield folder


@pytest.fixture
def state_dir(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def is_on_disk(folder):
    return not str(folder).startswith("/dev/shm")


@pytest.mark.parametrize("name", ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"])
def test_cookies_are_made_in_the_folder_for_what_lives_as_long_as_the_service(memory, state_dir, name):
    """An idle daemon wrote to the disk of its state every 15 s: it never slept."""
    (memory / "run").mkdir()
    folder = choose_folder(state_dir, {name: f"{memory / 'run'}:/other"}, memory)
    assert folder.parent == memory / "run"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_cookies_are_made_in_shared_memory_where_there_is_no_such_folder(memory, state_dir):
    assert choose_folder(state_dir, {}, memory).parent == memory
    assert choose_folder(state_dir, {"XDG_RUNTIME_DIR": "relative"}, memory).parent == memory
    assert choose_folder(state_dir, {"XDG_RUNTIME_DIR": "/nowhere"}, memory).parent == memory


def test_cookies_are_made_beside_the_state_where_nothing_is_in_memory(state_dir, tmp_path):
    if not is_on_disk(tmp_path):
        pytest.skip("the tests run on a tmpfs")
    environ = {"RUNTIME_DIRECTORY": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert choose_folder(state_dir, environ, tmp_path) == state_dir / "cookies"


def test_each_state_folder_has_its_own_and_finds_it_again(memory, state_dir, tmp_path):
    """Two daemons with one folder would take each other's cookies for their own."""
    (tmp_path / "other").mkdir()
    first, second = choose_folder(state_dir, {}, memory), choose_folder(tmp_path / "other", {}, memory)
    assert first != second
    assert choose_folder(state_dir, {}, memory) == first
    state_dir.rename(tmp_path / "gone")
    state_dir.mkdir()
    assert choose_folder(state_dir, {}, memory) != first  # as in another container that has the same /dev/shm


def link(folder):
    folder.rmdir()
    folder.symlink_to(folder.parent)


IN_THE_WAY = {
    "a link": link,
    "a folder that others may use": lambda folder: folder.chmod(0o777),
    "a file": lambda folder: (folder.rmdir(), folder.touch()),
}


@pytest.mark.parametrize("put", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_what_is_not_a_private_folder_is_not_used(memory, state_dir, put):
    put(choose_folder(state_dir, {}, memory))
    assert choose_folder(state_dir, {}, memory) == state_dir / "cookies"


@needs_root
def test_a_folder_of_another_user_is_not_used(memory, state_dir):
    os.chown(choose_folder(state_dir, {}, memory), NOBODY, NOBODY)
    assert choose_folder(state_dir, {}, memory) == state_dir / "cookies"
