"""`alfwatchd serve`: publishes the tables into a folder of its own whenever they change, and serves that folder.

It is a process of its own, so that nothing in the daemon listens to a network.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from alfwatchd import credentials, threads
from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import AlfwatchdError, ConfigError, Locked, TargetChanged
from alfwatchd.publish import publication
from alfwatchd.service import file_limits, logs, surroundings, systemd
from alfwatchd.service.locks import Held
from alfwatchd.settings import Publish, Serve, Settings, Subset
from alfwatchd.web import connections
from alfwatchd.web.daemon_metrics import DaemonMetrics
from alfwatchd.web.http_server import Server
from alfwatchd.web.tables_site import PublicProtocol, Site

_log = logging.getLogger(__name__)

TOKEN = "serve_token"  # noqa: S105 - the name of a credential
"""Name of the credential that clients must send; see `credentials.find`."""

_FOLDER = "serve"
_LOCK = ".serving.lock"
POLL_SECONDS = 1.0
"""Time between two looks at the tables, and at whether the process is to end."""
_RETRY_SECONDS = 30.0
KEEP_SECONDS = 600.0
"""How long a client can still fetch an archive that `cache/info` named and that a newer one has replaced. A download
that has begun can always end."""
_MOST_AHEAD = timedelta(minutes=5)
LEAST_SECONDS = 60.0
"""Time between two publications once their dates are more than five minutes ahead of the clock. ONE compares dates of
whole minutes, so each publication gets a date a minute after the last one. Where the tables change more often than once
a minute, the first few publications follow at once, with dates of the next minutes; after that there is one a minute.
"""
_END_SECONDS = 5.0
_BACKLOG = 256
_ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a server listens, which tags it serves, and whether clients need a token."""

    address: str
    tags: list[str]
    needs_token: bool


def run(
    settings: Settings, ask_metrics: Callable[[str], bytes], tell: Callable[[Serving], object] = lambda _: None
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP. Main thread only.

    Parameters
    ----------
    settings : Settings
        The tables are in `out_dir`; they need not exist yet.
    ask_metrics : callable
        As for `DaemonMetrics`.
    tell : callable
        Called as soon as the server listens.

    Raises
    ------
    ConfigError
        The token cannot be sent in a header, or two subsets have one tag.
    Locked
        Another process serves from this state folder.
    AlfwatchdError
        The address cannot be used, or a thread has ended unexpectedly.
    """
    # All threads inherit the mask: a signal waits until the main thread asks for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    surroundings.require()
    file_limits.raise_limit()
    logs.log_uncaught()
    token, subsets = find_token(), tagged_subsets(settings.publish)
    with ExitStack() as stack:
        listening = stack.enter_context(listen(settings.serve))
        folder = stack.enter_context(_take_folder(settings.state_dir))
        host = listening.getsockname()[0]
        is_private = token is None and ipaddress.ip_address(host).is_loopback
        if token is None and not is_private:
            _log.warning("everybody who can reach this address can read the tables: there is no token host=%s", host)
        tags = frozenset(subset.tag for subset in subsets)
        site = Site(folder, tags, settings.serve.base_url, token, is_private, DaemonMetrics(ask_metrics))
        # Each answer has a file open, too.
        server = Server(site, listening, PublicProtocol, connections.room() // 2)
        stack.callback(server.close)
        entries = [ServedTables(settings.out_dir, own_target(folder, subset)) for subset in (Subset(), *subsets)]
        publisher = _Publisher(entries)
        stack.callback(publisher.close)
        _log.info(
            "serving address=%s out_dir=%s token=%s tags=%d",
            address_of(listening), settings.out_dir, "no" if token is None else "yes", len(tags),
        )  # fmt: skip
        tell(Serving(address_of(listening), sorted(tags), token is not None))
        _wait_for_the_end(server, publisher)
        # A second Ctrl-C ends the process at once, without waiting for downloads.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
    _log.info("serving ended")


def _wait_for_the_end(server: Server, publisher: _Publisher) -> None:
    service = systemd.Service()
    publisher.first_round.wait(_RETRY_SECONDS)
    while True:
        for name, is_alive in (("server", server.is_alive), ("publisher", publisher.is_alive)):
            if not is_alive:
                raise AlfwatchdError(f"the {name} thread has ended unexpectedly; the log says why")
        service.tell(time.monotonic(), publisher.text)
        if signal.sigtimedwait(_ENDS, POLL_SECONDS):
            return


# What is served.


def tagged_subsets(targets: Sequence[Publish]) -> list[Subset]:
    """Return the subsets of `publish` that clients can ask for by a tag, each once.

    Raises
    ------
    ConfigError
        Two different subsets have one tag.
    """
    found: dict[str, Subset] = {}
    for subset in (entry.subset for entry in targets if entry.subset.tag):
        if found.setdefault(subset.tag, subset) != subset:
            raise ConfigError(f"publish: two subsets have the tag {subset.tag!r}; give one of them another tag")
    return list(found.values())


def own_target(folder: Path, subset: Subset) -> Publish:
    """Return the settings by which the tables of a subset are published into the folder that is served."""
    # Each client is given its own address; this one only makes the JSON say which archive is the current one.
    return Publish(target=str(folder), keep_seconds=KEEP_SECONDS, location="http://localhost", subset=subset)


TablesVersion = tuple[tuple[int, int, int, int], ...]
"""Device, inode, size and modification time of each table."""


def find_tables_version(out_dir: Path) -> TablesVersion | None:
    """Return a value that changes whenever a table is replaced; None while one is missing or not a regular file."""
    try:
        found = [(out_dir / name).stat() for name in (SESSIONS, DATASETS)]
    except OSError:
        return None
    if not all(stat.S_ISREG(each.st_mode) for each in found):
        return None
    return tuple((each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


@dataclass(slots=True)
class ServedTables:
    """The tables that are served, all rows or a subset; kept up to date by one thread.

    Parameters
    ----------
    out_dir : Path
        Folder of the tables that alfwatchd keeps.
    settings : Publish
        Result of `own_target`.
    """

    out_dir: Path
    settings: Publish
    text: str = ""
    """What is served, or why nothing is served; for people."""
    _version: TablesVersion | None = None
    _last: float = -LEAST_SECONDS
    _date: datetime = datetime.min
    _retry: float = 0.0
    _removal: float | None = None

    def keep(self, now: float) -> None:
        """Publish if the tables have changed, and remove old generations. An error is logged, and tried again later.

        Parameters
        ----------
        now : float
            CLOCK_MONOTONIC, in seconds.
        """
        if now < self._retry:
            return
        version = find_tables_version(self.out_dir)
        try:
            if version is None and self._version is None:
                self.text = f"waiting for tables in {self.out_dir}"
            elif version not in (None, self._version) and not self._is_early(now):
                self._publish(now)
                self._version = version
            elif self._removal is not None and now >= self._removal:
                with closing(publication.open_target(self.settings)) as target:
                    wait = publication.remove_old(self.settings, target)
                self._removal = None if wait is None else now + wait
        except TargetChanged:  # another process publishes into this folder
            return
        except AlfwatchdError as error:
            self._retry = now + _RETRY_SECONDS
            self.text = f"tables may be old: {error}"
            _log.error("tables cannot be published tag=%s error=%s", self.settings.subset.tag, error)

    def _is_early(self, now: float) -> bool:
        return now - self._last < LEAST_SECONDS and self._date - datetime.now() > _MOST_AHEAD

    def _publish(self, now: float) -> None:
        outcome = publication.publish(self.out_dir, self.settings)
        self._last, self._date = now, datetime.fromisoformat(outcome.date)
        self._removal = None if outcome.next_removal_seconds is None else now + outcome.next_removal_seconds
        self.text = f"{outcome.n_sessions} sessions, {outcome.n_datasets} datasets of {outcome.date}"
        _log.info(
            "tables published tag=%s new=%s generation=%s date=%s sessions=%d datasets=%d",
            self.settings.subset.tag, "yes" if outcome.published else "no", outcome.name,
            outcome.date.replace(" ", "T"), outcome.n_sessions, outcome.n_datasets,
        )  # fmt: skip


class _Publisher:
    """Keeps entries up to date in a thread of its own: a slow disk must not delay the end of the process."""

    def __init__(self, entries: Sequence[ServedTables]) -> None:
        self._entries = entries
        self._stop = threading.Event()
        self.first_round = threading.Event()
        self._thread = threads.start(self._run, "publisher")

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def text(self) -> str:
        """What is served, for people; all rows first, then the subsets."""
        said = ((entry.settings.subset.tag, entry.text) for entry in self._entries if entry.text)
        return "; ".join(f"{tag}: {text}" if tag else text for tag, text in said)

    def close(self) -> None:
        """End the thread, in at most 5 s. A publication that is cut off does no harm: the next one goes on from it."""
        self._stop.set()
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            for entry in self._entries:
                entry.keep(time.monotonic())
            self.first_round.set()
            self._stop.wait(POLL_SECONDS)


@contextmanager
def _take_folder(state_dir: Path) -> Iterator[Path]:
    """Yield a folder for archives: if possible one that survives a restart, so that clients need not download again."""

    def refuse(holder: str) -> Locked:
        return Locked(f"{folder}: process {holder} serves from here; stop it, or give this one its own --state-dir")

    folder = state_dir / _FOLDER
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        folder.mkdir(exist_ok=True, mode=0o700)
        held = Held(folder / _LOCK, refuse)
        try:
            _check_writable(folder)
        except OSError:
            held.release()
            raise
    except OSError as error:
        _log.warning("archives are kept for this run only path=%s error=%s", folder, error)
        with tempfile.TemporaryDirectory(prefix="alfwatchd-serve-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    try:
        yield folder
    finally:
        held.release()


def _check_writable(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        return


# Where, and to whom.


def find_token() -> str | None:
    """Return the token that clients must send; None if they need none.

    Raises
    ------
    ConfigError
        It has characters that an HTTP header cannot carry.
    """
    token = credentials.find(TOKEN)
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(f"the credential {TOKEN} should have letters, digits and signs of ASCII only, and no spaces")
    return token


@contextmanager
def listen(serve: Serve) -> Iterator[socket.socket]:
    """Listen at an address, and yield the socket.

    Raises
    ------
    AlfwatchdError
        This machine has no such address, or another process listens there.
    """
    where = f"{serve.host}, port {serve.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            serve.host, serve.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise AlfwatchdError(f"{where}: {error.strerror}; set serve.host to an address of this machine") from error
    with socket.socket(family, kind, protocol) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # "::" also means all IPv4 networks
        try:
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError as error:
            raise AlfwatchdError(
                f"{where}: cannot listen there ({os.strerror(error.errno or 0)}); give another --host or --port, "
                "or stop the process that listens there"
            ) from error
        yield listening


def address_of(listening: socket.socket) -> str:
    """Return the address of a listening socket as a URL; the host of IPv6 stands in brackets."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
