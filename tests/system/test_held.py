"""Rows that are held, with the real program: what each command says, writes and returns."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd import make_parquet_db
from program import listed, make_small_tree, program, read_tables, walk

SUBJECTS = [f"s{number}" for number in range(10)]  # two sessions each
GONE = SUBJECTS[:8]
TEXT = "16 of 20 sessions are gone and 2 are new since "
ADVICE = "nothing was removed: mount what is missing, or alfwatchd rescan --accept-root"


@pytest.fixture
def made(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "root").mkdir()
    with program(make_small_tree(tmp_path / "root", subjects=SUBJECTS), tmp_path / "tables") as made:
        yield made


def lose(made):
    """Let subjects go to another place, and something come."""
    for subject in GONE:
        shutil.move(made.root / "lab/Subjects" / subject, made.root.parent / "away" / subject)
    make_small_tree(made.root, subjects=["new"])


def bring_back(made):
    for subject in GONE:
        shutil.move(made.root.parent / "away" / subject, made.root / "lab/Subjects" / subject)


def n_sessions(made):
    return len(read_tables(made.out_dir)[0])


def test_once_keeps_the_rows_writes_all_else_and_fails(made):
    made.run_once()
    before = listed(made.out_dir, made.root)
    lose(made)
    for _ in range(2):
        ended = made.run_once(code=1)
        assert ADVICE in ended.stderr
        assert "--once --accept-root" in ended.stderr
        assert listed(made.out_dir, made.root) == before | walk(made.root)
    bring_back(made)
    made.run_once()
    made.assert_tables_equal_fresh_index()


def test_once_says_how_many(made):
    made.run_once()
    lose(made)
    assert TEXT + "the last run" in made.run_once(code=1).stderr
    assert "16 of 22 sessions are gone and 0 are new since the last run" in made.run_once(code=1).stderr
    made.run_once("--accept-root")
    made.assert_tables_equal_fresh_index()
    made.run_once()


def test_a_daemon_goes_on_and_asks(made):
    made.flags = ["--watch=poll"]
    made.start()
    lose(made)
    ended = made.run("sync", code=1)
    assert ended.stdout.startswith("held: ")
    assert TEXT in ended.stderr
    assert ADVICE in ended.stderr
    assert json.loads(made.run("sync", "--json", code=1).stdout)["exactness"] == "held"
    assert n_sessions(made) == 22
    assert made.run("status").stdout.startswith("state      held since ")
    made.run("flush")
    (made.root / "lab/Subjects/new/2020-01-01/001/alf/late.file.npy").write_bytes(b"1")
    made.run("sync", code=1)
    assert any(path.endswith("late.file.npy") for path in listed(made.out_dir, made.root))
    reference = made.home / "reference"
    shutil.copytree(made.out_dir, reference)
    refused = made.run("prune", f"--reference={reference}", code=1)
    assert "nothing is deleted while rows are held" in refused.stderr
    assert TEXT in refused.stderr
    made.stop()

    made.start(wait=False)
    made.wait(lambda: made.state == "held")
    assert "16 of 22 sessions are gone and 0 are new since the last run" in made.run("sync", code=1).stderr
    made.run("rescan", "--accept-root")
    made.run("sync")
    assert n_sessions(made) == 6
    made.assert_equals_fresh_index()


def test_prune_without_a_daemon_refuses(made):
    made.run_once()
    reference = made.home / "reference"
    shutil.copytree(made.out_dir, reference)
    lose(made)
    files = walk(made.root)
    refused = made.run_bare(
        "prune", *made.places, f"--reference={reference}", "--newer", "--apply", "--max-fraction=1", code=1
    )
    assert TEXT in refused.stderr
    assert walk(made.root) == files


def test_a_daemon_that_finds_the_sessions_back_is_live(made):
    made.start()
    made.stop()
    lose(made)
    made.start(wait=False)
    made.wait(lambda: made.state == "held")
    bring_back(made)
    made.wait(lambda: made.state == "live")
    made.assert_equals_fresh_index()


def test_a_real_deletion_that_events_told_goes_at_once(made):
    made.start()
    shutil.rmtree(made.root / "lab")
    make_small_tree(made.root, "other")
    assert made.client.sync().exactness == "exact"
    made.assert_equals_fresh_index()


def test_what_only_the_tables_held_is_still_there(made):
    """`qc`, protocols and projects come from other programs: rows that are held have them, too."""
    made.run_once()
    for name in ("sessions.pqt", "datasets.pqt"):
        table = pq.read_table(made.out_dir / name)
        if name == "sessions.pqt":
            at = table.column_names.index("task_protocol")
            table = table.set_column(at, "task_protocol", pa.array(["training"] * len(table), pa.string()))
        metadata = {b"one_metadata": table.schema.metadata[b"one_metadata"]}  # as another program writes it
        pq.write_table(table.replace_schema_metadata(metadata), made.out_dir / name)
    lose(made)
    for _ in range(2):
        made.run_once(code=1)
        protocols = read_tables(made.out_dir)[0].column("task_protocol").to_pylist()
        assert protocols.count("training") == 20
    bring_back(made)
    made.run_once()
    assert read_tables(made.out_dir)[0].column("task_protocol").to_pylist().count("training") == 20


def test_make_parquet_db_warns_and_writes(made):
    make_parquet_db(made.root, made.out_dir)
    lose(made)
    with pytest.warns(RuntimeWarning, match="16 of 20 sessions are gone and 2 are new"):
        make_parquet_db(made.root, made.out_dir)
    assert n_sessions(made) == 6
    assert listed(made.out_dir, made.root) == walk(made.root)


def test_sessions_in_no_lab_folder_keep_their_rows_and_ids(made):
    """Their lab comes from a setting, and is no part of their path."""
    for subject in SUBJECTS:
        os.rename(made.root / "lab/Subjects" / subject, made.root / subject)
    shutil.rmtree(made.root / "lab")
    made.flags = ["--lab=mylab"]
    made.run_once()
    before = read_tables(made.out_dir)[0].select(["lab", "subject", "number", "id"]).to_pylist()
    for subject in GONE:
        shutil.rmtree(made.root / subject)
    for _ in range(2):
        made.run_once(code=1)
        assert read_tables(made.out_dir)[0].select(["lab", "subject", "number", "id"]).to_pylist() == before
