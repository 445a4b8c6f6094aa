"""Two processes never write the same tables or state, whatever is done to their lock files."""

import os
import signal
import threading
import time

import pytest

from alfwatchd.errors import Locked, OutDirError, StateError
from alfwatchd.service.locks import LOCK_NAME, hold_out_dir, hold_state_dir
from kit.children import as_nobody, in_child, needs_root
from kit.trees import fast_folder

HOLDERS = pytest.mark.parametrize("hold", [hold_out_dir, hold_state_dir])


@pytest.fixture
def folder():
    before = sorted(os.listdir("/proc/self/fd"))
    with fast_folder() as folder:
        yield folder
    assert {*os.listdir("/proc/self/fd")} <= {*before}


def try_to_hold(hold, folder):
    """Return what comes of it in another process."""

    def run():
        try:
            with hold(folder):
                return "held"
        except Locked as error:
            return str(error)

    return in_child(run)


@HOLDERS
def test_only_one_process_holds_a_folder(folder, hold):
    assert try_to_hold(hold, folder) == "held"
    with hold(folder):
        refusal = try_to_hold(hold, folder)
        assert str(folder) in refusal
        assert f"process {os.getpid()} " in refusal
    assert try_to_hold(hold, folder) == "held"


@HOLDERS
def test_not_even_the_same_process_holds_it_twice(folder, hold):
    with hold(folder):
        with pytest.raises(Locked, match=f"process {os.getpid()} "), hold(folder):
            pass
        assert try_to_hold(hold, folder) != "held"


def test_the_two_locks_do_not_exclude_each_other(folder):
    with hold_out_dir(folder), hold_state_dir(folder):
        pass


@HOLDERS
def test_other_folders_are_free(folder, hold):
    for name in "ab":
        (folder / name).mkdir()
    with hold(folder / "a"):
        assert try_to_hold(hold, folder / "b") == "held"


@HOLDERS
def test_a_failure_inside_sets_it_free(folder, hold):
    with pytest.raises(ZeroDivisionError), hold(folder):
        raise ZeroDivisionError
    assert try_to_hold(hold, folder) == "held"


@HOLDERS
def test_a_killed_process_leaves_nothing_held(folder, hold):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with hold(folder):
            os.write(writer, b"x")
            signal.pause()
    try:
        assert os.read(reader, 1) == b"x"
        assert f"process {pid} " in try_to_hold(hold, folder)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    assert try_to_hold(hold, folder) == "held"


def test_a_lock_file_does_not_look_like_a_table(folder):
    with hold_out_dir(folder):
        assert [path.name for path in folder.iterdir()] == [LOCK_NAME]
        assert (folder / LOCK_NAME).read_text() == f"{os.getpid()} run\n"
    assert (folder / LOCK_NAME).read_text() == ""
    with hold_out_dir(folder, is_daemon=True):
        assert (folder / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    assert not LOCK_NAME.endswith(".pqt")


def test_what_an_earlier_process_wrote_is_replaced(folder):
    (folder / LOCK_NAME).write_text("123456789012\n")
    with hold_out_dir(folder):
        assert (folder / LOCK_NAME).read_text() == f"{os.getpid()} run\n"


@HOLDERS
def test_a_holder_that_left_no_number_is_told(folder, hold):
    with hold(folder):
        (lock,) = folder.iterdir()
        lock.write_text("")
        assert "process of unknown number " in try_to_hold(hold, folder)


@pytest.mark.parametrize(
    ("hold", "error", "message"),
    [(hold_out_dir, OutDirError, "check how it is spelled"), (hold_state_dir, StateError, "cannot make it")],
)
def test_a_folder_that_is_missing_is_told(folder, hold, error, message):
    """`prune --root` with a typing error was answered with the advice to give write access to this folder."""
    with pytest.raises(error, match=message), hold(folder / "missing"):
        pass


@pytest.mark.parametrize(("hold", "error"), [(hold_out_dir, OutDirError), (hold_state_dir, StateError)])
def test_a_link_is_never_followed(folder, hold, error):
    (folder / "target").write_text("precious")
    with hold(folder):
        (name,) = {path.name for path in folder.iterdir()} - {"target"}
    (folder / name).unlink()
    (folder / name).symlink_to("target")
    with pytest.raises(error), hold(folder):
        pass
    assert (folder / "target").read_text() == "precious"


@pytest.mark.parametrize(("hold", "error"), [(hold_out_dir, OutDirError), (hold_state_dir, StateError)])
def test_a_hard_link_to_another_file_is_never_written_through(folder, hold, error):
    with hold(folder):
        (name,) = os.listdir(folder)
    (folder / name).unlink()
    (folder / "target").write_text("precious")
    os.link(folder / "target", folder / name)
    with pytest.raises(error, match=r"hard link.*remove this name"), hold(folder):
        pass
    assert (folder / "target").read_text() == "precious"
    assert (folder / name).samefile(folder / "target")


@pytest.mark.parametrize("content", ["", "4711\n"])
@HOLDERS
def test_a_lock_that_a_backup_shares_is_made_again(folder, hold, content):
    """`cp -al` gives the lock of a folder a second name; a process id of another program may look alike."""
    with hold(folder):
        (name,) = os.listdir(folder)
    (folder / name).write_text(content)
    os.link(folder / name, folder / "backup")
    with hold(folder):
        assert (folder / name).read_text().split()[0] == str(os.getpid())
        assert f"process {os.getpid()} " in try_to_hold(hold, folder)
    assert (folder / "backup").read_text() == content


@HOLDERS
def test_a_lock_that_is_held_stays_so_when_a_backup_shares_it(folder, hold):
    with hold(folder) as held:
        (lock,) = folder.iterdir()
        os.link(lock, folder / "backup")
        assert f"process {os.getpid()} " in try_to_hold(hold, folder)
        held.keep()
        assert f"process {os.getpid()} " in try_to_hold(hold, folder)


@HOLDERS
def test_what_no_process_wrote_as_its_number_is_not_replaced(folder, hold):
    """A file that was moved there, or whose other name was removed."""
    with hold(folder):
        (name,) = os.listdir(folder)
    for precious in ("precious", "4711 apples\n", "4711\n4712\n", "9" * 4000):
        (folder / name).write_text(precious)
        with hold(folder):
            assert try_to_hold(hold, folder) != "held"
        assert (folder / name).read_text() == precious


@HOLDERS
def test_a_hard_link_in_place_of_a_lock_that_is_held_is_not_written_through(folder, hold):
    with hold(folder) as held:
        (lock,) = folder.iterdir()
        lock.unlink()
        (folder / "target").write_text("precious")
        os.link(folder / "target", lock)
        held.keep()
    assert (folder / "target").read_text() == "precious"


@HOLDERS
def test_a_lock_whose_file_was_removed_is_taken_again(folder, hold):
    with hold(folder) as held:
        (lock,) = folder.iterdir()
        lock.unlink()
        held.keep()
        assert lock.read_text().split()[0] == str(os.getpid())
        assert f"process {os.getpid()} " in try_to_hold(hold, folder)
        held.keep()


@HOLDERS
def test_another_process_that_took_it_meanwhile_keeps_it(folder, hold):
    with hold(folder) as held:
        (lock,) = folder.iterdir()
        lock.unlink()
        with hold(folder), pytest.raises(Locked, match=f"process {os.getpid()} "):
            held.keep()


@HOLDERS
def test_a_folder_that_is_away_is_waited_for(folder, hold):
    (folder / "a").mkdir()
    with hold(folder / "a") as held:
        (folder / "a").rename(folder / "b")
        held.keep()
        assert not (folder / "a").exists()
        (folder / "a").mkdir()
        held.keep()
        assert try_to_hold(hold, folder / "a") != "held"


@HOLDERS
def test_another_folder_in_its_place_is_told_from_a_lock_that_was_removed(folder, hold):
    """Whatever is written by the name of the folder would else go to what was mounted over it."""
    (folder / "a").mkdir()
    with hold(folder / "a") as held:
        (lock,) = (folder / "a").iterdir()
        lock.unlink()
        held.require_folder()
        held.keep()
        (folder / "a").rename(folder / "b")
        with pytest.raises(FileNotFoundError):
            held.require_folder()
        (folder / "a").mkdir()
        with pytest.raises(OSError, match="another folder is there now"):
            held.require_folder()
        held.keep()
        held.require_folder()


@needs_root
@HOLDERS
def test_the_lock_file_of_another_user_holds_as_well(folder, hold):
    folder.chmod(0o777)
    with hold(folder):
        pass

    def run():
        try:
            with hold(folder):
                return "held"
        except Locked:
            return "locked"

    assert as_nobody(run) == "held"
    with hold(folder):
        assert as_nobody(run) == "locked"


@needs_root
@pytest.mark.parametrize("hold", [hold_out_dir, hold_state_dir])
def test_a_folder_that_is_closed_is_told(folder, hold):
    def run():
        try:
            with hold(folder):
                return None
        except (OutDirError, StateError) as error:
            return type(error), str(error)

    kind, message = as_nobody(run)
    assert kind is (OutDirError if hold is hold_out_dir else StateError)
    assert "Permission denied" in message


@needs_root
@HOLDERS
def test_a_pipe_in_place_of_the_lock_is_not_waited_for(folder, hold):
    """Somebody else's: it can only be opened to be read, and nobody writes."""
    with hold(folder):
        (name,) = os.listdir(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name, 0o444)
    folder.chmod(0o755)

    def run():
        with hold(folder):
            return "held"

    assert as_nobody(run) == "held"


# Waiting for others.


def hold_elsewhere(folder, *, is_daemon):
    """Hold the lock in another process until the returned function is called."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go[1])
        with hold_out_dir(folder, is_daemon=is_daemon):
            os.write(ready[1], b"!")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    for fd in (*ready, go[0]):
        os.close(fd)

    def end():
        os.close(go[1])
        os.waitpid(pid, 0)

    return end


def test_a_run_waits_for_another_run(folder, caplog):
    """Six jobs of an array that all end with `make_parquet_db` must all end well."""
    end = hold_elsewhere(folder, is_daemon=False)
    waiter = threading.Thread(target=end)
    with caplog.at_level("INFO"):
        threading.Timer(0.3, waiter.start).start()
        with hold_out_dir(folder, patience_seconds=600):
            assert (folder / LOCK_NAME).read_text() == f"{os.getpid()} run\n"
    waiter.join()
    assert caplog.text.count("waiting for its end") == 1


def test_a_long_wait_is_a_warning(folder, caplog, monkeypatch):
    """A notebook whose `make_parquet_db` waits for a job that hangs must not stand still for an hour in silence."""
    end, now = hold_elsewhere(folder, is_daemon=False), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda _: now.__setitem__(0, now[0] + 30.0))
    try:
        with pytest.raises(Locked), hold_out_dir(folder, patience_seconds=150):
            pass
    finally:
        monkeypatch.undo()
        end()
    assert [each.levelname for each in caplog.records if "waiting for its end" in each.message] == ["WARNING"] * 2


@pytest.mark.parametrize(("is_daemon", "patience"), [(True, 600), (False, 0), (False, 0.2)])
def test_a_daemon_is_not_waited_for_nor_a_run_for_ever(folder, is_daemon, patience):
    """A daemon never ends by itself: a job that waited for it would hang."""
    end = hold_elsewhere(folder, is_daemon=is_daemon)
    try:
        with (
            pytest.raises(Locked, match="keeps the tables in this folder"),
            hold_out_dir(folder, patience_seconds=patience),
        ):
            pass
    finally:
        end()


def test_a_run_that_has_not_written_who_it_is_yet_is_waited_for(folder):
    """The process id is written just after the lock is taken: another job may look in between."""
    end = hold_elsewhere(folder, is_daemon=False)
    (folder / LOCK_NAME).write_text("")
    waiter = threading.Thread(target=end)
    threading.Timer(0.2, waiter.start).start()
    with hold_out_dir(folder, patience_seconds=600):
        pass
    waiter.join()
