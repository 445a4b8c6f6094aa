"""The control socket: its file, and which users may connect to it."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from alfwatchd import linux
from alfwatchd.errors import AlfwatchdError, Locked
from alfwatchd.web.peer import find_group

BACKLOG = 4096
"""The most connections that wait to be accepted; the kernel's own limit (net.core.somaxconn) may be lower."""

_FOR_OWNER, _FOR_GROUP, _FOR_ALL = 0o600, 0o660, 0o666
_MOST_PATH_BYTES = 107  # `sun_path` of unix(7) has 108, the closing zero included


@contextmanager
def listen(path: Path, group: str, *, for_all: bool = False) -> Iterator[socket.socket]:
    """Make the control socket, and remove it at the end; parameters and errors are those of `ControlSocket`."""
    control = ControlSocket(path, group, for_all=for_all)
    try:
        yield control.listening
    finally:
        control.close()


class ControlSocket:
    """The control socket. Used by one thread.

    Its owner, and the members of `group`, may connect; or all users, where the daemon itself decides about each request
    (`web.control_rights`). A lock file beside it makes sure that of two daemons that start
    at the same time, only one makes the socket. A socket that no process serves is replaced; other files never are.

    Parameters
    ----------
    path : Path
        At most `settings.SOCKET_PATH_LIMIT` bytes. The folder is made if missing.
    group : str
        Empty for none.
    for_all : bool
        Whether all users may connect.

    Raises
    ------
    Locked
        Another daemon serves this socket.
    ConfigError
        There is no such group.
    AlfwatchdError
        The socket cannot be made.
    """

    def __init__(self, path: Path, group: str, *, for_all: bool = False) -> None:
        self.path = path
        self._gid = find_group(group) if group else None
        self._mode = _FOR_ALL if for_all else _FOR_OWNER if self._gid is None else _FOR_GROUP
        self._lock_fd = _lock(path)
        try:
            self.listening = self._make()
        except BaseException:
            os.close(self._lock_fd)
            raise

    def renew(self) -> socket.socket | None:
        """Make the socket and its lock again if another process has removed them.

        Returns
        -------
        socket.socket or None
            The new socket, which is `listening` as well; None if the old one is still in its place.

        Raises
        ------
        AlfwatchdError
            It cannot be made now, or another program has put a file in its place, which stays.
        """
        if _identity(self._lock_path) != _identity(self._lock_fd):
            lock_fd = _lock(self.path)
            os.close(self._lock_fd)
            self._lock_fd = lock_fd
        if self._is_in_place():
            return None
        self.listening = self._make()
        return self.listening

    def close(self) -> None:
        """Stop listening, and remove the socket if it is still the one that was made here."""
        self.listening.close()
        with suppress(OSError):
            if self._is_in_place():
                self.path.unlink()
        os.close(self._lock_fd)

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")

    def _is_in_place(self) -> bool:
        return _identity(self.path) == self._made

    def _make(self) -> socket.socket:
        """Make the socket in the place of one that no process serves."""
        _remove_stale(self.path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._made = _bind(listening, self.path, self._gid, self._mode)
        except OSError as error:
            listening.close()
            raise _cannot_make(self.path, error) from error
        except BaseException:
            listening.close()
            raise
        return listening


def _identity(file: Path | int) -> tuple[int, int] | None:
    """Return device and inode of a file; None if there is none."""
    try:
        about = os.stat(file, follow_symlinks=False) if isinstance(file, Path) else os.fstat(file)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _lock(path: Path) -> int:
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        lock_fd = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise _cannot_make(path, error) from error
    if not linux.try_flock(lock_fd):
        os.close(lock_fd)
        raise _served(path)
    return lock_fd


def _remove_stale(path: Path) -> None:
    """Remove a socket that no process serves. The caller holds the lock, but another program may serve it."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AlfwatchdError(f"{path}: is not a socket, and was left as it is; set another --socket")
        if _is_served(path):
            raise _served(path)
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_make(path, error) from error


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # its queue of waiting connections is full
            return True
        return True


def _bind(listening: socket.socket, path: Path, gid: int | None, mode: int) -> tuple[int, int]:
    """Make the socket in a folder that no other user may enter, give it to the group, and then move it to its place.

    In a folder that others may write to, a path can lead to another file between two calls.

    Returns
    -------
    tuple of int
        Device and inode of its file.
    """
    if len(os.fsencode(path)) > _MOST_PATH_BYTES:
        raise OSError("AF_UNIX path too long")
    with ExitStack() as stack:
        above_fd = _open_folder(path.parent, stack)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        stack.callback(_remove_folder, folder)
        folder_fd = _open_folder(folder, stack)
        about = os.fstat(folder_fd)
        if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) != 0o700:
            raise OSError("another process has put a folder there meanwhile")
        # Not by the path of the folder, which may be too long, and may lead to another folder by now.
        listening.bind(f"/proc/self/fd/{folder_fd}/{path.name}")
        stack.callback(_remove_file, path.name, folder_fd)
        os.chmod(path.name, _FOR_OWNER, dir_fd=folder_fd)
        if gid is not None:
            _hand_over(path, gid, folder_fd)
        os.chmod(path.name, mode, dir_fd=folder_fd)
        listening.listen(BACKLOG)
        made = os.stat(path.name, dir_fd=folder_fd, follow_symlinks=False)
        _check_folder(path, above_fd)
        _put(path.name, folder_fd, above_fd)
        return made.st_dev, made.st_ino


def _open_folder(path: Path, stack: ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _remove_file(name: str, folder_fd: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder_fd)


def _hand_over(path: Path, gid: int, folder_fd: int) -> None:
    try:
        os.chown(path.name, -1, gid, dir_fd=folder_fd, follow_symlinks=False)
    except OSError as error:
        raise AlfwatchdError(
            f"control.group: {path} cannot be given to the group ({error.strerror}); the daemon's user must be in it"
        ) from error


def _check_folder(path: Path, folder_fd: int) -> None:
    """Raise if all users can replace the socket, and so read what clients send."""
    mode = os.fstat(folder_fd).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise AlfwatchdError(
            f"{path}: all users may write to its folder and could replace the socket; "
            f"run chmod o-w {path.parent}, or set --socket"
        )


def _put(name: str, source_fd: int, target_fd: int) -> None:
    """Move a file to another folder of the same file system; fail if the name is taken."""
    try:
        linux.rename_no_replace(name, name, source_dir_fd=source_fd, target_dir_fd=target_fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
            raise
        os.link(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)


def _served(path: Path) -> Locked:
    return Locked(f"{path}: another daemon serves this socket; stop it, or name another socket with --socket")


def _cannot_make(path: Path, error: OSError) -> AlfwatchdError:
    return AlfwatchdError(f"{path}: cannot make the control socket ({error.strerror or error}); set --socket")
