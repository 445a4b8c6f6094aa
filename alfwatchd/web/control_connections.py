"""Connections to the control socket: which client is at the other end, and how much of the room it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import Any

from alfwatchd.web.connections import Protocol
from alfwatchd.web.control_rights import ControlRights
from alfwatchd.web.peer import find_peer

SHARE_OF_OTHERS, SHARE_OF_ONE = 2, 4
"""Clients without control rights get one part in so many of the room: all of them together, and each user."""


def control_protocol(rights: ControlRights) -> type[Protocol]:
    """Return the class of connections to a control socket, with these rights."""

    class ControlProtocol(Protocol):
        """A connection of a known process."""

        is_trusted: bool
        uid: int

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """Find out which process connected."""
            self._peer = find_peer(transport.get_extra_info("socket"))
            self.uid, self.is_trusted = self._peer.uid, rights.is_trusted(self._peer)
            super().connection_made(transport)

        def describe(self) -> dict[str, Any]:
            """Return what the application finds in `request.state`."""
            return {"peer": self._peer}

        def shares(self) -> Iterator[tuple[Collection[Protocol], int]]:
            """Keep one user, and all users without control rights, from taking the room of others."""
            if not self.is_trusted:
                others = {
                    each for each in self.connections if isinstance(each, ControlProtocol) and not each.is_trusted
                }
                yield {each for each in others if each.uid == self.uid}, max(1, self._room // SHARE_OF_ONE)
                yield others, max(1, self._room // SHARE_OF_OTHERS)
            yield from super().shares()

    return ControlProtocol
