"""The cursor file: where a follower goes on after a restart. One follower at a time may use it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import BinaryIO

from alfwatchd.atomic import replace_file
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.errors import Locked, StateError, UsageError
from alfwatchd.files import open_regular
from alfwatchd.follow.follower import Follower
from alfwatchd.follow.saved import NotSaved, pack, unpack
from alfwatchd.service.locks import Held

_MOST_BYTES = 1 << 28


class CursorFile:
    """A cursor file that this process has locked. One thread.

    Parameters
    ----------
    path : Path
    root : str
        Folder that the daemon indexes.

    Raises
    ------
    Locked
        Another follower uses it.
    StateError
        It cannot be made.
    UsageError
        The path cannot be one of a file.
    """

    def __init__(self, path: Path, root: str) -> None:
        self.path = path
        self._root = root
        if not path.name:
            raise UsageError(f"--cursor: {path} is a folder; name a file in it")
        try:
            self._lock = Held(path.with_name(f".{path.name}.lock"), self._refuse)
        except OSError as error:
            raise StateError(
                f"{path}: cannot be used as cursor file ({error.strerror}); name another one with --cursor"
            ) from error

    def load(self, follower: Follower) -> bool:
        """Give a follower what the file holds, and tell whether there is one.

        Raises
        ------
        StateError
            It cannot be read, is damaged, or is of another root or of a follower of other sessions.
        """
        try:
            with open_regular(self.path) as file:
                content = file.read(_MOST_BYTES + 1)
            unpack(parse_json(content, _MOST_BYTES), follower, self._root)
        except FileNotFoundError:
            return False
        except NotSaved as error:
            raise self._error(str(error)) from error
        except ValueError as error:
            raise self._error(f"is damaged ({error})") from error
        except OSError as error:
            raise self._error(f"cannot be read ({error.strerror})") from error
        return True

    def save(self, follower: Follower) -> None:
        """Replace the file as a whole; what it holds then outlasts a power cut.

        Raises
        ------
        StateError
            It cannot be written.
        """
        content = pack(follower, self._root)
        try:
            replace_file(self.path, partial(_write, content), mode=0o640)
        except OSError as error:
            raise StateError(
                f"{self.path}: cannot be written ({error.strerror}); what is told from now on may be told again"
            ) from error

    def close(self) -> None:
        """Let other followers use the file."""
        self._lock.release()

    def _refuse(self, holder: str) -> Locked:
        return Locked(f"{self.path}: another follower uses this cursor file (process {holder or 'unknown'}); stop it "
                      "first, or name another file with --cursor")  # fmt: skip

    def _error(self, reason: str) -> StateError:
        return StateError(
            f"{self.path}: {reason}; name another file with --cursor, or remove this one: then --since decides where "
            "the command begins"
        )


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)
