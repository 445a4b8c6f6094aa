"""Keeps plans and what became of them in the state folder: one JSON file each, bounded in number and bytes.

The first line of a file is the record, the second one the plan and the result with all paths. People and programs can
look them up; no prune is ever carried out from them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from alfwatchd.api import PlanRecord, PlanState, PruneReply
from alfwatchd.atomic import replace_file
from alfwatchd.prune.plan import PrunePlan

_log = logging.getLogger(__name__)

_FOLDER = "plans"
MOST_PLANS = 200
"""Number of plans that are kept; the oldest ones are forgotten first."""
MOST_BYTES = 64 << 20
"""Size in bytes that all files together may have; the latest one is kept in any case."""
LONGEST_PLAN = 16 << 20
"""Size in bytes of one file. A plan that needs more is kept without its paths."""


class PlanRecords:
    """The plans of one state folder. Any thread may use it. A file that cannot be written is logged, not raised.

    Parameters
    ----------
    state_dir : Path
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / _FOLDER

    def note_plan(self, plan: PrunePlan, reply: PruneReply) -> None:
        """Note a plan that was made."""
        record = _record(plan, reply, "planned", _now())
        self._write(record, {"plan": asdict(reply)})

    def note_result(self, plan: PrunePlan, reply: PruneReply) -> None:
        """Note the result of a plan that was carried out."""
        known, details = self._read(self._folder / f"{plan.plan_id}.json", with_details=True)
        record = _record(plan, reply, "applied", known.made_at if known is not None else _now())
        self._write(record, {**details, "result": asdict(reply)})

    def note_state(self, plan_id: str, state: PlanState) -> None:
        """Note that a plan was undone, or its trash emptied. A plan that is not known is ignored."""
        known, before = self._read(self._folder / f"{plan_id}.json", with_details=True)
        if known is not None:
            record = replace(known, state=state, changed_at=_now(), freed_at=None)
            self._write(record, before)

    def list(self) -> list[PlanRecord]:
        """Return all records, the latest change first. Files that cannot be read are left out."""
        found = [record for path in self._files() if (record := self._read(path)[0]) is not None]
        return sorted(found, key=lambda record: record.changed_at, reverse=True)

    def _files(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from sorted(self._folder.glob("*.json"))

    def _read(self, path: Path, *, with_details: bool = False) -> tuple[PlanRecord | None, dict[str, Any]]:
        try:
            with path.open("rb") as file:
                record = PlanRecord(**json.loads(file.readline(LONGEST_PLAN)))
                details = json.loads(file.readline(LONGEST_PLAN) or b"{}") if with_details else {}
        except (OSError, ValueError, TypeError, RecursionError):
            return None, {}
        return record, details if isinstance(details, dict) else {}

    def _write(self, record: PlanRecord, details: Mapping[str, Any]) -> None:
        """Write the file of a plan: its record in the first line, its details, unless too long, in the second."""
        path = self._folder / f"{record.plan_id}.json"
        text = json.dumps(details).encode()
        head = json.dumps(asdict(record)).encode()
        content = head + b"\n" + (text if len(text) < LONGEST_PLAN else b"{}") + b"\n"

        def write(file: BinaryIO) -> None:
            file.write(content)

        try:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            replace_file(path, write)
            self._forget_oldest()
        except OSError as error:
            _log.warning("a prune plan cannot be noted path=%s error=%s", path, error)

    def _forget_oldest(self) -> None:
        files = sorted(((path.stat(), path) for path in self._files()), key=lambda each: each[0].st_mtime, reverse=True)
        n_bytes = 0
        for number, (about, path) in enumerate(files, 1):
            n_bytes += about.st_size
            if number > MOST_PLANS or (n_bytes > MOST_BYTES and number > 1):
                path.unlink(missing_ok=True)


def iso(seconds: float | None) -> str | None:
    """Return a time in seconds since 1970 as ISO 8601 in UTC; None stays None."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):  # centuries ahead
        return datetime.max.replace(tzinfo=UTC).isoformat(timespec="seconds")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")  # `list` sorts by it


def _record(plan: PrunePlan, reply: PruneReply, state: PlanState, made_at: str) -> PlanRecord:
    """Return what `prune --list` says of a plan."""
    return PlanRecord(
        plan_id=plan.plan_id,
        state=state,
        made_at=made_at,
        changed_at=_now(),
        root=plan.root,
        reference=plan.reference,
        reference_date=plan.reference_date,
        n_files=len(reply.files),
        n_folders=len(reply.folders),
        n_bytes=reply.n_bytes,
        n_kept=len(reply.kept),
        freed_at=reply.freed_at,
    )
