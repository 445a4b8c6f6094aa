"""Reads sessions and datasets of a live Alyx over REST, through ONE-api's client, in a process of its own.

The client keeps parameters, tokens and caches in the user's home folder, asks at the terminal, sets up logging, and
needs gigabytes for a large database. A process of its own, with a temporary folder as its home, leaves nothing behind.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from alfwatchd.addresses import shown
from alfwatchd.errors import AlfwatchdError, ConfigError, SourceError

logger = logging.getLogger(__name__)

_PACKAGES = Path(__file__).resolve().parents[2]
_PAGE_ROWS = 1000
SILENCE_SECONDS = 900.0
"""Longest time without a page: if Alyx asks the client to wait, it waits for up to five minutes and tries again."""
_LOG_SECONDS = 10.0
_TRIES = 3
_SESSIONS = pa.schema(
    [
        ("id", pa.string()), ("lab", pa.string()), ("subject", pa.string()), ("date", pa.date32()),
        ("number", pa.int64()), ("task_protocol", pa.string()), ("projects", pa.string()),
    ]
)  # fmt: skip
_DATASETS = pa.schema(
    [
        ("id", pa.string()), ("eid", pa.string()), ("rel_path", pa.string()), ("file_size", pa.uint64()),
        ("hash", pa.string()), ("qc", pa.string()), ("default_revision", pa.bool_()), ("exists", pa.bool_()),
    ]
)  # fmt: skip

# In the daemon.


def read_database(
    address: str, username: str | None, password: str | None, token: str | None
) -> tuple[pa.Table, pa.Table]:
    """Read all sessions and datasets of an Alyx database. Any thread may call it; a large database takes an hour.

    Parameters
    ----------
    address : str
        As ``https://alyx.example.org``.
    username, password, token : str or None
        A token, or user and password.

    Returns
    -------
    sessions, datasets : pyarrow.Table
        With the columns of Alyx's own tables, ordered by id; sessions without number, date, subject or lab are left
        out, as there. `exists` tells whether Alyx knows of any place that has the file.

    Raises
    ------
    ConfigError
        ONE-api is not installed.
    SourceError
        It cannot be read.
    """
    told = shown(address)
    if not token and not (username and password):
        raise SourceError(f"{told}: give the credential alyx_token, or alyx_username and alyx_password")
    asked = {"address": address.rstrip("/"), "username": username, "password": password, "token": token}
    with tempfile.TemporaryFile() as tables:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "alfwatchd.database.alyx"],  # -P: a module in the current folder is not ours
            stdin=subprocess.PIPE, stdout=tables, stderr=subprocess.PIPE, bufsize=0,
            process_group=0, env=_environment(),
        )  # fmt: skip
        with process:
            assert process.stdin is not None and process.stderr is not None
            try:
                process.stdin.write(json.dumps(asked).encode() + b"\n")
                process.stdin.close()
                _follow(process.stderr, told)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            failure = f"the process that reads it ended with {process.returncode}"
            raise SourceError(f"{told}: {failure}; log_level debug shows what it said")
        with pa.OSFile(f"/proc/self/fd/{tables.fileno()}") as file:
            sessions, datasets = (pa.ipc.open_stream(file).read_all() for _ in range(2))
    return sessions, datasets


def _environment() -> dict[str, str]:
    """Return the environment of the child process, without our secrets."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ALFWATCHD_", "CREDENTIALS_"))}
    paths = [str(_PACKAGES), kept.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _follow(told: IO[bytes], address: str) -> None:
    """Log what the child tells until it has ended, and cleared away; then raise what it says went wrong."""
    logged = time.monotonic()
    failure: AlfwatchdError | None = None
    while select.select([told], [], [], SILENCE_SECONDS)[0]:
        line = told.readline()
        if not line:
            if failure is not None:
                raise failure
            return
        try:
            note = json.loads(line)
        except ValueError:
            note = {"said": line.decode(errors="replace").strip()}
        match note:
            case {"missing": str(what)}:
                failure = ConfigError(f"adopt.source {address}: {what}: install it: pip install 'alfwatchd[alyx]'")
            case {"failed": str(what)}:
                failure = SourceError(f"{address}: {what}")
            case {"endpoint": endpoint, "rows": rows, "of": n_rows}:
                if time.monotonic() >= logged + _LOG_SECONDS:
                    logged = time.monotonic()
                    logger.info("alyx is being read endpoint=%s rows=%d of=%d", endpoint, rows, n_rows)
            case {"said": said}:
                logger.debug("alyx client said text=%r", said)
    raise SourceError(f"{address}: no answer for {SILENCE_SECONDS:.0f} s; check address and network")


# In the child.


class _Failed(Exception):
    """What the daemon is to be told."""


def run() -> None:
    """Read what is asked for from standard input; write both tables to standard output, notes to standard error."""
    asked = json.loads(sys.stdin.readline())
    out = os.dup(1)
    os.dup2(2, 1)  # a library that prints must not write into the tables
    with tempfile.TemporaryDirectory() as home, os.fdopen(out, "wb") as tables:
        os.environ["HOME"] = home
        os.environ.pop("XDG_CACHE_HOME", None)
        try:
            client = _log_in(home, **asked)
            for endpoint, schema, convert in (
                ("sessions", _SESSIONS, _session_row),
                ("datasets", _DATASETS, _dataset_row),
            ):
                table = _read_all(client, endpoint, schema, convert)
                with pa.ipc.new_stream(tables, schema) as writer:
                    writer.write_table(table)
        except _Failed as error:
            _tell(failed=str(error))
        except ImportError as error:
            _tell(missing=f"ONE-api is not there, or too old ({error})")


def _tell(**note: object) -> None:
    sys.stderr.write(json.dumps(note) + "\n")
    sys.stderr.flush()


def _log_in(home: str, address: str, username: str | None, password: str | None, token: str | None) -> Any:
    from one.webclient import AlyxClient

    client = AlyxClient(base_url=address, cache_dir=home, silent=True, cache_rest=None)
    with _explained("logging in"):
        # A token is not checked against the name, which ONE wants where an older Alyx does not tell it.
        given = {"token": token} if token else {"password": password}
        client.authenticate(username or "alfwatchd", cache_token=False, **given)
    return client


def _read_all(
    client: Any, endpoint: str, schema: pa.Schema, convert: Callable[[Any], tuple[Any, ...] | None]
) -> pa.Table:
    """Read an endpoint, ordered by id, each once: pages shift where rows come and go meanwhile."""
    for _ in range(_TRIES):
        rows: dict[str, tuple[Any, ...] | None] = {}
        counts: list[int] = []
        for records, count in _pages(client, endpoint):
            counts.append(count)
            try:
                rows |= {_id_of(record): convert(record) for record in records}
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise _Failed(f"{endpoint} are not what Alyx answers ({error!r}); check adopt.source") from error
        # Where a row went meanwhile, another one may have slipped through between two pages.
        if counts == sorted(counts) and len(rows) >= counts[-1]:
            whole = [row for _, row in sorted(rows.items()) if row is not None]
            columns = zip(*whole, strict=True) if whole else [[]] * len(schema)
            return pa.table(
                [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema
            )
    raise _Failed(f"{endpoint} changed all the time while they were read; will be tried again")


def _pages(client: Any, endpoint: str) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Yield the records of each page, and how many there are on all of them, as told with it."""
    offset, count = 0, 1
    while offset < count:
        with _explained(f"reading {endpoint}"):
            page = client.get(f"/{endpoint}?limit={_PAGE_ROWS}&offset={offset}")
        # A list is the last page; another page is a lazy list that would keep all those that follow.
        records, count = (page, offset + len(page)) if isinstance(page, list) else (page[0 : page.limit], page.count)
        yield records, count
        if not records:
            return
        offset += len(records)
        _tell(endpoint=endpoint, rows=offset, of=count)


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn what the client raises into what a person is told: no secret, no address with one."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        status = getattr(error.response, "status_code", 0)
        what = "check credentials and rights" if status in (400, 401, 403) else "check the address, or try again"
        raise _Failed(f"{doing}: Alyx answered {status}: {what}") from error
    except (ValueError, AssertionError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise _Failed(f"{doing}: {type(error).__name__}: no answer of Alyx; check adopt.source") from error
    except OSError as error:  # those of requests are
        raise _Failed(f"{doing}: {type(error).__name__}; check address and network") from error


def _id_of(record: dict[str, Any]) -> str:
    return str(record.get("id") or record["url"][-36:]).lower()


def _session_row(record: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return the values of `_SESSIONS`; None for base sessions, which are in no folder."""
    from datetime import date

    lab, subject, start, number = (record[name] for name in ("lab", "subject", "start_time", "number"))
    if not (lab and subject and start) or number is None:
        return None
    protocol, projects = record.get("task_protocol") or "", ",".join(record.get("projects") or ())
    return _id_of(record), lab, subject, date.fromisoformat(start[:10]), number, protocol, projects


def _dataset_row(record: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return the values of `_DATASETS`; None for datasets of no session.

    The path is made as Alyx makes it for its tables, not from addresses: datasets on private servers have none.
    """
    if not record["session"]:
        return None
    revision = f"#{record['revision']}#" if record.get("revision") else ""
    rel_path = "/".join(filter(None, [record["collection"], revision, record["name"]]))
    exists = any(place["exists"] for place in record["file_records"])
    qc, is_default = record.get("qc") or "NOT_SET", record.get("default_dataset")
    return (
        _id_of(record),
        record["session"][-36:].lower(),
        rel_path,
        record["file_size"],
        record["hash"],
        qc,
        is_default,
        exists,
    )


if __name__ == "__main__":
    run()
