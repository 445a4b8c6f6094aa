"""Finds the daemon for a command: the daemon that keeps the root that the command means, and no other one."""

from __future__ import annotations

import shlex

from alfwatchd.errors import AlfwatchdError, NoDaemon, NotAllowed, UsageError, WrongRoot
from alfwatchd.service import configuration
from alfwatchd.service.configuration import Address, Flags
from alfwatchd.web.client import Client

MONITOR_SECONDS = 8.0
"""How long a command for a monitoring system waits for an answer: such systems give up after some 10 s."""


def find_daemon(flags: Flags, timeout: float | None = None) -> Client:
    """Return a client for a command that needs a daemon.

    Parameters
    ----------
    flags : mapping of str to object
        The settings that the command line sets.
    timeout : float or None
        Seconds to wait for each answer; None waits as long as the daemon needs.

    Returns
    -------
    Client
        Its requests name the root if a setting does.

    Raises
    ------
    NoDaemon, WrongRoot, NotAllowed
        No daemon keeps the root. The methods of the client raise them, too.
    ConfigError
        As `configuration.find_address`.
    """
    address = configuration.find_address(flags)
    if len(address.sockets) == 1 or address.root is None:
        return Client(address.sockets[0], timeout, address.root)
    return _first_that_keeps(address, timeout)


def find_daemon_if_any(flags: Flags) -> Client | None:
    """Return a client for a command that can work without a daemon.

    A daemon of another root on a usual socket is passed over. If a setting names the socket, a daemon of another root
    there is an error. If the command line names the socket, no daemon there is an error, too.

    Parameters
    ----------
    flags : mapping of str to object
        The settings that the command line sets.

    Returns
    -------
    Client or None
        None if no daemon keeps the root.

    Raises
    ------
    NoDaemon, WrongRoot, NotAllowed, ConfigError
        As `find_daemon`, in the cases above.
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
    """Return a client whose requests name the root, for requests that need this.

    If no setting names the root, the daemon is asked for its root. Before a request that changes something, this is
    allowed only if a setting names the socket. Otherwise the request could reach a root that the user does not mean,
    for example because sudo has dropped ALFWATCHD_ROOT from the environment.

    Parameters
    ----------
    client : Client
    flags : mapping of str to object
        The settings that the command line sets.
    changes : bool
        Whether the request changes something.

    Raises
    ------
    UsageError
        Neither a root nor a socket is named.
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


def _first_that_keeps(address: Address, timeout: float | None = None) -> Client:
    failed: list[AlfwatchdError] = []
    for path in address.sockets:
        client = Client(path, timeout, address.root)
        try:
            client.status()
        except (NoDaemon, WrongRoot, NotAllowed) as error:
            failed.append(error)
        else:
            return client
    # The most useful error: NotAllowed, then WrongRoot, then NoDaemon.
    raise next((error for kind in (NotAllowed, WrongRoot) for error in failed if isinstance(error, kind)), failed[0])
