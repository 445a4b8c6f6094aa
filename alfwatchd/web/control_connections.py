"""Connections to the control socket: which client is at the other end, and how much of the room it may take."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar, TypeGuard

from alfwatchd.web.connections import Protocol, Share
from alfwatchd.web.control_rights import ControlRights
from alfwatchd.web.peer import find_peer

SHARE_OF_OTHERS, SHARE_OF_ONE = 2, 4
"""Clients without control rights get one part in so many of the room: all of them together, and each user."""


def control_protocol(rights: ControlRights) -> type[Protocol]:
    """Return the class of connections to a control socket with these rights."""
    return type("ControlProtocol", (ControlProtocol,), {"rights": rights})


class ControlProtocol(Protocol):
    """A connection of a known process."""

    rights: ClassVar[ControlRights]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out which process connected."""
        self._peer = find_peer(transport.get_extra_info("socket"))
        self.uid, self.is_trusted = self._peer.uid, self.rights.is_trusted(self._peer)
        super().connection_made(transport)

    def describe(self) -> dict[str, Any]:
        """Return what the application finds in `request.state`."""
        return {**super().describe(), "peer": self._peer}

    def shares(self) -> Iterator[Share]:
        """Keep one user, and all users without control rights, from taking the room of others."""
        if self.is_trusted:
            yield from super().shares()
            return
        uids = [each.uid for each in self.asking if _is_of_others(each)]
        yield Share(uids.count(self.uid), max(1, self._room // SHARE_OF_ONE), self._is_of_mine)
        yield Share(len(uids), max(1, self._room // SHARE_OF_OTHERS), _is_of_others)
        yield Share(len(self.asking), self._room, _is_of_others)

    def expendable(self) -> list[Protocol]:
        """Return first those without control rights, and of these first those of the user with most unread bytes."""
        n_unread: Counter[int] = Counter()
        for each in self.connections:
            if _is_of_others(each):
                n_unread[each.uid] += each.n_unread
        others = [each for each in super().expendable() if isinstance(each, ControlProtocol)]
        others.sort(key=lambda each: (each.is_trusted, -n_unread[each.uid]))  # else the oldest first
        return [*others]

    def _is_of_mine(self, other: Protocol) -> bool:
        return _is_of_others(other) and other.uid == self.uid


def _is_of_others(connection: Protocol) -> TypeGuard[ControlProtocol]:
    return isinstance(connection, ControlProtocol) and not connection.is_trusted
