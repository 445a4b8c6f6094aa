"""What happens while a prune runs: it is stopped, killed, refused, or others change the tree under it."""

import contextlib
import errno
import os
import pickle
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from alfwatchd.errors import RootOffline
from alfwatchd.prune import executor
from kit.prune import (
    CLUSTERS,
    LAB_S1,
    S1,
    S2,
    SPIKES,
    T1,
    TRIALS,
    At,
    HookedOs,
    apply,
    deleted,
    entries,
    go_on,
    hook_os,
    kept,
    no_log,
    plan_for,
    write,
)

NOBODY = 65534
pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


class StopAfter:
    """A `may_continue` that lets a number of sessions pass."""

    def __init__(self, n_sessions):
        self.n_sessions = n_sessions

    def __call__(self):
        if self.n_sessions == 0:
            raise RootOffline("the root is away")
        self.n_sessions -= 1


@pytest.mark.parametrize("n_sessions", [0, 1, 2, 3])
def test_a_prune_that_is_stopped_tells_what_it_did_and_the_next_one_finishes(root, n_sessions):
    files = [f"{session}/{TRIALS}" for session in (S1, S2, T1)]
    write(root, *files)
    outcome = apply(root, plan_for(root), may_continue=StopAfter(n_sessions))
    assert deleted(outcome) == files[:n_sessions]
    assert str(outcome.stopped) == ("None" if n_sessions == 3 else "the root is away")
    assert [path for path in files if (root / path).exists()] == files[n_sessions:]
    outcome = apply(root, plan_for(root))
    assert (deleted(outcome), outcome.stopped) == (files[n_sessions:], None)
    assert entries(root).keys() == {"s", "t"}


@pytest.mark.parametrize("n_asked", range(7))
def test_a_prune_whose_client_is_gone_stops_at_the_next_file_or_folder(root, n_asked):
    files = [f"{session}/{name}" for session in (S1, S2) for name in (TRIALS, CLUSTERS)]
    write(root, *files)
    answers = iter([True] * n_asked)
    plan = plan_for(root)
    wanted = {"is_wanted": lambda: next(answers, False)}
    outcome = executor.apply_plan(root, plan, may_continue=go_on, log=no_log, **wanted)
    steps = [plan.files[0].path, plan.files[1].path, S1, plan.files[2].path, plan.files[3].path, S2]
    gone = steps[:n_asked]
    assert [path for path in steps if not (root / path).exists()] == gone
    assert deleted(outcome) == [path for path in gone if path not in (S1, S2)]
    assert (outcome.stopped is None) == (n_asked == 6)


def in_child(work):
    """Run in a forked process; return what it returned, or None where it was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = pickle.dumps(work())
            os.write(writing, answer)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(answer) if answer else None


@pytest.mark.parametrize("n_lines", range(1, 14))
def test_after_kill_9_the_next_prune_finishes(root, n_lines):
    write(root, *[f"{session}/{path}" for session in (S1, S2, T1, LAB_S1) for path in (SPIKES, TRIALS)])
    write(root, f"{S2}/README.txt")
    lines = []

    def log(line):
        lines.append(line)
        if len(lines) == n_lines:
            os.kill(os.getpid(), signal.SIGKILL)

    plan = plan_for(root, [f"{S1}/{SPIKES}"])
    assert in_child(lambda: executor.apply_plan(root, plan, may_continue=go_on, log=log)) is None
    apply(root, plan_for(root, [f"{S1}/{SPIKES}"]))
    final = plan_for(root, [f"{S1}/{SPIKES}"])
    assert (final.files, final.folders) == ((), (S2,))
    assert {path for path in entries(root) if (root / path).is_file()} == {f"{S1}/{SPIKES}", f"{S2}/README.txt"}
    assert not {path for path in (T1, LAB_S1) if (root / path).exists()}


@contextlib.contextmanager
def open_to_nobody():
    """A folder that the user `nobody` can reach, unlike `tmp_path`: prune does not run as root in it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder).resolve()


def as_nobody(work):
    """Run in another process that has no privileges."""

    def run():
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        return work()

    return in_child(run)


def give_to_nobody(top):
    if os.geteuid() == 0:
        for path in [top, *top.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)


# mode of S1's alf folder, what of it goes
MODES = [(0o555, False), (0o400, False), (0o000, False), (0o300, True), (0o700, True)]


@pytest.mark.parametrize(("mode", "goes"), MODES)
def test_what_may_not_be_deleted_is_kept_and_the_rest_goes(mode, goes):
    with open_to_nobody() as root:
        write(root, f"{S1}/{CLUSTERS}", f"{S1}/{TRIALS}", f"{S2}/{CLUSTERS}")
        give_to_nobody(root)
        plan = plan_for(root)
        folder = root / S1 / "alf"
        folder.chmod(mode)
        outcome = as_nobody(lambda: executor.apply_plan(root, plan, may_continue=go_on, log=no_log))
        with contextlib.suppress(FileNotFoundError):
            folder.chmod(0o700)
        assert (root / S1 / CLUSTERS).exists() is not goes
        assert set(deleted(outcome)) - {f"{S1}/{CLUSTERS}"} == {f"{S1}/{TRIALS}", f"{S2}/{CLUSTERS}"}
        assert S2 in outcome.removed
        assert goes or kept(outcome)[f"{S1}/{CLUSTERS}"] == "this user may not write there (Permission denied)"
        assert (root / S1).exists() is (mode != 0o700), "a folder that cannot be read may hold something"


LEVELS = ["lab", "lab/Subjects", "lab/Subjects/u", "lab/Subjects/u/2020-01-01", LAB_S1, f"{LAB_S1}/alf"]


@pytest.mark.parametrize("level", LEVELS)
def test_swapping_a_folder_for_a_link_at_any_moment_does_not_escape_the_root(root, tmp_path, monkeypatch, level):
    """The link leads to hard links of the very files, so that nothing but the way to them tells the difference."""
    n, done = 0, True
    while done:
        n += 1
        for folder in (root, tmp_path / "outside", tmp_path / "moved"):
            shutil.rmtree(folder, ignore_errors=True)
        write(root, f"{LAB_S1}/{CLUSTERS}", f"{LAB_S1}/{TRIALS}")
        (root / LAB_S1 / "empty").mkdir()
        shutil.copytree(root / level, tmp_path / "outside", copy_function=os.link)
        plan = plan_for(root)
        outside = entries(tmp_path / "outside")

        def swap():
            with contextlib.suppress(FileNotFoundError):
                (root / level).rename(tmp_path / "moved")
                (root / level).symlink_to(tmp_path / "outside")

        hook = At(swap, n=n)
        with monkeypatch.context() as patch:
            hook_os(patch, HookedOs(hook))
            outcome = executor.apply_plan(root, plan, may_continue=go_on, log=no_log)
        assert entries(tmp_path / "outside") == outside
        told = {*deleted(outcome), *outcome.removed, *kept(outcome)}
        assert told >= {file.path for file in plan.files} | {LAB_S1}, "nothing that was planned is passed over"
        done = hook.done
    assert n > 30, "the swap was tried before each call"


def test_a_folder_filled_at_the_last_moment_stays(root, monkeypatch):
    write(root, f"{S1}/{CLUSTERS}")
    plan = plan_for(root)
    hook = At(lambda: write(root, f"{S1}/new.b.c"), call=("rmdir", "001"))
    hook_os(monkeypatch, HookedOs(hook))
    outcome = executor.apply_plan(root, plan, may_continue=go_on, log=no_log)
    assert (hook.done, outcome.removed) == (True, ())
    assert kept(outcome) == {S1: os.strerror(errno.ENOTEMPTY)}
    assert (root / S1 / "new.b.c").exists()


@pytest.mark.parametrize("call", ["stat", "unlink", "scandir", "rmdir"])
def test_what_another_process_deletes_meanwhile_stops_nothing(root, monkeypatch, call):
    write(root, f"{S1}/{TRIALS}", f"{T1}/{TRIALS}")
    (root / S1 / "empty").mkdir()
    plan = plan_for(root)
    hook = At(lambda: shutil.rmtree(root / "s"), call=call)
    hook_os(monkeypatch, HookedOs(hook))
    outcome = executor.apply_plan(root, plan, may_continue=go_on, log=no_log)
    assert hook.done
    assert f"{T1}/{TRIALS}" in deleted(outcome)
    assert T1 in outcome.removed
    assert kept(outcome)[S1] == "is gone already"
