"""What others put in the way of the real program: secrets in addresses, bombs, files that lead elsewhere."""

import hashlib
import json
import mmap
import os
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.database import copy_fixture
from kit.program import make_small_tree, program
from kit.web import web_server

pytestmark = pytest.mark.heavy

SECRET = "X-Amz-Signature=5ec2e7"  # noqa: S105 - opens nothing
DEEP = "[" * 100_000


@pytest.fixture
def made(tmp_path):
    out_dir = tmp_path / "tables"
    out_dir.mkdir()
    with program(make_small_tree(tmp_path / "root"), out_dir) as made:
        yield made


# Secrets.


def said_of(made):
    """Return all that the program tells anybody: by its commands, its log, and files that others may read."""
    said = made.log + made.run("status").stdout + made.run("status", "--json").stdout
    for flags in ((), ("--json",)):
        said += made.run_bare("config", *made.places, *flags).stdout
    for folder, _, names in [*os.walk(made.home / "state"), *os.walk(made.out_dir)]:
        for name in names:
            path = os.path.join(folder, name)
            if stat.S_ISREG(os.stat(path).st_mode) and os.stat(path).st_mode & 0o077:
                with open(path, "rb") as file:
                    said += file.read().decode(errors="replace")
    return said


def test_a_signed_address_is_in_no_log_and_no_answer(made, tmp_path):
    source = copy_fixture(tmp_path / "source")
    files = {f"/{name}": (source / name).read_bytes() for name in ("sessions.pqt", "datasets.pqt")}
    with web_server(files) as web:
        made.added["ALFWATCHD_ADOPT__SOURCE"] = f"{web.address}?{SECRET}#{SECRET}"
        made.added["ALFWATCHD_LOG_LEVEL"] = "debug"
        made.start()
        made.wait(lambda: made.client.status().adopt.n_sessions)
        assert made.client.status().adopt.source == web.address
        assert SECRET not in said_of(made)
        files.clear()
        made.stop()
        made.start()
        made.wait(lambda: made.client.status().adopt.last_error)
        assert SECRET not in said_of(made)
        made.stop()
        once = made.run_once(code=1)  # the tables are written, without a look at the database
        assert SECRET not in once.stdout + once.stderr
    note = made.home / "state/adopted/adopted.json"
    assert SECRET in note.read_text(), "what tells whether the source is the same"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600


@pytest.mark.parametrize("scheme", ["http", "alyx+http"])
def test_a_signed_address_that_leads_nowhere_is_in_no_log_and_no_answer(made, scheme):
    made.added["ALFWATCHD_ADOPT__SOURCE"] = f"{scheme}://127.0.0.1:1/cache.zip?{SECRET}"
    made.start()
    made.wait(lambda: made.client.status().adopt.last_error)
    assert SECRET not in said_of(made)
    made.stop()


REFUSED = {
    "ALFWATCHD_ADOPT__SOURCE": [f"https://user:{SECRET}@example.org/", f"https://user:a/{SECRET}@:x/", f"ftp://a?{SECRET}"],
    "ALFWATCHD_PUBLISH": [
        json.dumps([{"target": "s3://bucket", key: f"https://{address}"}])
        for key in ("endpoint", "location")
        for address in (f"user:{SECRET}@example.org", f"example.org/?{SECRET}")
    ],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values])
def test_a_setting_that_is_refused_does_not_tell_its_secret(made, key, value):
    made.added[key] = value
    for command in (["--once", *made.places], ["config", *made.places]):
        ended = made.run_bare(*command, code=78)
        assert SECRET not in ended.stdout + ended.stderr
        assert "..." in ended.stderr or "example.org" in ended.stderr or "://" in ended.stderr


# Bombs.


def bomb(path):
    ids = pa.DictionaryArray.from_arrays(np.zeros(20_000_000, np.int32), ["2dc8fe1f-cbc9-4ae8-a1a8-b8bea6a8a8cf"])
    pq.write_table(pa.table({"id": ids, "eid": ids, "rel_path": ids}), path, compression="zstd")


def deep(path):
    table = pq.ParquetFile(path).read()
    metadata = {**table.schema.metadata, b"alfwatchd": DEEP.encode(), b"one_metadata": DEEP.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize("name", ["sessions.pqt", "datasets.pqt"])
@pytest.mark.parametrize("make", [bomb, deep])
def test_tables_that_anybody_put_there_are_replaced(made, make, name):
    made.prefix = ["bash", "-c", 'ulimit -v 3000000; exec "$0" "$@"']
    made.run_once()
    make(made.out_dir / name)
    made.run_once()
    made.prefix = []
    made.assert_tables_equal_fresh_index()
    make(made.out_dir / name)
    made.start()
    made.assert_equals_fresh_index()
    made.stop()


@pytest.mark.parametrize("make", [bomb, deep])
def test_a_source_that_anybody_made_is_told(made, tmp_path, make):
    source = copy_fixture(tmp_path / "source")
    made.added["ALFWATCHD_ADOPT__SOURCE"] = str(source)
    make(source / "datasets.pqt")
    ended = made.run_once(code=int(make is bomb))
    assert "Traceback" not in ended.stderr
    assert ("is damaged or cannot be read" in ended.stderr) == (make is bomb)


@pytest.mark.parametrize("make", [bomb, deep])
def test_a_reference_that_anybody_made_deletes_nothing(made, tmp_path, make):
    made.run_once()
    reference = tmp_path / "reference"
    reference.mkdir()
    for name in ("sessions.pqt", "datasets.pqt"):
        (reference / name).write_bytes((made.out_dir / name).read_bytes())
    make(reference / "datasets.pqt")
    if make is bomb:
        ended = made.run_bare("prune", *made.places, f"--reference={reference}", code=1)
        assert "20000000" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_json_of_others_is_no_traceback(made, tmp_path):
    """100,000 brackets ended `--once` with a RecursionError."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "cache_info.json").write_text(DEEP)
    with web_server({"/cache_info.json": DEEP.encode()}) as web:
        made.added["ALFWATCHD_ADOPT__SOURCE"] = web.address
        made.added["ALFWATCHD_PUBLISH"] = json.dumps([{"target": str(target)}])
        ended = made.run_once(code=1)
    assert "Traceback" not in ended.stderr
    assert "is not a cache_info.json as Alyx writes it" in ended.stderr
    assert json.loads((target / "cache_info.json").read_text())["tables"]["sessions"]["nrecs"] > 0
    for name in ("tables.layout", "adopted/adopted.json"):
        (made.home / "state" / name).parent.mkdir(exist_ok=True)
        (made.home / "state" / name).write_text(DEEP)
    assert "Traceback" not in made.run_once(code=1).stderr


def test_dates_of_a_target_do_not_go_back(made, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "cache_info.json").write_text('{"date_created": "9999-12-31 23:55"}')
    made.added["ALFWATCHD_PUBLISH"] = json.dumps([{"target": str(target)}])
    dates = []
    for number in range(6):
        file = made.root / f"lab/Subjects/s1/2020-01-01/001/alf/new{number}.times.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        made.run_once()
        dates.append(json.loads((target / "cache_info.json").read_text())["date_created"])
    assert dates == sorted(set(dates))


# Files that lead elsewhere.


@pytest.mark.parametrize("place", ["tables/.alfwatchd.lock", "state/daemon.lock", "state/state.sqlite"])
def test_what_a_hard_link_leads_to_stays_as_it_is(made, tmp_path, place):
    folder = {"tables": made.out_dir, "state": made.home / "state"}[place.partition("/")[0]]
    folder.mkdir(exist_ok=True)
    victim = tmp_path / "victim"
    victim.write_text("precious\n" * 1000)
    os.link(victim, folder / place.partition("/")[2])
    if "sqlite" in place:
        made.start()
        made.stop()
    else:
        assert "hard link" in made.run_bare(*made.places, f"--socket={made.socket}", code=1).stderr
    assert victim.read_text() == "precious\n" * 1000


def test_a_state_that_a_daemon_keeps_is_told(made, tmp_path):
    """The state file is one process's own; without a daemon all commands go on as before."""
    (tmp_path / "elsewhere").mkdir()
    places = [f"--root={made.root}", f"--out-dir={tmp_path / 'elsewhere'}", f"--state-dir={made.home / 'state'}"]
    made.start()
    assert "locked by another process" in made.run_bare("--once", *places, code=75).stderr
    ended = made.run_bare("prune", *places, f"--reference={made.out_dir}", code=75)
    assert "locked by another process" in ended.stderr
    made.stop()
    made.run_bare("--once", *places)
    made.run_bare("prune", *places, f"--reference={made.out_dir}")


# Much to read at the start.

HELD = """
import importlib.util, importlib.abc
def hold():
    import alfwatchd.service.startup as startup
    real = startup.prepare
    def prepare(*arguments):
        while not os.path.exists(os.path.join(os.path.dirname(__file__), "go on")):
            time.sleep(0.01)
        return real(*arguments)
    startup.prepare = prepare
hold()
"""


def test_status_is_answered_while_earlier_tables_are_read(made):
    made.break_it(HELD)
    made.start(wait=False)
    made.wait(lambda: made.socket.exists())
    for _ in range(3):
        status = made.client.status()
        assert status.state == "starting"
        assert status.detail.startswith("the tables of earlier runs are being read")
    assert "starting" in made.run("status").stdout
    (made.home / "fault/go on").touch()
    assert made.client.sync().exactness == "exact"
    made.stop()


def test_a_daemon_that_reads_earlier_tables_can_be_stopped(made):
    made.break_it(HELD)
    made.start(wait=False)
    made.wait(lambda: made.socket.exists())
    assert made.client.status().state == "starting"
    made.stop()
    assert "Traceback" not in made.log


# Writing through a mapping.


def hash_of(made, rel_path):
    """Return the digest in the tables, once there is one: a file that was just written settles first."""
    found = []

    def is_there():
        made.client.sync()
        rows = pq.ParquetFile(made.out_dir / "datasets.pqt").read().to_pylist()
        found[:] = [row["hash"] for row in rows if row["rel_path"] == rel_path]
        return found[0] is not None

    made.wait(is_there)
    return found[0]


def md5_of(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_what_is_written_through_a_mapping(made):
    """The kernel reports the close, not the writes: docs/evidence/reliability.md says what that means for digests."""
    file = made.root / "lab/Subjects/s1/2020-01-01/001/alf/mapped.data.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(5000))
    made.start("--hash-files")
    assert hash_of(made, "alf/mapped.data.npy") == md5_of(file)

    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as memory:
        memory[:4] = b"\1\1\1\1"
    assert hash_of(made, "alf/mapped.data.npy") == md5_of(file), "the file was closed after the last write"

    before = file.stat().st_mtime_ns
    with file.open("r+b") as opened:
        memory = mmap.mmap(opened.fileno(), 0)  # numpy.memmap closes the file as early
    memory[:4] = b"\2\2\2\2"
    memory.flush()
    memory.close()
    if file.stat().st_mtime_ns != before:  # tmpfs leaves it
        made.client.rescan()
        assert hash_of(made, "alf/mapped.data.npy") == md5_of(file), "a full scan sees the new time"
    made.stop()
