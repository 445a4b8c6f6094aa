"""The real program against a process that changes the tree as fast as it can, with all kinds of trouble in between.

Whenever the writer rests, `sync` is asked for, and the tables on disk are those of a fresh index. A seed tells the same
changes and troubles again (``ALFWATCHD_SEED``), though not at the same moments.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from alfwatchd.errors import RequestFailed
from alfwatchd.service.cookies import choose_folder
from alfwatchd.settings import Settings
from kit.fresh import index_afresh
from kit.fuzz_disk import Disk
from kit.fuzz_writer import Writer
from kit.program import Program, program, read_tables
from kit.truth import assert_right

pytestmark = pytest.mark.heavy

PAUSES = (0.0, 0.0, 0.0, 0.002, 0.05)
EXCLUDES = ((), (), ("probe00/",), ("*.tsv", "/t/"), ("c.d.npy",))
SHORT_WAITS = (
    "from alfwatchd.scan import hasher\n"
    "from alfwatchd.service import daemon\n"
    "hasher.Hasher.__init__.__kwdefaults__['settle_seconds'] = 0.05\n"
    "daemon.RECHECK_SHARE = 1.0\n"
)
"""Digests are made, and recorded, as soon as the clock of the file system here has gone on, and not after seconds."""
QUEUE = 16_384
"""Events that the kernel keeps for one reader, by default."""


class Story:
    """A tree, a writer, a daemon, and what may happen to them."""

    def __init__(self, home: Path, made: Program, writer: Writer, draw: random.Random) -> None:
        self.home, self.made, self.writer, self.draw = home, made, writer, draw
        self.tried: Counter[str] = Counter()
        self.config = home / "config.toml"
        self.exclude: tuple[str, ...] = ()
        self.has_hashes = draw.random() < 0.5
        self.n_workers = draw.choice((1, 2))
        self.flush_seconds = draw.choice((0.02, 0.2, 2.0))
        made.flags = [f"--config={self.config}"]
        made.break_it(SHORT_WAITS)

    # Trouble. Each ends with a daemon that runs.

    def nothing(self) -> None:
        time.sleep(self.draw.uniform(0, 0.3))

    def restart(self) -> None:
        self.made.stop()
        self.start()

    def be_away(self) -> None:
        self.made.stop()
        self.nothing()
        self.start()

    def kill(self) -> None:
        self.tried["kills"] += 1
        self.made.kill()
        self.start()

    def kill_at_the_start(self) -> None:
        self.made.kill()
        self.made.start(wait=False)
        self.nothing()
        self.kill()

    def freeze(self) -> None:
        self.tried["faults"] += 1
        self._signal(signal.SIGSTOP)
        self.nothing()
        self._signal(signal.SIGCONT)

    def overflow(self) -> None:
        self.tried["overflows"] += 1
        self.rest()
        self._signal(signal.SIGSTOP)
        self.writer.storm(self.draw.choice((QUEUE + 10, 3 * QUEUE)))
        self.rest()
        self.writer.go(self.draw.choice(PAUSES))
        self.nothing()
        self._signal(signal.SIGCONT)

    def change_settings(self) -> None:
        self.exclude = self.draw.choice(EXCLUDES)
        self.write_config()
        self._signal(signal.SIGHUP)
        self.made.wait(lambda: self.made.log.count("settings read again") > self.n_reloads)
        self.n_reloads = self.made.log.count("settings read again")

    def rescan(self) -> None:
        with suppress(RequestFailed):
            self.tried["requests"] += 1
            self.made.client.rescan()

    def lose_cookies(self) -> None:
        self.tried["faults"] += 1
        with suppress(FileNotFoundError):
            shutil.rmtree(choose_folder(self.made.home / "state", {}), ignore_errors=True)

    def lose_table(self) -> None:
        self.tried["faults"] += 1
        (self.made.out_dir / self.draw.choice(("sessions.pqt", "datasets.pqt"))).unlink(missing_ok=True)

    def replace_table(self) -> None:
        """As `One.save_cache` does, with old rows."""
        self.tried["faults"] += 1
        name = self.draw.choice(("sessions.pqt", "datasets.pqt"))
        old = self.home / f"old-{name}"
        with suppress(FileNotFoundError):
            if old.exists():
                os.replace(shutil.copy(old, self.made.out_dir / "copied"), self.made.out_dir / name)
            else:
                shutil.copy(self.made.out_dir / name, old)

    TROUBLES = (
        nothing, nothing, nothing, restart, be_away, kill, kill_at_the_start, freeze, overflow, change_settings,
        rescan, lose_cookies, lose_table, replace_table,
    )  # fmt: skip

    # The course of it.

    def start(self) -> None:
        self.tried["restarts"] += 1
        self.made.start()
        self.n_reloads = self.made.log.count("settings read again")

    def tell(self) -> None:
        """Let the writer and troubles go on for a while, then compare."""
        troubles = [self.draw.choice(self.TROUBLES) for _ in range(self.draw.randrange(4))]
        self.writer.go(self.draw.choice(PAUSES))
        for trouble in troubles:
            trouble(self)
            self.nothing()
        self.rest()
        self.check()
        self.writer.note_synced()

    def rest(self) -> None:
        self.tried["operations"] += self.writer.rest()

    def check(self) -> None:
        self.tried["comparisons"] += 1
        assert_right(self.made, digests=False, exclude=list(self.exclude))
        if self.has_hashes:
            self.check_digests(all_of_them=self.draw.random() < 0.3)

    def check_digests(self, *, all_of_them: bool) -> None:
        """No digest is wrong; after a while, none is missing."""
        # One that is not confirmed may be of an older content, until the file has been read again.
        waits_for = ["hashes_unconfirmed", *["hashes_pending"] * all_of_them]
        self.made.wait(lambda: not any(getattr(self.made.client.status(), name) for name in waits_for))
        self.made.client.sync()
        places = {"root": self.made.root, "out_dir": self.home, "state_dir": self.home, "socket": self.made.socket}
        _, truth = index_afresh(Settings(**places, exclude=self.exclude), self.home / "empty")
        for row in read_tables(self.made.out_dir)[1].to_pylist():
            assert row["hash"] is not None or not all_of_them, row
            if row["hash"] is not None:
                content = (self.made.root / truth.places[row["eid"]] / row["rel_path"]).read_bytes()
                assert hashlib.md5(content).hexdigest() == row["hash"], row

    def write_config(self) -> None:
        self.config.write_text(
            f"exclude = {list(self.exclude)}\nhash_files = {str(self.has_hashes).lower()}\n"
            f"scan_workers = {self.n_workers}\nflush_interval_seconds = {self.flush_seconds}\nsettle_seconds = 0.02\n"
        )

    def _signal(self, number: signal.Signals) -> None:
        assert self.made.process is not None
        self.made.process.send_signal(number)


def test_the_program_under_fuzz(tmp_path, scale, tally):
    seed = int(os.environ.get("ALFWATCHD_SEED", time.time_ns() % 1_000_000_000))
    end, least = time.monotonic() + scale(3.0, 420.0), scale(10, 20_000)
    while time.monotonic() < end or tally["operations"] <= least:
        print(f"ALFWATCHD_SEED={seed}")  # noqa: T201 - pytest shows it if the test fails
        home = tmp_path / str(seed)
        tell(home, random.Random(seed), seed, end, tally)
        shutil.rmtree(home)
        seed += 1


def tell(home: Path, draw: random.Random, seed: int, end: float, tally: Counter[str]) -> None:
    """Tell one story, until its end or that of the time."""
    root, outside, out_dir = (home / name for name in ("root", "outside", "out"))
    out_dir.mkdir(parents=True)
    disk = Disk(root, outside)
    for number in range(draw.randrange(4)):
        disk.do("write_session", number, number)
    with program(root, out_dir) as made, Writer(root, outside, seed) as writer:
        story = Story(home, made, writer, draw)
        try:
            story.write_config()
            story.start()
            for number in range(draw.choice((2, 4, 8))):
                if number == 0 or time.monotonic() < end:  # a busy machine may take all the time to start
                    story.tell()
            made.stop()
        finally:
            tally.update(story.tried)
