"""The service as it is installed, in a box with a real systemd, and a lab that uses it."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from kit.systemd import PROGRAM, Box, install_program, program_binds, systemd_box

REPOSITORY = Path(__file__).parents[2]
UNITS = "/etc/systemd/system"
PLAIN = 'root = "/srv/alf"\n'
ADDED = "_test_added.times.npy"

# The rest of what is installed comes from docs/guide/install.md. This only makes the tests faster.
DROP_IN = """
[Service]
SupplementaryGroups=lab
RestartSec=100ms
TimeoutStopSec=20s
LimitCORE=0
"""

FILES = ["/srv/alf/datasets.pqt", "/srv/alf/sessions.pqt", "/var/lib/alfwatchd", "/run/alfwatchd/alfwatchd.sock"]
LEFT = "rm -rf /srv/alf /srv/tables /srv/b /srv/reference /etc/alfwatchd /var/lib/alfwatchd"


def manual(section, language="sh", without=()):
    """The first code in a section of docs/guide/install.md, without the lines that begin with `without`."""
    text = (REPOSITORY / "docs/guide/install.md").read_text().partition(f"\n## {section}\n")[2]
    block = text.partition(f"```{language}\n")[2].partition("```\n")[0]
    assert block
    assert all(f"\n{line}" in f"\n{block}" for line in without)
    return "".join(line for line in block.splitlines(keepends=True) if not line.startswith(tuple(without)))


@dataclass(frozen=True, slots=True)
class Installed:
    """A box after the installation that the manual tells, with the group and the data of a lab."""

    box: Box
    said: str
    """What the commands of the manual printed."""
    state: str
    """What systemd said of the unit then."""
    files: str
    """Owner, group and mode of what was there then."""


@contextmanager
def installed_box(work):
    """Boot a box in an empty folder, and install the service as the manual tells; skips where that cannot be."""
    with systemd_box(work, program_binds()) as box:
        install_program(box)
        for file in (REPOSITORY / "systemd").iterdir():  # pip does this: pyproject.toml, shared-data
            box.write(f"{PROGRAM}/share/alfwatchd/systemd/{file.name}", file.read_text())
        box.write("/etc/sysusers.d/lab.conf", "g lab -\n")
        box.run("systemd-sysusers")
        box.run(f"{PROGRAM}/bin/alfwatchd", "demo", "/srv/alf")
        box.run("chgrp", "--recursive", "lab", "/srv/alf")
        box.run("chmod", "--recursive", "g+rwX", "/srv/alf")
        box.run("cp", "--archive", "/srv/alf", "/srv/master")
        # A box has no network, and a /proc/sys that is read-only.
        commands = manual("Install", without=("apt ", "python3 ", "/opt/alfwatchd/bin/pip ", "sysctl "))
        said = box.run("bash", "-euc", commands).stdout
        state = box.run("systemctl", "is-enabled", "alfwatchd").stdout + box.show("alfwatchd", "SubState")
        files = box.run("stat", "--format=%n %U:%G %a", *FILES).stdout

        box.run("systemctl", "disable", "--now", "alfwatchd")
        for service in ("alfwatchd.service", "alfwatchd@.service"):
            box.write(f"{UNITS}/{service}.d/local.conf", DROP_IN)
        box.run("systemctl", "daemon-reload")
        box.run("sh", "-c", LEFT)
        yield Installed(box, said, state, files)


@dataclass(frozen=True, slots=True)
class Lab:
    """A box with a fresh copy of the demo tree in /srv/alf."""

    box: Box

    def alfwatchd(self, *arguments, check=True):
        return self.box.run(f"{PROGRAM}/bin/alfwatchd", *arguments, check=check)

    def start(self, settings=PLAIN, unit="alfwatchd"):
        name = unit.partition("@")[2] or "config"
        self.box.write(f"/etc/alfwatchd/{name}.toml", settings)
        self.box.run("systemctl", "start", unit)

    def status(self, *flags):
        return json.loads(self.alfwatchd("status", "--json", *flags).stdout)

    def show(self, name, unit="alfwatchd"):
        return self.box.show(unit, name)

    def log(self):
        """What the daemon itself said since its last start."""
        last = f"_SYSTEMD_INVOCATION_ID={self.show('InvocationID')}"
        return self.box.run("journalctl", "--quiet", "--output=cat", last).stdout

    def datasets(self, folder="/srv/alf"):
        """What the table on disk lists."""
        return pq.read_table(self.box.path(folder) / "datasets.pqt").to_pylist()

    def add_dataset(self, root="/srv/alf"):
        """Write one dataset into a session; its path."""
        session = min(self.box.path(root).glob("**/[12][0-9][0-9][0-9]-??-??/[0-9]*/"))
        (session / ADDED).write_bytes(b"0123")
        return session / ADDED

    @contextmanager
    def stopped_where_it_reads_settings(self):
        """Reload, and keep the daemon waiting for its settings, which are what is written to the file."""
        config = self.box.path("/etc/alfwatchd/config.toml")
        config.unlink()
        os.mkfifo(config)
        self.box.run("systemctl", "kill", "--signal=HUP", "alfwatchd")
        with config.open("w") as settings:  # opens when the other end is open
            config.unlink()
            yield settings

    def lists_added(self, folder="/srv/alf"):
        return [row["file_size"] for row in self.datasets(folder) if row["rel_path"] == ADDED] == [4]


@contextmanager
def fresh_lab(box):
    """Yield a lab whose service does not run; all that it leaves is removed."""
    box.run("cp", "--archive", "/srv/master", "/srv/alf")
    yield Lab(box)
    box.run("systemctl", "stop", "alfwatchd.socket", "alfwatchd", "alfwatchd@a", "alfwatchd@b", check=False)
    box.run("systemctl", "reset-failed")
    box.run("sh", "-c", LEFT)


@contextmanager
def short_watchdog(lab):
    """Let systemd wait for two seconds only."""
    lab.box.write("/run/systemd/system/alfwatchd.service.d/watchdog.conf", "[Service]\nWatchdogSec=2s\n")
    lab.box.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        lab.box.run("rm", "/run/systemd/system/alfwatchd.service.d/watchdog.conf")
        lab.box.run("systemctl", "daemon-reload")
