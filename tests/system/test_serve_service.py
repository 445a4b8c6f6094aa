"""`alfwatchd serve` as the manual installs it, inside its sandbox, under a real systemd."""

import json

import pytest

from alfwatchd.service import serve
from alfwatchd.web import connections, tables_site
from kit.service import REPOSITORY, UNITS, fresh_lab, installed_box
from kit.systemd import PROGRAM

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120), pytest.mark.xdist_group("systemd")]

MANUAL = (REPOSITORY / "docs/guide/serve.md").read_text()
FETCH = """
import sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:8310" + sys.argv[1])
if len(sys.argv) > 2:
    request.add_header("Authorization", "Token " + sys.argv[2])
try:
    answer = urllib.request.urlopen(request, timeout=120)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read(1000)[:4] if "zip" in sys.argv[1] else answer.read().decode())
"""
UNIT = "alfwatchd-serve.service"
LEFT = f"rm -rf /var/lib/alfwatchd-serve {UNITS}/{UNIT} {UNITS}/{UNIT}.d"


def commands(section):
    """The first shell commands in a section of docs/guide/serve.md."""
    return MANUAL.partition(f"\n## {section}\n")[2].partition("```sh\n")[2].partition("```\n")[0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    with installed_box(tmp_path_factory.mktemp("box")) as made:
        made.box.run("ip", "link", "set", "lo", "up", check=False)
        yield made


@pytest.fixture
def lab(installed):
    with fresh_lab(installed.box) as made:
        yield made
        made.box.run("systemctl", "disable", "--now", "alfwatchd-serve", check=False)
        made.box.run("sh", "-c", LEFT)


def fetch(lab, path, *token):
    status, _, body = lab.box.run(f"{PROGRAM}/bin/python", "-c", FETCH, path, *token).stdout.partition(" ")
    return int(status), body.strip()


def show(lab, name):
    return lab.box.show("alfwatchd-serve", name)


def test_the_manual_leads_to_a_service_that_follows_the_daemon(lab):
    lab.start()
    lab.alfwatchd("sync")
    lab.box.write("/etc/alfwatchd/serve_token", "correct-horse-battery\n", 0o600)
    lab.box.run("bash", "-euc", commands("As a service"))  # returns at READY
    assert (show(lab, "ActiveState"), show(lab, "SubState")) == ("active", "running")
    assert f" {len(lab.datasets())} datasets of 20" in show(lab, "StatusText")
    user = lab.box.run("stat", "--format=%U", f"/proc/{show(lab, 'MainPID')}").stdout
    assert user == "alfwatchd\n"

    assert fetch(lab, "/cache/info")[0] == 403
    status, body = fetch(lab, "/cache/info", "correct-horse-battery")
    info = json.loads(body)
    assert (status, info["origin"]) == (200, "/srv/alf")
    assert fetch(lab, info["location"].removeprefix("http://127.0.0.1:8310"), "correct-horse-battery") == (
        200, "b'PK\\x03\\x04'",
    )  # fmt: skip

    assert fetch(lab, "/metrics")[0] == 403
    status, text = fetch(lab, "/metrics", "correct-horse-battery")
    assert (status, f"\nalfwatchd_datasets {len(lab.datasets())}.0\n" in text) == (200, True), text

    lab.add_dataset()
    lab.alfwatchd("sync")
    lab.box.wait(lambda: f" {len(lab.datasets())} datasets of 20" in show(lab, "StatusText"))
    newer = json.loads(fetch(lab, "/cache/info", "correct-horse-battery")[1])
    assert newer["date_created"] > info["date_created"]

    lab.box.run("systemctl", "restart", "alfwatchd-serve")
    assert json.loads(fetch(lab, "/cache/info", "correct-horse-battery")[1]) == newer
    lab.box.run("systemctl", "stop", "alfwatchd-serve")
    assert show(lab, "Result") == "success"
    journal = lab.box.journal("alfwatchd-serve")
    assert "serving ended" in journal
    assert "archives are kept for this run only" not in journal
    assert "correct-horse" not in journal
    assert lab.show("ActiveState") == "active"  # the daemon has nothing to do with it


def start(lab):
    lab.box.write("/etc/alfwatchd/config.toml", 'root = "/srv/alf"\n')
    lab.box.write(f"{UNITS}/{UNIT}", (REPOSITORY / "systemd" / UNIT).read_text())
    lab.box.write(f"{UNITS}/{UNIT}.d/local.conf", "[Service]\nSupplementaryGroups=lab\nRestartSec=100ms\n")
    lab.box.run("systemctl", "daemon-reload")
    lab.box.run("systemctl", "start", "alfwatchd-serve")


def test_it_is_restarted_but_not_for_a_bad_setting(lab):
    start(lab)  # there are no tables yet
    assert show(lab, "StatusText") == "waiting for tables in /srv/alf"
    assert fetch(lab, "/cache/info")[0] == 503
    lab.box.run("systemctl", "kill", "--signal=KILL", "alfwatchd-serve")
    lab.box.wait(lambda: (show(lab, "NRestarts"), show(lab, "ActiveState")) == ("1", "active"))
    lab.box.run("systemctl", "stop", "alfwatchd-serve")
    lab.box.write("/etc/alfwatchd/config.toml", 'root = "/srv/alf"\n[serve]\nport = 70000\n')
    assert lab.box.run("systemctl", "start", "alfwatchd-serve", check=False).returncode != 0
    lab.box.wait(lambda: show(lab, "ActiveState") == "failed")
    assert show(lab, "ExecMainStatus") == "78"


def test_it_can_write_nothing_but_its_state(lab):
    start(lab)
    inside = ["nsenter", f"--target={show(lab, 'MainPID')}", "--mount", "sh", "-c"]
    for folder, is_writable in (("/srv/alf", False), ("/var/lib/alfwatchd-serve", True), ("/etc/alfwatchd", False)):
        done = lab.box.run(*inside, f"touch {folder}/x", check=False)
        assert (done.returncode == 0) == is_writable, folder


def test_numbers_in_the_manual():
    text = " ".join(MANUAL.split())
    assert f"within {connections.REQUEST_SECONDS:.0f} seconds" in text
    assert (tables_site.LEAST_BYTES, connections.ANSWER_SECONDS) == (1 << 16, 60)
    assert f"At most {connections.MOST_CONNECTIONS // 2} connections" in text
    assert (serve.KEEP_SECONDS, serve.POLL_SECONDS, serve.LEAST_SECONDS) == (600, 1, 60)
