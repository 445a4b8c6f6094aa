"""Whatever happens to the tree: after `sync`, the tables are those of a fresh index. The model is the program itself,
without history: `once.index` on an empty state.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from alfwatchd import indexer
from alfwatchd.core.messages import EventsLost, PathsChanged, Reload, RescanRequest
from alfwatchd.errors import WatchError, WatchLimit
from engine_box import POINTS, EngineBox
from fuzz_disk import NUMBERS, OPERATIONS, Disk

SECONDS = (0.0, 0.0, 0.05, 0.2, 1.5, 20.0, 70.0)
UNITS = (1, 2, 128)
EXCLUDES = ((), (), ("probe00/",), ("*.tsv", "/t/"), ("c.d.npy",))
RENAMES = ("exchange", "there_and_back", "rename", "rename_beside", "chain", "move_out", "move_in")


class Trial:
    """A tree, an engine on it, and all that may happen to both. Each method is one step of a story.

    Parameters
    ----------
    units : int
        Folders that the engine looks at in one step: few, so that the tree changes between them.
    first : list of int
        Sessions that are there at the start.
    """

    def __init__(self, units: int = 1, first: list[int] | None = None) -> None:
        self.tried: Counter[str] = Counter()
        self.home = Path(tempfile.mkdtemp(prefix="fuzz"))
        self.disk = Disk(self.home / "root", self.home / "outside")
        for number in first or []:
            self.disk.do("write_session", number, number)
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(indexer, "_FOLDERS_PER_UNIT", units)
        self.box = EngineBox(self.home / "root", reconcile_interval_seconds=60, reconcile_entries_per_second=20)
        self.is_losing = False

    def end(self) -> None:
        self.box.close()
        self.patch.undo()
        shutil.rmtree(self.home)

    def change(self, name: str, a: int, b: int) -> None:
        self.disk.do(name, a, b)
        self.tried["operations"] += 1

    def ambush(self, point: int, name: str, a: int, b: int) -> None:
        """Let something happen in the middle of the next look at a folder."""
        self.tried["ambushes"] += 1
        self.box.ambushes[POINTS[point]].append(lambda _: self.change(name, a, b))

    def ambush_here(self, point: int, a: int) -> None:
        """Let something happen to a folder in the middle of the next look at it."""
        self.tried["ambushes"] += 1
        self.box.ambushes[POINTS[point]].append(lambda path: self.disk.change_in(path, a))

    def feint(self, point: int, a: int) -> None:
        """Let the next folder that is looked at, or one above it, be another one until some point in the look."""
        self.tried["ambushes"] += 1

        def begin(path: str) -> None:
            pair = self.disk.exchange_above(path, a)
            self.box.ambushes[POINTS[point]].append(lambda _: self.disk.exchange_pair(pair))

        self.box.ambushes["before opening"].append(begin)

    def limit(self, number: int) -> None:
        """Let the kernel refuse to watch some folders, or none (0)."""
        self.tried["limits"] += 1

        def refuse(fd: int) -> WatchError | None:
            return (
                WatchLimit("the limit of inotify watches is reached")
                if number and not os.fstat(fd).st_ino % number
                else None
            )

        self.box.refuse = refuse

    def step(self, seconds: int, heard: int) -> None:
        if heard:
            self.box.hear()
        self.box.step(SECONDS[seconds])

    def run(self, seconds: int) -> None:
        self.box.run(SECONDS[seconds])

    def lose(self) -> None:
        """Let the kernel's queue be full from now on."""
        if not self.is_losing:
            self.tried["overflows"] += 1
            self.box.hear()
            self.is_losing = True
            self.box.drop = lambda message: isinstance(message, PathsChanged)

    def tell(self) -> None:
        """Let the kernel's queue have room again, and say that it was full."""
        if self.is_losing:
            self.box.hear()
            self.is_losing = False
            self.box.drop = lambda message: False
            self.box.inbox.post(EventsLost("overflow of the kernel's event queue"))

    def kill_reader(self) -> None:
        self.tried["dead readers"] += 1
        self.box.kill_reader()

    def restart(self) -> None:
        self.tried["restarts"] += 1
        self.box.hear()
        self.box.call_off_ambushes()
        self.box.stop()
        self.is_losing = False
        self.box.drop = lambda message: False
        self.box.start()

    def reload(self, number: int) -> None:
        self.box.new_settings["exclude"] = EXCLUDES[number % len(EXCLUDES)]
        self.box.inbox.post(Reload())

    def rescan(self, number: int) -> None:
        folders = [folder.path for folder in self.box.indexer.tree.root.walk()]
        self.box.ask(RescanRequest, path=folders[number % len(folders)])

    def sync(self) -> None:
        self.tried["syncs"] += 1
        self.box.call_off_ambushes()
        self.tell()
        reply = self.box.sync()
        assert reply.exactness in ("exact", "scanned")
        self.box.assert_equal()
        assert self.box.status().state == ("polled" if self.box.indexer.watching.unwatched else "live")
        watched = {
            folder
            for wd in self.box.indexer.watching.claims
            for folder in self.box.indexer.watching.claims.watched_by(wd)
        }
        assert watched | self.box.indexer.watching.unwatched == set(self.box.indexer.tree.root.walk())


class Equality(RuleBasedStateMachine):
    """Hypothesis tells the story."""

    trial: Trial | None = None

    @initialize(
        units=st.sampled_from(UNITS), first=st.lists(st.integers(0, NUMBERS - 1), max_size=3), is_calm=st.booleans()
    )
    def begin(self, units, first, is_calm):
        self.trial = Trial(units, first)
        self.is_calm = is_calm

    def teardown(self):
        if self.trial is not None:
            try:
                self.trial.sync()
            finally:
                self.trial.end()

    changes = st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, NUMBERS - 1), st.integers(0, NUMBERS - 1))
    points = st.integers(0, len(POINTS) - 1)
    seconds = st.integers(0, len(SECONDS) - 1)

    @rule(changes=st.lists(changes, min_size=1, max_size=6))
    def change(self, changes):
        for change in changes:
            self.trial.change(*change)

    @rule(changes=st.lists(changes, min_size=1, max_size=6), seconds=seconds)
    def change_and_step(self, changes, seconds):
        for change in changes:
            self.trial.change(*change)
            self.trial.step(seconds, heard=True)

    @rule(point=points, change=changes)
    def ambush(self, point, change):
        self.trial.ambush(point, *change)

    @rule(point=points, name=st.sampled_from(RENAMES), change=changes)
    def ambush_by_rename(self, point, name, change):
        self.trial.ambush(point, name, *change[1:])

    @rule(seconds=seconds, heard=st.booleans())
    def step(self, seconds, heard):
        self.trial.step(seconds, heard)

    @rule(seconds=seconds)
    def run(self, seconds):
        self.trial.run(seconds)

    @precondition(lambda self: not self.is_calm)
    @rule(name=st.sampled_from(["lose", "tell", "kill_reader", "restart"]))
    def trouble(self, name):
        getattr(self.trial, name)()

    @precondition(lambda self: not self.is_calm)
    @rule(name=st.sampled_from(["rescan", "reload"]), number=st.integers(0, 99))
    def order(self, name, number):
        getattr(self.trial, name)(number)

    @rule()
    def sync(self):
        self.trial.sync()


def test_equality():
    run_state_machine_as_test(
        Equality,
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def stories(seed: int):
    """Yield endless steps."""
    draw = random.Random(seed)
    trouble = draw.choice((0.0, 0.01, 0.05))

    def change():
        return draw.choice(NAMES), draw.randrange(NUMBERS), draw.randrange(NUMBERS)

    while True:
        chance = draw.random()
        if draw.random() < trouble:
            kind = draw.choice(("lose", "tell", "kill_reader", "restart", "rescan", "reload", "limit"))
            yield (
                (kind, draw.randrange(99))
                if kind in ("rescan", "reload")
                else (kind, draw.choice((0, 0, 1, 2, 5)))
                if kind == "limit"
                else (kind,)
            )
        elif chance < 0.55:
            yield ("change", *change())
        elif chance < 0.60:
            yield ("ambush", draw.randrange(len(POINTS)), *change())
        elif chance < 0.65:
            yield ("ambush", draw.randrange(len(POINTS)), draw.choice(RENAMES), *change()[1:])
        elif chance < 0.76:
            yield (draw.choice(("feint", "ambush_here")), draw.randrange(len(POINTS)), draw.randrange(NUMBERS))
        elif chance < 0.92:
            yield ("step", draw.randrange(len(SECONDS)), draw.randrange(2))
        elif chance < 0.94:
            yield ("run", draw.randrange(len(SECONDS)))
        else:
            yield ("sync",)


NAMES = sorted(OPERATIONS)
