"""Reads sessions and datasets of a live Alyx over REST, through ONE-api's client, in a process of its own.

The client keeps parameters, tokens and caches in the user's home folder, asks at the terminal, sets up logging, and
needs gigabytes for a large database. A process of its own, with a temporary folder as its home, leaves nothing behind.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import pyarrow as pa

from alfwatchd.addresses import shown
from alfwatchd.errors import AlfwatchdError, ConfigError, SourceError

logger = logging.getLogger(__name__)

_PACKAGES = Path(__file__).resolve().parents[2]
SILENCE_SECONDS = 900.0
"""Longest time without a page: if Alyx asks the client to wait, it waits for up to five minutes and tries again."""
_LOG_SECONDS = 10.0


def read_database(
    address: str, username: str | None, password: str | None, token: str | None
) -> tuple[pa.Table, pa.Table]:
    """Read all sessions and datasets of an Alyx database. Any thread may call it; a large database takes an hour.

    Parameters
    ----------
    address : str
        As ``https://alyx.example.org``.
    username, password, token : str or None
        A token, or user and password.

    Returns
    -------
    sessions, datasets : pyarrow.Table
        With the columns of Alyx's own tables, ordered by id; sessions without number, date, subject or lab are left
        out, as there. `exists` tells whether Alyx knows of any place that has the file.

    Raises
    ------
    ConfigError
        ONE-api is not installed.
    SourceError
        It cannot be read.
    """
    told = shown(address)
    if not token and not (username and password):
        raise SourceError(f"{told}: give the credential alyx_token, or alyx_username and alyx_password")
    asked = {"address": address.rstrip("/"), "username": username, "password": password, "token": token}
    with tempfile.TemporaryFile() as tables:
        process = subprocess.Popen(  # -P: a module in the current folder is not ours
            [sys.executable, "-P", "-m", "alfwatchd.database.alyx_reader"],
            stdin=subprocess.PIPE, stdout=tables, stderr=subprocess.PIPE, bufsize=0,
            process_group=0, env=_environment(),
        )  # fmt: skip
        with process:
            assert process.stdin is not None and process.stderr is not None
            try:
                process.stdin.write(json.dumps(asked).encode() + b"\n")
                process.stdin.close()
                _follow(process.stderr, told)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            failure = f"the process that reads it ended with {process.returncode}"
            raise SourceError(f"{told}: {failure}; log_level debug shows what it said")
        with pa.OSFile(f"/proc/self/fd/{tables.fileno()}") as file:
            sessions, datasets = (pa.ipc.open_stream(file).read_all() for _ in range(2))
    return sessions, datasets


def _environment() -> dict[str, str]:
    """Return the environment of the child process, without our secrets."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ALFWATCHD_", "CREDENTIALS_"))}
    paths = [str(_PACKAGES), kept.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _follow(told: IO[bytes], address: str) -> None:
    """Log what the child tells until it has ended, and cleared away; then raise what it says went wrong."""
    logged = time.monotonic()
    failure: AlfwatchdError | None = None
    while select.select([told], [], [], SILENCE_SECONDS)[0]:
        line = told.readline()
        if not line:
            if failure is not None:
                raise failure
            return
        try:
            note = json.loads(line)
        except ValueError:
            note = {"said": line.decode(errors="replace").strip()}
        match note:
            case {"missing": str(what)}:
                failure = ConfigError(f"adopt.source {address}: {what}: install it: pip install 'alfwatchd[alyx]'")
            case {"failed": str(what)}:
                failure = SourceError(f"{address}: {what}")
            case {"endpoint": endpoint, "rows": rows, "of": n_rows}:
                if time.monotonic() >= logged + _LOG_SECONDS:
                    logged = time.monotonic()
                    logger.info("alyx is being read endpoint=%s rows=%d of=%d", endpoint, rows, n_rows)
            case {"said": said}:
                logger.debug("alyx client said text=%r", said)
    raise SourceError(f"{address}: no answer for {SILENCE_SECONDS:.0f} s; check address and network")
