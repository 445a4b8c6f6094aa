"""Columns that a lab without a database sets while the daemon runs: they stay, whatever happens to files or process."""

import shutil

import pytest

from alfwatchd.errors import UsageError
from kit.database import dataset, session, write_database
from kit.program import make_small_tree, program, read_tables

S1, S2 = "lab/Subjects/s1/2020-01-01/001", "lab/Subjects/s2/2020-01-01/001"
TIMES = "alf/spikes.times.npy"


@pytest.fixture
def small(tmp_path):
    with program(make_small_tree(tmp_path / "data")) as made:
        made.added["ALFWATCHD_FLUSH_INTERVAL_SECONDS"] = "0.05"
        yield made


def columns(root, subject="s1"):
    """Return projects, protocol, and the qc of each dataset of the first session of a subject."""
    sessions, datasets = (table.to_pylist() for table in read_tables(root))
    row = next(row for row in sessions if (row["subject"], row["number"]) == (subject, 1))
    qc = {each["rel_path"]: each["qc"] for each in datasets if each["eid"] == row["id"]}
    return row["projects"], row["task_protocol"], qc


def test_what_is_set_stays_over_flushes_restarts_and_absence(small, tmp_path):
    small.start()
    generation = small.client.status().generation
    small.run("set", S1, "projects=pilot,brainwide", "task_protocol=choice")
    reply = small.client.set_columns(f"{S1}/{TIMES}", qc="FAIL")
    assert (reply.path, reply.n_datasets) == (S1, 1)
    assert reply.generation > generation  # a reader who has half of the old pair sees it
    expected = ("brainwide,pilot", "choice", {TIMES: "FAIL", "_ibl_trials.choice.npy": "NOT_SET"})
    assert columns(small.root) == expected
    other = columns(small.root, "s2")
    (small.root / S2 / "alf/more.x.npy").write_bytes(b"1")
    small.client.sync()
    assert columns(small.root) == expected
    shutil.move(small.root / S1, tmp_path / "away")  # a disk that is repaired
    small.client.sync()
    small.stop()
    small.start()
    shutil.move(tmp_path / "away", small.root / S1)
    small.client.sync()
    assert columns(small.root) == expected
    assert columns(small.root, "s2")[:2] == other[:2]
    small.stop()
    small.run_once()
    assert columns(small.root) == expected


@pytest.mark.heavy
def test_a_database_that_is_looked_at_later_takes_nothing_away(small):
    known = session(S2)
    small.added["ALFWATCHD_ADOPT__SOURCE"] = str(write_database(small.home / "db", [known], []))
    small.added["ALFWATCHD_ADOPT__INTERVAL_SECONDS"] = "1"
    small.start()
    small.client.set_columns(S1, projects="mine")
    with pytest.raises(UsageError, match="the database knows this session"):
        small.client.set_columns(S2, projects="mine")
    write_database(small.home / "db", [known | {"projects": "theirs"}], [dataset(known["id"], TIMES)])
    small.wait(lambda: columns(small.root, "s2")[0] == "theirs")
    assert columns(small.root)[0] == "mine"
