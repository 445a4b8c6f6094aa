"""A prune asks before each session whether it may go on: the engine looks at the disk, at the same cost for any tables.

If one of these fails, a prune deletes files below a root that was swapped, or every session takes longer.
"""

import sys
from concurrent.futures import Future

import pytest

from alfwatchd.api import RootCheckRequest
from alfwatchd.engine.requests import answer_request
from alfwatchd.errors import PruneRefused, RootOffline
from alfwatchd.index.intake import Unreadable
from alfwatchd.tree.sessions import Tables
from kit.engine import EngineBox
from kit.mount import mount_box
from kit.prune import write


@pytest.fixture
def make_box(tmp_path):
    boxes = []

    def make(n_sessions):
        root = tmp_path / f"root of {n_sessions}"
        write(root, *(f"s{each}/2020-01-01/001/alf/spikes.times.npy" for each in range(n_sessions)))
        boxes.append(EngineBox(root))
        boxes[-1].sync()
        boxes[-1].live(20.0)
        return boxes[-1]

    yield make
    for box in boxes:
        box.close()


def ask(box):
    """Let the engine answer at once, without a step in which it would look around by itself."""
    reply = Future()
    answer_request(box.engine.model, box.engine.root, RootCheckRequest(reply), box.now)
    return reply.result(0)


def count_calls(queue):
    """Return how many functions, of Python and of C, are called."""
    calls = []
    sys.setprofile(lambda _, event, __: calls.append(event) if event in ("call", "c_call") else None)
    try:
        queue()
    finally:
        sys.setprofile(None)
    return len(calls)


def test_the_check_costs_the_same_for_any_number_of_sessions(make_box, monkeypatch):
    small, large = make_box(3), make_box(60)
    read_all = []
    for name in ("snapshot", "paths", "problems"):
        monkeypatch.setattr(Tables, name, lambda *_, name=name: read_all.append(name))
    counts = []
    for box in (small, large):
        ask(box)  # what is done once only
        counts.append(count_calls(lambda box=box: ask(box)))
    assert counts[0] == counts[1]
    assert read_all == []


def test_the_check_looks_at_the_disk(make_box):
    box = make_box(3)
    mark = ask(box)
    assert ask(box) == mark
    away = box.root.with_name("away")
    box.root.rename(away)
    assert not box.engine.model.offline
    with pytest.raises(RootOffline, match=str(box.root)):
        ask(box)
    assert str(box.root) in box.engine.model.offline
    away.rename(box.root)
    with pytest.raises(RootOffline):
        ask(box)  # whether it is the same is for the engine to find out, with a scan: not in the middle of a prune
    box.live(30.0)
    assert isinstance(ask(box), int)


@pytest.mark.parametrize("what", ["unreadable", "missing"])
def test_the_check_fails_while_a_part_cannot_be_read(make_box, what):
    box = make_box(3)
    indexer = box.indexer
    if what == "unreadable":
        indexer.unreadable[indexer.tree.find("s1")] = Unreadable("Input/output error")
    else:
        indexer.guard.missing["s1"] = "another file system is there (ext4)"
    with pytest.raises(PruneRefused, match=r"^s1: "):
        ask(box)


# Without a daemon.

CHECK = """
import subprocess, sys
from pathlib import Path
from alfwatchd.errors import RootOffline
from alfwatchd.prune.operations import RootCheck

root, other = map(Path, sys.argv[1:3])
check = RootCheck(root)
check.check()
subprocess.run(["mount", "--bind", other, other], check=True)  # elsewhere
check.check()
subprocess.run(sys.argv[3:], check=True)
try:
    check.check()
except RootOffline as error:
    print(error)
"""
MOUNTS = {
    "over it": ("{other}", "{root}", "something else is there now"),
    "below it": ("{other}", "{root}/lab", "was mounted or unmounted below it"),
    "of itself below it": ("{root}/lab/copy", "{root}/lab/session", "was mounted or unmounted below it"),
}


@pytest.mark.parametrize("case", MOUNTS)
def test_a_prune_without_a_daemon_looks_at_mounts_too(tmp_path, case):
    with mount_box(tmp_path) as box:
        box.mount_disk()
        other = tmp_path / "other"
        other.mkdir()
        for folder in ("lab/copy", "lab/session"):
            box.path(box.root / folder).mkdir(parents=True)
        source, target, said = MOUNTS[case]
        mount = ["mount", "--bind", *(place.format(root=box.root, other=other) for place in (source, target))]
        assert said in box.tell(sys.executable, "-c", CHECK, box.root, other, *mount)
