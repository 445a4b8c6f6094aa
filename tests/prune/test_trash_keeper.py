"""The daemon empties the trash when it is due, and tells a person what it cannot empty."""

import os
from types import SimpleNamespace

import pytest

from alfwatchd.alf.grammar import TRASH
from alfwatchd.prune import empty_trash
from alfwatchd.prune.trash_keeper import TrashKeeper
from kit.prune import S1, S2, SPIKES, TRIALS, plan_for, write
from kit.trash import NOW, WEEK, move

FILES = [f"{session}/{name}" for session in (S1, S2) for name in (SPIKES, TRIALS)]


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "root", *FILES)
    return tmp_path / "root"


class Kept:
    """A keeper of a root, whose clock is set by hand."""

    def __init__(self, root):
        self.now = NOW
        self.n_looks = 0
        settings = SimpleNamespace(root=root, state_dir=root.parent / "state")
        self.keeper = TrashKeeper(lambda: settings, lambda: self.now)

    def wake(self, now=None):
        self.now = self.now if now is None else now
        self.keeper.wake(may_empty=True)
        self.keeper.join()
        return self.keeper


def test_the_keeper_counts_and_empties_when_due(root):
    kept = Kept(root)
    assert kept.wake().n_bytes == 0
    plan = plan_for(root)
    move(root, plan)
    assert kept.wake().n_bytes == 0, "it looks only when something is due or told"
    kept.keeper.look_again(may_empty=True)
    kept.keeper.join()
    assert kept.keeper.n_bytes == plan.n_bytes
    assert kept.wake(NOW + WEEK - 1).n_bytes == plan.n_bytes
    assert kept.wake(NOW + WEEK).n_bytes == 0
    assert not (root / TRASH).exists()


def test_what_cannot_be_emptied_is_a_problem_and_tried_again_later(root):
    kept, plan = Kept(root), plan_for(root)
    move(root, plan)
    slot = next((root / TRASH).glob("*/*/000000"))
    about = slot.stat()
    slot.write_text("written to")
    assert [problem.kind for problem in kept.wake().problems()] == ["trash_written"]
    keeper = kept.wake(NOW + WEEK)
    (problem,) = keeper.problems()
    assert f"alfwatchd prune --undo {plan.plan_id}" in problem.message
    assert keeper.n_bytes == len("written to")
    slot.write_text(f"content of {plan.files[0].path}")
    os.utime(slot, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert kept.wake(NOW + WEEK + 10).n_bytes > 0
    assert kept.wake(NOW + WEEK + 1000).n_bytes == 0
    assert keeper.problems() == []


def test_a_damaged_or_planted_trash_is_a_problem(root):
    kept, plan = Kept(root), plan_for(root)
    move(root, plan)
    (root / TRASH / plan.plan_id / "manifest").write_text("damaged")
    (problem,) = kept.wake().problems()
    assert (problem.kind, problem.path) == ("trash_damaged", f"{TRASH}/{plan.plan_id}")
    (root / TRASH).chmod(0o777)
    kept.keeper.look_again(may_empty=True)
    kept.keeper.join()
    assert [(problem.kind, problem.path) for problem in kept.keeper.problems()] == [("trash_damaged", TRASH)]


def test_a_trash_of_another_user_is_left_alone(root):
    kept = Kept(root)
    move(root, plan_for(root))
    os.chown(root / TRASH, 65534, 65534)
    keeper = kept.wake(NOW + 2 * WEEK)
    assert (keeper.n_bytes, keeper.problems()) == (0, [])
    assert next((root / TRASH).glob("*/*/000000")).exists()


def test_a_broken_off_undo_is_finished_when_the_keeper_looks(root):
    plan = plan_for(root)
    move(root, plan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alfwatchd.prune.undo.move_back", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            empty_trash.undo(root, plan.plan_id, lambda _: None)
    assert Kept(root).wake().n_bytes == 0
    assert all((root / path).exists() for path in FILES)
    assert (root / S1).stat().st_mode & 0o777 != 0o700
