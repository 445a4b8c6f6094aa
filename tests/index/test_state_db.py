"""The state on disk is read again after any end, and damage to it costs time, never a wrong row."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from alfwatchd.errors import StateError, StateLocked
from alfwatchd.index.state_db import StateDb
from alfwatchd.scan.place import Place
from alfwatchd.tree.content import Key, Recorded, inode_key, record_key
from alfwatchd.tree.packed import pack_signature
from kit.children import as_nobody, in_child, needs_root
from kit.trees import fast_folder

LARGE = 2**64 - 1
PLACE = Place(fsid=LARGE, dev=LARGE - 1, ino=LARGE - 2, mount_id=2**63, fs_type="ext4")
OTHER = Place(fsid=0, dev=1, ino=2, mount_id=3, fs_type="nfs4")
SIGNATURE, MD5 = pack_signature(7, 1_700_000_000_000_000_000, LARGE, False), bytes(range(16))
KEY = inode_key(SIGNATURE)
FUSE = 0x65735546
BORN = 2**63
"""A time of birth that SQLite could not hold as a number."""


def save(state, rows):
    """Record (fsid, key, md5)."""
    state.save_digests((fsid, key.place, Recorded(key.stamp, BORN, digest)) for fsid, key, digest in rows)


def find(state, fsid, key):
    """Return the digest that is recorded for this very key, or None."""
    found = state.find_recorded(fsid, [key.place]).get(key.place)
    return found.digest if found is not None and found.is_of(key) else None


@pytest.fixture
def folder():
    with fast_folder() as folder:
        yield folder
        left = [
            os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit() and is_open(fd)
        ]
        assert [path for path in left if path.startswith(str(folder))] == []


def is_open(fd):
    return os.path.lexists(f"/proc/self/fd/{fd}")


def fill(folder):
    state = StateDb(folder)
    state.save_places({"": PLACE, "mount": OTHER})
    save(state, [(1, KEY, MD5)])
    state.close()


def load(folder):
    """Return what a next run finds: is_new, places, digest."""
    state = StateDb(folder)
    try:
        return state.is_new, state.load_places(), find(state, 1, KEY)
    finally:
        state.close()


KEPT = (False, {"": PLACE, "mount": OTHER}, MD5)
ANEW = (True, {}, None)


def test_the_folder_is_made(folder):
    assert load(folder / "a/b") == ANEW
    assert (folder / "a/b").stat().st_mode & 0o777 == 0o750


def test_everything_outlives_a_restart(folder):
    fill(folder)
    assert load(folder) == KEPT
    assert load(folder) == KEPT


def test_everything_outlives_a_kill(folder):
    def run():
        state = StateDb(folder)
        state.save_places({"": PLACE, "mount": OTHER})
        save(state, [(1, KEY, MD5)])
        return 1  # the child ends without closing

    assert in_child(run) == 1
    assert load(folder) == KEPT


def test_places_are_replaced_as_a_whole(folder):
    state = StateDb(folder)
    state.save_places({"": PLACE, "mount": OTHER})
    state.save_places({"mount": PLACE})
    assert state.load_places() == {"mount": PLACE}
    state.save_places({})
    assert state.load_places() == {}
    state.close()


def test_places_have_any_path(folder):
    places = {"": PLACE, "a b/Ä\n'\";": OTHER, "b\udcff": PLACE}
    state = StateDb(folder)
    state.save_places(places)
    assert state.load_places() == places
    state.close()


@pytest.mark.parametrize(
    ("fsid", "signature", "found"),
    [
        (1, SIGNATURE, True),
        (2, SIGNATURE, False),
        (LARGE, SIGNATURE, False),
        (1, pack_signature(8, 1_700_000_000_000_000_000, LARGE, False), False),
        (1, pack_signature(7, 1_700_000_000_000_000_001, LARGE, False), False),
        (1, pack_signature(7, 1_700_000_000_000_000_000, LARGE - 1, False), False),
        (1, pack_signature(7, 1_700_000_000_000_000_000, LARGE, False, 1), False),
        (1, pack_signature(7, 1_700_000_000_000_000_000, LARGE, True), True),  # the same file, reached by a link
    ],
)
def test_a_digest_is_found_by_file_system_and_key(folder, fsid, signature, found):
    state = StateDb(folder)
    save(state, [(1, KEY, MD5)])
    key = inode_key(signature)
    assert find(state, fsid, key) == (MD5 if found else None)
    state.close()


@pytest.mark.parametrize("n_asked", [0, 1, 500, 501, 1200])
def test_many_digests_are_found_at_once(folder, n_asked):
    keys = [inode_key(pack_signature(number, 1, number, False)) for number in range(1200)]
    known = {key: bytes([number % 256] * 16) for number, key in enumerate(keys) if number % 3}
    state = StateDb(folder)
    save(state, [(1, *row) for row in known.items()])
    save(state, [(2, key, MD5) for key in keys])
    found = state.find_recorded(1, [key.place for key in keys[:n_asked]])
    assert found == {key.place: Recorded(key.stamp, BORN, known[key]) for key in keys[:n_asked] if key in known}
    state.close()


def test_digests_are_replaced_and_forgotten(folder):
    other = inode_key(pack_signature(1, -1, 1, False))
    state = StateDb(folder)
    save(state, [(1, KEY, MD5), (LARGE, KEY, MD5), (1, other, MD5)])
    save(state, [(1, key, bytes(16)) for key in [KEY]])
    assert find(state, 1, KEY) == bytes(16)
    state.forget_digests([SIGNATURE, pack_signature(9, 9, 9, False)])
    assert [find(state, *each) for each in ((1, KEY), (LARGE, KEY), (1, other))] == [None, None, MD5]
    state.close()


def test_digests_that_are_recorded_by_path_are_forgotten(folder):
    signature = pack_signature(7, 8, 9, False, 10)
    keys = [record_key(FUSE, path, signature) for path in ("a/b", "a/c")]
    other = record_key(FUSE, "a/b", pack_signature(7, 8, 9, False, 11))
    state = StateDb(folder)
    save(state, [(1, key, MD5) for key in keys])
    save(state, [(2, other, MD5)])
    assert [find(state, 1, key) for key in keys] == [MD5, MD5]
    state.forget_digests([pack_signature(7, 8, 1234, False, 10)])  # the file system has given it another inode
    assert [find(state, 1, key) for key in keys] == [None, None]
    assert find(state, 2, other) == MD5
    state.close()


def test_one_digest_is_recorded_for_an_inode_however_often_its_file_changes(folder):
    """A nightly `chmod -R` of a million files left a million rows more each time."""
    state = StateDb(folder)
    for night in range(5):
        save(state, [(1, inode_key(pack_signature(7, 8, inode, False, night)), MD5) for inode in range(3)])
    assert find(state, 1, inode_key(pack_signature(7, 8, 2, False, 3))) is None
    assert find(state, 1, inode_key(pack_signature(7, 8, 2, False, 4))) == MD5
    state.close()
    with closing(sqlite3.connect(folder / "state.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM digests").fetchone() == (3,)


def test_any_thread_may_call(folder):
    state = StateDb(folder)
    wrong = []

    def work(number):
        for each in range(50):
            key = Key(bytes([number, each]), b"stamp")
            save(state, [(1, key, bytes([number, each] * 8))])
            if find(state, 1, key) != bytes([number, each] * 8):
                wrong.append((number, each))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state.close()
    assert wrong == []
    assert load(folder)[0] is False


# A file that cannot be used is replaced by a new one: it only saves time.


def write_over(start, text):
    def damage(path):
        with path.open("r+b") as file:
            file.seek(start)
            file.write(text)

    return damage


def another_version(path):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


DAMAGES = {
    "garbage": lambda path: path.write_bytes(b"this is no database " * 100),
    "header": write_over(0, b"\0" * 100),
    "pages": write_over(4096, os.urandom(1 << 16)),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "another version": another_version,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_file_that_is_damaged_or_of_another_version_is_made_again(folder, damage):
    fill(folder)
    state = StateDb(folder)
    save(state, [(1, Key(number.to_bytes(8), b"stamp"), MD5) for number in range(2000)])
    state.close()
    damage(folder / "state.sqlite")
    assert load(folder) == ANEW
    fill(folder)
    assert load(folder) == KEPT


@pytest.mark.parametrize("value", [b"\0", b"\x05", b"\xff"])
def test_the_daemon_starts_whichever_byte_of_the_header_is_damaged(folder, value):
    """SQLite calls a header of the future "unsupported" or "read-only" instead of damaged, and each start failed."""
    fill(folder)
    whole = (folder / "state.sqlite").read_bytes()
    for offset in range(100):
        for path in folder.iterdir():
            path.unlink()
        (folder / "state.sqlite").write_bytes(whole[:offset] + value + whole[offset + 1 :])
        fill(folder)
        assert load(folder)[1:] == KEPT[1:], offset


def test_an_empty_file_is_filled(folder):
    (folder / "state.sqlite").touch()
    assert load(folder)[1:] == ANEW[1:]
    fill(folder)
    assert load(folder) == KEPT


def test_leftovers_of_a_file_that_was_deleted_do_no_harm(folder):
    fill(folder)
    state = StateDb(folder)
    save(state, [(2, KEY, MD5)])
    (folder / "state.sqlite").unlink()  # the write-ahead log stays
    assert (folder / "state.sqlite-wal").exists()
    leftover = folder / "state.sqlite-wal"
    shutil.copy(leftover, folder / "copy")
    state.close()
    (folder / "copy").rename(leftover)
    assert load(folder) == ANEW


# What cannot be helped is told.


@pytest.mark.parametrize("make", [lambda path: path.write_text(""), lambda path: path.symlink_to("/dev/null")])
def test_a_folder_that_cannot_be_made_is_told(folder, make):
    make(folder / "file")
    with pytest.raises(StateError, match=r"cannot keep state here .*--state-dir"):
        StateDb(folder / "file/state")


@pytest.mark.parametrize("name", ["state.sqlite", "state.sqlite-wal"])
def test_a_full_folder_in_the_place_of_a_file_stays_and_is_named(folder, name):
    (folder / name / "data").mkdir(parents=True)
    with pytest.raises(StateError, match=rf"{name}: a folder that is not empty .* move it away"):
        StateDb(folder)
    assert (folder / name / "data").is_dir()


@needs_root
def test_a_folder_that_is_closed_is_told_and_nothing_in_it_is_touched(folder):
    fill(folder)
    before = (folder / "state.sqlite").read_bytes()
    folder.chmod(0o755)

    def run():
        try:
            StateDb(folder)
        except StateError as error:
            return str(error)

    assert "cannot keep state here" in as_nobody(run)
    assert (folder / "state.sqlite").read_bytes() == before


def test_a_database_that_is_locked_is_not_replaced(folder, monkeypatch):
    fill(folder)
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: real(*args, timeout=0.05, **more))
    blocker = real(folder / "state.sqlite")
    blocker.execute("PRAGMA locking_mode = EXCLUSIVE")
    blocker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateError, match="locked"):
        StateDb(folder)
    blocker.close()
    assert load(folder) == KEPT


def test_what_fails_later_is_told_as_such(folder):
    state = StateDb(folder)
    state.close()
    for fail in (
        state.load_places,
        lambda: state.save_places({}),
        lambda: find(state, 1, KEY),
        lambda: save(state, [(1, KEY, MD5)]),
        lambda: state.forget_digests([SIGNATURE]),
    ):
        with pytest.raises(StateError, match=r"state\.sqlite"):
            fail()


# Removed under the daemon.


def remove_folder(folder):
    shutil.rmtree(folder)


def remove_file(folder):
    (folder / "state.sqlite").unlink()


def replace_folder(folder):
    remove_folder(folder)
    fill(folder)


@pytest.mark.parametrize("remove", [remove_folder, remove_file, replace_folder])
def test_what_is_removed_under_the_daemon_is_made_again(folder, remove):
    """Else what the root is would be forgotten, and after the next start any disk would be taken for it."""
    state_dir = folder / "state"
    state = StateDb(state_dir)
    state.save_places({"": PLACE})
    remove(state_dir)
    state.save_places({"": PLACE})
    save(state, [(1, KEY, MD5)])
    assert find(state, 1, KEY) == MD5
    state.close()
    assert load(state_dir) == (False, {"": PLACE}, MD5)


def test_places_that_the_file_has_are_not_written_again(folder):
    fill(folder)
    state = StateDb(folder)
    places, log = state.load_places(), folder / "state.sqlite-wal"
    sizes = []
    for each in (places, places, {"": OTHER}, {"": OTHER}, {}):
        state.save_places(each)
        sizes.append(log.stat().st_size)
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3] < sizes[4]
    state.close()


@needs_root
def test_what_cannot_be_recorded_is_once_it_can(folder):
    """A full or read-only disk: the identity of the root is not lost for that."""
    folder.chmod(0o777)

    def run():
        state = StateDb(folder / "state")
        shutil.rmtree(folder / "state")
        (folder / "state").write_text("in the way")
        for _ in range(2):
            with pytest.raises(StateError, match="may be deleted"):
                state.save_places({"": PLACE})
            with pytest.raises(StateError):
                find(state, 1, KEY)
        (folder / "state").unlink()
        state.save_places({"": PLACE})
        state.close()
        return load(folder / "state")

    assert as_nobody(run) == (False, {"": PLACE}, None)


# Damage that SQLite does not see.


def rewrite(folder, query):
    with sqlite3.connect(folder / "state.sqlite") as db:
        db.execute(query)
    db.close()


@pytest.mark.parametrize("query", ["UPDATE digests SET md5 = zeroblob(16)", "UPDATE digests SET seal = zeroblob(4)"])
def test_a_digest_whose_bytes_were_changed_is_not_used(folder, query):
    state = StateDb(folder)
    save(state, [(1, KEY, MD5)])
    state.close()
    rewrite(folder, query)
    state = StateDb(folder)
    assert find(state, 1, KEY) is None
    save(state, [(1, KEY, MD5)])
    assert find(state, 1, KEY) == MD5
    state.close()


@pytest.mark.parametrize(
    "query",
    [
        "UPDATE places SET fsid = 'no number'",
        "UPDATE places SET ino = '4'",
        "UPDATE places SET fs_type = NULL",
        "UPDATE places SET path = 'elsewhere'",
        "UPDATE places SET seal = zeroblob(4)",
    ],
)
def test_a_place_whose_record_was_changed_is_not_used(folder, query, caplog):
    state = StateDb(folder)
    state.save_places({"": Place(1, 2, 3, 4, "ext4")})
    state.close()
    rewrite(folder, query)
    state = StateDb(folder)
    assert state.load_places() == {}
    assert "identity of root and mounts is damaged" in caplog.text
    state.close()


def test_a_file_with_the_columns_of_another_program_is_replaced(folder, caplog):
    StateDb(folder).close()
    rewrite(folder, "DROP TABLE digests")
    rewrite(folder, "CREATE TABLE digests (path TEXT)")
    state = StateDb(folder)
    assert state.is_new
    assert "made again" in caplog.text
    save(state, [(1, KEY, MD5)])
    state.close()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/null")])
@pytest.mark.parametrize("name", ["state.sqlite", "state.sqlite-wal", "state.sqlite-shm"])
def test_what_is_no_file_is_replaced(folder, name, make):
    StateDb(folder).close()
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    state = StateDb(folder)
    assert state.is_new
    save(state, [(1, KEY, MD5)])
    assert find(state, 1, KEY) == MD5
    state.close()


def test_damage_while_it_is_open_is_mended_by_the_next_that_is_written(folder):
    state = StateDb(folder)
    save(state, [(number, KEY, MD5) for number in range(100_000)])
    state.close()
    path = folder / "state.sqlite"
    assert path.stat().st_size > 4e6, "SQLite keeps half of it in memory, and reads the rest again"
    state = StateDb(folder)
    with path.open("r+b") as file:
        file.write(b"x" * path.stat().st_size)
    with pytest.raises(StateError):
        for number in range(0, 100_000, 1000):
            save(state, [(number, KEY, MD5)])
    save(state, [(1, KEY, MD5)])
    assert find(state, 1, KEY) == MD5
    state.close()


@needs_root
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o644])
def test_a_file_of_another_user_is_replaced_where_the_folder_allows_it(folder, mode):
    StateDb(folder).close()
    (folder / "state.sqlite").chmod(mode)
    folder.chmod(0o777)

    def run():
        state = StateDb(folder)
        save(state, [(1, KEY, MD5)])
        state.close()
        return state.is_new

    assert as_nobody(run)


# What others may do to its files.


def test_no_file_is_mapped_into_memory(folder):
    """SQLite maps `-shm`, and whoever truncates a mapped file ends the process (SIGBUS)."""
    fill(folder)
    state = StateDb(folder)
    save(state, [(1, inode_key(pack_signature(number, 8, number, False)), MD5) for number in range(100)])
    assert not (folder / "state.sqlite-shm").exists()
    maps = Path("/proc/self/maps").read_text()
    assert "state.sqlite" not in maps
    state.close()


def test_one_process_at_a_time_keeps_it(folder, monkeypatch):
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: real(*args, timeout=0.05, **more))
    fill(folder)
    state = StateDb(folder)
    with pytest.raises(StateLocked, match=r"locked by another process.*--state-dir"):
        StateDb(folder)
    save(state, [(1, KEY, MD5)])
    state.close()
    assert load(folder) == KEPT


@pytest.mark.parametrize("end", ["", "-wal", "-journal"])
def test_a_hard_link_is_never_written_through(folder, end):
    fill(folder)
    (folder / "precious").write_bytes(os.urandom(5000))
    before = (folder / "precious").read_bytes()
    (folder / f"state.sqlite{end}").unlink(missing_ok=True)
    os.link(folder / "precious", folder / f"state.sqlite{end}")
    fill(folder)
    assert load(folder) == KEPT
    assert (folder / "precious").read_bytes() == before


def test_the_database_of_another_program_is_not_filled(folder):
    with sqlite3.connect(folder / "precious") as db:
        db.execute("CREATE TABLE own (text TEXT)")
    db.close()
    before = (folder / "precious").read_bytes()
    os.link(folder / "precious", folder / "state.sqlite")
    fill(folder)
    assert (folder / "precious").read_bytes() == before


def test_a_backup_by_hard_links_stays_as_it_is_and_costs_nothing(folder):
    """`cp -al`, as labs do every night."""
    fill(folder)
    os.link(folder / "state.sqlite", folder / "backup")
    before = (folder / "backup").read_bytes()
    assert load(folder) == KEPT
    state = StateDb(folder)
    state.save_places({"": OTHER})
    state.close()
    assert (folder / "backup").read_bytes() == before


def test_a_shared_file_that_another_process_keeps_open_is_not_replaced(folder):
    fill(folder)
    os.link(folder / "state.sqlite", folder / "backup")
    with subprocess.Popen(
        [sys.executable, "-c", KEEP_OPEN, str(folder / "state.sqlite")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StateLocked):
            StateDb(folder)
        other.communicate(b"end\n")
    assert (folder / "state.sqlite").samefile(folder / "backup")


KEEP_OPEN = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("PRAGMA locking_mode = EXCLUSIVE")
db.execute("PRAGMA journal_mode = WAL")
db.execute("SELECT * FROM places").fetchall()
print("open", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("end", ["", "-wal"])
def test_a_symbolic_link_is_not_followed(folder, end):
    (folder / "precious").write_bytes(b"precious")
    (folder / f"state.sqlite{end}").symlink_to("precious")
    fill(folder)
    assert (folder / "precious").read_bytes() == b"precious"
    assert not (folder / f"state.sqlite{end}").is_symlink()
