"""Which daemon a command goes to: the one that keeps the root that the command means, and no other."""

from __future__ import annotations

import shlex

from alfwatchd.errors import AlfwatchdError, NoDaemon, NotAllowed, UsageError, WrongRoot
from alfwatchd.service import configuration
from alfwatchd.service.configuration import Address, Flags
from alfwatchd.web.client import Client


def find_daemon(flags: Flags) -> Client:
    """Return a client for a command that needs a daemon. It says which root is meant, where the settings do.

    Raises
    ------
    NoDaemon, WrongRoot, NotAllowed
        No daemon keeps the root, as far as is known already; the client's methods raise them as well.
    ConfigError
        See `configuration.find_address`.
    """
    address = configuration.find_address(flags)
    if len(address.sockets) == 1 or address.root is None:
        return Client(address.sockets[0], root=address.root)
    return _first_that_keeps(address)


def find_daemon_if_any(flags: Flags) -> Client | None:
    """Return a client for a command that can do without a daemon, or None where none keeps the root.

    A daemon on a usual socket that keeps another root does not count. A socket that was named is another matter: what
    is there must keep the root; and if the command line itself names it, it must be there.

    Raises
    ------
    NoDaemon, WrongRoot, NotAllowed, ConfigError
    """
    address = configuration.find_address(flags)
    try:
        return _first_that_keeps(address)
    except NoDaemon:
        if "socket" in flags:
            raise
    except WrongRoot:
        if address.is_named:
            raise
    return None


def with_root(client: Client, flags: Flags, *, changes: bool) -> Client:
    """Return a client that says which root it means, for the requests that must.

    Where no setting names the root, the daemon is asked which one it keeps. For a request that changes something, that
    is only right if its socket was named. Else nothing would tell the root that is meant from any other: the settings
    may just have been lost, as the environment is by sudo.

    Raises
    ------
    UsageError
        Nothing says which root is meant.
    """
    if client.root is not None:
        return client
    root = client.find_root()
    if changes and not configuration.find_address(flags).is_named:
        raise UsageError(
            f"which root is meant? The daemon at {client.socket_path} keeps {root}; if that is the one, add "
            f"--root {shlex.quote(str(root))}, or name the settings with --config; nothing was done"
        )
    return Client(client.socket_path, client.timeout, root)


def _first_that_keeps(address: Address) -> Client:
    failed: list[AlfwatchdError] = []
    for path in address.sockets:
        client = Client(path, root=address.root)
        try:
            client.status()
        except (NoDaemon, WrongRoot, NotAllowed) as error:
            failed.append(error)
        else:
            return client
    # The most useful error: NotAllowed, then WrongRoot, then NoDaemon.
    raise next((error for kind in (NotAllowed, WrongRoot) for error in failed if isinstance(error, kind)), failed[0])
