"""Whatever happens to the tree, to the events and to the engine: after `sync`, the tables are those of a fresh index.

The model is the program itself without history, `once.index` from nothing. Changes come between the looks of the engine
and in the middle of them; events are lost, readers die, the engine starts anew, watches are refused. After each sync
both tables, in memory and on disk, are compared, the watches with the kernel's, and the state must be truthful.

Three ways to tell the same stories:

* `test_stories`: hypothesis makes them up, and makes a failing one short;
* `test_seeded_stories`: from seeds, for minutes at full size; says the seed of a story that failed
  (``ALFWATCHD_SEED=... ALFWATCHD_SECONDS=...`` begin elsewhere and take longer);
* `test_a_writer_that_does_not_wait`: another process writes at full speed while the engine runs in real time.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from hashlib import md5
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from alfwatchd.api import RescanRequest, SyncRequest
from alfwatchd.engine.messages import Reload
from alfwatchd.errors import WatchError, WatchLimit
from alfwatchd.index import indexer, looker, worker_pool
from alfwatchd.scan.scanner import open_folder
from alfwatchd.tree.folder import Folder
from alfwatchd.watch.events import EventsLost, PathsChanged
from kit.engine import PATIENCE, POINTS, EngineBox
from kit.fuzz_disk import NUMBERS, OPERATIONS, Disk
from kit.fuzz_writer import Writer

pytestmark = pytest.mark.usefixtures("no_readers")

SECONDS = (0.0, 0.0, 0.05, 0.2, 1.5, 20.0, 70.0)
UNITS = (1, 1, 2, 128)
EXCLUDES = ((), (), ("probe00/",), ("*.tsv", "/t/"), ("c.d.npy",))
NAMES = sorted(OPERATIONS)


class Trial:
    """A tree, an engine on it, and all that may happen to both. Each method is one step of a story.

    Parameters
    ----------
    units : int
        Folders that the engine looks at in one step: few, so that the tree changes between them.
    first : list of int
        Sessions that are there at the start.
    with_workers : bool
        Whether worker processes share full scans, even the smallest.
    with_digests : bool
        Whether files are hashed.
    """

    def __init__(
        self,
        units: int = 128,
        first: tuple[int, ...] = (),
        *,
        with_workers: bool = False,
        with_digests: bool = False,
    ) -> None:
        self.tried: Counter[str] = Counter()
        self.is_losing = False
        self.may_hold = False
        """Whether changes since the last sync may have been told by no event."""
        self.refuses = False
        """Whether the kernel may have refused to watch folders."""
        self.home = Path(tempfile.mkdtemp(prefix="trial"))
        self.disk = Disk(self.home / "root", self.home / "outside")
        for number in first:
            self.disk.do("write_session", number, number)
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(indexer, "FOLDERS_PER_UNIT", units)
        self.patch.setattr(worker_pool, "ENOUGH_UNITS", 1)
        self.denied = 0
        self.patch.setattr(looker, "open_folder", self._open_folder)
        self.box = EngineBox(
            self.home / "root",
            with_workers=with_workers,
            with_digests=with_digests,
            scan_workers=2,
            reconcile_interval_seconds=60,
            reconcile_entries_per_second=20,
        )

    def end(self) -> None:
        self.box.close()
        self.patch.undo()
        shutil.rmtree(self.home)

    # The disk.

    def change(self, name: str, a: int, b: int) -> None:
        self.tried["operations"] += 1
        self.disk.do(name, a, b)

    def ambush(self, point: int, name: str, a: int, b: int) -> None:
        """Let something happen anywhere in the middle of the next look."""
        self.tried["faults"] += 1
        self.box.ambushes[POINTS[point]].append(lambda _: self.change(name, a, b))

    def ambush_here(self, point: int, a: int) -> None:
        """Let something happen to a folder in the middle of the next look at it."""
        self.tried["faults"] += 1
        self.box.ambushes[POINTS[point]].append(lambda path: self.disk.change_in(path, a))

    def feint(self, point: int, a: int) -> None:
        """Let the next folder that is looked at, or one above it, be another one until some point of the look."""
        self.tried["faults"] += 1

        def begin(path: str) -> None:
            pair = self.disk.exchange_above(path, a)
            self.box.ambushes[POINTS[point]].append(lambda _: self.disk.exchange_pair(pair))

        self.box.ambushes["before opening"].append(begin)

    # Time.

    def step(self, seconds: int, heard: int) -> None:
        if heard:
            self.box.hear()
        self.box.step(SECONDS[seconds])

    def run(self, seconds: int) -> None:
        self.box.run(SECONDS[seconds])

    # Trouble.

    def lose(self) -> None:
        """Let the kernel's queue be full from now on."""
        self.may_hold = True
        if not self.is_losing:
            self.tried["overflows"] += 1
            self.box.hear()
            self.is_losing = True
            self.box.drop = lambda message: isinstance(message, PathsChanged)

    def tell(self) -> None:
        """Let the kernel's queue have room again, and say that it was full."""
        if self.is_losing:
            self.box.hear()
            self._lose_no_more()
            self.box.inbox.post(EventsLost("overflow of the kernel's event queue"))

    def kill_reader(self) -> None:
        self.tried["faults"] += 1
        self.may_hold = True
        self.box.kill_reader()

    def restart(self) -> None:
        self.tried["restarts"] += 1
        self.may_hold = True
        self.box.call_off_ambushes()
        self.box.stop()
        self._lose_no_more()
        self.box.start()

    def limit(self, number: int) -> None:
        """Let the kernel refuse to watch one in so many folders; none for 0."""
        self.tried["faults"] += 1
        self.may_hold = self.refuses = True

        def refuse(fd: int) -> WatchError | None:
            is_refused = number and os.fstat(fd).st_ino % number == 0
            return WatchLimit("the limit of inotify watches is reached") if is_refused else None

        self.box.refuse = refuse

    def reload(self, number: int) -> None:
        self.box.new_settings["exclude"] = EXCLUDES[number % len(EXCLUDES)]
        self.box.inbox.post(Reload())

    def deny(self, number: int) -> None:
        """Let the disk refuse one in so many folders, until the next sync: no row goes, and no answer says exact."""
        self.sync()
        self.tried["faults"] += 1
        before = self.box.paths()
        self.denied = number
        reply = self.box.answer(self.box.ask(RescanRequest, path=""))
        assert reply.removed == 0
        assert self.box.paths() == before
        assert self.box.sync().exactness == ("partial" if self.box.indexer.unreadable else "exact")

    def _open_folder(self, root: str, folder: Folder) -> int:
        if self.denied and folder.parent and folder.ino % self.denied == 0:
            code = (errno.EACCES, errno.EIO, errno.ESTALE)[folder.ino // self.denied % 3]
            raise OSError(code, os.strerror(code))
        return open_folder(root, folder)

    def rescan(self, number: int) -> None:
        folders = [folder.path for folder in self.box.indexer.tree.root.walk()]
        self.box.ask(RescanRequest, path=folders[number % len(folders)])

    # The promise.

    def sync(self) -> None:
        self.tried["comparisons"] += 1
        self.denied = 0
        self.box.call_off_ambushes()
        self.tell()
        exactness = self.box.sync().exactness
        if exactness == "held":
            assert self.may_hold, self.box.status().detail
            self.tried["held"] += 1
            self.box.answer(self.box.ask(RescanRequest, accept_root=True, path=""))
            exactness = self.box.sync().exactness
        assert exactness in ("exact", "scanned")
        self.may_hold = self.refuses
        self.box.assert_equal()
        self.disk.note_synced(self.box.paths())
        if self.box.with_digests:
            self.check_digests(all_of_them=self.tried["comparisons"] % 3 == 0)
        watch, folders = self.box.indexer.watch, set(self.box.indexer.tree.root.walk())
        watched = {folder for wd in watch.claims for folder in watch.claims.watched_by(wd)}
        assert (watched | watch.unwatched, watched & watch.unwatched) == (folders, set())
        expected = {"polled" if watch.unwatched else "live"}
        if self.box.with_digests:  # a hasher may just have asked for a look at a file whose attributes changed
            expected.add("catching up")
        assert self.box.status().state in expected

    def check_digests(self, *, all_of_them: bool) -> None:
        """No digest is that of another file, or of an older content; after a while none is missing."""
        found = self.box.digests(all_of_them=all_of_them)
        assert found == {path: md5((self.box.root / path).read_bytes()).digest() for path in found}
        if all_of_them:
            assert sorted(found) == sorted(self.box.paths())

    def _lose_no_more(self) -> None:
        self.is_losing = False
        self.box.drop = lambda _: False


class Stories(RuleBasedStateMachine):
    """What hypothesis may let happen."""

    trial: Trial | None = None
    numbers = st.integers(0, NUMBERS - 1)
    changes = st.tuples(st.sampled_from(NAMES), numbers, numbers)
    points = st.integers(0, len(POINTS) - 1)
    seconds = st.integers(0, len(SECONDS) - 1)

    @initialize(
        units=st.sampled_from(UNITS),
        first=st.tuples(numbers, numbers, numbers),
        is_calm=st.booleans(),
        with_workers=st.sampled_from([False, False, False, True]),
        with_digests=st.booleans(),
    )
    def begin(self, units, first, is_calm, with_workers, with_digests):
        self.trial = Trial(units, first, with_workers=with_workers, with_digests=with_digests)
        self.is_calm = is_calm

    def teardown(self):
        if self.trial is not None:
            try:
                self.trial.sync()
            finally:
                self.trial.end()

    @rule(changes=st.lists(changes, min_size=1, max_size=6))
    def change(self, changes):
        for change in changes:
            self.trial.change(*change)

    @rule(changes=st.lists(changes, min_size=1, max_size=4), seconds=seconds)
    def change_and_step(self, changes, seconds):
        for change in changes:
            self.trial.change(*change)
            self.trial.step(seconds, heard=True)

    @rule(point=points, number=numbers, change=changes, way=st.sampled_from(["ambush", "ambush_here", "feint"]))
    def ambush(self, point, number, change, way):
        arguments = change if way == "ambush" else (number,)
        getattr(self.trial, way)(point, *arguments)
        self.trial.change("write_session", number, number)

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
    @rule(name=st.sampled_from(["rescan", "reload", "limit", "deny"]), number=st.integers(0, 9))
    def order(self, name, number):
        getattr(self.trial, name)(number)

    @rule()
    def sync(self):
        self.trial.sync()


def test_stories(scale):
    run_state_machine_as_test(
        Stories,
        settings=settings(max_examples=scale(30, 400), stateful_step_count=20, suppress_health_check=list(HealthCheck)),
    )


def make_up(seed: int):
    """Yield the steps of an endless story."""
    draw = random.Random(seed)
    trouble = draw.choice((0.0, 0.01, 0.05))

    def number(below=NUMBERS):
        return draw.randrange(below)

    def change():
        return draw.choice(NAMES), number(), number()

    while True:
        if draw.random() < trouble:
            name = draw.choice(("lose", "tell", "kill_reader", "restart", "rescan", "reload", "limit", "deny"))
            is_numbered = name in ("rescan", "reload", "limit", "deny")
            yield (name, draw.choice((0, 0, 1, 2, 5, 17))) if is_numbered else (name,)
            continue
        chance = draw.random()
        if chance < 0.6:
            yield "change", *change()
        elif chance < 0.65:
            yield "ambush", number(len(POINTS)), *change()
        elif chance < 0.7:
            yield "ambush_here", number(len(POINTS)), number()
            yield "change", "write_session", number(), number()
        elif chance < 0.75:
            yield "feint", number(len(POINTS)), number()
        elif chance < 0.91:
            yield "step", number(len(SECONDS)), number(2)
        elif chance < 0.94:
            yield "run", number(len(SECONDS))
        else:
            yield ("sync",)


def tell(seed: int, tried: Counter[str]) -> None:
    """Tell the story of a seed to its end."""
    draw = random.Random(seed)
    first = tuple(draw.randrange(NUMBERS) for _ in range(3))
    trial = Trial(draw.choice(UNITS), first, with_workers=draw.random() < 0.4, with_digests=draw.random() < 0.5)
    try:
        for name, *arguments in itertools.islice(make_up(seed), draw.choice((30, 80, 200))):
            getattr(trial, name)(*arguments)
        trial.sync()
    finally:
        tried.update(trial.tried)
        trial.end()


def test_seeded_stories(scale, tally):
    seed = int(os.environ.get("ALFWATCHD_SEED", time.time_ns() % 1_000_000_000))
    end = time.monotonic() + float(os.environ.get("ALFWATCHD_SECONDS", scale(2.0, 300.0)))
    least = scale(10, 10_000)
    while time.monotonic() < end or tally["operations"] <= least:
        try:
            tell(seed, tally)
        except BaseException:
            _say(f"the story of seed {seed} went wrong: ALFWATCHD_SEED={seed} ALFWATCHD_SECONDS=1 tells it again")
            raise
        seed += 1


def test_a_writer_that_does_not_wait(tmp_path, scale, tally):
    seconds = scale(2.0, 60.0)
    root, outside = tmp_path / "root", tmp_path / "outside"
    Disk(root, outside)
    seed = os.environ.get("ALFWATCHD_SEED", str(time.time_ns() % 1_000_000_000))
    _say(f"the writer began with ALFWATCHD_SEED={seed}")
    box, is_over, n_operations = EngineBox(root), threading.Event(), 0

    def work():
        while not is_over.is_set():
            box.inbox.wait(min(0.1, box.engine.step(time.monotonic())))

    engine = threading.Thread(target=work)
    with Writer(root, outside, int(seed)) as writer:
        try:
            engine.start()
            while n_operations <= 50 * seconds:
                writer.go()
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    tally["requests"] += 1
                    box.ask(SyncRequest).result(PATIENCE)
                n_operations += writer.rest()
            tally.update(operations=n_operations, comparisons=1)
            assert box.ask(SyncRequest).result(PATIENCE).exactness in ("exact", "scanned")
            is_over.set()
            engine.join(PATIENCE)
            box.assert_equal()
        finally:
            is_over.set()
            engine.join(PATIENCE)
            box.close()


def _say(text: str) -> None:
    print(f"\n{text}")  # noqa: T201 - for who runs it with -s, and in the report of a failure
