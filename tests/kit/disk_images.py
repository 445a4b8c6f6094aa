"""Real file systems in image files, for tests with mounts of their own; and a kernel that refuses ioctls."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SIZES = {"ext4": 32 << 20, "xfs": 320 << 20, "btrfs": 120 << 20}
_QUIET = {"ext4": ["-qF"], "xfs": ["-qf"], "btrfs": ["-qf"]}
_IOCTL_NUMBERS = {"x86_64": 16, "aarch64": 29}
_EPERM = 1


def make_image(place: Path, fs_type: str) -> Path:
    """Make a file system in a file; skips where its program is missing."""
    if not shutil.which(f"mkfs.{fs_type}"):
        pytest.skip(f"there is no mkfs.{fs_type}")
    with place.open("wb") as file:
        file.truncate(SIZES[fs_type])
    subprocess.run([f"mkfs.{fs_type}", *_QUIET[fs_type], place], check=True, capture_output=True)
    return place


def attach(image: Path, device: str | None = None) -> str:
    """Return a loop device of an image: a given one, or any that is free."""
    command = ["losetup", device, str(image)] if device else ["losetup", "--find", "--show", str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop devices: {done.stderr.strip()}")
    return device or done.stdout.strip()


def detach(device: str, *, must: bool = True) -> None:
    """Give a loop device back; one that is in use goes with its last user."""
    subprocess.run(["losetup", "--detach", device], check=must, capture_output=True)


def mount(source: str | Path, place: Path, *options: str) -> None:
    """Mount a device, or an image by any loop device, which goes with the mount."""
    loop = ["-o", "loop"] if Path(source).is_file() else []
    done = subprocess.run(["mount", *loop, *options, source, place], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot be mounted here: {done.stderr.strip()}")


def refuse_ioctls() -> None:
    """Let the kernel answer EPERM to every ioctl of this process from now on, as a sandbox may (seccomp)."""
    number = _IOCTL_NUMBERS.get(os.uname().machine)
    if number is None:
        pytest.skip("the filter is for other processors")
    # Load the number of the call; is it ioctl? then EPERM, else allow: BPF of <linux/filter.h>.
    program = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | _EPERM), (0x06, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, head, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
