"""The real program on a real tree: starts it, talks to it as a user would, compares its tables with the disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import one
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from alfwatchd import Client
from alfwatchd.cli import main, settings_flags
from alfwatchd.errors import AlfwatchdError, NoDaemon
from alfwatchd.service.configuration import load
from alfwatchd.service.locks import hold_out_dir
from alfwatchd.service.once import run_once
from alfwatchd.settings import Settings

PROGRAM = Path(sys.executable).parent / "alfwatchd"
WAIT_SECONDS = 120.0
SESSIONS = "*/Subjects/*/*/*"
"""Session folders of the IBL tree, as a glob pattern."""

_SITECUSTOMIZE = """
import os, signal, sys, time, traceback
try:
{code}
except BaseException:
    traceback.print_exc()
    os._exit(86)
"""
_FIXTURES = Path(one.__file__).parent / "tests" / "fixtures"


# The tree.


def make_ibl_tree(root: Path) -> Path:
    """Rebuild the tree that the tables inside ONE-api describe: 26 sessions, 693 datasets, each file another content.

    Folders are spelled as in `session_path`, unpadded numbers included; the three sessions without datasets are there.
    """
    sessions, datasets = (pd.read_parquet(_FIXTURES / f"{name}.pqt") for name in ("sessions", "datasets"))
    for number, (session, rel_path) in enumerate(zip(datasets["session_path"], datasets["rel_path"], strict=True)):
        file = root / session / rel_path
        file.parent.mkdir(parents=True, exist_ok=True)
        write_dataset(file, number)
    with_datasets = set(zip(datasets["eid_0"], datasets["eid_1"], strict=True))
    for eid, row in sessions.iterrows():
        if eid not in with_datasets:
            (root / f"{row['lab']}/Subjects/{row['subject']}/{row['date']}/{row['number']:03d}").mkdir(parents=True)
    return root


def make_small_tree(root: Path, lab: str = "lab", subjects: Iterable[str] = ("s1", "s2", "s3")) -> Path:
    """Write two sessions of two datasets for each subject."""
    for subject in subjects:
        for number in (1, 2):
            session = root / lab / "Subjects" / subject / "2020-01-01" / f"{number:03d}"
            (session / "alf").mkdir(parents=True)
            write_dataset(session / "alf/spikes.times.npy", number)
            write_dataset(session / "_ibl_trials.choice.npy", number + 10)
    return root


def write_dataset(file: Path, number: int) -> None:
    """Write a small file, of the type that its name says, whose size and content depend on a number."""
    values = np.arange(number + 1.0)
    frame = pd.DataFrame({"first": values, "second": -values})
    match file.suffix:
        case ".npy":
            np.save(file, values)
        case ".pqt":
            frame.to_parquet(file)
        case ".json" | ".jsonable":
            file.write_text(json.dumps({"number": number}) + "\n")
        case ".csv" | ".ssv" | ".tsv":
            frame.to_csv(file, sep={".csv": ",", ".ssv": " ", ".tsv": "\t"}[file.suffix], index=False)
        case _:
            file.write_bytes(b"%d\n" % number * number)


def walk(root: Path) -> dict[str, int]:
    """Return the file size of each dataset by path, found without the program.

    For trees in which every file with two dots in its name is a dataset.
    """
    return {
        file.relative_to(root).as_posix(): file.stat().st_size
        for session in root.glob(SESSIONS)
        for file in session.rglob("*.*.*")
        if file.is_file()
    }


# The tables.


def read_tables(folder: Path) -> tuple[pa.Table, pa.Table]:
    """Return sessions and datasets as they are on disk.

    `pyarrow.parquet.read_table` opens a path twice: it fails if the file is replaced in between.
    """
    return pq.ParquetFile(folder / "sessions.pqt").read(), pq.ParquetFile(folder / "datasets.pqt").read()


def listed(folder: Path, root: Path) -> dict[str, int]:
    """Return what the tables in a folder list, in the form of `walk`; a number is spelled as on disk, where it is."""
    sessions, datasets = read_tables(folder)
    places = {}
    for row in sessions.to_pylist():
        day = f"{row['lab']}/Subjects/{row['subject']}/{row['date']}"
        spellings = [f"{day}/{row['number']:03d}", f"{day}/{row['number']}"]
        places[row["id"]] = next((place for place in spellings if (root / place).exists()), spellings[0])
    return {f"{places[row['eid']]}/{row['rel_path']}": row["file_size"] for row in datasets.to_pylist()}


def assert_same_tables(found: Path, expected: Path, *, digests: bool = True) -> None:
    """Compare the tables in two folders: all rows, columns, types and metadata but the generation and dates.

    Without digests, one of both may have been made without any: the metadata, which tell, are not compared either.
    """
    for name, *both in zip(("sessions", "datasets"), read_tables(found), read_tables(expected), strict=True):
        is_one, should_be = both if digests else (_without_digests(table) for table in both)
        assert is_one.column_names == should_be.column_names, name
        assert is_one.schema.types == should_be.schema.types, name
        # Two dictionaries of the same values in another order are not equal for Arrow.
        if not is_one.equals(should_be) and is_one.to_pylist() != should_be.to_pylist():
            rows, expected_rows = ({str(row) for row in table.to_pylist()} for table in (is_one, should_be))
            lacks, has = sorted(expected_rows - rows), sorted(rows - expected_rows)
            lines = [f"{name}: {len(lacks)} rows lack, {len(has)} are too many, of {len(should_be)}"]
            lines += [f"- {row}" for row in lacks[:5]] + [f"+ {row}" for row in has[:5]]
            raise AssertionError("\n".join(lines))
        assert not digests or _lasting_metadata(is_one) == _lasting_metadata(should_be), name


def _without_digests(table: pa.Table) -> pa.Table:
    return table.drop_columns(["hash"]) if "hash" in table.column_names else table


def generations(folder: Path) -> tuple[int, int]:
    """Return the generation that each of the two files carries."""
    sessions, datasets = read_tables(folder)
    return tuple(json.loads(table.schema.metadata[b"alfwatchd"])["generation"] for table in (sessions, datasets))


def _lasting_metadata(table: pa.Table) -> dict[bytes, object]:
    metadata = {key: json.loads(value) for key, value in table.schema.metadata.items() if key != b"ARROW:schema"}
    for name in ("generation", "journal", "written_at"):
        del metadata[b"alfwatchd"][name]
    del metadata[b"one_metadata"]["date_created"]
    return metadata


# The program.


class Program:
    """One root, its daemon, and the commands to it.

    Parameters
    ----------
    root, out_dir : Path
    home : Path
        Private folder with a short path: socket, state and log are there.
    flags : sequence of str
        Settings of the daemon that a fresh index needs too.
    prefix : sequence of str
        Command in front of the program, to run it elsewhere or as somebody else; it must exec.
    """

    def __init__(
        self, root: Path, out_dir: Path, home: Path, flags: Sequence[str] = (), prefix: Sequence[str] = ()
    ) -> None:
        self.root, self.out_dir, self.home = root, out_dir, home
        self.flags, self.prefix = list(flags), list(prefix)
        self.socket = home / "s"
        self.client = Client(self.socket, timeout=WAIT_SECONDS, root=root)
        self.process: subprocess.Popen[bytes] | None = None
        self.added: dict[str, str] = {}
        """What is added to the environment."""
        self._log_file = home / "log"

    @property
    def places(self) -> list[str]:
        return [f"--root={self.root}", f"--out-dir={self.out_dir}", f"--state-dir={self.home / 'state'}"]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def state(self) -> str:
        """What status says; `starting` also while nobody answers."""
        try:
            return self.client.status().state
        except NoDaemon:
            return "starting"

    @property
    def log(self) -> str:
        """What all daemons of this object have said."""
        return self._log_file.read_text() if self._log_file.exists() else ""

    def break_it(self, code: str) -> None:
        """Run some code in the program before anything else, to make a fault that cannot be made from outside.

        If that code fails, the program ends with 86: Python itself would only complain and go on without the fault.
        """
        folder = self.home / "fault"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(code=textwrap.indent(code, "    ")))
        self.added["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))

    def start(self, *flags: str, wait: bool = True) -> None:
        """Start the daemon; by default, return when the first scan is done and flushed."""
        assert self.process is None
        command = [*self.prefix, PROGRAM, *self.places, f"--socket={self.socket}", *self.flags, *flags]
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment()
            )
        if wait:
            try:
                self.wait(lambda: self.state not in ("starting", "offline"))
                self.client.sync()
            except AlfwatchdError as error:
                error.add_note(self.log)
                raise

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the daemon as systemd or a terminal would."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(WAIT_SECONDS)
        self.process = None
        assert code == 0, self.log

    def kill(self) -> None:
        """End the daemon, if it runs, without any chance to do more."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def run(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one command to the daemon; it must end with this exit code."""
        return self.run_bare(arguments[0], f"--socket={self.socket}", *arguments[1:], code=code)

    def run_bare(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the program with these arguments only."""
        ended = subprocess.run(
            [*self.prefix, PROGRAM, *arguments], env=self.environment(), capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=WAIT_SECONDS, check=False,
        )  # fmt: skip
        assert ended.returncode == code, f"exit code {ended.returncode}\n{ended.stdout}{ended.stderr}\n{self.log}"
        return ended

    def run_once(self, *flags: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Bring the tables up to date without a daemon."""
        return self.run_bare("--once", *self.places, *self.flags, *flags, code=code)

    def make_tables(self, *flags: str) -> None:
        """Do what `run_once` does, but in this process: for tests that need tables, and not the command's words."""
        assert not self.prefix
        settings = self._settings([*self.places, *flags])
        with hold_out_dir(settings.out_dir):
            made = run_once(settings)
        assert not made.held + made.source_error

    def _settings(self, flags: Sequence[str]) -> Settings:
        arguments = main.parse([*flags, *self.flags])
        return load(settings_flags.read_flags(arguments), self.environment()).settings

    def wait(self, is_so: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
        """Wait for what no barrier tells."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert self.process is None or self.process.poll() is None, f"the daemon ended\n{self.log}"
            assert time.monotonic() < deadline, f"waited for {seconds} seconds in vain\n{self.log}"
            time.sleep(0.01)

    def assert_equals_fresh_index(self) -> None:
        """Sync, then compare the tables on disk with those that a fresh index makes of the same tree."""
        self.client.sync()
        assert len(set(generations(self.out_dir))) == 1
        self.assert_tables_equal_fresh_index()

    def assert_tables_equal_fresh_index(self) -> None:
        """Compare the tables on disk as they are.

        The fresh index is made in this process, which is ten times as fast as a new one; elsewhere, or as somebody
        else, the program makes it.
        """
        fresh = Path(tempfile.mkdtemp(dir=self.home))
        places = [f"--root={self.root}", f"--out-dir={fresh}", f"--state-dir={fresh / 'state'}"]
        if self.prefix:
            self.run_bare("--once", *places, *self.flags)
        else:
            run_once(self._settings(places))
        assert_same_tables(self.out_dir, fresh)
        shutil.rmtree(fresh)

    def environment(self) -> dict[str, str]:
        """Return this process's environment without what would change where the program looks and writes."""
        strange = ("ALFWATCHD_", "XDG_", "NOTIFY_", "LISTEN_", "WATCHDOG_", "RUNTIME_DIRECTORY", "STATE_DIRECTORY")
        own = {key: value for key, value in os.environ.items() if not key.startswith((*strange, "JOURNAL_STREAM"))}
        return {**own, "HOME": str(self.home), **self.added}


@contextmanager
def program(
    root: Path, out_dir: Path | None = None, flags: Sequence[str] = (), prefix: Sequence[str] = ()
) -> Iterator[Program]:
    """Yield a program that is not started yet; whatever happens, its daemon ends here."""
    home = Path(tempfile.mkdtemp(prefix="alf-", dir="/tmp"))
    made = Program(root, out_dir or root, home, flags, prefix)
    try:
        yield made
    finally:
        made.kill()
        shutil.rmtree(home, ignore_errors=True)


FAST = "flush_interval_seconds = 0.02\nsettle_seconds = 0.01\n"
"""Settings with which a change is on disk at once."""


@contextmanager
def fast_program(root: Path, out_dir: Path, settings: str = FAST) -> Iterator[tuple[Program, str]]:
    """Yield a program with a configuration file, and its flag."""
    out_dir.mkdir(exist_ok=True)
    with program(root, out_dir) as made:
        config = made.home / "config.toml"
        config.write_text(settings)
        yield made, f"--config={config}"
