"""What the real program keeps and why, with a daemon and without, measured against references of every maker."""

import functools
import json
import os
import shutil
import time
import unicodedata
import uuid

import one.alf.cache
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import alfwatchd
from kit.database import dataset, session, write_database
from kit.program import program, walk

pytestmark = pytest.mark.heavy

S1, S2, S3 = (f"lab/Subjects/{name}/001" for name in ("m1/2021-01-05", "m1/2021-01-06", "m2/2021-01-05"))
NAMES = [f"alf/object{number}.times.npy" for number in range(10)]
U1, U2 = (str(uuid.UUID(int=number, version=4)) for number in (1, 2))
KOREAN = "\ud55c\uae00"


@pytest.fixture(params=["daemon", "alone"])
def box(request, tmp_path):
    """A program over two full sessions; `box.prune(...)` asks as the road of this run does, age aside."""
    root = tmp_path / "root"
    for path in (S1, S2):
        write(root, *(f"{path}/{name}" for name in NAMES))
    (tmp_path / "out").mkdir()
    with program(root, tmp_path / "out") as made:
        made.reference, made.with_daemon = tmp_path / "reference", request.param == "daemon"
        made.reference.mkdir()
        config = made.home / "config.toml"
        config.write_text("[prune]\nenabled = true\nmax_fraction = 1\n")
        made.flags = [f"--config={config}"]
        made.config = config

        def ask(*flags, code=0):
            command = ["prune", f"--reference={made.reference}", "--json", *flags]
            if made.with_daemon:
                if made.process:
                    made.stop()
                made.start(*made.flags)
                ended = made.run(*command, code=code)
            else:
                ended = made.run_bare(*command, *made.places, *made.flags, code=code)
            return json.loads(ended.stdout) if not code else ended.stderr

        made.ask, made.prune = ask, functools.partial(ask, "--newer")
        yield made


def write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"content of {path}")


def alyx(box, *paths, ids=None):
    """Write a reference as Alyx does, of these datasets."""
    sessions, datasets = {}, []
    for path in paths:
        folder, _, rel_path = path.partition("/001/")
        row = sessions.setdefault(folder, session(f"{folder}/001"))
        datasets.append(dataset(row["id"], rel_path, **({"id": ids[path]} if ids and path in ids else {})))
    write_database(box.reference, sessions.values(), datasets)


def reasons(reply):
    return {item["path"]: item["reason"].partition(":")[0] for item in reply["kept"]}


ALL = [f"{path}/{name}" for path in (S1, S2) for name in NAMES]


@pytest.mark.parametrize("maker", ["ours", "theirs", "alyx", "ours by path", "theirs by path"])
def test_tables_of_every_maker_keep_what_they_list(box, maker):
    if maker == "alyx":
        alyx(box, *ALL)
    else:
        make = alfwatchd.make_parquet_db if "ours" in maker else one.alf.cache.make_parquet_db
        make(box.root, box.reference, hash_ids="path" not in maker)
    write(box.root, f"{S3}/alf/x.y.z", f"{S1}/alf/x.y.z")
    box.prune("--apply")
    assert walk(box.root).keys() == set(ALL)


def test_names_that_may_be_listed_stay(box):
    named, moved = f"{S1}/alf/spikes.times.{U1}.npy", f"{S2}/raw/any.file.{U2}.npy"
    korean = f"lab/Subjects/{unicodedata.normalize('NFD', KOREAN)}/2021-01-05/1/{NAMES[0]}"
    write(box.root, named, moved, korean, f"{S1}/alf/x.y.z")
    listed = f"lab/Subjects/{unicodedata.normalize('NFC', KOREAN)}/2021-01-05/001/{NAMES[0]}"
    bare = f"{S1}/alf/spikes.times.npy"
    alyx(box, *ALL, bare, f"{S1}/alf/other.place.npy", listed, ids={bare: U1, f"{S1}/alf/other.place.npy": U2})
    reply = box.prune("--apply")
    assert [item["path"] for item in reply["files"]] == [f"{S1}/alf/x.y.z"]
    assert reasons(reply) == {moved: "its id is listed"}
    assert walk(box.root).keys() == {*ALL, named, moved, korean}


def test_near_misses_stay_and_are_listed(box):
    near = [
        f"lab/Subjects/M1/2021-01-05/001/{NAMES[0]}",
        f"other/Subjects/m1/2021-01-05/001/{NAMES[0]}",
        f"{S1}/alf/Object0.times.npy",
        f"lab/Subjects/m9/2021-02-02/004/{NAMES[0]}",
    ]
    write(box.root, *near)
    alyx(box, *ALL, f"lab/Subjects/m8/2021-02-02/001/{NAMES[0]}")
    reply = box.prune("--apply")
    assert (reply["files"], reply["folders"], reply["n_kept"]) == ([], [], {"near miss": 4})
    assert reasons(reply) == dict.fromkeys(near, "near miss")
    assert walk(box.root).keys() == {*ALL, *near}


def test_what_links_lead_to_stays_also_links_that_come_after_the_plan(box):
    write(box.root, f"{S3}/a.b.c", f"{S3}/alf/d.e.f", f"{S3}/alf/g.h.i", "lab/Subjects/m4/2021-01-05/001/a.b.c")
    alyx(box, *ALL)
    (box.root / ".hidden/deep").mkdir(parents=True)
    (box.root / ".hidden/deep/link").symlink_to(box.root / S3 / "alf")
    (box.root / "lab/alias").symlink_to("Subjects/m4")
    reply = box.prune()
    assert [item["path"] for item in reply["files"]] == [f"{S3}/a.b.c"]
    assert set(reasons(reply)) == {f"{S3}/alf/d.e.f", f"{S3}/alf/g.h.i", "lab/Subjects/m4/2021-01-05/001/a.b.c"}
    if box.with_daemon:
        (box.root / "late").symlink_to(f"{S3}/a.b.c")
        done = box.client.apply_prune(reply["plan_id"])
        assert (done.files, done.folders) == ([], [])
        assert (box.root / "late").exists()
        (box.root / "late").unlink()
    box.prune("--apply")
    assert not (box.root / S3 / "a.b.c").exists()
    for link in (".hidden/deep/link", "lab/alias"):
        assert (box.root / link).exists()


NO_SENSE = {
    "another lab's": (lambda box: alyx(box, f"{S3}/{NAMES[0]}"), "has none of the 2 sessions here"),
    "no datasets": (lambda box: write_database(box.reference, [session(S1)], []), "lists no dataset"),
    "no sessions": (lambda box: write_database(box.reference, [], [dataset(U1, NAMES[0])]), "have no session"),
    "torn": (lambda box: tear(box), "do not belong together"),
    "in use": (lambda box: shutil.rmtree(box.reference) or box.reference.symlink_to(box.out_dir), "are written"),
}


def tear(box):
    alfwatchd.make_parquet_db(box.root, box.reference)
    old = (box.reference / "datasets.pqt").read_bytes()
    write(box.root, f"{S3}/a.b.c")
    alfwatchd.make_parquet_db(box.root, box.reference)
    (box.reference / "datasets.pqt").write_bytes(old)


@pytest.mark.parametrize(("make", "words"), NO_SENSE.values(), ids=NO_SENSE)
def test_references_that_make_no_sense_are_refused(box, make, words):
    if words == "are written":
        box.run_once()
    make(box)
    before = walk(box.root)
    error = box.prune("--apply", code=1)
    assert words in error
    assert str(box.root) in error
    assert walk(box.root) == before


def test_what_is_newer_stays_and_what_is_older_goes(box):
    """The margin decides; our own tables tell to the second how old they are, so that it may be none."""
    unwanted = [f"{S2}/{name}" for name in NAMES[:3]]
    time.sleep(1.1)
    alfwatchd.make_parquet_db(box.root, box.reference)
    datasets = pq.read_table(box.reference / "datasets.pqt")
    is_unwanted = pc.and_(
        pc.is_in(datasets["rel_path"], pa.array(NAMES[:3])), pc.equal(datasets["eid"], eid_of(box, S2))
    )
    pq.write_table(datasets.filter(pc.invert(is_unwanted)), box.reference / "datasets.pqt")
    write(box.root, new := f"{S3}/a.b.c")
    os.utime(box.root / new, (0, 0))
    for margin, kept in (("172800", {*unwanted, new}), ("0", {new})):
        box.config.write_text(f"[prune]\nenabled = true\nmax_fraction = 1\nmargin_seconds = {margin}\n")
        reply = box.ask()
        assert reasons(reply) == dict.fromkeys(kept, "newer than the reference")
        assert {item["path"] for item in reply["files"]} == {*unwanted, new} - kept
    assert {item["path"] for item in box.ask("--apply")["files"]} == set(unwanted)
    assert walk(box.root).keys() == {*ALL, new} - set(unwanted)


def eid_of(box, path):
    (eid,) = (
        row["id"] for row in pq.read_table(box.reference / "sessions.pqt").to_pylist()
        if f"{row['lab']}/Subjects/{row['subject']}/{row['date']}/{row['number']:03d}" == path
    )  # fmt: skip
    return eid
