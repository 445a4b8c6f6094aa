"""Mounts that only the real program sees."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Box:
    """A mount namespace of its own; its mounts vanish with the process that holds it.

    Parameters
    ----------
    pid : int
    folder : Path
        `folder/disk` is a tmpfs that stays mounted; `folder/root` is where it is mounted for the program.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        self.prefix = ["nsenter", f"--target={pid}", "--mount", "--"]
        self.disk, self.root = folder / "disk", folder / "root"
        self._seen_from_outside = Path(f"/proc/{pid}/root")

    def run(self, *command: str | Path) -> None:
        """Run a command that sees the mounts."""
        subprocess.run([*self.prefix, *command], check=True, capture_output=True)

    def tell(self, *command: str | Path) -> str:
        """Run a command that sees the mounts, and return what it says."""
        return subprocess.run([*self.prefix, *command], check=True, capture_output=True, text=True).stdout

    def path(self, path: Path) -> Path:
        """Return a path by which this process sees what the box sees there."""
        return self._seen_from_outside / path.relative_to("/")

    def mount_disk(self) -> None:
        self.run("mount", "--bind", self.disk, self.root)

    def unmount(self, place: Path | None = None, *, lazily: bool = True) -> None:
        self.run("umount", *(["--lazy"] if lazily else []), place or self.root)

    def mount_tmpfs(self, place: Path, options: str = "rw") -> None:
        self.run("mount", "-t", "tmpfs", "-o", options, "other", place)

    def make_read_only(self, place: Path) -> None:
        """Let nothing be written to a folder, as after an error of its disk; `unmount` ends that.

        It is mounted over itself: what is open there for writing would forbid to remount it.
        """
        self.run("mount", "--bind", place, place)
        self.run("mount", "-o", "remount,bind,ro", place)


@contextmanager
def mount_box(folder: Path) -> Iterator[Box]:
    """Yield a box; skips where none can be made."""
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", "echo ready; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != b"ready\n":
                pytest.skip("no mount namespace can be made here")
            box = Box(holder.pid, folder)
            for place in (box.disk, box.root):
                place.mkdir()
            box.mount_tmpfs(box.disk)
            yield box
        finally:
            holder.kill()
