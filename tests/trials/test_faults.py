"""Disks that fail, call by call or folder by folder: no row goes for that, and no answer says that all is well."""

from __future__ import annotations

import errno
import random
import shutil
import time
from pathlib import Path

import pytest

from alfwatchd.errors import RootOffline
from kit.faults import CODES, failing_disk
from kit.program import SESSIONS, make_small_tree, program, read_tables
from kit.truth import sync

pytestmark = pytest.mark.heavy

LAB = "lab/Subjects"
SUBJECTS = [f"s{number}" for number in range(12)]
Rows = dict[str, tuple[int, str | None]]


def read_rows(out_dir: Path) -> Rows:
    """Return path -> file size and hash of all datasets in the tables."""
    sessions, datasets = (table.to_pylist() for table in read_tables(out_dir))
    places = {row["id"]: f"{LAB}/{row['subject']}/{row['date']}/{row['number']:03d}" for row in sessions}
    return {f"{places[row['eid']]}/{row['rel_path']}": (row["file_size"], row["hash"]) for row in datasets}


class Disk:
    """Changes a tree and notes which of its parts it has touched."""

    def __init__(self, root: Path, draw: random.Random) -> None:
        self.root, self.draw = root, draw
        self.touched: set[str] = set()

    def change(self) -> None:
        sessions = sorted(self.root.glob(SESSIONS))
        session = self.draw.choice(sessions)
        files = sorted(file for file in session.rglob("*") if file.is_file())
        match self.draw.choice(("write", "write", "delete", "rename", "remove", "make")):
            case "write":
                path = self.draw.choice((*files, session / "alf/late.times.npy"))
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(b"." * self.draw.randrange(1000))
            case "delete" if files:
                path = self.draw.choice(files)
                path.unlink()
            case "rename":
                path = session
                other = session.with_name(f"{self.draw.randrange(3, 9):03d}")
                if not other.exists():
                    session.rename(other)
                    self._touch(other)
            case "remove" if len(sessions) > 12:
                path = session
                shutil.rmtree(session)
            case _:
                path = self.root / LAB / self.draw.choice(SUBJECTS) / f"2020-01-{self.draw.randrange(2, 5):02d}/001"
                path.mkdir(parents=True, exist_ok=True)
                (path / "made.here.npy").write_bytes(b"1")
        self._touch(path)

    def _touch(self, path: Path) -> None:
        self.touched.add(path.relative_to(self.root).as_posix())

    def untouched(self, rows: Rows) -> Rows:
        """Return those of the rows about whose files nothing has changed."""
        return {
            path: row
            for path, row in rows.items()
            if not any(path == each or path.startswith(f"{each}/") for each in self.touched)
        }


def assert_kept(rows: Rows, known: Rows, disk: Disk) -> None:
    """Compare the tables with what was known: nothing but what was touched may differ."""
    lost = [path for path, (size, _) in disk.untouched(known).items() if path not in rows or rows[path][0] != size]
    assert not lost, lost[:5]
    wrong = [path for path in disk.untouched(rows) if path not in known or rows[path][1] not in (None, known[path][1])]
    assert not wrong, wrong[:5]


KINDS = {
    "now and then": [(0.01, False), (0.03, False)],
    "often": [(0.1, False), (0.5, False)],
    "in some folders": [(0.02, True), (0.1, True), (0.3, True)],
    "always": [(1.0, False)],
}


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        pytest.param(kind, flags.split(), id=f"{kind} {flags}".strip(), marks=[] if is_short else pytest.mark.long)
        for kind in KINDS
        for flags in ("", "--hash-files --scan-workers=1", "--watch=poll")
        for is_short in [(kind, flags) in (("now and then", ""), ("in some folders", "--hash-files --scan-workers=1"))]
    ],
)
@pytest.mark.timeout(900)
def test_failing_calls(tmp_path, scale, tally, kind, flags):
    is_long = scale(False, True)
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")  # noqa: T201 - in the report of a failure
    draw = random.Random(seed)
    (tmp_path / "out").mkdir()
    root = make_small_tree(tmp_path / "root", subjects=SUBJECTS)
    with failing_disk(tmp_path, root) as faults, program(root, tmp_path / "out", flags, faults.prefix) as made:
        made.start()
        for _ in range(scale(1, 3)):
            settle(made, tally)
            known, disk = read_rows(made.out_dir), Disk(root, draw)
            fraction, by_folder = draw.choice(KINDS[kind])
            codes = draw.choice((CODES, draw.sample(CODES, 1)))
            if "--hash-files" in flags:  # what may not be read is tried again after minutes, or an hour
                codes = [code for code in codes if code != errno.EACCES] or [errno.EIO]
            faults.begin(fraction, by_folder=by_folder, codes=codes, seed=draw.randrange(1 << 32))
            for _ in range(scale(2, 12)):
                for _ in range(draw.randrange(4)):
                    disk.change()
                    tally["operations"] += 1
                if draw.random() < 0.15:
                    made.kill()
                    tally["kills"] += 1
                    assert_kept(read_rows(made.out_dir), known, disk)
                    made.start(wait=False)
                    made.wait(lambda: made.state != "starting")
                    tally["restarts"] += 1
                exactness, message = ask(made, draw, tally)
                assert_kept(read_rows(made.out_dir), known, disk)
                assert_status_tells_the_fault(made, exactness, message, faults, tally)
            faults.end()
            settle(made, tally)
        assert made.client.status().state == ("polled" if "--watch=poll" in flags else "live")
        made.stop()
        tally["faults"] += faults.n_made
        assert faults.n_made > 0 or not is_long


def ask(made, draw, tally):
    """Sync or rescan; return how exact that was, and else why it was refused."""
    tally["requests"] += 1
    try:
        if draw.random() < 0.7:
            made.client.rescan()
        return made.client.sync().exactness, ""
    except RootOffline as error:
        return "refused", str(error)


def assert_status_tells_the_fault(made, exactness, message, faults, tally):
    """A client that is told that the tables are exact finds them so."""
    status = made.client.status()
    assert status.saved
    match exactness:
        case "refused":
            assert "the root cannot be read" in message
        case "partial":
            assert status.state in ("polled", "offline", "catching up")
            assert status.problems or status.state != "polled"
        case "held":
            assert "held" in {problem.kind for problem in status.problems}
        case _ if "--hash-files" not in made.flags:  # hashes come later
            with faults.paused():
                made.assert_tables_equal_fresh_index()
            tally["comparisons"] += 1


def settle(made, tally):
    """Wait until all hashes are there, then compare."""
    sync(made)
    if "--hash-files" in made.flags:
        made.wait(lambda: made.client.sync() and all(each for _, each in read_rows(made.out_dir).values()), 60.0)
    made.assert_equals_fresh_index()
    tally["comparisons"] += 1
    status = made.client.status()
    assert (status.problems, status.n_problems) == ([], 0)
