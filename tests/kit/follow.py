"""What tests of the follower share: changes and sessions, made from few words."""

from __future__ import annotations

from datetime import UTC, datetime

from alfwatchd.alf.patterns import DatasetPattern
from alfwatchd.changes import Change, ChangeKind
from alfwatchd.follow.completeness import Criteria, Dataset
from alfwatchd.follow.follower import Session

SPIKES, TRIALS, RAW = "alf/probe00/spikes.times.npy", "alf/trials.table.pqt", "raw/ephysData.raw.ap.cbin"


def path_of(number: int) -> str:
    return f"lab/Subjects/mouse/2021-02-01/{number:03d}"


def eid_of(number: int) -> str:
    return f"00000000-0000-3000-8000-{number:012d}"


def stamp(seconds: float) -> str:
    """Return a time as the feed writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def make_change(
    number: int, kind: ChangeKind = "changed", *, generation: int = 1, at: float = 0.0, **more: object
) -> Change:
    """Return a change of the session with a number; a dataset changed unless `more` says what did."""
    values = more or {"n_changed": 1, "changed": [SPIKES]}
    return Change(
        kind, path_of(number), str(values.pop("eid", eid_of(number))), None, generation, stamp(at),
        f"0000abcd.{generation}", **values,
    )  # fmt: skip


def make_session(number: int, *datasets: Dataset | str) -> Session:
    """Return a session; a dataset that is only named has 8 bytes and no known hash."""
    rows = tuple(Dataset(each, 8, None) if isinstance(each, str) else each for each in datasets)
    return Session(path_of(number), eid_of(number), rows)


def complete(*having: str, quiet: float = 0.0, lacking: tuple[str, ...] = ()) -> Criteria:
    """Return criteria that tell complete sessions."""
    patterns = [tuple(map(DatasetPattern.parse, each)) for each in (having, lacking)]
    return Criteria(having=patterns[0], lacking=patterns[1], quiet_seconds=quiet, tells_complete=True)
