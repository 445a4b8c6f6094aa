"""A small lab as tables on disk, for tests of what reads them: no tree, no daemon."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import folder_rows

NL1, NL2, SL = "north/Subjects/NL-1", "north/Subjects/NL-2", "south/Subjects/SL"
LAB: Mapping[str, Mapping[str, int]] = {
    f"{NL1}/2021-01-05/001": {"alf/probe00/spikes.times.npy": 10, "alf/_ibl_trials.table.pqt": 1},
    f"{NL1}/2021-01-05/002": {"alf/_ibl_trials.table.pqt": 2},
    f"{NL2}/2021-02-01/001": {"alf/probe00/spikes.times.npy": 1 << 53, "raw_video_data/_iblrig_leftCamera.raw.mp4": 3},
    f"{SL}/2022-01-01/001": {},
}
"""Session path -> rel_path -> bytes."""


def write_lab(out_dir: Path, sessions: Mapping[str, Mapping[str, int]] = LAB, lab: str = "") -> Path:
    """Write the two tables as the daemon does; return their folder."""
    out_dir.mkdir(parents=True, exist_ok=True)
    made = {}
    for path, datasets in sessions.items():
        folders: dict[str, dict[str, bytes]] = defaultdict(dict)
        for rel_path, size in datasets.items():
            folder, _, name = rel_path.rpartition("/")
            folders[folder][name] = pack_signature(size, 1, 2, False)
        made[path] = Session(path, tuple(filter(None, (folder_rows(*each) for each in folders.items()))))
    TableWriter(out_dir, "/data").write(Snapshot(1, made), TableRules())
    return out_dir


def rewrite(out_dir, name, change):
    """Write one of the tables again, as another program would, after a change of its content."""
    with pq.ParquetFile(out_dir / name) as file:
        table = change(file.read())
    pq.write_table(table, out_dir / name)


def without_generation(out_dir):
    """Let tables be those of another program, which knows no generation."""
    for name in (SESSIONS, DATASETS):
        rewrite(out_dir, name, lambda table: table.replace_schema_metadata(None))
