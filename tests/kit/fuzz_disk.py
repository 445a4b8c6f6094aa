"""Operations on a tree that collide as often as possible: a small alphabet of names, each operation two whole numbers.

The same numbers do the same on the same tree, so hypothesis can shrink them and a seeded writer can repeat them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

NUMBERS = 1 << 20
"""Operands are below this."""
_MAX_ENTRIES = 250
_ANCHOR = "anchor"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_LIBC = ctypes.CDLL(None, use_errno=True)

# Names that are often right come more than once.
_TOPS = ("s", "s", "t", "t", "lab/Subjects/s", "lab/Subjects/t", "lab", "bad name", "x-lab/Subjects/s", "b\udcff")
_DATES = ("2020-01-01", "2020-01-01", "2020-01-02", "2020-02-30", "s")
_SESSIONS = ("001", "001", "1", "01", "002", "0001", "alf")
_FOLDERS = ("alf", "alf", "probe00", "#r1#", "#2020-01-01#", "raw.x", "bad (1)", "c\udcfe", "é")
_FILES = ("a.b.npy", "a.b.npy", "c.d.npy", "_ns_a.b_times.x.tsv", "é.b.c", "f\udcfd.b.c", "junk.txt", ".hidden", "001")
_LEVELS = (_TOPS, _DATES, _SESSIONS, _FOLDERS, _FOLDERS)
_DEPTHS = (3, 4, 5, 2, 1, 4, 3)
_SIZES = (0, 5, 9, 9, 9, 9, 30)
"""Few, and equal ones hold different bytes: as files that one script writes."""
_TIMES = (1_500_000_000, 1_500_000_000, 1_500_000_002, 1_600_000_000)
"""To the second, as archives and some file systems keep them."""


class Disk:
    """A root, and a folder beside it for what is moved out of it.

    Parameters
    ----------
    root : Path
    outside : Path
        On the same file system.
    is_new : bool
        Whether to make both, and what links may lead to.
    """

    def __init__(self, root: Path, outside: Path, *, is_new: bool = True) -> None:
        self.root = os.fspath(root)
        self.outside = os.fspath(outside)
        self.n_done = 0
        self._may_write: set[tuple[str, int]] = set()
        if is_new:
            self._begin()

    def _begin(self) -> None:
        # Never touched, so that the root is never empty: an empty one is taken for a lost disk.
        os.makedirs(f"{self.root}/{_ANCHOR}/2020-01-01/001")
        for number in range(2):
            linked = f"{self.outside}/linked{number}/alf"
            os.makedirs(linked, exist_ok=True)
            self._fill(f"{linked}/a.b.npy", number)
            self._fill(f"{self.outside}/target{number}.x.npy", 7 + number)

    def do(self, name: str, a: int, b: int) -> None:
        """Do one operation; one that cannot be done on this tree does nothing."""
        with suppress(OSError, shutil.Error):
            OPERATIONS[name](self, _mix(a), _mix(b))
            self.n_done += 1

    def change_in(self, path: str, a: int) -> None:
        """Change what a folder, given relative to the root, holds: what may happen while it is being looked at."""
        with suppress(OSError, shutil.Error):
            a, what = divmod(_mix(a), 4)
            folder = f"{self.root}/{path}"
            level = path.count("/") + 1 if path not in ("", ".") else 0
            names = _LEVELS[min(level, 4)] if a % 2 or level < 3 else _FILES
            old = sorted(set(os.listdir(folder)) - {_ANCHOR})
            name, other = names[a % len(names)], old[a % len(old)] if old else ""
            if what == 0 and names is _FILES:
                self._fill(f"{folder}/{name}", a)
            elif what in (0, 1):
                os.makedirs(f"{folder}/{name}/{_LEVELS[min(level + 1, 4)][0]}", exist_ok=True)
                self._fill(f"{folder}/{name}/a.b.npy", a)
            elif what == 2:
                _remove(f"{folder}/{other}")
            else:
                os.rename(f"{folder}/{other}", f"{folder}/{name}")

    def exchange_above(self, path: str, a: int) -> tuple[str, str] | None:
        """Exchange a folder, given relative to the root, or one above it, with one beside it; return both."""
        with suppress(OSError, ZeroDivisionError):  # nothing above, nothing beside
            levels = [level for level in path.split("/") if level not in ("", ".")]
            mine = "/".join([self.root, *levels[: 1 + _mix(a) % len(levels)]])
            beside = [f"{os.path.dirname(mine)}/{name}" for name in sorted(os.listdir(os.path.dirname(mine)))]
            others = [each for each in beside if each != mine and os.path.isdir(each) and not each.endswith(_ANCHOR)]
            pair = mine, others[_mix(a) % len(others)]
            exchange(*pair)
            return pair
        return None

    def exchange_pair(self, pair: tuple[str, str] | None) -> None:
        with suppress(OSError):
            if pair is not None:
                exchange(*pair)

    def note_synced(self, rows: Iterable[str]) -> None:
        """Note which paths below the root are known: what is written through one of several names can be found out.

        What is written through a name that nobody watches, or that goes before anybody looks at it, cannot.
        """
        self._may_write = {(path, os.stat(path).st_ino) for path in (f"{self.root}/{row}" for row in rows)}

    # Choosing.

    def folder(self, number: int) -> str:
        """Return the path of a folder, there or not."""
        number, choice = divmod(number, 5)
        if choice < 2:
            return self._existing(number, want_folders=True)
        number, depth = divmod(number, len(_DEPTHS))
        path = self.root
        for names in _LEVELS[: _DEPTHS[depth]]:
            number, name = divmod(number, len(names))
            path = f"{path}/{names[name]}"
        return path

    def file(self, number: int) -> str:
        """Return the path of a file, there or not."""
        number, choice = divmod(number, 5)
        if choice < 2:
            return self._existing(number, want_folders=False)
        number, name = divmod(number, len(_FILES))
        return f"{self.folder(number)}/{_FILES[name]}"

    def entry(self, number: int) -> str:
        """Return the path of a folder or a file."""
        number, choice = divmod(number, 3)
        return self.file(number) if choice == 0 else self.folder(number)

    def _existing(self, number: int, *, want_folders: bool) -> str:
        found = list(self._walk(self.root, want_folders=want_folders))
        return found[number % len(found)] if found else f"{self.root}/s/2020-01-01/001"

    def _walk(self, top: str, *, want_folders: bool) -> Iterator[str]:
        for folder, folders, files in os.walk(top):
            folders[:] = sorted(set(folders) - {_ANCHOR})
            names = folders if want_folders else sorted(files)
            yield from (f"{folder}/{name}" for name in names)

    # Folders.

    def make_folders(self, a: int, b: int) -> None:
        self._make_room()
        os.makedirs(self.folder(a), exist_ok=True)

    def remove_tree(self, a: int, b: int) -> None:
        _remove(self.folder(a))

    def recreate(self, a: int, b: int) -> None:
        """Remove and make again at once: inode numbers come back."""
        path = self.folder(a)
        below = list(self._walk(path, want_folders=True))
        _remove(path)
        os.makedirs(path)
        for folder in below[: b % 4]:
            os.makedirs(folder, exist_ok=True)
            self._fill(f"{folder}/c.d.npy", b)
        self._fill(f"{path}/a.b.npy", b)

    def file_for_folder(self, a: int, b: int) -> None:
        """Put a file where a folder was, or the other way round."""
        path = self.entry(a)
        if os.path.isdir(path):
            _remove(path)
            self._fill(path, b)
        else:
            os.unlink(path)
            os.makedirs(f"{path}/alf")
            self._fill(f"{path}/alf/a.b.npy", b)

    # Renames.

    def rename(self, a: int, b: int) -> None:
        source, target = self.entry(a), self.entry(b)
        if b % 2:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)

    def rename_beside(self, a: int, b: int) -> None:
        """Rename within the folder, as renaming a subject or a session does."""
        source = self.entry(a)
        levels = source[len(self.root) + 1 :].split("/")
        names = (*_TOPS[:4], *_DATES, *_SESSIONS, *_FOLDERS[:4], *_FILES) if len(levels) > 1 else ("s", "t", "lab", "u")
        os.rename(source, f"{os.path.dirname(source)}/{names[b % len(names)]}")

    def exchange(self, a: int, b: int) -> None:
        exchange(self.entry(a), self.entry(b))

    def chain(self, a: int, b: int) -> None:
        """a -> x, b -> a, x -> b, and sometimes all the way back."""
        first, second, spare = self.folder(a), self.folder(b), f"{self.root}/spare{a % 2}"
        os.rename(first, spare)
        os.rename(second, first)
        os.rename(spare, second)
        if b % 3 == 0:
            exchange(first, second)

    def there_and_back(self, a: int, b: int) -> None:
        source, spare = self.folder(a), self.folder(b) if b % 2 else f"{self.outside}/spare"
        os.rename(source, spare)
        if b % 3:
            self._fill(f"{spare}/a.b.npy", b)
        os.rename(spare, source)

    def move_out(self, a: int, b: int) -> None:
        os.rename(self.entry(a), f"{self.outside}/slot{b % 2}")

    def change_outside(self, a: int, b: int) -> None:
        slot = f"{self.outside}/slot{b % 2}"
        folders = [slot, *self._walk(slot, want_folders=True)]
        self._fill(f"{folders[a % len(folders)]}/c.d.npy", a)

    def move_in(self, a: int, b: int) -> None:
        self._make_room()
        target = self.entry(a)
        if a % 2:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(f"{self.outside}/slot{b % 2}", target)

    def copy_then_rename(self, a: int, b: int) -> None:
        """What rsync, dcm2bids and acquisition programs do: fill a hidden name, then rename it."""
        self._make_room()
        source, target = self.folder(a), self.folder(b)
        hidden = f"{os.path.dirname(target)}/.t"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        self._copy(source, hidden)
        if b % 3 == 0:
            _remove(target)
        os.rename(hidden, target)

    def copy(self, a: int, b: int) -> None:
        self._make_room()
        self._copy(self.folder(a), self.folder(b))

    # Files.

    def write(self, a: int, b: int) -> None:
        self._make_room()
        path = self.file(a)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._fill(path, b)

    def write_session(self, a: int, b: int) -> None:
        """Write what a recording leaves: a session with some datasets."""
        self._make_room()
        session = f"{self.root}/{_TOPS[a % 6]}/{_DATES[b % 3]}/{_SESSIONS[(a // 6) % 4]}"
        os.makedirs(f"{session}/alf/probe00", exist_ok=True)
        for number, name in enumerate(("a.b.npy", "alf/c.d.npy", "alf/probe00/a.b.npy")):
            self._fill(f"{session}/{name}", b + number)

    def append(self, a: int, b: int) -> None:
        fd = self._open(self.file(a), os.O_WRONLY | os.O_APPEND)
        with os.fdopen(fd, "ab") as file:
            file.write(b"+" * (b % 9))

    def rewrite(self, a: int, b: int) -> None:
        """Write other bytes, as many as there were."""
        fd = self._open(self.file(a), os.O_RDWR)
        with os.fdopen(fd, "r+b") as file:
            size = len(file.read())
            file.seek(0)
            file.write(_content(b, size))

    def rewrite_in_secret(self, a: int, b: int) -> None:
        """Write other bytes, as many as there were, and let the file look as old as it did: `rsync --inplace -t`."""
        path = self.file(a)
        before = os.stat(path)
        self.rewrite(a, b)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if b % 3 == 0:
            os.chmod(path, 0o600 + b % 0o100)

    def restore(self, a: int, b: int) -> None:
        """Remove a folder and restore it from an archive, in another order: inode numbers come back, and times."""
        top = self.folder(a)
        files = list(self._walk(top, want_folders=False))
        saved = []
        for path in files:
            about = os.lstat(path)
            if stat.S_ISREG(about.st_mode):
                with open(path, "rb") as file:
                    saved.append((path, file.read(), about.st_mtime_ns))
        _remove(top)
        turn = b % len(saved) if saved else 0
        for path, content, mtime_ns in (saved[turn:] + saved[:turn])[:: -1 if b % 2 else 1]:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._write(path, content)
            os.utime(path, ns=(mtime_ns, mtime_ns))

    def truncate(self, a: int, b: int) -> None:
        fd = self._open(self.file(a), os.O_WRONLY)
        os.ftruncate(fd, b % 20)
        os.close(fd)

    def touch(self, a: int, b: int) -> None:
        fd = self._open(self.file(a), os.O_WRONLY)
        os.utime(fd, (_TIMES[b % len(_TIMES)], _TIMES[b % len(_TIMES)]))
        os.close(fd)

    def touch_all(self, a: int, b: int) -> None:
        """Give all files below a folder one time, as `touch -r` does."""
        for path in self._walk(self.folder(a), want_folders=False):
            with suppress(OSError):
                fd = self._open(path, os.O_WRONLY)
                os.utime(fd, (_TIMES[b % len(_TIMES)], _TIMES[b % len(_TIMES)]))
                os.close(fd)

    def unlink(self, a: int, b: int) -> None:
        os.unlink(self.file(a))

    def hard_link(self, a: int, b: int) -> None:
        os.link(self.file(a), self.file(b), follow_symlinks=False)

    def fifo(self, a: int, b: int) -> None:
        os.mkfifo(self.file(a))

    def chmod(self, a: int, b: int) -> None:
        os.chmod(self.folder(a), 0o700 + b % 0o100)

    def chmod_all(self, a: int, b: int) -> None:
        """As `chmod -R`: an event for each file, though nothing is written."""
        for path in self._walk(self.folder(a), want_folders=False):
            if not os.path.islink(path):
                os.chmod(path, 0o600 + b % 0o100)

    # Links.

    def link_file(self, a: int, b: int) -> None:
        targets = [f"{self.outside}/target{number}.x.npy" for number in (0, 1)] + ["nowhere", "."]
        target = self.file(b // 2) if b % 2 else targets[b // 2 % len(targets)]
        os.symlink(target, self.file(a))

    def link_session(self, a: int, b: int) -> None:
        targets = [f"{self.outside}/linked{number}" for number in (0, 0, 1)] + ["nowhere", "..", self.root]
        target = self.folder(b // 4) if b % 4 > 1 else targets[b // 4 % len(targets)]
        path = self.folder(a) if b % 2 else f"{self.root}/{_TOPS[a % 4]}/{_DATES[a % 2]}/{_SESSIONS[(a // 4) % 4]}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)

    def change_linked(self, a: int, b: int) -> None:
        """Change what links lead to."""
        linked, what = f"{self.outside}/linked{b % 2}", b // 2 % 7
        folder = f"{linked}/{_FOLDERS[a % 4]}"
        if what == 0:
            _remove(folder if a % 2 else linked)
        elif what == 1:
            os.rename(linked, f"{self.outside}/linked{1 - b % 2}")
        elif what == 2:
            self._fill(f"{self.outside}/target{b % 2}.x.npy", a)
        elif what == 3:
            _remove(f"{self.outside}/target{b % 2}.x.npy")
        else:
            os.makedirs(folder, exist_ok=True)
            self._fill(f"{folder}/{_FILES[a % len(_FILES)]}", a)

    def _copy(self, source: str, target: str) -> None:
        if f"{os.path.realpath(target)}/".startswith(f"{os.path.realpath(source)}/"):  # shutil would go on for ever
            return
        try:
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, copy_function=self._copy_file)
        except RecursionError as error:  # a bind mount leads from the target to the source
            _remove(target)
            raise OSError(errno.ELOOP, "mounted below itself", target) from error

    def _copy_file(self, source: str, target: str) -> None:
        """As `cp -p`."""
        if not os.path.isfile(source):
            raise OSError(errno.EINVAL, "a pipe would wait for a writer", source)
        with open(source, "rb") as file:
            self._write(target, file.read())
        shutil.copystat(source, target)

    def _fill(self, path: str, number: int) -> None:
        self._write(path, _content(number, _SIZES[number % len(_SIZES)]))
        if number % 3 == 0:
            os.utime(path, (_TIMES[number % len(_TIMES)], _TIMES[number % len(_TIMES)]))

    def _write(self, path: str, content: bytes) -> None:
        fd = self._open(path, os.O_WRONLY | os.O_CREAT)
        os.ftruncate(fd, 0)
        os.write(fd, content)
        os.close(fd)

    def _open(self, path: str, flags: int) -> int:
        """Open a file for writing, but not through a link, which may lead anywhere."""
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or (about.st_nlink > 1 and (path, about.st_ino) not in self._may_write):
            os.close(fd)
            raise OSError(errno.EPERM, "not to be written to", path)
        return fd

    def _make_room(self) -> None:
        """Keep the tree small: what matters is how names collide, not how many there are."""
        if sum(len(folders) + len(files) for _, folders, files in os.walk(self.root)) > _MAX_ENTRIES:
            for name in sorted(set(os.listdir(self.root)) - {_ANCHOR})[::2]:
                _remove(f"{self.root}/{name}")


OPERATIONS: dict[str, Callable[[Disk, int, int], None]] = {
    each.__name__: each
    for each in (
        Disk.make_folders, Disk.remove_tree, Disk.recreate, Disk.file_for_folder, Disk.rename, Disk.rename_beside,
        Disk.exchange, Disk.chain, Disk.there_and_back, Disk.move_out, Disk.change_outside, Disk.move_in,
        Disk.copy_then_rename, Disk.copy, Disk.write, Disk.write_session, Disk.append, Disk.rewrite,
        Disk.rewrite_in_secret, Disk.restore, Disk.truncate,
        Disk.touch, Disk.unlink, Disk.hard_link, Disk.fifo, Disk.chmod,
        Disk.chmod_all, Disk.touch_all, Disk.link_file, Disk.link_session,
        Disk.change_linked,
    )
}  # fmt: skip


def walk_files(root: str) -> Iterator[str]:
    """Yield the path of each file below a root, relative to it."""
    for folder, _, files in os.walk(root):
        yield from (os.path.relpath(f"{folder}/{name}", root) for name in files if os.path.isfile(f"{folder}/{name}"))


def _content(number: int, size: int) -> bytes:
    return (b"%d." % number * (size + 1))[:size]


def _mix(number: int) -> int:
    """Spread numbers that lie close together: what draws them likes small ones."""
    return (number * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 16


def _remove(path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
    else:
        shutil.rmtree(path, ignore_errors=True)


def exchange(first: os.PathLike[str] | str, second: os.PathLike[str] | str) -> None:
    """Let two entries change places in one stroke, as no program but a few does: renameat2(2), RENAME_EXCHANGE."""
    if _LIBC.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "exchange")
