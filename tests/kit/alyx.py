"""A small Alyx on loopback: gives the tables inside ONE-api as its REST answers, a page at a time.

What counts for its clients is as in Alyx 3.6: sessions are sorted by start time only, and which of equal ones come
first differs from page to page; days and ids can be asked for; a token that is not valid gets 403; `/cache.zip` has
neither ETag nor date.
"""

from __future__ import annotations

import hashlib
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
    filters: tuple[str, ...] = ("date_range", "django")
    """What can be asked for; Alyx ignores other filters."""
    token: str | None = TOKEN
    """The one that is valid; None where all may read."""
    files: dict[str, bytes] = field(default_factory=dict)
    """What lies in its TABLES_ROOT."""

    def select(self, endpoint: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return the records of an endpoint that pass the filters of a query."""
        records = self.sessions if endpoint == "sessions" else self.datasets
        asked = {name: query[name][0].split(",") for name in self.filters if name in query}
        if "date_range" in asked and endpoint == "sessions":
            first, last = asked["date_range"]
            records = [each for each in records if each["start_time"] and first <= each["start_time"][:10] <= last]
        if "django" in asked:
            assert asked["django"][::2] == ["id__gte", "id__lte"]
            low, high = asked["django"][1::2]
            records = [each for each in records if low <= each["url"][-36:] <= high]
        return records

    def page(self, endpoint: str, query: dict[str, list[str]]) -> tuple[list[dict[str, Any]], int]:
        """Return the records of a page, and how many there are on all."""
        records = self.select(endpoint, query)
        limit, offset = (int(query.get(name, ["0"])[0]) for name in ("limit", "offset"))
        end = offset + min(limit or self.page_rows, self.page_rows)
        if endpoint == "sessions":
            # PostgreSQL keeps the best `end` rows in a heap, from which equal ones come in another order each time.
            shuffled = sorted(records, key=lambda each: hashlib.md5(f"{end}{each['url']}".encode()).digest())
            records = sorted(shuffled, key=lambda each: each["start_time"] or "9999", reverse=True)
        return records[offset:end], len(records)


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
                self._answer(200, {"token": alyx.token})
            else:
                self._answer(400, {"non_field_errors": ["Unable to log in with provided credentials."]})

        def do_GET(self) -> None:
            alyx.asked.append(self.path)
            if alyx.before is not None:
                alyx.before(self.path)
            parts = urlsplit(self.path)
            given = self.headers.get("Authorization")
            if alyx.token is not None and given != f"Token {alyx.token}":
                self._answer(
                    403, {"detail": "Invalid token." if given else "Authentication credentials were not provided."}
                )
            elif parts.path == "/me":
                self._answer(200, {"username": USER} if alyx.knows_me else None)
            elif alyx.broken:
                self._answer(alyx.broken, {"detail": "broken"})
            elif parts.path in ("/sessions", "/datasets"):
                self._page(parts.path[1:], parse_qs(parts.query))
            elif parts.path == "/cache/info" and "cache_info.json" in alyx.files:
                self._answer(200, json.loads(alyx.files["cache_info.json"]))
            elif parts.path == "/cache.zip" and "cache.zip" in alyx.files:
                self._send(200, "application/zip", alyx.files["cache.zip"])
            else:
                self._answer(404, {"detail": "Not found."})

        def _page(self, endpoint: str, query: dict[str, list[str]]) -> None:
            records, count = alyx.page(endpoint, query)
            is_last = int(query.get("offset", ["0"])[0]) + len(records) >= count
            following = None if is_last else f"{alyx.address}{self.path}"
            self._answer(200, {"count": count, "next": following, "previous": None, "results": records})

        def _answer(self, status: int, content: Any) -> None:
            body = b"<html>a web page</html>" if content is None else json.dumps(content).encode()
            self._send(status, "application/json", body)

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
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
