"""Runs the command of `alfwatchd follow`. No command is left behind when the follower ends, however it ends.

The only place of this package that starts processes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alfwatchd import linux, threads
from alfwatchd.errors import UsageError

_SHELL = "/bin/sh"
_STDERR = 2
_OF_THIS_PROCESS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""What systemd tells this process alone."""


def split(text: str, *, is_shell: bool) -> list[str]:
    """Return the words of a command.

    Parameters
    ----------
    text : str
        As the user wrote it.
    is_shell : bool
        Whether a shell is to take it apart. Otherwise quotes and backslashes are all that is special.

    Raises
    ------
    UsageError
        There is no such program.
    """
    if is_shell:
        return [_SHELL, "-c", text]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--exec {text!r}: {error}; close the quote") from error
    if not words:
        raise UsageError("--exec: the command is empty; is a variable not set?")
    if shutil.which(words[0]) is None:
        hint = "; for pipes, variables and the like add --shell" if set(text) & set("|;&$<>") else ""
        raise UsageError(f"--exec {text!r}: {words[0]} is no program that can be run; give its whole path{hint}")
    return words


@dataclass(slots=True)
class Running:
    """A command that runs; `seconds` is when it began, on the monotonic clock."""

    process: subprocess.Popen[bytes]
    began: float


class Runner:
    """Starts commands, and tells when they end. Only the main thread may call its methods.

    Linux ends a command with the *thread* that started it, so this must be one that lives as long as the process.

    Parameters
    ----------
    words : sequence of str
        The program and its arguments.
    ended : callable
        Called with the key, the exit code as `subprocess.Popen.returncode`, and the seconds that it took, by a thread
        of its own.
    """

    def __init__(self, words: Sequence[str], ended: Callable[[str, int, float], None]) -> None:
        self._words = list(words)
        self._ended = ended
        self._running: dict[str, Running] = {}
        self._guardian: subprocess.Popen[bytes] | None = None

    @property
    def n_running(self) -> int:
        """How many commands run."""
        return len(self._running)

    def start(self, key: str, variables: Mapping[str, str], text: str) -> None:
        """Start the command.

        Parameters
        ----------
        key : str
            By which `ended` tells which one it is.
        variables : mapping of str to str
            Added to the environment.
        text : str
            What it reads from its standard input.

        Raises
        ------
        OSError
            It cannot be started.
        """
        guardian = self._find_guardian()
        stdin = os.memfd_create("change", os.MFD_CLOEXEC)
        try:
            with open(stdin, "wb", closefd=False) as file:
                file.write(text.encode("utf-8", "surrogateescape"))
            os.lseek(stdin, 0, os.SEEK_SET)
            process = subprocess.Popen(
                self._words,
                stdin=stdin,
                stdout=_STDERR,  # the standard output is for lines about sessions
                env=_environment(variables),
                start_new_session=True,  # Ctrl-C reaches the follower alone
                preexec_fn=partial(linux.end_with_parent, os.getpid()),
            )
        finally:
            os.close(stdin)
        _tell(guardian, f"+{process.pid}\n")
        self._running[key] = Running(process, time.monotonic())
        threads.start(partial(self._wait, key, self._running[key]), "command")

    def forget(self, key: str) -> None:
        """Note that a command has ended, after `ended` was called."""
        if self._guardian is not None:
            _tell(self._guardian, f"-{self._running[key].process.pid}\n")
        del self._running[key]

    def close(self) -> None:
        """End the guardian. Commands that still run are ended by it."""
        if self._guardian is not None:
            assert self._guardian.stdin is not None
            with suppress(OSError):
                self._guardian.stdin.close()
            self._guardian.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all commands that run, and to the processes that they have started."""
        for each in self._running.values():
            with suppress(OSError):
                os.killpg(each.process.pid, number)

    def _wait(self, key: str, running: Running) -> None:
        code = running.process.wait()
        self._ended(key, code, time.monotonic() - running.began)

    def _find_guardian(self) -> subprocess.Popen[bytes]:
        """Return the process that ends the commands if this process is killed."""
        if self._guardian is None or self._guardian.poll() is not None:
            words = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guardian.py"))]
            self._guardian = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
            )
            for each in self._running.values():
                _tell(self._guardian, f"+{each.process.pid}\n")
        return self._guardian


def _tell(guardian: subprocess.Popen[bytes], line: str) -> None:
    assert guardian.stdin is not None
    with suppress(OSError):  # the guardian was killed; the next command starts another one
        guardian.stdin.write(line.encode())
        guardian.stdin.flush()


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in _OF_THIS_PROCESS}
    return own | dict(variables)


def describe_end(code: int) -> str:
    """Return how a command ended, for a person."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
