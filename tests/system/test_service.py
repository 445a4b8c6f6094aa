"""The real unit files start the real program under a real systemd, inside all their sandboxing."""

import json
import os
from contextlib import contextmanager

import pytest

from kit.service import PLAIN, UNITS, fresh_lab, installed_box, manual, short_watchdog
from kit.systemd import PROGRAM

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120), pytest.mark.xdist_group("systemd")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    with installed_box(tmp_path_factory.mktemp("box")) as made:
        yield made


@pytest.fixture
def lab(installed):
    with fresh_lab(installed.box) as made:
        yield made


def test_the_manual_leads_to_a_running_service(installed):
    assert installed.state == "enabled\nrunning"
    assert "\nstate      live since " in installed.said
    assert installed.files.splitlines() == [
        "/srv/alf/datasets.pqt alfwatchd:lab 644",  # the folder of the tables hands down its group
        "/srv/alf/sessions.pqt alfwatchd:lab 644",
        "/var/lib/alfwatchd alfwatchd:alfwatchd 750",
        "/run/alfwatchd/alfwatchd.sock alfwatchd:alfwatchd 666",
    ]


def test_it_runs_as_its_own_user_and_keeps_tables_in_the_root(lab):
    lab.start()  # returns at READY
    assert (lab.show("ActiveState"), lab.show("SubState")) == ("active", "running")
    assert lab.show("StatusText")
    assert lab.box.run("stat", "--format=%U", f"/proc/{lab.show('MainPID')}").stdout == "alfwatchd\n"
    lab.alfwatchd("sync")
    status = lab.status()
    assert (status["state"], status["root"]) == ("live", "/srv/alf")
    assert status["n_sessions"] > 0
    assert status["n_datasets"] == len(lab.datasets()) > 0
    assert status["watches_limit"] > 0  # the sandbox lets it read /proc/sys
    about = lab.box.run("stat", "--format=%U %a", "/srv/alf/datasets.pqt", "/srv/alf/sessions.pqt").stdout
    assert about == "alfwatchd 644\n" * 2


def test_tables_in_another_folder_with_hashes(lab):
    lab.box.run("install", "--directory", "--group=lab", "--mode=775", "/srv/tables")
    lab.start(PLAIN + 'out_dir = "/srv/tables"\nhash_files = true\n')
    lab.alfwatchd("sync")
    lab.box.wait(lambda: lab.status()["hashes_pending"] == 0)
    lab.alfwatchd("flush")
    assert all(len(row["hash"]) == 32 for row in lab.datasets("/srv/tables"))
    assert not lab.box.path("/srv/alf/datasets.pqt").exists()


def test_worker_processes_read_a_large_tree_inside_the_sandbox(lab):
    for number in range(80):
        folder = lab.box.path(f"/srv/alf/many/2020-{1 + number % 12:02d}-{1 + number // 12:02d}/001")
        folder.mkdir(parents=True)
        (folder / "a.b.c").touch()
    lab.start(PLAIN + 'scan_workers = 2\nlog_level = "debug"\n')
    lab.alfwatchd("sync")
    assert (lab.status()["state"], len([row for row in lab.datasets() if row["rel_path"] == "a.b.c"])) == ("live", 80)
    assert "worker processes started n=2" in lab.log()
    assert "without worker processes" not in lab.log()


def test_reload_is_over_when_the_settings_are_in_force(lab):
    lab.start()
    lab.alfwatchd("sync")
    pid = lab.show("MainPID")
    with lab.stopped_where_it_reads_settings() as settings:
        assert lab.show("ActiveState") == "reloading"
        settings.write(PLAIN + 'exclude = ["*.npy"]\n')
    lab.box.wait(lambda: lab.show("ActiveState") == "active")
    lab.alfwatchd("sync")
    assert not [row for row in lab.datasets() if row["rel_path"].endswith(".npy")]
    assert lab.show("MainPID") == pid


def test_a_bad_setting_at_reload_leaves_it_running(lab):
    lab.start()
    pid = lab.show("MainPID")
    lab.box.write("/etc/alfwatchd/config.toml", 'rooot = "/srv/alf"\n')
    lab.box.run("systemctl", "reload", "alfwatchd")
    lab.box.wait(lambda: "'rooot'" in lab.log())
    lab.box.wait(lambda: lab.show("ActiveState") == "active")
    lab.alfwatchd("sync")
    assert (lab.show("MainPID"), lab.status()["state"]) == (pid, "live")


@contextmanager
def restarted(lab, signal):
    """Send a signal to the service just after a change, wait until systemd has restarted it, and see it caught up."""
    lab.start()
    lab.alfwatchd("sync")
    lab.add_dataset()
    lab.box.run("systemctl", "kill", f"--signal={signal}", "alfwatchd")
    lab.box.wait(lambda: (lab.show("NRestarts"), lab.show("ActiveState")) == ("1", "active"))
    yield
    lab.alfwatchd("sync")
    assert lab.lists_added()


def test_restart_after_kill_9(lab):
    with restarted(lab, "KILL"):
        pass


def test_restart_by_the_watchdog_when_the_loop_hangs(lab):
    with short_watchdog(lab):
        lab.start()
        lab.alfwatchd("sync")
        ping = lab.show("WatchdogTimestampMonotonic")
        lab.box.wait(lambda: lab.show("WatchdogTimestampMonotonic") != ping)  # also with nothing to do
        assert lab.show("NRestarts") == "0"
        with lab.stopped_where_it_reads_settings():  # the loop; all other threads run
            lab.box.write("/etc/alfwatchd/config.toml", PLAIN)
            lab.box.wait(lambda: (lab.show("NRestarts"), lab.show("ActiveState")) == ("1", "active"))
        journal = lab.box.journal("alfwatchd")
        assert "Watchdog timeout (limit 2s)" in journal
        assert "in read_again" in journal  # where it hung
        lab.alfwatchd("sync")


def test_restart_by_the_watchdog_when_the_whole_process_hangs(lab):
    with short_watchdog(lab), restarted(lab, "STOP"):
        assert "Watchdog timeout (limit 2s)" in lab.box.journal("alfwatchd")


@pytest.mark.parametrize("settings", ['rooot = "/srv/alf"\n', "root = \n"], ids=["unknown key", "no TOML"])
def test_no_restart_on_a_bad_configuration(lab, settings):
    with pytest.raises(AssertionError, match=r"Job (for alfwatchd.service )?failed"):
        lab.start(settings)
    assert (lab.show("Result"), lab.show("ExecMainStatus")) == ("exit-code", "78")
    assert (lab.show("ActiveState"), lab.show("NRestarts")) == ("failed", "0")
    assert "/etc/alfwatchd/config.toml" in lab.log()


def test_stop_makes_a_last_flush(lab):
    lab.start(PLAIN + "flush_interval_seconds = 600\n")
    lab.alfwatchd("sync")
    lab.add_dataset()
    lab.box.run("systemctl", "stop", "alfwatchd")
    assert (lab.show("Result"), lab.show("ExecMainStatus"), lab.show("SubState")) == ("success", "0", "dead")
    assert lab.lists_added()
    assert not lab.box.path("/run/alfwatchd").exists()


def test_the_template_serves_two_roots(lab):
    lab.box.run("cp", "--archive", "/srv/master", "/srv/b")
    lab.start()
    lab.start(unit="alfwatchd@a")  # the same root: stops the other unit first
    assert (lab.show("ActiveState"), lab.show("NRestarts", "alfwatchd@a")) == ("inactive", "0")
    lab.start('root = "/srv/b"\n', unit="alfwatchd@b")
    lab.add_dataset("/srv/b")
    sockets = {name: f"--socket=/run/alfwatchd/{name}/alfwatchd.sock" for name in "ab"}
    for socket in sockets.values():
        lab.alfwatchd("sync", socket)
    statuses = {name: lab.status(socket) for name, socket in sockets.items()}
    assert {name: status["root"] for name, status in statuses.items()} == {"a": "/srv/alf", "b": "/srv/b"}
    assert statuses["b"]["n_datasets"] == statuses["a"]["n_datasets"] + 1
    assert (lab.lists_added("/srv/alf"), lab.lists_added("/srv/b")) == (False, True)
    assert all(any(lab.box.path(f"/var/lib/alfwatchd/{name}").iterdir()) for name in "ab")
    lab.box.run("systemctl", "stop", "alfwatchd@b")
    lab.alfwatchd("sync", sockets["a"])


# Run inside the box, as root. Each user asks in a process of its own.
ASK_AS = """
import grp, json, os, pwd, sys
from alfwatchd import Client
from alfwatchd.errors import AlfwatchdError

def ask(client, request):
    try:
        if request == "prune":
            client.apply_prune(client.plan_prune("/srv/reference", newer=True).plan_id)
        else:
            getattr(client, request)()
    except AlfwatchdError as error:
        return type(error).__name__
    return "ok"

socket, *people = sys.argv[1:]
for who in people:
    name, _, change = who.partition(" ")
    user, lab = pwd.getpwnam(name), grp.getgrnam("lab").gr_gid
    groups = {"": os.getgrouplist(name, user.pw_gid), "with lab": [lab], "without groups": [], "lab first": []}[change]
    if os.fork() == 0:
        os.setgroups(groups)
        gid = lab if change == "lab first" else user.pw_gid
        os.setresgid(gid, gid, gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
        client = Client(socket, timeout=120, root="/srv/alf")
        requests = ("status", "sync", "flush", "rescan", "plan_prune", "prune")
        said = {request: ask(client, request) for request in requests}
        print(json.dumps([who, sorted(set(said.values())), said["prune"]]), flush=True)
        os._exit(0)
    os.wait()
"""
ALL, NOTHING, READING = (["ok"], "ok"), (["NotAllowed"], "NotAllowed"), (["NotAllowed", "ok"], "NotAllowed")
PEOPLE = ["root", "alfwatchd", "member", "outsider", "member without groups", "outsider with lab", "outsider lab first"]
# What a user may do follows from the groups of the process, as for files: a service may have one that its user has not.
RIGHTS = {
    "no group": ("", "tables", "644", [ALL, ALL, *[READING] * 5]),
    "a group": ("lab", "tables", "644", [ALL, ALL, ALL, READING, READING, ALL, ALL]),
    "tables of a group": ("", "tables", "640", [ALL, ALL, READING, NOTHING, NOTHING, READING, READING]),
    "the group reads": ("lab", "group", "644", [ALL, ALL, ALL, NOTHING, NOTHING, ALL, ALL]),
    "the owner reads": ("", "owner", "644", [ALL, ALL, *[NOTHING] * 5]),
}


def start_with_reference(lab, settings):
    """Start a service that may prune, and copy its tables to where a prune may find them."""
    lab.start(f"{PLAIN}{settings}prune.enabled = true\n")
    lab.alfwatchd("sync")
    lab.box.run("sh", "-c", "mkdir /srv/reference && cp /srv/alf/*.pqt /srv/reference")


@pytest.mark.parametrize(("group", "read", "mode", "expected"), RIGHTS.values(), ids=RIGHTS)
def test_who_may_do_what(lab, group, read, mode, expected):
    lab.box.write("/etc/sysusers.d/people.conf", "u outsider -\nu member -\nm member lab\n")
    lab.box.run("systemd-sysusers")
    lab.box.write("/tmp/ask_as.py", ASK_AS)
    start_with_reference(lab, f'control.group = "{group}"\ncontrol.read = "{read}"\n')
    socket = "/run/alfwatchd/alfwatchd.sock"
    about = lab.box.run("stat", "--format=%U:%G %a", socket).stdout
    permissions = 666 if read == "tables" else 660 if group else 600
    assert about == f"alfwatchd:{group or 'alfwatchd'} {permissions}\n"
    lab.box.run("sh", "-c", f"chgrp lab /srv/alf/*.pqt && chmod {mode} /srv/alf/*.pqt")
    said = lab.box.run("env", f"PYTHONPATH={PROGRAM}/src", f"{PROGRAM}/bin/python", "/tmp/ask_as.py", socket, *PEOPLE)
    found = {who: (answers, prune) for who, answers, prune in map(json.loads, said.stdout.splitlines())}
    assert found == dict(zip(PEOPLE, expected, strict=True))


def test_prune_deletes_inside_the_sandbox(lab):
    start_with_reference(lab, "")
    before = lab.datasets()
    added = lab.add_dataset()
    lab.alfwatchd("sync")
    assert lab.lists_added()
    lab.alfwatchd("prune", "--config=/etc/alfwatchd/config.toml", "--reference=/srv/reference", "--newer", "--apply")
    assert not added.exists()
    lab.alfwatchd("sync")
    assert lab.datasets() == before


def test_a_mount_over_the_root_is_seen_inside_the_sandbox(lab):
    lab.start()
    lab.alfwatchd("sync")
    before = lab.datasets()
    lab.box.run("mount", "-t", "tmpfs", "other", "/srv/alf")
    try:
        lab.box.wait(lambda: lab.status()["state"] == "offline")
    finally:
        lab.box.wait(lambda: lab.box.run("umount", "/srv/alf", check=False).returncode == 0)  # busy while it looks
    lab.box.wait(lambda: lab.status()["state"] == "live")
    lab.alfwatchd("sync")
    assert lab.datasets() == before


def test_a_root_that_is_mounted_after_the_start(lab):
    lab.box.run("sh", "-c", "mkdir /srv/b && mv /srv/alf /srv/b && mkdir /srv/alf")  # a folder of root, as usual
    lab.box.run("mount", "--bind", "/srv/b/alf", "/srv/alf")
    lab.start()
    lab.alfwatchd("sync")
    before = lab.datasets("/srv/b/alf")
    lab.box.run("systemctl", "stop", "alfwatchd")
    lab.box.run("umount", "/srv/alf")
    lab.start()
    assert lab.status()["state"] == "offline"
    assert lab.show("StatusText").startswith("offline: 0 sessions")
    lab.box.run("mount", "--bind", "/srv/b/alf", "/srv/alf")
    try:
        lab.box.wait(lambda: lab.status()["state"] == "live")
        lab.alfwatchd("sync")
        assert (lab.datasets("/srv/b/alf"), lab.show("NRestarts")) == (before, "0")
        assert os.listdir(lab.box.path("/srv/b")) == ["alf"]
    finally:
        lab.box.run("systemctl", "stop", "alfwatchd")
        lab.box.run("umount", "/srv/alf")
    assert os.listdir(lab.box.path("/srv/alf")) == []  # nothing was written below the mount point


def test_a_socket_of_systemd_starts_it_and_stays(lab):
    lab.box.write(f"{UNITS}/alfwatchd.socket", manual("A socket that outlives the daemon", "ini"))
    lab.box.write("/etc/alfwatchd/config.toml", PLAIN)
    lab.box.run("systemctl", "daemon-reload")
    lab.box.run("systemctl", "start", "alfwatchd.socket")
    assert lab.show("ActiveState") == "inactive"
    for _ in range(2):
        lab.alfwatchd("sync", "--socket=/run/alfwatchd.sock")  # starts it, and is answered
        assert lab.status("--socket=/run/alfwatchd.sock")["pid"] > 0
        lab.box.run("systemctl", "stop", "alfwatchd.service")
        about = lab.box.run("stat", "--format=%U:%G %a", "/run/alfwatchd.sock").stdout
        assert about == "root:root 666\n"
    lab.box.run("systemctl", "stop", "alfwatchd.socket")
    lab.box.run("rm", f"{UNITS}/alfwatchd.socket")
    lab.box.run("systemctl", "daemon-reload")
