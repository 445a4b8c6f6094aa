"""A program that only follows the change feed has the rows of the tables in the end: whatever happens to the daemon.

Programs act on what they are told. A change that is lost is a recording that nobody sorts.
"""

import shutil
import signal
import time

import pytest

from alfwatchd.changes import Fresh
from alfwatchd.errors import NoDaemon
from kit.program import fast_program, make_ibl_tree, read_tables
from kit.writers import recordings

pytestmark = pytest.mark.usefixtures("no_readers")

LONGEST_ROUND_SECONDS = 1.0


class Follower:
    """Keeps rows by eid, and reads the rows of those sessions only that the feed names."""

    def __init__(self, made):
        self.made = made
        self.cursor, self.rows = "0", {}
        self.n_fresh = self.n_told = 0

    def on_disk(self):
        """Return eid -> datasets of one generation of the tables."""
        while True:
            tables = read_tables(self.made.out_dir)
            if len({table.schema.metadata[b"alfwatchd"] for table in tables}) == 1:
                break
        sessions, datasets = (table.to_pylist() for table in tables)
        found = {row["id"]: [] for row in sessions}
        for row in datasets:
            found[row["eid"]].append((row["id"], row["rel_path"], row["file_size"], row["hash"]))
        return {eid: sorted(rows, key=str) for eid, rows in found.items()}

    def read(self):
        """Read on until nothing is left."""
        for told in self.made.client.changes(self.cursor, follow=False):
            now = self.on_disk()
            if isinstance(told, Fresh):
                self.rows, self.n_fresh = now, self.n_fresh + 1
            else:
                self.n_told += 1
                for eid in filter(None, (told.eid_before, told.eid)):
                    self.rows.pop(eid, None)
                if told.eid in now:  # it may have gone since; then the feed will tell that, too
                    self.rows[told.eid] = now[told.eid]
            self.cursor = told.cursor


def lose_journal(made):
    shutil.rmtree(made.home / "state/journal", ignore_errors=True)


def lose_state(made):
    shutil.rmtree(made.home / "state", ignore_errors=True)
    made.run_once("--accept-root")  # nothing tells any more whether this is the disk, and much may have changed


def run_once(made):
    made.run_once("--accept-root")


def is_quiet(made):
    """Return whether all hashes are known and on disk: they come after the rows."""
    status = made.client.status()
    return not (status.hashes_pending or status.oldest_unflushed_seconds)


@pytest.mark.timeout(3600)
def test_a_follower_has_the_rows_of_the_tables(tmp_path, tally, scale, chance):
    root = make_ibl_tree(tmp_path / "root")
    with fast_program(root, tmp_path / "tables") as (made, flag):
        made.flags.append("--hash-files")
        made.start(flag)
        follower = Follower(made)
        follower.read()
        assert follower.n_fresh == 1
        for _ in range(scale(2, 100)):
            with recordings(chance.randrange(2**32), root):
                until = time.monotonic() + chance.uniform(0, LONGEST_ROUND_SECONDS)
                while time.monotonic() < until:
                    follower.read()
                how = chance.choice((made.kill, lambda: made.stop(signal.SIGTERM), lambda: None))
                how()
            if made.process is None:
                with pytest.raises(NoDaemon):
                    follower.read()
                chance.choice((lose_journal, lose_state, run_once, lambda _: None))(made)
                made.start(flag)
            made.client.sync()
            made.wait(lambda: is_quiet(made))
            follower.read()
            assert follower.rows == follower.on_disk()
            tally.update(comparisons=1, restarts=1)
        assert follower.n_told
        made.stop()
