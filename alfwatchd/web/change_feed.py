"""Answers clients that ask what changed: pages at once or when something changes, and streams. See `journal`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial

from alfwatchd.errors import Busy, StateError
from alfwatchd.journal.entries import Cursor, lab_of
from alfwatchd.journal.journal import Feed
from alfwatchd.journal.reading import NO_JOURNAL, Matches, Page
from alfwatchd.settings import Settings
from alfwatchd.tree.session_changes import SessionChange
from alfwatchd.web import connections
from alfwatchd.web.bell import Bell
from alfwatchd.web.change_replies import Found, Place, encode_events, encode_reply
from alfwatchd.web.connections import Protocol
from alfwatchd.web.peer import Peer
from alfwatchd.web.request_queries import ChangesQuery, StreamQuery
from alfwatchd.web.thread_calls import in_thread

MOST_FOLLOWERS = 256
"""The most clients that wait for changes at a time, where the process may open enough files."""
KEPT_FOR_CONTROL = 8
"""One part in so many of these places is kept for clients with control rights."""
MOST_FOLLOWERS_OF_A_USER = 128
MOST_READING = 4
"""The most clients at a time for which files of the journal are read. Each page may take some megabytes."""
KEEP_ALIVE_SECONDS = 15.0
ASKED_SECONDS = 60.0
"""How long after a client has asked for changes that are not on disk yet the engine looks for them."""
_EVENTS_AT_ONCE = 1000
_FEW = 100
"""Pages with more changes are made into JSON in a thread."""


class ChangeFeed:
    """The change feed for clients. Methods run in the server's event loop, unless they say otherwise.

    Parameters
    ----------
    feed : Feed
    settings : callable
        Returns the settings in force.
    """

    def __init__(self, feed: Feed, settings: Callable[[], Settings]) -> None:
        self._feed = feed
        self._settings = settings
        self._bell = Bell()
        feed.listen(self._bell.ring)
        feed.pending.listen(self._bell.ring)
        self._n_followers: Counter[int] = Counter()
        """User id -> how many of its clients wait for changes."""
        self._reading = asyncio.Semaphore(MOST_READING)

    async def page(self, query: ChangesQuery, peer: Peer, connection: Protocol) -> bytes:
        """Return a `ChangesReply` in JSON, at once or when something that is wanted changes.

        Raises
        ------
        Busy
            Too many clients wait.
        StateError
            The journal cannot be read.
        """
        if query.wait <= 0:
            return await _encode(await self._wait(query, connection))
        with self._waiting_place(peer, connection):
            return await _encode(await self._wait(query, connection))

    async def events(self, query: StreamQuery, peer: Peer, connection: Protocol) -> AsyncIterator[bytes]:
        """Yield changes as server-sent events (WHATWG HTML, 9.2), as fast as the client reads; raise as `page`."""
        with self._waiting_place(peer, connection):
            connection.begin_stream()
            matches, loop = self._make_filter(query), asyncio.get_running_loop()
            place = self._find_place(query)
            yield f"retry: 1000\nid: {place}\n\n".encode()
            silent_until = loop.time() + KEEP_ALIVE_SECONDS
            while not connection.is_ending:
                n_rings = self._bell.n_rings
                found = await self._look(query, place, _EVENTS_AT_ONCE, matches, sums_up=False)
                place = found.next
                for events in encode_events(found):
                    yield events
                    connection.proceed()
                    silent_until = loop.time() + KEEP_ALIVE_SECONDS
                    await asyncio.sleep(0)  # a client that reads quickly must not keep others from being served
                if found.is_last:
                    await self._bell.wait(n_rings, silent_until - loop.time())
                if loop.time() >= silent_until:
                    silent_until = loop.time() + KEEP_ALIVE_SECONDS
                    if not connection.is_unread:
                        yield f": alive\nid: {place}\n\n".encode()

    async def _wait(self, query: ChangesQuery, connection: Protocol) -> Found:
        """Return something that is wanted, or, after the time that the client waits, nothing."""
        matches, loop = self._make_filter(query), asyncio.get_running_loop()
        end = loop.time() + query.wait
        place = self._find_place(query)
        while True:
            n_rings = self._bell.n_rings
            found = await self._look(query, place, query.limit, matches)
            if found.n_changes or found.page.is_fresh or loop.time() >= end or connection.is_ending:
                return found
            place = found.next
            await self._bell.wait(n_rings, end - loop.time())

    async def _look(
        self, query: StreamQuery, place: Place, limit: int, matches: Matches, *, sums_up: bool = True
    ) -> Found:
        """Return what is behind a place now."""
        page = await self._read(place.cursor, limit, matches, sums_up=sums_up)
        if query.flushed == "true" or page.is_fresh or not page.is_last:
            return Found(page, place.number, is_last=page.is_last)
        pending = self._feed.pending
        pending.ask(time.monotonic() + ASKED_SECONDS)
        newer = pending.newer(place.number, limit - len(page.told) + 1, matches)
        n_room = limit - len(page.told)
        return Found(page, place.number, newer[:n_room], is_last=len(newer) <= n_room)

    def _find_place(self, query: StreamQuery) -> Place:
        """Return the place that a client names: a cursor, a generation, ``now`` or ``start``."""
        extent = self._feed.extent
        if query.since == "start":
            return Place(Cursor(extent.journal, extent.floor))
        if query.since == "now":
            number = self._feed.pending.number if query.flushed == "false" else 0
            return Place(Cursor(extent.journal, extent.last), number)
        return Place.parse(query.since)

    async def _read(self, place: Cursor, limit: int, matches: Matches, *, sums_up: bool = True) -> Page:
        """Read a page, in a thread if files must be read for it."""
        if self._feed.extent == NO_JOURNAL:  # after the first flush, the journal can tell whether it covers this place
            return Page(False, "", place.generation, place)  # noqa: FBT003 - a field
        page = self._feed.page_in_memory(place, limit, matches, sums_up=sums_up)
        if page is not None:
            return page
        await self._reading.acquire()
        try:
            reading = asyncio.ensure_future(
                in_thread("journal", partial(self._feed.page, place, limit, matches, sums_up=sums_up))
            )
        except BaseException:
            self._reading.release()
            raise
        reading.add_done_callback(lambda _: self._reading.release())
        try:
            return await asyncio.shield(reading)  # the thread counts until it ends, also if the client has left
        except OSError as error:
            raise StateError(f"the journal cannot be read ({error}); the daemon's state_dir holds it") from error

    def _make_filter(self, query: StreamQuery) -> Matches:
        lab, subject, own_lab = query.lab, query.subject, self._settings().lab

        def matches(change: SessionChange) -> bool:
            is_of_lab = lab is None or lab == (lab_of(change) or own_lab)
            return is_of_lab and (subject is None or subject == change.path.rsplit("/", 3)[-3])

        return matches

    @contextmanager
    def _waiting_place(self, peer: Peer, connection: Protocol) -> Iterator[None]:
        """Give a client one of the places of those that wait for changes."""
        most = min(MOST_FOLLOWERS, connections.room() // 4)
        kept = 0 if connection.is_trusted else max(1, most // KEPT_FOR_CONTROL)
        if (taken := self._n_followers.total()) >= most - kept:
            raise Busy(f"{taken} clients wait for changes already; ask without `wait`, or try again later")
        if self._n_followers[peer.uid] >= min(MOST_FOLLOWERS_OF_A_USER, most):
            raise Busy(
                f"{self._n_followers[peer.uid]} clients of this user wait for changes already; close some of them, or "
                "ask without `wait`"
            )
        self._n_followers[peer.uid] += 1
        connection.is_follower, connection.wake = True, self._bell.ring
        try:
            yield
        finally:
            connection.is_follower = False
            self._n_followers[peer.uid] -= 1
            if not self._n_followers[peer.uid]:
                del self._n_followers[peer.uid]


async def _encode(found: Found) -> bytes:
    return encode_reply(found) if found.n_changes <= _FEW else await in_thread("journal", encode_reply, found)
