"""kill -9 at any moment while the data change: the tables on disk are whole always, and right after the next sync."""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from program import listed, make_ibl_tree, program, walk

ROUNDS = 8
LONGEST_ROUND_SECONDS = 0.8

# Changes the tree in all ways, as fast as it can, from the seed and the folder that it is given.
WRITER = r"""
import os, random, shutil, sys
from pathlib import Path

chance, root = random.Random(int(sys.argv[1])), Path(sys.argv[2])
while True:
    sessions = sorted(root.glob("*/Subjects/*/*/*"))
    session = chance.choice(sessions)
    files = sorted(file for file in session.rglob("*.*") if file.is_file())
    new = root / f"lab{chance.randrange(2)}/Subjects/s{chance.randrange(4)}/2020-01-01/{chance.randrange(9):03d}"
    match chance.randrange(6):
        case 0 if not new.exists():
            shutil.copytree(session, new)
        case 1 if len(sessions) > 15:
            shutil.rmtree(session)
        case 2 if not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            session.rename(new)
        case 3:
            (session / f"alf/probe{chance.randrange(3):02d}").mkdir(parents=True, exist_ok=True)
            for number in range(5):
                (session / f"alf/spikes.field{number}.npy").write_bytes(bytes(chance.randrange(500)))
        case 4 if files:
            chance.choice(files).unlink()
        case 5 if files:
            file = chance.choice(files)
            file.with_name("new").write_bytes(bytes(chance.randrange(500)))
            file.with_name("new").rename(file)
"""


@contextmanager
def writer(seed, root):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(seed), root])
    try:
        yield
        assert process.poll() is None, "the writer failed"
    finally:
        process.kill()
        process.wait()


class Reader:
    """Looks at the tables on disk again and again, at moments when both files belong to the same moment."""

    def __init__(self, folder):
        self.paths = [folder / "sessions.pqt", folder / "datasets.pqt"]
        self.seen = Counter()
        self.wrong = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping = True
        self._thread.join()

    def _run(self):
        while not self._stopping:
            try:
                self.look()
                time.sleep(0.003)
            except (AssertionError, OSError, pa.ArrowException) as error:
                self.wrong.append(repr(error))
                return

    def look(self):
        """Read both files as they were at one moment."""
        with self.paths[0].open("rb") as sessions_file, self.paths[1].open("rb") as datasets_file:
            # If the path still leads to the first file, it did when the second one was opened.
            if self.paths[0].stat().st_ino != os.fstat(sessions_file.fileno()).st_ino:
                return
            sessions, datasets = (pq.ParquetFile(file).read() for file in (sessions_file, datasets_file))
        orphans = set(datasets["eid"].unique().to_pylist()) - set(sessions["id"].to_pylist())
        assert not orphans, f"datasets of no session: {orphans}"
        self.seen[len(datasets)] += 1


@pytest.mark.timeout(180)
def test_tables_are_whole_at_every_moment_and_right_after_a_restart(tmp_path):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it if the test fails
    root, out_dir = tmp_path / "root", tmp_path / "tables"
    out_dir.mkdir()
    make_ibl_tree(root)
    with program(root, out_dir) as made:
        config = made.home / "config.toml"
        config.write_text("flush_interval_seconds = 0.02\nsettle_seconds = 0.01\n")
        made.run_once()
        with Reader(out_dir) as reader:
            for number in range(ROUNDS):
                if number % 4 == 3:  # killed while it starts, too
                    with writer(seed + number, root):
                        made.start(f"--config={config}", wait=False)
                        time.sleep(chance.uniform(0, LONGEST_ROUND_SECONDS))
                        made.kill()
                made.start(f"--config={config}")
                made.run("sync")
                assert listed(out_dir, root) == walk(root), f"before round {number}"
                with writer(seed - number, root):
                    time.sleep(chance.uniform(0, LONGEST_ROUND_SECONDS))
                    made.kill()
                reader.look()
            made.start()
            made.assert_equals_fresh_index()
        assert not reader.wrong
        assert len(reader.seen) > ROUNDS, "the reader saw hardly any flush"
        made.stop()
    leftovers = {file.name for file in out_dir.iterdir()} - {"sessions.pqt", "datasets.pqt", ".alfwatchd.lock"}
    assert not leftovers
