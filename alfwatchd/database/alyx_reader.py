"""The process that reads a live Alyx through ONE-api's client; `database.alyx` starts it and hears what it says."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pyarrow as pa

from alfwatchd.database import alyx_pages
from alfwatchd.database.alyx_pages import Hidden, Record, Unsteady

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
_WHAT_THEN = "its page /me shows a valid one, for the credential alyx_token"


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
            for endpoint, schema in (("sessions", _SESSIONS), ("datasets", _DATASETS)):
                table = _read_all(client, endpoint, schema)
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
    with _explained("logging in", has_token=bool(token)):
        # A token is not checked against the name, which ONE wants where an older Alyx does not tell it.
        given = {"token": token} if token else {"password": password}
        client.authenticate(username or "alfwatchd", cache_token=False, **given)
    return client


def _read_all(client: Any, endpoint: str, schema: pa.Schema) -> pa.Table:
    """Read an endpoint, ordered by id, each record once."""
    read, convert = _ENDPOINTS[endpoint]
    for _ in range(_TRIES):
        rows: dict[str, tuple[Any, ...] | None] = {}
        try:
            for records in read(_asking(client, endpoint, rows)):
                rows |= {_id_of(record): convert(record) for record in records}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _Failed(f"{endpoint} are not what Alyx answers ({error!r}); check adopt.source") from error
        except Hidden as error:
            raise _Failed(f"{endpoint}{error}: name the tables that Alyx makes (one_cache) as adopt.source") from error
        except Unsteady:
            continue
        whole = [row for _, row in sorted(rows.items()) if row is not None]
        columns = zip(*whole, strict=True) if whole else [[]] * len(schema)
        return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)
    raise _Failed(f"{endpoint} changed all the time while they were read; will be tried again")


def _asking(client: Any, endpoint: str, rows: dict[str, Any]) -> alyx_pages.Ask:
    """Return what gets one page; `rows` are those that have been read, for people who wait."""
    total = 0

    def ask(query: str) -> tuple[list[Record], int]:
        nonlocal total
        with _explained(f"reading {endpoint}", has_token=True):
            page = client.get(f"/{endpoint}?{query}")
        # A list is the last page; another page is a lazy list that would fetch all those that follow.
        records, count = (page, len(page)) if isinstance(page, list) else (page[0 : page.limit], page.count)
        total = max(total, count)
        _tell(endpoint=endpoint, rows=len(rows), of=total)
        return records, count

    return ask


@contextmanager
def _explained(doing: str, *, has_token: bool) -> Iterator[None]:
    """Turn what the client raises into what a person is told: no secret, no address with one."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        answered = f"Alyx answered {getattr(error.response, 'status_code', 0)}"
        raise _Failed(f"{doing}: {_refusal(error, answered, has_token=has_token)}") from error
    except (ValueError, AssertionError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise _Failed(f"{doing}: {type(error).__name__}: no answer of Alyx; check adopt.source") from error
    except OSError as error:  # those of requests are
        raise _Failed(f"{doing}: {type(error).__name__}; check address and network") from error


def _refusal(error: Any, answered: str, *, has_token: bool) -> str:
    """Return what an answer means.

    Where a token is not valid, the client logs in again, without a password: that gets the 400, whatever was asked.
    """
    response = error.response
    status, address = getattr(response, "status_code", 0), str(getattr(response, "url", ""))
    is_login = address.partition("?")[0].rstrip("/").endswith("/auth-token")
    if has_token and (
        is_login or status == 401 or (status == 403 and "token" in str(getattr(response, "text", "")).lower())
    ):
        return f"Alyx does not accept the token (it was revoked, or is misspelt): {_WHAT_THEN}"
    if is_login:
        return f"{answered}: it does not accept the user name and password: check both credentials"
    if status in (401, 403):
        return f"{answered}: the user may not read this: check the rights of the user"
    return f"{answered}: check the address, or try again"


def _id_of(record: Record) -> str:
    return str(record.get("id") or record["url"][-36:]).lower()


def _session_row(record: Record) -> tuple[Any, ...] | None:
    """Return the values of `_SESSIONS`; None for base sessions, which are in no folder."""
    lab, subject, start, number = (record[name] for name in ("lab", "subject", "start_time", "number"))
    if not (lab and subject and start) or number is None:
        return None
    protocol, projects = record.get("task_protocol") or "", ",".join(record.get("projects") or ())
    return _id_of(record), lab, subject, date.fromisoformat(start[:10]), number, protocol, projects


def _dataset_row(record: Record) -> tuple[Any, ...] | None:
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


_Reader = Callable[[alyx_pages.Ask], Iterator[list[Record]]]
_Converter = Callable[[Record], tuple[Any, ...] | None]
_ENDPOINTS: dict[str, tuple[_Reader, _Converter]] = {
    "sessions": (alyx_pages.read_sessions, _session_row),
    "datasets": (alyx_pages.read_datasets, _dataset_row),
}


if __name__ == "__main__":
    run()
