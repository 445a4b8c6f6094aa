"""Rows that are held, with the real program: what each command says, writes and returns."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd import make_parquet_db
from alfwatchd.errors import PruneRefused, UsageError
from kit.program import listed, make_small_tree, program, read_tables, walk

pytestmark = pytest.mark.heavy

SUBJECTS = [f"s{number}" for number in range(10)]  # two sessions each
GONE = SUBJECTS[:8]
TEXT = "16 of 20 sessions are gone and 2 are new since "
ADVICE = (
    "their rows are kept. If a disk is missing, mount it. If the sessions were really removed, run alfwatchd rescan"
)


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


def test_what_is_held_stays_held_though_new_sessions_make_the_loss_a_smaller_part(made):
    """A pool without one of its disks, a nightly run, and a lab that goes on recording."""
    made.run_once()
    lost = [made.root / "lab/Subjects" / subject for subject in SUBJECTS[:5]]  # 10 of 20 sessions
    for folder in lost:
        shutil.move(folder, made.root.parent / "away" / folder.name)
    made.run_once(code=1)
    make_small_tree(made.root, subjects=[f"new{number}" for number in range(40)])
    made.run_once(code=1)
    made.run_once(code=1)
    made.start()
    assert made.client.sync().exactness == "held"
    made.stop()
    for folder in lost:
        shutil.move(made.root.parent / "away" / folder.name, folder)
    made.run_once()
    made.assert_tables_equal_fresh_index()


def test_all_that_is_gone_stays_held_though_more_came(made):
    """A disk is not mounted, and the lab goes on recording below its mount point, restart by restart."""
    made.run_once()
    before = listed(made.out_dir, made.root)
    for subject in SUBJECTS:
        shutil.move(made.root / "lab/Subjects" / subject, made.root.parent / "away" / subject)
    for number in range(3):
        make_small_tree(made.root, subjects=[f"new{number}_{each}" for each in range(40)])
        made.run_once(code=1)
        assert listed(made.out_dir, made.root) == before | walk(made.root)
    made.start(wait=False)
    made.wait(lambda: made.state == "held")
    made.run("rescan", "--accept-root")
    made.stop()
    assert listed(made.out_dir, made.root) == walk(made.root)
    shutil.rmtree(made.root / "lab/Subjects/new0_0")
    made.run_once()  # nothing is held any more


def test_a_small_part_of_many_sessions_may_go_between_two_runs(made):
    """However many they are: only the part counts."""
    for number in range(3000):
        (made.root / f"lab/Subjects/m{number // 300}/20{10 + number % 300 // 30}-01-{number % 30 + 1:02d}/001").mkdir(
            parents=True
        )
    made.run_once()
    for number in range(2):
        shutil.rmtree(made.root / f"lab/Subjects/m{number}")
    made.run_once()
    made.assert_tables_equal_fresh_index()


PRUNING = "[prune]\nenabled = true\nmax_fraction = 1.0\n"


@pytest.fixture
def polled(made):
    """A polled tree whose reference lists half of it: nothing but the prune itself tells that sessions are gone."""
    made.run_once()
    reference = made.home / "reference"
    reference.mkdir()
    sessions = pq.read_table(made.out_dir / "sessions.pqt").to_pylist()
    stays = [row["id"] for row in sessions if row["subject"] in SUBJECTS[:4]]
    for name, key in (("sessions.pqt", "id"), ("datasets.pqt", "eid")):
        table = pq.read_table(made.out_dir / name)
        keep = pa.array([each in stays for each in table[key].to_pylist()])
        pq.write_table(table.filter(keep), reference / name)
    config = made.home / "config.toml"
    config.write_text(f'watch = "poll"\npoll_interval_seconds = 0.2\n{PRUNING}')
    made.reference = reference
    made.start(f"--config={config}")
    yield made
    made.stop()


def test_what_a_prune_removes_is_not_held(polled):
    plan = polled.client.plan_prune(str(polled.reference), newer=True)
    assert len(polled.client.apply_prune(plan.plan_id).folders) >= 12
    for _ in range(2):
        assert polled.client.sync().exactness == "scanned"
    assert listed(polled.out_dir, polled.root) == walk(polled.root)
    assert polled.client.undo_prune(plan.plan_id).complete
    polled.client.sync()
    assert listed(polled.out_dir, polled.root) == walk(polled.root)


def test_an_undo_lets_no_other_loss_through(polled):
    plan = polled.client.plan_prune(str(polled.reference), newer=True)
    polled.client.apply_prune(plan.plan_id)
    polled.client.undo_prune(plan.plan_id)
    polled.client.sync()
    for subject in GONE:
        shutil.move(polled.root / "lab/Subjects" / subject, polled.root.parent / "away" / subject)
    assert polled.client.sync().exactness == "held"
    assert n_sessions(polled) == 20
    with pytest.raises(PruneRefused, match="rows are held"):
        polled.client.empty_trash()


def test_only_the_whole_root_can_be_accepted(made):
    made.run_once()
    lose(made)
    made.start()
    with pytest.raises(UsageError, match="accept_root is for the whole root"):
        made.client.rescan("no/such/folder", accept_root=True)
    assert made.client.sync().exactness == "held"
    made.stop()
