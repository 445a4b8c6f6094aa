"""Reads the change feed: which requests to send, and what the bytes of the answers mean.

It opens no connection and knows no clock, so that the iterators for programs with and without asyncio share it. Only
the standard library, because the client of the control API imports it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.changes import Change, ChangesReply, Fresh
from alfwatchd.errors import AlfwatchdError, Busy, NoDaemon, RequestFailed, RootOffline, TablesError
from alfwatchd.web.replies import read_error, read_reply

SILENT_SECONDS = 60.0
"""After this time without a byte, a connection is given up. The daemon sends something at least each 15 s."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0

_PATH = "/v1/changes"
_STREAM_PATH = "/v1/changes/stream"
_MOST_HEAD_BYTES = 1 << 16
_MOST_ANSWER_BYTES = 1 << 28
_PASSING = (NoDaemon, Busy, RequestFailed, RootOffline, TablesError)
"""Errors that may be over at the next attempt; so may one without a class of its own, from a daemon that stops."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader of the feed wants; see `client.Client.changes`."""

    since: str = "now"
    follow: bool = True
    lab: str | None = None
    subject: str | None = None
    flushed: bool = True


class FeedReader:
    """One reader of the feed: first it takes pages of what has changed already, then it follows the stream.

    Parameters
    ----------
    wanted : Wanted
    headers : dict of str to str
        Of each request.
    about : str
        What errors begin with: the path of the socket.
    """

    def __init__(self, wanted: Wanted, headers: dict[str, str], about: str) -> None:
        self.cursor = wanted.since
        """Place behind what `take` has returned: where a later reader goes on. `now` until the daemon has answered."""
        self.is_over = not wanted.follow and wanted.since == "now"
        """Whether there is nothing more to read, which happens only if `follow` is false."""
        self._wanted = wanted
        self._headers = headers
        self._about = about
        self._place = wanted.since
        """Place behind all that was received."""
        self._items: deque[tuple[Change | Fresh | None, str]] = deque()
        self._received = bytearray()
        self._status = 0
        """HTTP status of the answer; 0 before its head is there."""
        self._is_stream = False
        self._has_caught_up = False
        self._has_been_answered = False
        self._pause = FIRST_PAUSE_SECONDS

    def take(self) -> Change | Fresh | None:
        """Return the next item that was received; None if there is none yet."""
        while self._items:
            item, self.cursor = self._items.popleft()
            if item is not None:
                return item
        return None

    def begin(self) -> bytes:
        """Return the request to send over a new connection."""
        self._received, self._status = bytearray(), 0
        self._is_stream = self._has_caught_up or self._place == "now"
        self._has_caught_up = False
        return self._request()

    def receive(self, data: bytes) -> bool:
        """Take bytes of the answer; none if the daemon has closed the connection.

        Returns
        -------
        bool
            Whether the connection is over: close it and, unless `is_over`, `begin` again.

        Raises
        ------
        AlfwatchdError
            The daemon refused the request, or the answer makes no sense; `fail` tells what to do.
        """
        self._received += data
        if not self._status and not self._take_head():
            if not data:
                raise RequestFailed(f"{self._about}: the daemon ended the connection; look at its log")
            return False
        if self._is_stream and self._status == HTTPStatus.OK:
            self._take_events()
            if not data:
                raise RequestFailed(f"{self._about}: the daemon ended the stream")
            return False
        if len(self._received) > _MOST_ANSWER_BYTES:
            raise RequestFailed(f"{self._about}: the answer has more than {_MOST_ANSWER_BYTES} bytes")
        if data:
            return False
        self._take_page()
        return True

    def fail(self, error: Exception) -> float:
        """Tell how many seconds to wait before the next connection, after an error.

        Raises
        ------
        AlfwatchdError
            It will not pass by itself, or the daemon has never answered.
        """
        found = error
        if not isinstance(found, AlfwatchdError):
            found = RequestFailed(f"{self._about}: the connection failed ({error!r})")
        if not self._has_been_answered or not (isinstance(found, _PASSING) or type(found) is AlfwatchdError):
            raise found from (error if found is not error else None)
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        return pause

    def _request(self) -> bytes:
        wanted, place = self._wanted, self._place
        query = {"since": place, "lab": wanted.lab, "subject": wanted.subject}
        query["flushed"] = None if wanted.flushed else "false"
        path = _STREAM_PATH if self._is_stream else _PATH
        target = f"{path}?{urlencode({key: value for key, value in query.items() if value is not None})}"
        # HTTP/1.0: the daemon then sends the answer as it is, not in chunks.
        lines = [
            f"GET {target} HTTP/1.0",
            "Host: localhost",
            *(f"{key}: {each}" for key, each in self._headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _take_head(self) -> bool:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            if len(head) > _MOST_HEAD_BYTES:
                raise RequestFailed(f"{self._about}: this is not an answer of an alfwatchd daemon")
            return False
        parts = head.split(b" ", 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            raise RequestFailed(f"{self._about}: this is not an answer of an alfwatchd daemon: {head[:100]!r}")
        self._status, self._received = int(parts[1]), rest
        return True

    def _take_page(self) -> None:
        """Read a whole answer."""
        try:
            answer = parse_json(bytes(self._received), _MOST_ANSWER_BYTES)
        except ValueError as error:
            raise RequestFailed(f"{self._about}: the daemon ended the connection ({error})") from error
        if not isinstance(answer, dict):
            raise RequestFailed(f"{self._about}: this is not an answer of an alfwatchd daemon")
        if self._status != HTTPStatus.OK:
            raise read_error(answer)
        page = read_reply(ChangesReply, answer)
        self._has_been_answered = True
        if page.is_fresh or page.changes:
            self._pause = FIRST_PAUSE_SECONDS
        if page.is_fresh:
            self._put(Fresh(page.generation, page.journal, page.next), page.next)
        for change in page.changes:
            self._put(change, change.cursor)
        self._put(None, page.next)
        self._has_caught_up = page.is_last
        self.is_over = page.is_last and not self._wanted.follow

    def _take_events(self) -> None:
        """Read the events of the stream that are whole (WHATWG HTML, 9.2.6; the daemon ends each line with LF)."""
        *events, self._received = self._received.split(b"\n\n")
        if len(self._received) > _MOST_ANSWER_BYTES:
            raise RequestFailed(f"{self._about}: an event has more than {_MOST_ANSWER_BYTES} bytes")
        for event in events:
            fields: dict[str, str] = {}
            for line in event.decode("utf-8", "replace").split("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
            self._take_event(fields)

    def _take_event(self, fields: dict[str, str]) -> None:
        place = fields.get("id", self._place)
        item: Change | Fresh | None = None
        if "data" in fields:
            item = self._read_item(fields.get("event", ""), fields["data"])
        self._has_been_answered = True
        if item is not None or "" in fields:  # not at the first event: a daemon may end each stream right after it
            self._pause = FIRST_PAUSE_SECONDS
        self._put(item, place)

    def _read_item(self, kind: str, data: str) -> Change | Fresh | None:
        try:
            value: dict[str, Any] = parse_json(data)
        except ValueError as error:
            raise RequestFailed(f"{self._about}: an event makes no sense ({error})") from error
        match kind:
            case "change":
                return read_reply(Change, value)
            case "fresh":
                return read_reply(Fresh, value)
            case _:
                return None  # of a newer daemon

    def _put(self, item: Change | Fresh | None, place: str) -> None:
        self._place = place
        self._items.append((item, place))
