"""`alfwatchd-follow@.service` as the manual installs it, inside its sandbox, under a real systemd."""

from __future__ import annotations

import pytest

from kit.service import PLAIN, REPOSITORY, UNITS, fresh_lab, installed_box

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120), pytest.mark.xdist_group("systemd")]

MANUAL = (REPOSITORY / "docs/guide/react.md").read_text()
UNIT = "alfwatchd-follow@sorting"
DROP_IN = f"{UNITS}/{UNIT}.service.d/local.conf"
LEFT = f"rm -rf /var/lib/alfwatchd-follow {UNITS}/alfwatchd-follow@.service {UNITS}/{UNIT}.service.d /srv/hold"
RESULT = "result.sorted.txt"
SORTER = """#!/bin/sh
set -eu
while [ -e /srv/hold ]; do sleep 0.1; done
echo "$* $(id -un) $ALFWATCHD_CHANGE" > "$ALFWATCHD_PATH/RESULT"
""".replace("RESULT", RESULT)


def commands():
    """Return the shell commands of the page, with a shorter time of quiet."""
    code = MANUAL.partition("\n## As a service\n")[2].partition("```sh\n")[2].partition("```\n")[0]
    assert "--quiet-for 10m" in code
    return code.replace("--quiet-for 10m", "--quiet-for 1s")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    with installed_box(tmp_path_factory.mktemp("box")) as made:
        made.box.write("/etc/sysusers.d/sorter.conf", "u sorter -\n")
        made.box.run("systemd-sysusers")
        made.box.write("/usr/local/bin/sort-spikes", SORTER, 0o755)
        yield made


@pytest.fixture
def lab(installed):
    with fresh_lab(installed.box) as made:
        made.start(PLAIN + '[control]\ngroup = "lab"\n')
        made.alfwatchd("sync")
        yield made
        made.box.run("systemctl", "disable", "--now", UNIT, check=False)
        made.box.run("sh", "-c", LEFT)


def folder(number):
    return f"/srv/alf/northlab/Subjects/NL_001/2022-01-01/{number:03d}"


def wait_until_it_follows(lab):
    lab.box.wait(lambda: lab.box.path("/var/lib/alfwatchd-follow/sorting/cursor").exists())


def record(lab, number):
    """Record a session that is to be sorted, and return where its result will be."""
    lab.box.run("install", "-d", "-g", "lab", "-m", "2775", folder(number))
    lab.box.write(f"{folder(number)}/ephysData.raw.cbin", "0123")
    return lab.box.path(folder(number)) / RESULT


def test_the_manual_leads_to_a_service_that_sorts_each_session_once(lab):
    lab.box.run("bash", "-euc", commands())
    wait_until_it_follows(lab)
    first = record(lab, 1)
    lab.box.wait(first.exists)
    lab.box.wait(lambda: first.read_text() == "--sorter kilosort sorter complete\n")

    # While the next session is sorted, the service is stopped: the command is ended, and runs again later.
    lab.box.write("/srv/hold", "")
    second = record(lab, 2)
    lab.box.wait(lambda: "sort-spikes" in lab.box.run("systemctl", "status", UNIT, check=False).stdout)
    lab.box.run("systemctl", "stop", UNIT)
    assert lab.show("Result", UNIT) == "success"
    lab.box.run("rm", "/srv/hold", f"{folder(1)}/{RESULT}")
    lab.box.run("systemctl", "start", UNIT)
    lab.box.wait(second.exists)
    assert not first.exists()
    assert "command done path=northlab/Subjects/NL_001/2022-01-01/002" in lab.box.journal(UNIT)


def test_without_a_user_it_does_not_start(lab):
    lab.box.run("bash", "-euc", commands())
    lab.box.run("systemctl", "stop", UNIT)
    lab.box.run("rm", DROP_IN)
    lab.box.run("systemctl", "daemon-reload")
    assert lab.box.run("systemctl", "start", UNIT, check=False).returncode != 0
    assert "set User= in a drop-in: systemctl edit alfwatchd-follow@sorting.service" in lab.box.journal(UNIT)


def test_it_waits_for_the_daemon(lab):
    lab.box.run("systemctl", "stop", "alfwatchd")
    lab.box.run("bash", "-euc", commands().replace("[Service]\n", "[Service]\nRestartSec=100ms\n"))
    lab.box.wait(lambda: "no daemon answers" in lab.box.journal(UNIT))
    lab.box.run("systemctl", "start", "alfwatchd")
    wait_until_it_follows(lab)
    result = record(lab, 1)
    lab.box.wait(result.exists)
