"""Prunes while others swap, change, move and link what is to go; while calls fail; killed half way."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alfwatchd.alf import grammar
from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import PruneRefused, RootOffline
from alfwatchd.prune import empty_trash, executor
from alfwatchd.prune.trash import Trash
from kit.program import PROGRAM, make_small_tree, program
from kit.prune import CLUSTERS, LAB_S1, S1, S2, SPIKES, T1, TRIALS, HookedOs, entries, hook_os, plan_for, write

pytestmark = pytest.mark.heavy

WEEK_LONG = Trash(604800.0)

# Exchanges pairs of paths as fast as it can: by turns, so many times each.
EXCHANGER = r"""
import ctypes, os, sys
rename = ctypes.CDLL(None, use_errno=True).renameat2
pairs = [tuple(map(os.fsencode, sys.argv[at : at + 2])) for at in range(1, len(sys.argv), 2)]
print("ready", flush=True)
while True:
    for one, other in pairs:
        for _ in range(7):
            rename(-100, one, -100, other, 2)
"""


@contextmanager
def exchanging(*pairs):
    """Exchange paths, in a process that is stopped at first."""
    command = [sys.executable, "-c", EXCHANGER, *(str(path) for pair in pairs for path in pair)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        wait_until_stopped(process)
        yield process
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_until_stopped(process):
    process.send_signal(signal.SIGSTOP)
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.0005)


KEPT = "lab/Subjects/kept/2020-01-01/001"
LEVELS = ["lab", "lab/Subjects", "lab/Subjects/u", "lab/Subjects/u/2020-01-01", LAB_S1, f"{LAB_S1}/alf"]


def make_race(top, level):
    """Make a root, and links to take the place of one of its folders: to hard links of the very files outside."""
    for path in top.iterdir():
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    names = (CLUSTERS, TRIALS, SPIKES, "alf/more.a.npy", "alf/more.b.npy")
    write(top / "root", *(f"{session}/{name}" for session in (LAB_S1, KEPT) for name in names))
    shutil.copytree(top / "root" / level, top / "outside/copy", copy_function=os.link)
    (top / "root" / KEPT / "link").symlink_to(top / "outside/copy")
    (top / "outside/link").symlink_to(top / "outside/copy")
    (top / "inside").symlink_to(top / "root" / KEPT / level[len(LAB_S1) + 1 :])
    return [f"{KEPT}/{name}" for name in names]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["link to the outside", "link to the inside", "folder that stays"])
@pytest.mark.parametrize("trash", [None, WEEK_LONG], ids=["at once", "trash"])
def test_no_swap_lets_a_prune_escape(tmp_path, trash, kind, scale, tally):
    root, n_deleted = tmp_path / "root", 0
    for number in range(scale(6, 30)):
        level = LEVELS[-1 - number % (2 if kind == "folder that stays" else len(LEVELS))]
        make_race(tmp_path, level)
        other = {
            "link to the outside": tmp_path / "outside/link",
            "link to the inside": tmp_path / "inside",
            "folder that stays": root / KEPT / level[len(LAB_S1) + 1 :],
        }[kind]
        with exchanging((root / level, other)) as exchanger:
            for _ in range(scale(4, 60)):
                kept = make_race(tmp_path, level)
                plan, stays = plan_for(root, kept), contents(root, KEPT)
                outside = entries(tmp_path / "outside/copy")
                exchanger.send_signal(signal.SIGCONT)
                for _ in range(3):
                    outcome = executor.apply_plan(
                        root, plan, may_continue=lambda: None, log=lambda _: None, trash=trash
                    )
                    n_deleted += len(outcome.deleted)
                wait_until_stopped(exchanger)
                tally["operations"] += 3
                assert entries(tmp_path / "outside/copy") == outside
                if kind == "folder that stays":  # wherever its files are now
                    found = {**contents(root, LAB_S1), **contents(root, KEPT)}
                    assert stays.keys() <= found.keys()
                elif (root / KEPT).exists():
                    assert contents(root, KEPT) == stays
    assert n_deleted > 0, "some got through"


def contents(root, session):
    """Return what files hold: inode -> text."""
    files = [path for path in (root / session).rglob("*") if path.is_file() and not path.is_symlink()]
    return {path.stat().st_ino: path.read_text() for path in files}


# A writer that acts between two system calls of a prune, where and how hypothesis likes.

SESSIONS = [S1, S2, T1, LAB_S1]
NAMES = [SPIKES, CLUSTERS, TRIALS, "README.txt", "alf/.hidden.file.npy", "my data/a.b.c"]
FOLDERS = ["s", "s/2020-01-01", S1, f"{S1}/alf", f"{S1}/alf/probe00", S2, "lab/Subjects", f"{LAB_S1}/alf"]
contents_of_sessions = st.dictionaries(st.sampled_from(SESSIONS), st.sets(st.sampled_from(NAMES)), max_size=4)
CALLS = ("open", "stat", "unlink", "rmdir", "scandir")  # and "rename", of the trash


class Vault:
    """Holds on to each file ever made, outside the root, so that nothing that goes is out of sight."""

    def __init__(self, top):
        self.top, self.root, self.n_made = top, top / "root", 0
        (top / "vault").mkdir()
        (top / "grave").mkdir()

    def keep(self, path):
        self.n_made += 1
        os.link(path, self.top / f"vault/{self.n_made}", follow_symlinks=False)

    def bury(self, path):
        """Move something out of the root."""
        self.n_made += 1
        path.rename(self.top / f"grave/{self.n_made}")

    def gone(self):
        """Return the state of all files that have no name but that in the vault."""
        return [about for about in (path.stat() for path in (self.top / "vault").iterdir()) if about.st_nlink == 1]


def make_file(vault, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"content {vault.n_made}")
    vault.keep(path)


def change(vault, path, _other):
    with path.open("a") as file:
        file.write("more")


def touch(_vault, path, _other):
    os.utime(path, ns=(1, 1))


def replace(vault, path, _other):
    vault.bury(path)
    make_file(vault, path)


def link_instead(vault, path, other):
    vault.bury(path)
    path.symlink_to(other)


def move(_vault, path, other):
    if not other.exists():
        path.rename(other)


def hard_link(_vault, path, other):
    if not other.exists():
        os.link(path, other, follow_symlinks=False)


def create(vault, path, _other):
    if not path.exists():
        make_file(vault, path.with_name("new.file.npy"))


def move_out(vault, path, _other):
    vault.bury(path)


def leave_a_link(vault, path, other):
    place = vault.top / "outside"
    vault.bury(path)
    path.symlink_to(place if path.name == other.name else other)


FILE_ACTIONS = (change, touch, replace, link_instead, move, hard_link, create, move_out)
FOLDER_ACTIONS = (move, move_out, leave_a_link)
PATHS = [f"{session}/{name}" for session in SESSIONS for name in NAMES]
actions = st.tuples(
    st.integers(0, 60),
    st.one_of(
        st.tuples(st.sampled_from(FILE_ACTIONS), st.sampled_from(PATHS), st.sampled_from(PATHS)),
        st.tuples(st.sampled_from(FOLDER_ACTIONS), st.sampled_from(FOLDERS), st.sampled_from(FOLDERS)),
    ),
)


class Writer:
    """Acts before the calls of a prune that it was told.

    Not between the look at a file and its unlink, on that file: no program can rule that out, see `prune.executor`.
    """

    def __init__(self, vault, planned):
        self.vault, self.planned, self.n_calls = vault, planned, 0
        self.n_done = 0

    def __call__(self, name, path):
        due = [action for at, action in self.planned if at == self.n_calls]
        self.n_calls += 1
        for act, one, other in due:
            if name == "unlink" and one.endswith(f"/{path}"):
                continue
            with suppress(OSError):
                act(self.vault, self.vault.root / one, self.vault.root / other)
                self.n_done += 1


def check_prune(tree, reference, before, planned, end, tally):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        top = Path(folder)
        vault = Vault(top)
        for name in (TRIALS, CLUSTERS, Path(CLUSTERS).name):
            make_file(vault, top / "outside" / name)
        vault.root.mkdir()
        for session, names in tree.items():
            (vault.root / session).mkdir(parents=True)
            for name in names:
                make_file(vault, vault.root / session / name)
        listed = [
            f"{session}/{name}"
            for session, names in reference.items()
            for name in names
            if grammar.split_dataset(f"{session}/{name}")
        ]
        plan = plan_for(vault.root, listed)
        writer = Writer(vault, [*((0, action) for action in before), *planned])
        hook_os(patch, HookedOs(writer))
        outcome = executor.apply_plan(
            vault.root,
            plan,
            may_continue=lambda: None,
            log=lambda _: None,
            trash=None if end == "at once" else WEEK_LONG,
        )
        if end != "at once":
            assert not vault.gone(), "a prune into the trash deletes nothing"
        if end == "undone":
            with suppress(PruneRefused, RootOffline):
                empty_trash.undo(vault.root, plan.plan_id, lambda _: None)
            assert not vault.gone(), "an undo loses nothing"
        elif end == "emptied":
            with suppress(RootOffline):
                empty_trash.empty(vault.root, None, lambda _: None)
        tally["operations"] += writer.n_done
        tally["comparisons"] += 1
        intended = {file.state.ino: file for file in plan.files}
        assert not {file.path for file in plan.files} & set(listed)
        gone = {about.st_ino: about for about in vault.gone()}
        assert gone.keys() <= intended.keys()
        for inode, about in gone.items():
            state = intended[inode].state
            assert (about.st_size, about.st_mtime_ns) == (state.size, state.mtime_ns), "it had changed"
        told = {file.state.ino for file in outcome.deleted}
        assert gone.keys() <= told
        for inode in told - gone.keys():  # it has another name, or came back
            assert any(
                about.st_ino == inode and about.st_nlink > 1 for about in map(Path.stat, (top / "vault").iterdir())
            )


@pytest.mark.timeout(900)
def test_a_prune_among_writers_deletes_what_was_planned_or_less(scale, tally):
    @settings(max_examples=scale(120, 6_000), database=None)
    @given(
        tree=contents_of_sessions,
        reference=contents_of_sessions,
        before=st.lists(actions.map(lambda action: action[1]), max_size=2),
        planned=st.lists(actions, max_size=4),
        end=st.sampled_from(["at once", "emptied", "undone"]),
    )
    def check(tree, reference, before, planned, end):
        check_prune(tree, reference, before, planned, end, tally)

    check()


# Calls that fail.

CODES = [errno.EIO, errno.EACCES, errno.ENOSPC, errno.ESTALE, errno.EROFS, errno.EINTR]


class FailingOs(HookedOs):
    """Fails one call, or each of a name."""

    def __init__(self, code, *, n=None, name=None):
        self.n_calls, self.has_failed = 0, False

        def fail(called, path):
            self.n_calls += 1
            if n == self.n_calls or called == name:
                self.has_failed = True
                raise OSError(code, os.strerror(code), path)

        super().__init__(fail)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("trash", [None, WEEK_LONG], ids=["at once", "trash"])
def test_a_call_that_fails_stops_no_prune_and_the_next_one_finishes(tmp_path, trash, tally):
    files = [f"{session}/{name}" for session in (S1, S2, LAB_S1) for name in (SPIKES, TRIALS)]
    stays = f"{S1}/{TRIALS}"

    def run(code, **which):
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        write(tmp_path / "root", *files)
        plan = plan_for(tmp_path / "root", [stays])
        failing = FailingOs(code, **which)
        n_open = len(os.listdir("/proc/self/fd"))
        with pytest.MonkeyPatch.context() as patch:
            hook_os(patch, failing)
            with suppress(RootOffline, PruneRefused):
                outcome = executor.apply_plan(
                    tmp_path / "root", plan, may_continue=lambda: None, log=lambda _: None, trash=trash
                )
                left = {path for path in files if (tmp_path / "root" / path).exists()}
                assert {file.path for file in outcome.deleted} == set(files) - left
                assert left - {stays} <= {item.path for item in outcome.kept}
        assert len(os.listdir("/proc/self/fd")) <= n_open
        again = plan_for(tmp_path / "root", [stays])
        executor.apply_plan(tmp_path / "root", again, may_continue=lambda: None, log=lambda _: None)
        assert [path for path in files if (tmp_path / "root" / path).exists()] == [stays]
        assert plan_for(tmp_path / "root", [stays]).files == plan_for(tmp_path / "root", [stays]).folders == ()
        empty_trash.empty(tmp_path / "root", None, lambda _: None)
        assert not (tmp_path / "root" / TRASH).exists()
        tally["faults"] += 1
        return failing.has_failed

    n = 1
    while run(random.choice(CODES), n=n):
        n += 1
    assert n > 40, "each call has failed once"
    for name in CALLS:
        for code in CODES:
            assert run(code, name=name)


# Kills.


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("with_daemon", [False, True])
def test_after_a_kill_the_next_prune_finishes_and_the_tables_are_right(tmp_path, with_daemon, scale, tally):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it if the test fails
    root, out_dir, reference = tmp_path / "root", tmp_path / "tables", tmp_path / "reference"
    out_dir.mkdir()
    reference.mkdir()
    make_small_tree(root)
    with program(root, out_dir) as made:
        config = made.home / "config.toml"
        config.write_text("[prune]\nenabled = true\nmax_fraction = 1.0\n")
        made.flags = [f"--config={config}"]
        made.run_once()
        for name in ("sessions.pqt", "datasets.pqt"):
            shutil.copy(out_dir / name, reference)
        stays, where = entries(root), "lab/Subjects/{}/2020-02-02/001"
        for _ in range(scale(2, 25)):
            new = [f"{where.format(f'new{number}')}/alf/a{file}.b.npy" for number in range(20) for file in range(10)]
            write(root, *new)
            places = made.places
            if with_daemon:
                made.start()
                places = [f"--socket={made.socket}"]
            command = ["prune", *places, f"--reference={reference}", "--apply", "--max-fraction=1", "--newer"]
            pruning = subprocess.Popen(
                [PROGRAM, *command], env=made.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            victim = made.process if with_daemon else pruning
            at = chance.randrange(1, len(new))
            while sum((root / path).exists() for path in new[:at]) == at and victim.poll() is None:
                if pruning.poll() is not None:
                    break
            victim.kill()
            pruning.wait()
            made.kill()
            tally["kills"] += 1
            assert {path: what for path, what in entries(root).items() if path in stays} == stays
            if with_daemon:
                made.start()
                tally["restarts"] += 1
                made.assert_equals_fresh_index()
            made.run_bare(*command)
            if with_daemon:
                made.assert_equals_fresh_index()
                made.stop()
            else:
                made.run_once()
                made.assert_tables_equal_fresh_index()
            tally["comparisons"] += 1
            trashed = {path.read_text() for path in (root / TRASH).glob("*/*/*")}
            assert trashed == {f"content of {path}" for path in new}, "each file lies in the trash"
            empty_trash.empty(root, None, lambda _: None)
            assert {path for path in entries(root) if (root / path).is_file()} == {
                path for path in stays if (root / path).is_file()
            }
