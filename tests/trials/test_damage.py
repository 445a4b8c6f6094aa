"""Files of the daemon are damaged in all ways, while it is down and while it runs: it notices, and makes them again."""

import os
import random
import re
import shutil
import sqlite3
import time
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd.errors import AlfwatchdError, TablesError
from alfwatchd.store import reader
from kit.program import make_small_tree, program, read_tables, write_dataset
from kit.truth import assert_right, assert_whole

pytestmark = pytest.mark.heavy

SETTINGS = "flush_interval_seconds = 0.02\nsettle_seconds = 0.01\nhash_files = true\nhash_threads = 1\n"
PATIENCE = 120.0


# Ways to damage a file.


def truncate(path, chance):
    os.truncate(path, chance.randrange(path.stat().st_size + 1))


def extend(path, chance):
    with path.open("ab") as file:
        file.write(chance.randbytes(1 + chance.randrange(5000)))


def overwrite(path, chance, make):
    """Change some bytes in place."""
    with path.open("r+b") as file:
        content = bytearray(file.read())
        for _ in range(chance.choice((1, 1, 2, 5, 40)) if content else 0):
            start = chance.randrange(len(content))
            end = min(len(content), start + chance.choice((1, 1, 16, 512, 5000)))
            content[start:end] = make(content[start:end])
        file.seek(0)
        file.write(content)


def flip(path, chance):
    overwrite(path, chance, lambda old: bytes([old[0] ^ 1 << chance.randrange(8)]) + old[1:])


def zero(path, chance):
    overwrite(path, chance, lambda old: bytes(len(old)))


def scramble(path, chance):
    overwrite(path, chance, lambda old: chance.randbytes(len(old)))


def empty(path, chance):
    path.write_bytes(b"")


def text(path, chance):
    path.write_text("not what you think\n")


def remove(path, chance):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def older_schema(path, chance):
    """Make a database of the same version, whose tables are others."""
    remove(path, chance)
    made = path.with_name("made")
    with sqlite3.connect(made) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        db.execute(f"PRAGMA user_version = {chance.choice((0, version, 1, 99))}")
        db.execute("CREATE TABLE places (path TEXT)")
        db.execute("CREATE TABLE digests (path TEXT, md5 TEXT)")
    db.close()
    made.rename(path)


IN_PLACE = (truncate, extend, flip, zero, scramble, empty, text)


def replace_by_pipe(path, chance):
    remove(path, chance)
    os.mkfifo(path)


def replace_by_folder(path, chance):
    remove(path, chance)
    path.mkdir()


def replace_by_full_folder(path, chance):
    replace_by_folder(path, chance)
    (path / "precious").touch()


def replace_by_link(path, chance):
    remove(path, chance)
    path.symlink_to(chance.choice(("nowhere", "/dev/null", "/dev/zero", ".")))


REPLACED = (remove, replace_by_pipe, replace_by_folder, replace_by_full_folder, replace_by_link)
EXTRA = {"state.sqlite": (older_schema, older_schema)}
STATE = ("state.sqlite", "state.sqlite-wal", "state.sqlite-shm", "tables.layout", ".tables.layout.tmp", "cookies")
TABLES = ("sessions.pqt", "datasets.pqt", ".sessions.pqt.tmp", ".datasets.pqt.tmp", ".ONE.lock")


def damage(path, how, chance):
    """Damage a file; what is not there, or is no file, can only be made.

    What an earlier damage left may be a pipe: to write to it would wait for a reader, for ever.
    """
    if how in IN_PLACE and not path.is_file():
        how = text if path.parent.is_dir() and not path.is_dir() else remove
        remove(path, chance)
    how(path, chance)
    return f"{path.name}: {how.__name__}"


def damage_until_it_matters(path, how, chance):
    """Damage a file; a table until it cannot be read, as some bytes mean nothing."""
    while True:
        damage(path, how, chance)
        if path.suffix != ".pqt" or path.name.startswith(".") or not is_readable(path):
            return


def is_readable(path):
    try:
        reader.read_file(path)
    except (OSError, pa.ArrowException):
        return False
    return True


class World:
    """A program, and the tree that it indexes."""

    def __init__(self, made, flag, chance):
        self.made, self.flag, self.chance = made, flag, chance
        self.n_changes = 0

    def places(self):
        """Return what may be damaged."""
        return [self.made.home / "state" / name for name in STATE] + [self.made.out_dir / name for name in TABLES]

    def change(self):
        """Change the tree."""
        self.n_changes += 1
        file = (
            self.made.root / f"lab/Subjects/s{self.chance.randrange(3)}/2020-01-01/001/alf/n.b{self.n_changes % 5}.npy"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        write_dataset(file, self.chance.randrange(99))
        os.utime(file, (1e9 + self.n_changes, 1e9 + self.n_changes))  # settled

    def damage(self, n_places):
        """Damage some files, and say how."""
        done = []
        for path in self.chance.sample(self.places(), n_places):
            how = self.chance.choice(IN_PLACE + REPLACED + EXTRA.get(path.name, ()))
            done.append(damage(path, how, self.chance))
        return done

    def start(self):
        """Start; where the program refuses, and says which file it does not like, remove that, as a person would."""
        for _ in range(3):
            n_said = len(self.made.log)
            self.made.start(self.flag, wait=False)
            end = time.monotonic() + PATIENCE
            while self.made.process.poll() is None and not self.has_started():
                assert time.monotonic() < end, f"it does not start\n{self.made.log[n_said:]}"
                time.sleep(0.01)
            if self.made.process.poll() is None:
                return
            assert self.made.process.returncode == 1, self.made.log[n_said:]
            self.made.process = None
            self.clear(self.made.log[n_said:])
        raise AssertionError(f"it does not start\n{self.made.log}")

    def has_started(self):
        try:
            return self.made.state not in ("starting", "offline")
        except AlfwatchdError:  # it is about to end
            return False

    def clear(self, said):
        named = [path for path in self.places() if re.search(f"{path}[:']", said) and not path.is_file()]
        assert named, f"it does not say what is wrong\n{said}"
        for path in named:
            remove(path, self.chance)

    def assert_right(self):
        """Sync and compare; where tables cannot be saved, do what the error says first."""
        for _ in range(3):
            try:
                self.made.client.sync()
                break
            except TablesError as error:
                assert not self.made.client.status().saved
                self.clear(str(error))
        self.made.wait(lambda: self.made.client.status().hashes_pending == 0)
        assert_right(self.made, hash_files=True)


@pytest.fixture
def world(tmp_path):
    seed = int(os.environ.get("ALFWATCHD_SEED", random.randrange(2**32)))
    print(f"seed {seed}")  # noqa: T201 - pytest shows it if the test fails
    root, out_dir = make_small_tree(tmp_path / "root"), tmp_path / "tables"
    out_dir.mkdir()
    with program(root, out_dir) as made:
        config = made.home / "config.toml"
        config.write_text(SETTINGS)
        made.start(f"--config={config}")
        yield World(made, f"--config={config}", random.Random(seed))
        made.kill()


@pytest.mark.timeout(3600)
def test_damage_while_it_is_down(world, tally, scale):
    for number in range(scale(1, 100)):
        if number % 3:
            world.made.stop()
        else:
            world.made.kill()  # the database has its other files then
        done = world.damage(1 + number % 3)
        print(done)  # noqa: T201 - pytest shows it if the test fails
        world.change()
        world.start()
        world.assert_right()
        tally.update(faults=len(done), restarts=1, comparisons=1)


@pytest.mark.timeout(3600)
def test_damage_while_it_runs(world, tally, scale):
    for number in range(scale(2, 100)):
        done = world.damage(1 + number % 3)
        print(done)  # noqa: T201 - pytest shows it if the test fails
        world.change()
        world.assert_right()
        tally.update(faults=len(done), comparisons=1)
    world.made.stop()
    world.start()
    world.assert_right()
    assert_whole(world.made.out_dir)


def test_what_is_cut_off_its_files_ends_no_process(world):
    """A file that is mapped into memory and truncated by anybody would (SIGBUS)."""
    world.change()
    world.assert_right()
    process = world.made.process
    for number in range(3):
        for path in sorted((world.made.home / "state").iterdir()):
            if path.is_file() and path.name != "daemon.lock":
                os.truncate(path, (0, 1, path.stat().st_size // 2)[number])
        world.change()
        world.assert_right()
    assert world.made.process is process
    assert process.poll() is None


# What cannot be made again.


def as_another_program_would(folder):
    """Give all rows ids and columns that do not follow from the disk; return these by path."""
    sessions, datasets = read_tables(folder)
    own = {old: str(uuid.uuid4()) for old in sessions["id"].to_pylist()}
    sessions = set_column(sessions, "id", pa.array(list(own.values())))
    sessions = set_column(sessions, "projects", pa.array(["project"] * len(sessions)))
    datasets = set_column(datasets, "eid", pa.array([own[eid] for eid in datasets["eid"].to_pylist()]))
    passed = pa.DictionaryArray.from_arrays(
        pa.array([1] * len(datasets), pa.int8()), datasets["qc"].chunk(0).dictionary, ordered=True
    )
    datasets = set_column(datasets, "qc", passed)
    for name, table in (("sessions", sessions), ("datasets", datasets)):
        metadata = {key: value for key, value in table.schema.metadata.items() if key != b"alfwatchd"}
        pq.write_table(table.replace_schema_metadata(metadata), folder / f"{name}.pqt")
    return kept(folder)


def set_column(table, name, column):
    place = table.column_names.index(name)
    return table.set_column(place, name, column)


def kept(folder):
    """Return what of each row does not follow from the disk, by path."""
    sessions, datasets = read_tables(folder)
    places = {row["id"]: f"{row['subject']}/{row['date']}/{row['number']}" for row in sessions.to_pylist()}
    found = {places[row["id"]]: (row["id"], row["projects"]) for row in sessions.to_pylist()}
    return found, {(places[row["eid"]], row["rel_path"]): row["qc"] for row in datasets.to_pylist()}


LOST = [
    (("state.sqlite", "tables.layout", ".sessions.pqt.tmp", ".ONE.lock", "cookies"), True, True),
    (("datasets.pqt",), True, False),
    (("sessions.pqt", "datasets.pqt"), False, False),
]
"""What is damaged, and whether the own columns of sessions and of datasets are still there afterwards."""


@pytest.mark.timeout(1800)
def test_what_the_disk_does_not_tell_is_lost_only_with_its_file(world, tally, scale):
    cases = [(how, *case) for how in (scramble, remove, empty, replace_by_pipe) for case in LOST]
    for how, names, keeps_sessions, keeps_datasets in scale([world.chance.choice(cases)], cases):
        out_dir = world.made.out_dir
        world.made.stop()
        before = as_another_program_would(out_dir)
        world.start()
        world.made.client.sync()
        assert kept(out_dir) == before
        world.made.stop()
        n_said = len(world.made.log)
        for path in world.places():
            if path.name in names:
                damage_until_it_matters(path, how, world.chance)
        world.start()
        world.made.client.sync()
        sessions, datasets = kept(out_dir)
        assert (sessions == before[0]) == keeps_sessions
        assert (datasets == before[1]) == keeps_datasets
        is_told = "what a damaged table held" in world.made.log[n_said:]
        assert is_told == ("datasets.pqt" in names and how is not remove)
        if not keeps_sessions:
            world.assert_right()
        tally.update(faults=len(names), restarts=2, comparisons=1)
