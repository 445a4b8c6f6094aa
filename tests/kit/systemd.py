"""A real systemd, booted within a second in throw-away namespaces, so that tests can start the real units.

The box sees this machine's programs through an overlay, and nothing that it writes stays. All its mounts are made in a
mount namespace of its own and vanish with it. All its processes are in a process namespace of its own and end with its
PID 1, which the kernel kills even when the test run itself is killed. Only a control group is removed by hand.
Not available inside: limits of control groups (MemoryMax), a writable /proc/sys, the network, this machine's /tmp.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import alfwatchd

PROGRAM = "/opt/alfwatchd"
"""Where the units expect the program's virtual environment."""

SYSTEMD = Path("/usr/lib/systemd/systemd")
NOT_POSSIBLE = 90
"""Exit code of `SET_UP` where this machine forbids something that it needs."""
BOOT_SECONDS = 120
_numbers = itertools.count()

# Arguments: systemd, the working folder, and HOST:INSIDE for each folder of this machine that is to be seen inside.
SET_UP = r"""
trap 'exit 90' EXIT  # only exec gets past it
set -eu
systemd=$1 work=$2 root=$2/root; shift 2
mount -t tmpfs -o mode=755 box "$work"
mkdir "$work/changes" "$work/scratch" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$work/changes,workdir=$work/scratch" box "$root"

fresh() { mkdir -p "$root$2"; mount -t tmpfs -o "mode=$1" box "$root$2"; }
fresh 755 /run; fresh 1777 /tmp; fresh 755 /var/log; fresh 755 /srv; fresh 755 /etc/systemd
fresh 755 /usr/lib/systemd/system-generators  # one of them would mount what fstab lists
fresh 755 /dev; fresh 1777 /dev/shm
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts"; ln -s pts/ptmx "$root/dev/ptmx"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"; mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mkdir -p "$root/sys/fs/cgroup"; mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for bind in "$@"; do
    inside=$root${bind#*:}
    mkdir -p "$inside"; mount --bind "${bind%%:*}" "$inside"; mount -o remount,bind,ro "$inside"
    above=${inside%/*}  # service users must get there, also below a private home
    while [ "$above" != "$root" ]; do chmod a+x "$above"; above=${above%/*}; done
done

mkdir "$root/etc/systemd/system"
rm -f "$root/etc/machine-id"; echo 0123456789abcdef0123456789abcdef > "$root/etc/machine-id"
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' > "$root/etc/systemd/system/box.target"
for unit in "$root"/usr/lib/systemd/system/*.target.wants/*; do  # what would start at boot
    case "${unit##*/}" in (systemd-journald*) ;; (*) ln -sf /dev/null "$root/etc/systemd/system/${unit##*/}" ;; esac
done

mkdir "$root/run/host"; cd "$root"; pivot_root . run/host
umount -l /run/host; rmdir /run/host
mount --make-rshared /  # as systemd itself does on a real machine: services see what is mounted later
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    "$systemd" --system --unit=box.target --log-target=journal --show-status=0
"""

NAMESPACES = ("--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup")

# If the test run is killed, so is unshare (setpriv), and with that PID 1 (--kill-child) and everything inside.
LAUNCH = f"""
echo $$ > "$0/cgroup.procs" || exit {NOT_POSSIBLE}
exec setpriv --pdeathsig=KILL unshare {" ".join(NAMESPACES)} --fork --kill-child --propagation=private "$@"
"""

ENTRY_POINT = f"""#!{PROGRAM}/bin/python
import sys
sys.path.insert(0, "{PROGRAM}/src")
from alfwatchd.cli.main import main
sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Box:
    """A running systemd; `pid` is its PID 1 as this machine sees it."""

    pid: int

    def run(self, *command: str, check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a program inside, as root; its failure is an error that shows what it said, unless not `check`."""
        inside = ["nsenter", f"--target={self.pid}", *NAMESPACES, "env", "-i"]
        environment = ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"]
        done = subprocess.run(
            [*inside, *environment, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            said = f"{done.stdout}{done.stderr}\n{self.journal()}"
            raise AssertionError(f"{' '.join(command)} gave {done.returncode}: {said}")
        return done

    def path(self, inside: str) -> Path:
        """A file inside, as this machine reaches it; not through absolute links."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Make a file inside, and the folders above it."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").stdout.strip()

    def journal(self, unit: str | None = None) -> str:
        """Messages of a unit, or of all."""
        scope = [f"--unit={unit}"] if unit else []
        return self.run("journalctl", "--no-pager", "--quiet", "--output=cat", *scope, check=False).stdout

    def wait(self, condition: Callable[[], object], timeout: float = 20) -> None:
        """Wait until `condition()` holds: for what systemd does by itself there is no barrier."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout} s\n{self.journal()}")
            time.sleep(0.1)  # to ask starts processes


@contextmanager
def systemd_box(work: Path, binds: Mapping[Path, str] | None = None) -> Iterator[Box]:
    """Boot a box; skip the test, with the reason, where this machine cannot.

    Parameters
    ----------
    work : Path
        An existing empty folder. It stays empty: what is mounted on it cannot be seen from here.
    binds : mapping of Path to str
        Folders of this machine -> where they are inside, read-only.
    """
    if reason := why_not():
        pytest.skip(reason)
    sources = [f"{host}:{inside}" for host, inside in (binds or {}).items()]
    console = work.parent / f"{work.name}.console"
    with _control_group() as group, console.open("w") as output:
        launcher = subprocess.Popen(
            ["sh", "-c", LAUNCH, str(group), "sh", "-c", SET_UP, "sh", str(SYSTEMD), str(work), *sources],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield _booted(launcher, console)
        finally:
            _end(launcher)


def why_not() -> str | None:
    """Why no box can be booted here, as far as can be told without trying."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "systemd in namespaces needs Linux and root"
    missing = [name for name in ("unshare", "nsenter", "setpriv", "pivot_root") if not shutil.which(name)]
    if missing or not SYSTEMD.exists():
        return f"not installed: {' '.join(missing) or SYSTEMD}"
    return None if _control_group_root() else "no cgroup2 file system is mounted"


def program_binds() -> dict[Path, str]:
    """What a box must see so that `install_program` can work: interpreter, libraries, and the package as tested."""
    base = {"base": PROGRAM, "platbase": PROGRAM}
    binds = {
        Path(sysconfig.get_path(name)).resolve(): sysconfig.get_path(name, "venv", base)
        for name in ("purelib", "platlib")
    }
    binds[Path(alfwatchd.__path__[0]).resolve()] = f"{PROGRAM}/src/alfwatchd"
    prefix = Path(sys.base_prefix).resolve()
    if not prefix.is_relative_to("/usr"):
        binds[prefix] = str(prefix)
    return binds


def install_program(box: Box) -> None:
    """Complete the virtual environment of `program_binds`, as venv and pip would make it in that place."""
    python = Path(sys.executable).resolve()
    box.write(f"{PROGRAM}/pyvenv.cfg", f"home = {python.parent}\ninclude-system-site-packages = false\n")
    box.write(f"{PROGRAM}/bin/alfwatchd", ENTRY_POINT, 0o755)
    box.path(f"{PROGRAM}/bin/python").symlink_to(python)


def _booted(launcher: subprocess.Popen[bytes], console: Path) -> Box:
    """The box, when systemd says that all is started."""
    end = time.monotonic() + BOOT_SECONDS
    while launcher.poll() is None and time.monotonic() < end:
        for child in psutil.Process(launcher.pid).children():
            if child.name() == "systemd":
                box = Box(child.pid)
                state = box.run("systemctl", "is-system-running", check=False).stdout.strip()
                if state in ("running", "degraded"):
                    return box
        time.sleep(0.02)
    if launcher.returncode == NOT_POSSIBLE:
        pytest.skip(f"systemd in namespaces is not possible here: {console.read_text().strip()}")
    raise AssertionError(f"systemd did not boot (exit code {launcher.returncode}): {console.read_text()}")


def _end(launcher: subprocess.Popen[bytes]) -> None:
    """Kill PID 1, and with it everything inside; `unshare` waits for it and then ends by itself."""
    if launcher.poll() is None:
        first = psutil.Process(launcher.pid).children()
        for process in first or [launcher]:
            process.kill()
    launcher.wait()


def _control_group_root() -> Path | None:
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next((Path(target) for _, target, kind, *_ in mounts if kind == "cgroup2"), None)


@contextmanager
def _control_group() -> Iterator[Path]:
    """A control group for the box, removed with all groups that systemd makes in it."""
    root = _control_group_root()
    assert root is not None
    group = root / f"alfwatchd-test-{os.getpid()}-{next(_numbers)}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"systemd in namespaces is not possible here: {error}")
    try:
        yield group
    finally:
        end = time.monotonic() + BOOT_SECONDS  # the kernel ends the processes in its own time
        while not removed(group):
            assert time.monotonic() < end, f"processes are left in {group}"
            time.sleep(0.02)


def removed(group: Path) -> bool:
    """Remove a control group and all below it; false while a process is in one of them."""
    with suppress(OSError):
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
    return not group.exists()
