"""The daemon on real data that change under it: after each `sync`, the tables on disk are those of a fresh index."""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from one.api import One

from kit.program import listed, make_ibl_tree, program, read_tables, walk, write_dataset

KS005 = "cortexlab/Subjects/KS005"
ZM_1743 = "mainenlab/Subjects/ZM_1743"
MIXED = "rm -r $K/2019-04-02; mv $Z mainenlab/Subjects/renamed; echo 1 > $K/2019-04-03/001/a.b.npy"
OVERFLOW_LIMIT = 500_000
"""Longest event queue that a test fills."""

pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")  # in ONE itself


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """One daemon for all changes that do not disturb each other: every case has folders of its own."""
    with program(make_ibl_tree(tmp_path_factory.mktemp("live"))) as made:
        made.start()
        yield made
        status = made.client.status()
        assert (status.events_lost, [scan.reason for scan in status.rescans]) == (0, ["start"])
        made.stop()


@pytest.fixture
def fresh(tmp_path):
    """A program that is not started, on a tree of its own."""
    root = tmp_path / "data"
    root.mkdir()
    with program(make_ibl_tree(root)) as made:
        yield made


def sh(root, script):
    names = {"K": KS005, "Z": ZM_1743, "N": "newlab/Subjects"}
    subprocess.run(["sh", "-euc", script], cwd=root, check=True, env={**os.environ, **names})


def sh_case(script):
    return lambda root: sh(root, script)


def rsync(root):
    if not shutil.which("rsync"):
        pytest.skip("there is no rsync on this machine")
    sh(root, "mkdir -p $N/by_rsync; rsync -a $Z/2019-06-04 $N/by_rsync")


def like_rsync(root):
    """Copy as rsync does: each file under a hidden name with a suffix, its times set, then renamed."""
    source, target = root / ZM_1743 / "2019-06-05/001", root / "newlab/Subjects/like_rsync/2019-06-05/001"
    for number, file in enumerate(sorted(source.rglob("*.*"))):
        folder = target / file.relative_to(source).parent
        folder.mkdir(parents=True, exist_ok=True)
        hidden = folder / f".{file.name}.Qx{number:04d}"
        shutil.copyfile(file, hidden)
        shutil.copystat(file, hidden)
        hidden.rename(folder / file.name)


def replace_by_rename(root):
    file = root / KS005 / "2019-04-02/001/alf/_ibl_trials.choice.npy"
    write_dataset(file.with_name("new"), 5000)
    file.with_name("new").rename(file)


def rewrite_in_place(root):
    file = root / KS005 / "2019-04-03/001/alf/_ibl_trials.choice.npy"
    with file.open("r+b") as stream:
        stream.write(b"x" * 4321)


def append_without_closing(root):
    file = root / KS005 / "2019-04-04/004/alf/_ibl_trials.choice.npy"
    stream = file.open("ab")
    stream.write(b"more")
    stream.flush()
    OPEN_FILES.append(stream)


OPEN_FILES = []


def remake_at_once(root):
    session = root / KS005 / "2019-04-11/001"
    for number in range(20):
        shutil.rmtree(session)
        (session / f"alf/probe{number:02d}").mkdir(parents=True)
        write_dataset(session / f"alf/probe{number:02d}/spikes.times.npy", number)


CHANGES = {
    "cp -r": sh_case("mkdir -p $N/by_cp; cp -r $Z/2019-06-06 $N/by_cp"),
    "cp -a, a lab at once": sh_case("cp -a cortexlab lab_copy"),
    "tar": sh_case("mkdir -p $N/by_tar; tar -c -C $Z 2019-06-07 | tar -x -C $N/by_tar"),
    "rsync -a": rsync,
    "as rsync does": like_rsync,
    "copy to a hidden name, then rename": sh_case(
        """mkdir -p $N/hidden/.copies
        cp -r $Z/2019-06-10/001 $N/hidden/.copies/x
        mkdir $N/hidden/2019-06-10
        mv $N/hidden/.copies/x $N/hidden/2019-06-10/001"""
    ),
    "copy beside itself, then rename": sh_case("cd $K/2019-04-09; cp -r 001 .002.part; mv .002.part 002"),
    "rename a subject": sh_case("mv mainenlab/Subjects/ZFM-01935 mainenlab/Subjects/renamed"),
    "rename a lab": sh_case(
        """mkdir -p lab_a/Subjects/s/2020-01-01
        cp -r $K/2019-04-01/001 lab_a/Subjects/s/2020-01-01
        mv lab_a lab_b"""
    ),
    "rename a collection": sh_case("cd $Z/2019-06-11/001; mv alf alf_old"),
    "renumber a session": sh_case("cd mainenlab/Subjects/clns0730/2018-08-24; mv 1 001"),
    "delete a session": sh_case("rm -r $K/2019-04-10/003"),
    "move a session out of the root": sh_case("mv $K/2019-04-10/002 ../moved_out_of_$$"),
    "rewrite a file": sh_case("echo other > $K/2019-04-05/001/alf/_ibl_trials.choice.npy"),
    "rewrite a file in place": rewrite_in_place,
    "replace a file by rename": replace_by_rename,
    "truncate a file": sh_case("truncate -s 1 $K/2019-04-08/001/alf/_ibl_trials.choice.npy"),
    "append to a file that stays open": append_without_closing,
    "delete a file": sh_case("rm $Z/2019-06-12/001/alf/_ibl_trials.choice.npy"),
    "hard link": sh_case("cd $Z/2019-06-13/001/alf; ln _ibl_trials.choice.npy _ibl_trials.link.npy"),
    "chain of renames": sh_case(
        """mkdir -p $N/a0
        cp -r mainenlab/Subjects/flowers/2018-07-13 $N/a0
        cd $N
        for i in 0 1 2 3 4 5 6 7 8 9; do mv a$i a$((i+1)); echo $i > a$((i+1))/2018-07-13/1/chain.step$i.npy; done"""
    ),
    "exchange two subjects": sh_case(
        """mkdir -p $N/one/2020-01-01/001 $N/two/2020-01-01/001
        echo 1 > $N/one/2020-01-01/001/a.b.npy
        cd $N; mv one three; mv two one; mv three two"""
    ),
    "there and back": sh_case(
        """cd cortexlab/Subjects; mv ZM_1094 ZM_x; mv ZM_x ZM_1094
        echo 1 > ZM_1094/2019-01-28/001/a.b.npy"""
    ),
    "rm -rf and make again at once": remake_at_once,
    "mkdir -p, deep": sh_case(
        """deep=$N/deep/2020-01-01/001/a/b/c/d/e/f/g/h/i/j
        mkdir -p $deep; echo 1 > $deep/spikes.times.npy"""
    ),
    "a file that becomes a folder": sh_case(
        """cd mainenlab/Subjects/ZM_1150/2019-05-07/001/alf
        rm _ibl_trials.choice.npy; mkdir _ibl_trials.choice.npy
        echo 1 > _ibl_trials.choice.npy/spikes.times.npy"""
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_after_each_change_the_tables_equal_a_fresh_index(live, change):
    before = walk(live.root)
    change(live.root)
    after = walk(live.root)
    assert after != before
    live.assert_equals_fresh_index()
    assert listed(live.out_dir, live.root) == after
    while OPEN_FILES:
        OPEN_FILES.pop().close()


def test_sync_is_exact_and_the_ibl_tree_is_whole(fresh):
    fresh.start()
    assert fresh.client.sync().exactness == "exact"
    status = fresh.client.status()
    assert (status.state, status.n_sessions, status.n_datasets) == ("live", 26, 693)
    assert status.n_bytes == sum(walk(fresh.root).values())
    # Two subjects of that tree have sessions with the number 1.
    assert [(problem.kind, problem.path) for problem in status.problems] == [
        ("unpadded_number", "mainenlab/Subjects/clns0730"),
        ("unpadded_number", "mainenlab/Subjects/flowers"),
    ]
    assert listed(fresh.out_dir, fresh.root) == walk(fresh.root)


@pytest.mark.heavy
def test_sessions_without_datasets_come_and_go(fresh):
    fresh.start()
    sh(fresh.root, "cd cortexlab/Subjects; rmdir ZM_335/2019-07-17/002; mkdir -p empty/2020-01-01/001/alf")
    fresh.assert_equals_fresh_index()
    sessions, _ = read_tables(fresh.out_dir)
    found = {(row["subject"], row["number"]) for row in sessions.to_pylist()}
    assert ("ZM_335", 2) not in found
    assert {("ZM_335", 1), ("empty", 1)} <= found


def test_lost_events_are_made_up_for(fresh):
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > OVERFLOW_LIMIT:
        pytest.skip(f"fs.inotify.max_queued_events is {limit}: too many to fill")
    fresh.start()
    before = fresh.client.status()
    fresh.process.send_signal(signal.SIGSTOP)
    try:
        choice, cues = (
            fresh.root / KS005 / f"2019-04-01/001/alf/_ibl_trials.{name}.npy" for name in ("choice", "goCue_times")
        )
        for _ in range(limit // 2 + 1000):  # two files in turns: equal events in a row are joined
            os.chmod(choice, 0o644)
            os.chmod(cues, 0o644)
        sh(fresh.root, MIXED)
        sh(fresh.root, "mkdir -p late/Subjects/s/2020-01-01; cp -r $K/2019-04-04/004 late/Subjects/s/2020-01-01")
    finally:
        fresh.process.send_signal(signal.SIGCONT)
    assert fresh.client.sync().exactness == "held"  # a subject was renamed, and its event is among the lost ones
    fresh.client.rescan(accept_root=True)
    fresh.assert_equals_fresh_index()
    assert listed(fresh.out_dir, fresh.root) == walk(fresh.root)
    status = fresh.client.status()
    assert before.events_lost == 0
    assert (status.state, status.events_lost >= 1) == ("live", True)
    assert any("overflow" in scan.reason for scan in status.rescans)
    (fresh.root / "late/Subjects/s/2020-01-01/004/a.b.npy").write_bytes(b"seen by its own event")
    assert fresh.client.sync().exactness == "exact"
    assert listed(fresh.out_dir, fresh.root) == walk(fresh.root)


def write_settled(file, number):
    """Write a file that looks finished: a fresh one would wait a while for its hash."""
    hidden = file.with_name(".new")
    np.save(hidden.open("wb"), np.arange(number))
    os.utime(hidden, (1.6e9 + number, 1.6e9 + number))
    hidden.rename(file)


def test_hashes_are_the_md5_of_the_files(tmp_path):
    session = tmp_path / "lab/Subjects/s/2020-01-01/001"
    session.mkdir(parents=True)
    for number in range(20):
        write_settled(session / f"spikes.field{number}.npy", number)
    with program(tmp_path, flags=["--hash-files"]) as made:
        made.start()
        made.wait(lambda: made.client.status().hashes_pending == 0)
        write_settled(session / "spikes.field3.npy", 77)
        made.client.sync()
        made.wait(lambda: made.client.status().hashes_pending == 0)
        made.assert_equals_fresh_index()
        rows = pq.read_table(tmp_path / "datasets.pqt").to_pylist()
        assert len(rows) == 20
        for row in rows:
            assert row["hash"] == hashlib.md5((session / row["rel_path"]).read_bytes()).hexdigest()


@pytest.mark.heavy
def test_exclude_leaves_files_and_folders_out(fresh):
    fresh.flags += ["--exclude=raw_video_data/", "--exclude=/cortexlab/Subjects/KS*", "--exclude=*.flac"]
    fresh.start()
    sh(fresh.root, "cd cortexlab/Subjects; cp -r KS005 KS007; cp -r KS005 ../../mainenlab/Subjects/KS006")
    fresh.assert_equals_fresh_index()
    assert listed(fresh.out_dir, fresh.root) == {
        path: size for path, size in walk(fresh.root).items()
        if not re.search(r"/raw_video_data/|^cortexlab/Subjects/KS|\.flac$", path)
    }  # fmt: skip


def test_rows_that_a_stale_client_brings_back_go_again(fresh):
    fresh.start()
    stale = One(cache_dir=fresh.root, mode="local")
    gone = stale.search(subject="ZM_1150")
    shutil.rmtree(fresh.root / "mainenlab/Subjects/ZM_1150")
    fresh.client.sync()
    stale.save_cache(clobber=True)
    assert One(cache_dir=fresh.root, mode="local").search(subject="ZM_1150") == gone
    fresh.assert_equals_fresh_index()
    assert "another program changed the tables" in fresh.log
    assert not One(cache_dir=fresh.root, mode="local").search(subject="ZM_1150")


@pytest.mark.heavy
def test_rows_that_a_stale_client_brings_back_go_without_being_asked(fresh):
    config = fresh.home / "config.toml"
    config.write_text("flush_interval_seconds = 0.1\n")
    fresh.start(f"--config={config}")
    stale = One(cache_dir=fresh.root, mode="local")
    shutil.rmtree(fresh.root / "mainenlab/Subjects/ZM_1150")
    fresh.client.sync()
    stale.save_cache(clobber=True)
    n_rows = len(stale._cache["datasets"])
    fresh.wait(lambda: pq.read_metadata(fresh.out_dir / "datasets.pqt").num_rows < n_rows)
    assert listed(fresh.out_dir, fresh.root) == walk(fresh.root)


@pytest.mark.heavy
def test_tables_that_another_program_removed_are_written_again(fresh):
    fresh.start()
    (fresh.out_dir / "sessions.pqt").unlink()
    (fresh.out_dir / "datasets.pqt").unlink()
    sh(fresh.root, "cd mainenlab/Subjects; mv ZM_1743 renamed")  # rows go and come: the order of writing needs the old
    fresh.assert_equals_fresh_index()
    assert listed(fresh.out_dir, fresh.root) == walk(fresh.root)


@pytest.mark.heavy
def test_reload_takes_new_settings_and_keeps_old_ones_that_are_right(fresh):
    config = fresh.home / "config.toml"
    config.write_text('exclude = ["*.flac"]\n')
    fresh.start(f"--config={config}")
    everything = walk(fresh.root)
    assert len(listed(fresh.out_dir, fresh.root)) < len(everything)
    config.write_text('exclude = []\nlog_level = "info"\n')
    fresh.process.send_signal(signal.SIGHUP)
    fresh.wait(lambda: fresh.client.status().n_datasets == len(everything))
    fresh.assert_equals_fresh_index()
    assert listed(fresh.out_dir, fresh.root) == everything

    config.write_text("exclud = []\n")
    fresh.process.send_signal(signal.SIGHUP)
    fresh.wait(lambda: "unknown key 'exclud'; did you mean 'exclude'?" in fresh.log)
    fresh.assert_equals_fresh_index()


@pytest.mark.heavy
def test_a_second_daemon_refuses_and_names_the_first(fresh):
    fresh.start()
    same_tables = fresh.run_bare(*fresh.places, f"--socket={fresh.home / 'other'}", code=75)
    assert f"process {fresh.pid} " in same_tables.stderr
    once = fresh.run_once(code=75)
    assert f"process {fresh.pid} " in once.stderr
    other = fresh.home / "other_out"
    other.mkdir()
    places = [f"--root={fresh.root}", f"--out-dir={other}", f"--state-dir={other}"]
    same_socket = fresh.run_bare(*places, f"--socket={fresh.socket}", code=75)
    assert f"{fresh.socket}: another daemon serves this socket" in same_socket.stderr
    assert fresh.client.status().pid == fresh.pid


@pytest.mark.heavy
def test_a_stale_socket_is_replaced(fresh):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(fresh.socket))
    assert fresh.socket.is_socket()
    fresh.start()
    assert fresh.client.status().pid == fresh.pid
    fresh.stop()
    assert not fresh.socket.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.heavy)])
def test_what_was_written_just_before_the_end_is_in_the_tables(fresh, number):
    fresh.start()
    before = pq.read_metadata(fresh.out_dir / "datasets.pqt").num_rows
    new = fresh.root / KS005 / "2019-04-01/001/alf/last.words.npy"
    write_dataset(new, 3)
    fresh.stop(number)
    assert pq.read_metadata(fresh.out_dir / "datasets.pqt").num_rows == before + 1
    assert listed(fresh.out_dir, fresh.root) == walk(fresh.root)
    fresh.assert_tables_equal_fresh_index()


def test_what_changed_while_no_daemon_ran_is_in_the_tables_after_the_start(fresh):
    fresh.start()
    fresh.stop()
    sh(fresh.root, MIXED)
    fresh.start()
    assert fresh.client.sync().exactness == "held"  # a subject was renamed, and no event told
    fresh.client.rescan(accept_root=True)
    fresh.assert_equals_fresh_index()
    assert listed(fresh.out_dir, fresh.root) == walk(fresh.root)


@pytest.mark.parametrize("linked", [pytest.param("before the start", marks=pytest.mark.heavy), "while it runs"])
def test_what_is_written_through_a_hard_link_changes_the_rows_of_all_names(fresh, linked):
    # inotify(7): an event tells only of the name that was used.
    link = (
        "cd $K/2019-04-01/001; ln alf/_ibl_trials.choice.npy _ibl_trials.link.npy; mkdir b; ln alf/*.choice.npy b/a.b.c"
    )
    if linked == "before the start":
        sh(fresh.root, link)
    fresh.start()
    if linked == "while it runs":
        sh(fresh.root, link)
        fresh.assert_equals_fresh_index()
    for name in ("_ibl_trials.link.npy", "b/a.b.c", "alf/_ibl_trials.choice.npy"):
        sh(fresh.root, f"cd $K/2019-04-01/001; echo 1 >> {name}")
        fresh.assert_equals_fresh_index()
    assert listed(fresh.out_dir, fresh.root) == walk(fresh.root)
