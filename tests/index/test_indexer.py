"""What the indexer hands out, and what it keeps for the next run; what it makes of events, `tests/engine` holds."""

import os

import pytest

from alfwatchd.index.indexer import Indexer
from alfwatchd.index.record import Record
from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.scan.scanner import Scanner
from alfwatchd.watch.supervisor import WatchSupervisor
from kit.trees import fast_folder, indexing, listed, scan_all, write

S1, T1 = "s/2020-01-01/001", "t/2020-01-01/001"


@pytest.fixture
def root():
    with fast_folder() as folder:
        write(folder, f"{S1}/a.b.c", f"{T1}/a.b.c")
        yield folder


def test_what_was_handed_out_is_not_handed_out_again(root):
    """A session that came twice would be hashed twice; one that came never would have no digest."""
    with indexing(root) as indexer:
        scan_all(indexer)
        assert sorted(session.path for session in indexer.take_committed().sessions) == [S1, T1]
        assert indexer.take_committed() == ([], [], [], [])
        assert [scan.reason for scan in indexer.take_ended()] == ["test"]
        assert indexer.take_ended() == []
        write(root, f"{S1}/d.e.f")
        scan_all(indexer)
        assert [session.path for session in indexer.take_committed().sessions] == [S1]
        (scan,) = indexer.take_ended()
        assert (scan.changes.added, scan.changes.changed, scan.changes.removed) == (1, 0, 0)


def test_other_paths_are_left_out_after_the_next_scan(root):
    """A changed setting `exclude` takes effect without a restart, and its sessions do not count as lost."""
    with indexing(root) as indexer:
        scan_all(indexer)
        indexer.exclude(["s/"])
        scan_all(indexer)
        assert listed(indexer).keys() == {T1}
        assert indexer.problems() == []
        indexer.exclude([])
        scan_all(indexer)
        assert listed(indexer).keys() == {S1, T1}


def test_a_loss_is_recorded_before_it_is_shown_and_its_end_too(root):
    """After a crash, the next run must still hold the rows of a disk that was away."""
    losses, inodes = [], []
    guard = RootGuard(str(root), {})
    made = Indexer(
        Scanner(str(root)), guard, WatchSupervisor(),
        settle_seconds=0.1, longest_wait_seconds=1.0,
        record=Record(keep_loss=losses.append, keep_inodes=inodes.append),
    )  # fmt: skip
    try:
        scan_all(made)
        away = root.with_name(f"{root.name}-away")
        away.mkdir()
        for name in "st":
            (root / name).rename(away / name)
        (root / "x").mkdir()
        scan_all(made)
        assert [loss and loss.n_gone for loss in losses] == [2]
        assert listed(made).keys() == {S1, T1}
        for name in "st":
            (away / name).rename(root / name)
        os.rmdir(away)
        scan_all(made)
        assert [loss and loss.n_gone for loss in losses] == [2, None]
        assert made.problems() == []
        assert inodes[-1].keys() == {S1, T1}
    finally:
        guard.close()
