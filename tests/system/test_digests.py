"""No row has the digest of another file, nor of an older content, and nothing is read twice without need."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kit.children import needs_root
from kit.mount import mount_box
from kit.program import program

pytestmark = pytest.mark.heavy

LAB = "lab/Subjects/m1"
S1 = f"{LAB}/2020-01-01/001/alf"
OLD = 1_557_050_400
NAMES = [f"spikes.a{number}.npy" for number in range(12)]
SIZE = 4096


def write_tree(root):
    """Write what one script writes: files of equal size and, to the second, equal times."""
    (root / S1).mkdir(parents=True)
    for name in NAMES:
        (root / S1 / name).write_bytes(os.urandom(SIZE))
    age(root)


def age(root):
    """Let all files have the same old time."""
    for path in (root / S1).iterdir():
        os.utime(path, (OLD, OLD))


def hashes(made):
    sessions = {row["id"]: row for row in pq.read_table(made.out_dir / "sessions.pqt").to_pylist()}
    return {
        f"{row['subject']}/{row['date']}/{row['number']:03d}/{each['rel_path']}": each["hash"]
        for each in pq.read_table(made.out_dir / "datasets.pqt").to_pylist()
        for row in [sessions[each["eid"]]]
    }


def md5s(root):
    """Return what the hashes should be."""
    top = root / "lab/Subjects"
    files = [path for path in top.rglob("*") if path.is_file()]
    return {str(path.relative_to(top)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def settle(made):
    """Wait until each file has its hash, and return whether those are right."""
    made.client.sync()
    made.wait(lambda: n_unhashed(made) == 0 and None not in hashes_now(made).values())
    return hashes(made)


def n_unhashed(made):
    """Return how many files have no hash, or one that is not confirmed."""
    status = made.client.status()
    return status.hashes_pending + status.hashes_unconfirmed


def hashes_now(made):
    made.client.sync()
    made.client.flush()
    return hashes(made)


@pytest.fixture
def made(tmp_path):
    write_tree(tmp_path / "root")
    (tmp_path / "out").mkdir()
    config = tmp_path / "config.toml"
    config.write_text("settle_seconds = 0.05\nflush_interval_seconds = 0.05\n")
    with program(tmp_path / "root", tmp_path / "out", ["--hash-files", f"--config={config}"]) as made:
        yield made


# Ways to put other content where equal sizes and times do not tell.


def restore(made, turn):
    """Remove the session and restore it from a tar, in another order."""
    with tarfile.open(made.home / "t.tar", "w") as tar:
        for name in sorted(NAMES, key=lambda name: hashlib.md5(f"{name}{turn}".encode()).digest()):
            tar.add(made.root / S1 / name, f"{S1}/{name}")
    shutil.rmtree(made.root / "lab")
    subprocess.run(["tar", "-C", made.root, "-xf", made.home / "t.tar"], check=True)


def copy(made, turn):
    """Replace the session by a copy that `cp -a` made, whose inodes are free again afterwards."""
    (made.home / "copy").mkdir()
    subprocess.run(["cp", "-a", made.root / "lab", made.home / "copy"], check=True)
    shutil.rmtree(made.root / "lab")
    for name in NAMES[turn:] + NAMES[:turn]:
        (made.root / S1).mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", made.home / "copy" / S1 / name, made.root / S1 / name], check=True)
    shutil.rmtree(made.home / "copy")


def exchange_names(made, turn):
    folder = made.root / S1
    for name, other in zip(NAMES[::2], NAMES[1::2], strict=True):
        os.rename(folder / name, folder / "x")
        os.rename(folder / other, folder / name)
        os.rename(folder / "x", folder / other)


def exchange_folders(made, turn):
    """Let two sessions of equal names, sizes and times change places."""
    other = made.root / f"{LAB}/2020-01-01/002"
    if not other.exists():
        (other / "alf").mkdir(parents=True)
        for name in NAMES:
            (other / "alf" / name).write_bytes(os.urandom(SIZE))
            os.utime(other / "alf" / name, (OLD, OLD))
        if made.process is not None:
            settle(made)
    first = (made.root / S1).parent
    os.rename(first, first.with_name("x"))
    os.rename(other, first)
    os.rename(first.with_name("x"), other)


def touch_like(made, turn):
    """Write over files and give them the time of a neighbour, as `touch -r` and `rsync --inplace -t` do."""
    for name in NAMES[: 4 + turn]:
        with (made.root / S1 / name).open("r+b") as file:
            file.write(os.urandom(SIZE))
        subprocess.run(["touch", "-r", made.root / S1 / NAMES[-1], made.root / S1 / name], check=True)


def touch_like_and_more(made, turn):
    touch_like(made, turn)
    subprocess.run(["chmod", "-R", "g+w" if turn % 2 else "g-w", made.root / "lab"], check=True)


def write_by_another_name(made, turn):
    """Write through a hard link outside of the root, which is gone before anybody looks."""
    outside = made.home / "outside"
    os.link(made.root / S1 / NAMES[0], outside)
    outside.write_bytes(os.urandom(SIZE))
    os.utime(outside, (OLD, OLD))
    outside.unlink()


WAYS = [restore, copy, exchange_names, exchange_folders, touch_like, touch_like_and_more, write_by_another_name]


@pytest.mark.parametrize("way", WAYS)
def test_files_that_change_while_it_runs(made, way):
    made.start()
    assert settle(made) == md5s(made.root)
    for turn in range(2):
        way(made, turn)
        if way is write_by_another_name:  # of which no event tells
            made.client.rescan()
        assert settle(made) == md5s(made.root)


@pytest.mark.parametrize("way", WAYS)
def test_files_that_change_while_it_is_down(made, way):
    made.start()
    settle(made)
    made.stop()
    way(made, 0)
    made.start()
    assert settle(made) == md5s(made.root)


@pytest.mark.parametrize("way", WAYS)
def test_files_that_change_between_runs_of_once(made, way):
    for turn in range(3):
        made.run_once()
        assert hashes(made) == md5s(made.root)
        time.sleep(0.02)  # the clock of files goes in steps
        way(made, turn)


# What costs nothing.


def n_read(made):
    """Return the bytes that the daemon has read so far."""
    with open(f"/proc/{made.pid}/io") as file:
        return int(file.readline().split()[1])


def rename_folders(made):
    os.rename(made.root / LAB, made.root / "lab/Subjects/m2")
    os.rename(made.root / "lab/Subjects/m2/2020-01-01/001", made.root / "lab/Subjects/m2/2020-01-01/003")


ATTRIBUTES = {
    "chmod -R": lambda made: subprocess.run(["chmod", "-R", "g+w", made.root / "lab"], check=True),
    "chown -R": lambda made: subprocess.run(["chown", "-R", f":{os.getgid()}", made.root / "lab"], check=True),
    "touch of the access time": lambda made: [
        os.utime(path, ns=(1, path.stat().st_mtime_ns)) for path in (made.root / S1).iterdir()
    ],
}


@pytest.fixture
def large(made):
    """Let one file be so large that it shows whether it was read."""
    path = made.root / S1 / "large.data.bin"
    with path.open("wb") as file:
        for _ in range(8):
            file.write(os.urandom(1 << 20))
    os.utime(path, (OLD, OLD))
    made.start()
    settle(made)
    return made


@pytest.mark.parametrize("act", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_other_attributes_read_no_file_and_write_no_table(large, act):
    before, rows, had_read = large.client.status().generation, hashes(large), n_read(large)
    act(large)
    assert large.client.sync().generation == before
    assert large.client.status().hashes_pending == 0
    assert hashes(large) == rows == md5s(large.root)
    assert n_read(large) - had_read < 1 << 23
    large.stop()
    large.start()  # where nothing proves that nothing was written meanwhile, files are read again
    assert settle(large) == md5s(large.root)


@pytest.mark.parametrize("act", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_other_attributes_while_it_is_down_take_no_hash_away(large, act):
    """A `chmod -R` of terabytes: all hashes were null, for as long as it takes to read them all again."""
    rows = hashes(large)
    large.stop()
    act(large)
    large.start()
    assert hashes_now(large) == rows
    assert large.client.status().hashes_pending == 0
    assert settle(large) == md5s(large.root)
    large.stop()
    large.start()
    assert hashes_now(large) == rows
    assert large.client.status().hashes_unconfirmed == 0


def test_what_was_written_in_secret_while_it_was_down_is_found_slowly(large):
    """An editor of headers that sets the time back: the one case in which a hash may be that of an older content."""
    large.stop()
    touch_like(large, 0)
    large.start()
    assert None not in hashes_now(large).values()
    assert settle(large) == md5s(large.root)


def test_a_run_of_once_reads_again_before_it_ends_unless_that_is_left_for_later(made):
    made.run_once()
    before = hashes(made)
    time.sleep(0.05)
    touch_like(made, 0)
    config = next(Path(flag.removeprefix("--config=")) for flag in made.flags if flag.startswith("--config="))
    text = config.read_text()
    config.write_text(f'{text}hash_recheck = "later"\n')
    made.run_once()
    assert hashes(made) == before != md5s(made.root)
    config.write_text(text)
    made.run_once()
    assert hashes(made) == md5s(made.root)


def test_a_file_that_grew_since_is_never_taken_for_the_same(made):
    """It has the inode and the time of birth of before; a digest must not stay because of these."""
    made.run_once()
    with (made.root / S1 / NAMES[0]).open("ab") as file:
        file.write(b"more")
    os.utime(made.root / S1 / NAMES[0], (OLD, OLD))
    made.run_once()
    assert hashes(made) == md5s(made.root)


def test_folders_that_are_renamed_are_not_read_again(large):
    had_read = n_read(large)
    rename_folders(large)
    assert settle(large) == md5s(large.root)
    assert n_read(large) - had_read < 1 << 23


def test_hard_links_of_which_no_event_tells_leave_no_row_without_hash(large):
    """As a nightly `cp -al` makes them."""
    subprocess.run(["cp", "-al", large.root / "lab", large.home / "backup"], check=True)
    with (large.root / S1 / NAMES[0]).open("ab") as file:
        file.write(b"more")
    large.client.rescan()
    assert settle(large) == md5s(large.root)


# What is not proved is not taken over.


def test_a_hash_in_earlier_tables_is_no_proof(made):
    """Two sessions that change places while the state is lost had each the hashes of the other."""
    exchange_folders(made, 0)
    made.run_once()
    exchange_folders(made, 0)
    shutil.rmtree(made.home / "state")
    made.run_once()
    assert hashes(made) == md5s(made.root)


# Clocks that stand still, and file systems that keep no inode numbers.


@pytest.fixture
def boxed(tmp_path):
    """Yield what makes a program whose root is a file system that was just made."""
    (tmp_path / "out").mkdir()
    with mount_box(tmp_path) as box:

        def make(*mkfs):
            if shutil.which(mkfs[0]) is None:
                pytest.skip(f"no {mkfs[0]}")
            image = tmp_path / "image"
            with image.open("wb") as file:
                file.truncate(64 << 20)
            subprocess.run([*mkfs, image], check=True, capture_output=True)
            try:
                box.run("mount", "-o", "loop", image, box.root)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"cannot be mounted: {error.stderr}")
            return box, program(box.root, tmp_path / "out", ["--hash-files"], box.prefix)

        yield make


@needs_root
def test_a_file_that_is_rewritten_within_one_tick_of_the_clock(boxed):
    """ext3, and ext4 with small inodes, count seconds: the file looks as it did when it was read."""
    box, made = boxed("mkfs.ext4", "-q", "-I", "128")
    with made as made:
        (box.path(box.root) / S1).mkdir(parents=True)
        path = box.path(box.root) / S1 / NAMES[0]
        for _ in range(4):
            time.sleep(1.02 - time.time() % 1)
            path.write_bytes(b"a" * 100)
            made.run_once()
            path.write_bytes(b"b" * 100)
            made.run_once()
            assert set(hashes(made).values()) == {hashlib.md5(b"b" * 100).hexdigest()}


@needs_root
@pytest.mark.parametrize("mkfs", [["mkfs.vfat"], ["mkfs.ext4", "-q"]], ids=["vfat", "ext4"])
def test_files_of_a_disk_that_is_mounted_again(boxed, mkfs):
    """FAT gives its files new inode numbers whenever they are looked up, and has no change time."""
    box, made = boxed(*mkfs)
    with made as made:
        write_tree(box.path(box.root))
        for turn in range(3):
            time.sleep(2.1)  # else nothing would be recorded
            made.run_once()
            assert hashes(made) == md5s(box.path(box.root))
            box.unmount(lazily=False)
            box.run("mount", "-o", "loop", made.root.parent / "image", box.root)
            for name in NAMES[4 * turn :] + NAMES[: 4 * turn]:
                (box.path(box.root) / S1 / name).stat()


@needs_root
@pytest.mark.parametrize("is_down", [False, True], ids=["while it runs", "while it is down"])
def test_an_image_that_is_replaced_by_another_with_equal_numbers_and_times(tmp_path, is_down):
    """Images that a script makes from two trees: UUID, inodes, sizes and times are equal, contents are not."""
    if shutil.which("mke2fs") is None:
        pytest.skip("no mke2fs")
    (tmp_path / "out").mkdir()
    trees = [tmp_path / name for name in ("first", "second")]
    for tree in trees:
        write_tree(tree)
    time.sleep(1.02 - time.time() % 1)  # mke2fs takes over change times, in whole seconds
    for tree in trees:
        age(tree)
    uuid = "11111111-2222-3333-4444-555555555555"
    for tree in trees:
        image = tree.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(16 << 20)
        make = ["mke2fs", "-q", "-t", "ext4", "-U", uuid, "-E", f"hash_seed={uuid}", "-d", tree, image]
        subprocess.run(make, check=True, env=os.environ | {"E2FSPROGS_FAKE_TIME": "1600000000"})
    with mount_box(tmp_path) as box:
        try:
            box.run("mount", "-o", "loop", trees[0].with_suffix(".img"), box.root)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"cannot be mounted: {error.stderr}")
        with program(box.root, tmp_path / "out", ["--hash-files"], box.prefix) as made:
            made.start()
            assert settle(made) == md5s(trees[0])
            if is_down:
                made.stop()
            box.unmount(lazily=False)
            box.run("mount", "-o", "loop", trees[1].with_suffix(".img"), box.root)
            if is_down:
                made.start()
            made.wait(lambda: settle(made) == md5s(trees[1]))
            made.stop()
        box.unmount(lazily=False)


@needs_root
@pytest.mark.parametrize("pool", ["mergerfs", "bindfs"])
def test_files_whose_inode_numbers_the_kernel_forgets(tmp_path, pool):
    """mergerfs then gives others: all files were read again at each scan."""
    if shutil.which(pool) is None:
        pytest.skip(f"no {pool}")
    (tmp_path / "out").mkdir()
    with mount_box(tmp_path) as box:
        write_tree(box.path(box.disk))
        (box.path(box.disk) / S1 / "large.data.bin").write_bytes(os.urandom(3 << 24))
        box.run(pool, "-o", "allow_other", box.disk, box.root)
        with program(box.root, tmp_path / "out", ["--hash-files"], box.prefix) as made:
            made.start()
            assert settle(made) == md5s(box.path(box.root))
            rows, had_read = hashes(made), n_read(made)
            for _ in range(2):
                Path("/proc/sys/vm/drop_caches").write_text("2")
                assert hashes_now(made) == rows
            time.sleep(3)  # after 2 s, it would have been read again
            assert hashes_now(made) == rows
            assert n_read(made) - had_read < 1 << 23
            made.stop()
            made.start()
            assert settle(made) == rows
            assert n_read(made) < 1 << 25  # nor after a restart
            made.stop()
        box.unmount(lazily=False)
