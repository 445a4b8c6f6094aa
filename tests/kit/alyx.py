"""A small Alyx on loopback: gives the tables inside ONE-api as its REST answers, a page at a time."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import one
import pyarrow.parquet as pq

from kit.web import listening

FIXTURES = Path(one.__file__).parent / "tests" / "fixtures"
USER, PASSWORD, TOKEN = "somebody", "a-password", "a-token"


def texts_of(first: Any, second: Any) -> list[str]:
    """Return ids as texts, of the two integers that old tables have in their place."""
    pairs = np.column_stack([np.asarray(first, np.int64), np.asarray(second, np.int64)])
    return [str(uuid.UUID(bytes=pair.tobytes())) for pair in pairs]


@dataclass
class Alyx:
    """What a database holds, and what it was asked."""

    sessions: list[dict[str, Any]]
    datasets: list[dict[str, Any]]
    address: str = ""
    page_rows: int = 250
    """The most that a page has, whatever is asked for."""
    asked: list[str] = field(default_factory=list)
    before: Callable[[str], None] | None = None
    """Called with the path and query before each answer."""
    broken: int = 0
    """Status of all answers but to logging in; 0: they are right."""
    knows_me: bool = True


def fixture_alyx() -> Alyx:
    """Return a database with the rows of the tables inside ONE-api, each dataset id once."""
    sessions, datasets = (pq.read_table(FIXTURES / f"{name}.pqt").to_pylist() for name in ("sessions", "datasets"))
    here = "http://testserver"
    found: dict[str, dict[str, Any]] = {}
    for row in datasets:
        own, eid = (texts_of([row[f"{name}_0"]], [row[f"{name}_1"]])[0] for name in ("id", "eid"))
        *collection, name = row["rel_path"].split("/")
        revision = collection.pop().strip("#") if collection and collection[-1].startswith("#") else None
        size = None if row["file_size"] is None else int(row["file_size"])
        found[own] = {
            "url": f"{here}/datasets/{own}", "name": name, "collection": "/".join(collection) or None,
            "session": f"{here}/sessions/{eid}", "file_size": size, "hash": row["hash"], "revision": revision,
            "default_dataset": True, "qc": "PASS",
            "file_records": [{"data_url": None, "exists": False}, {"data_url": None, "exists": row["exists"]}],
        }  # fmt: skip
    of_sessions = []
    for row in sessions:
        eid = texts_of([row["id_0"]], [row["id_1"]])[0]
        of_sessions.append(
            {
                "id": eid, "url": f"{here}/sessions/{eid}", "subject": row["subject"], "lab": row["lab"],
                "start_time": f"{row['date']}T12:34:56.789", "number": row["number"],
                "task_protocol": row["task_protocol"], "projects": [row["project"]],
            }
        )  # fmt: skip
    return Alyx(of_sessions, [*found.values()])


def _handler(alyx: Alyx) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            alyx.asked.append(self.path)
            if self.path == "/auth-token" and form == {"username": [USER], "password": [PASSWORD]}:
                self._answer(200, {"token": TOKEN})
            else:
                self._answer(400, {"non_field_errors": ["Unable to log in with provided credentials."]})

        def do_GET(self) -> None:
            alyx.asked.append(self.path)
            if alyx.before is not None:
                alyx.before(self.path)
            parts = urlsplit(self.path)
            if self.headers.get("Authorization") != f"Token {TOKEN}":
                self._answer(403, {"detail": "Invalid username/password."})
            elif parts.path == "/me":
                self._answer(200, {"username": USER} if alyx.knows_me else None)
            elif alyx.broken:
                self._answer(alyx.broken, {"detail": "broken"})
            elif parts.path in ("/sessions", "/datasets"):
                self._page(getattr(alyx, parts.path[1:]), parse_qs(parts.query))
            else:
                self._answer(404, {"detail": "Not found."})

        def _page(self, records: list[dict[str, Any]], query: dict[str, list[str]]) -> None:
            limit, offset = (int(query.get(name, ["0"])[0]) for name in ("limit", "offset"))
            limit = min(limit or alyx.page_rows, alyx.page_rows)
            end = offset + limit
            following = f"{alyx.address}{self.path}" if end < len(records) else None
            page = {"count": len(records), "next": following, "previous": None, "results": records[offset:end]}
            self._answer(200, page)

        def _answer(self, status: int, content: Any) -> None:
            body = b"<html>a web page</html>" if content is None else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def alyx_server(alyx: Alyx | None = None) -> Iterator[Alyx]:
    """Serve a database until the context ends; by default, that of the tables inside ONE-api."""
    alyx = alyx or fixture_alyx()
    with listening(_handler(alyx)) as alyx.address:
        yield alyx
