"""`alfwatchd prune` as a person uses it: plan, apply, undo and the trash, by a daemon and alone; and who may delete."""

import contextlib
import datetime
import json
import os
import re
import shutil
import subprocess
import time

import pytest

from alfwatchd import Client
from alfwatchd.errors import AlfwatchdError, UsageError
from alfwatchd.index.state_db import StateDb
from kit.program import listed, walk

NOBODY = 65534
SESSION = "lab/Subjects/s1/2020-01-01/001"


@pytest.fixture
def pruned(idle, tmp_path):
    """A program whose reference tables lack one dataset and one whole session."""
    idle.make_tables()
    reference = tmp_path / "reference"
    reference.mkdir()
    for name in ("sessions.pqt", "datasets.pqt"):
        shutil.copy(idle.root / name, reference)
    new = idle.root / SESSION / "alf/spikes.depths.npy"
    new.write_bytes(b"12345")
    shutil.copytree(idle.root / SESSION, idle.root / "lab/Subjects/s1/2020-01-01/003")
    idle.reference = reference
    idle.goes = {f"{SESSION}/alf/spikes.depths.npy"} | {
        path for path in walk(idle.root) if "/s1/2020-01-01/003/" in path
    }
    return idle


def start_with(made, text):
    config = made.home / "config.toml"
    config.write_text(text)
    made.start(f"--config={config}")


def plan_of(made, *flags):
    return json.loads(made.run("prune", f"--reference={made.reference}", "--newer", "--json", *flags).stdout)


def assert_pruned(made, everything):
    assert walk(made.root) == {path: size for path, size in everything.items() if path not in made.goes}
    assert not (made.root / "lab/Subjects/s1/2020-01-01/003").exists()


def test_prune_plans_and_deletes_only_if_enabled(pruned):
    """A user who can reach the socket must not be able to delete data, unless the administrator allows it."""
    pruned.start("--log-level=info")
    everything = walk(pruned.root)
    plan = plan_of(pruned, "--max-fraction=0.5")
    assert {item["path"] for item in plan["files"]} == pruned.goes
    assert [item["path"] for item in plan["folders"]] == ["lab/Subjects/s1/2020-01-01/003"]
    assert plan["n_bytes"] == sum(size for path, size in everything.items() if path in pruned.goes)
    assert plan["applied"] is False
    error = pruned.run(
        "prune", "--newer", f"--reference={pruned.reference}", "--max-fraction=0.5", "--apply", code=1
    ).stderr
    assert "set prune.enabled = true" in error
    assert walk(pruned.root) == everything


def test_prune_over_the_socket_deletes_what_was_planned_and_logs_who_asked(pruned):
    """Months later, the log must answer what was deleted, and by whom."""
    start_with(pruned, "[prune]\nenabled = true\nmax_fraction = 0.5\n")
    everything = walk(pruned.root)
    text = pruned.run("prune", "--newer", f"--reference={pruned.reference}").stdout
    for path in pruned.goes:
        assert f"would go: {path} (" in text
    assert "nothing was touched; add --apply to carry this out" in text
    assert walk(pruned.root) == everything
    applied = plan_of(pruned, "--apply")
    assert applied["applied"] is True
    assert {item["path"] for item in applied["files"]} == pruned.goes
    assert_pruned(pruned, everything)
    for path in pruned.goes:
        assert re.search(
            rf"dataset moved to trash path='{re.escape(path)}' file_size=\d+ by user=\S+ uid={os.getuid()}", pruned.log
        )
    assert "empty folder removed path='lab/Subjects/s1/2020-01-01/003' by user=" in pruned.log
    pruned.assert_equals_fresh_index()
    assert listed(pruned.out_dir, pruned.root) == walk(pruned.root)


@pytest.mark.heavy
def test_prune_refuses_when_too_much_would_go_or_there_is_no_reference(pruned):
    """A wrong reference folder must not cost all data."""
    start_with(pruned, "[prune]\nenabled = true\n")
    everything = walk(pruned.root)
    error = pruned.run("prune", "--newer", f"--reference={pruned.reference}", "--apply", code=1).stderr
    assert "4 of 16 datasets (25.0%) and 378 of 2634 bytes (14.4%) are not in the reference tables" in error
    assert "--max-fraction" in error
    error = pruned.run("prune", f"--reference={pruned.home}", "--apply", code=1).stderr
    assert f"{pruned.home}: no reference tables here" in error
    assert walk(pruned.root) == everything


@pytest.mark.heavy
def test_prune_against_its_own_tables_says_that_they_mirror_the_disk(pruned):
    """A user without reference tables learns why nothing is deleted."""
    start_with(pruned, "[prune]\nenabled = true\n")
    everything = walk(pruned.root)
    text = pruned.run("prune").stdout
    assert "0 files and 0 folders" in text
    assert "--reference" in text
    for run, places in ((pruned.run, []), (pruned.run_bare, pruned.places)):
        assert "without a reference there is nothing to delete" in run("prune", *places, "--apply", code=2).stderr
        if pruned.process:
            pruned.stop()
    own = pruned.run_bare("prune", *pruned.places, f"--reference={pruned.out_dir}", "--apply", code=1).stderr
    assert f"{pruned.out_dir}: this is where the tables of {pruned.root} are written" in own
    assert walk(pruned.root) == everything


def test_what_is_newer_than_the_reference_stays_and_is_listed(pruned):
    """Data of this morning cannot be in tables of last week, and must stay."""
    everything = walk(pruned.root)
    command = ["prune", *pruned.places, f"--reference={pruned.reference}", "--max-fraction=1", "--apply"]
    text = pruned.run_bare(*command).stdout
    for path in pruned.goes:
        assert f"kept: {path}: newer than the reference" in text
    assert f"deleted: 0 files and 0 folders, 0 B, of 16 datasets of {pruned.root}" in text
    assert walk(pruned.root) == everything
    reply = json.loads(pruned.run_bare(*command, "--json").stdout)
    assert reply["n_kept"] == {"newer than the reference": 4}
    assert (reply["root"], reply["reference"]) == (str(pruned.root), str(pruned.reference))
    assert datetime.datetime.fromisoformat(reply["reference_date"]).utcoffset() == datetime.timedelta(0)
    pruned.run_bare(*command, "--newer")
    assert_pruned(pruned, everything)


@pytest.mark.heavy
def test_a_session_that_a_daemon_first_saw_after_the_reference_stays(pruned):
    """Old files that another disk brings with all their times: nothing but the daemon knows that they are new here."""
    margin = "[prune]\nenabled = true\nmax_fraction = 1\nmargin_seconds = 0\n"
    for name in ("sessions.pqt", "datasets.pqt"):
        shutil.copy(pruned.root / name, pruned.reference)
    start_with(pruned, margin)
    old = pruned.root / "lab/Subjects/s1/2020-01-01/003"
    disk = pruned.root.parent / "disk"
    old.rename(disk)
    pruned.client.sync()
    assert len(pruned.client.plan_prune(str(pruned.reference), newer=True).files) == 1
    disk.rename(old)
    pruned.client.sync()
    for _ in range(2):
        plan = pruned.client.plan_prune(str(pruned.reference))
        assert {item.path for item in plan.kept} == pruned.goes
        pruned.stop()
        with contextlib.closing(StateDb(pruned.home / "state")) as state:
            assert state.load_first_seen().keys() == {"lab/Subjects/s1/2020-01-01/003"}
        start_with(pruned, margin)


@pytest.mark.heavy
def test_no_fraction_says_what_was_meant(pruned):
    """10 for 10 % would allow to delete everything."""
    everything = walk(pruned.root)
    error = pruned.run_bare(
        "prune", *pruned.places, f"--reference={pruned.reference}", "--max-fraction=10", code=2
    ).stderr
    assert "10 is no fraction: for 10 % write 0.1" in error
    pruned.start()
    assert (
        "10 is no fraction"
        in pruned.run("prune", f"--reference={pruned.reference}", "--max-fraction=10", code=2).stderr
    )
    with pytest.raises(UsageError, match=r"10 is no fraction: for 10 % write 0\.1"):
        pruned.client.plan_prune(str(pruned.reference), max_fraction=10)
    assert walk(pruned.root) == everything


@pytest.mark.heavy
def test_few_files_that_are_most_of_the_data_are_too_much(pruned):
    """One raw recording can be worth more than a thousand small files."""
    (pruned.root / SESSION / "alf/spikes.depths.npy").write_bytes(bytes(1_000_000))
    shutil.rmtree(pruned.root / "lab/Subjects/s1/2020-01-01/003")
    for start in (lambda: None, lambda: start_with(pruned, "[prune]\nenabled = true\n")):
        start()
        run, places = (pruned.run, []) if pruned.process else (pruned.run_bare, pruned.places)
        command = ["prune", "--newer", *places, f"--reference={pruned.reference}", "--apply"]
        error = run(*command, code=1).stderr
        assert re.search(r"1 of 13 datasets \(7.7%\) and 1000000 of \d+ bytes \(9\d.\d%\)", error)
        assert (pruned.root / SESSION / "alf/spikes.depths.npy").exists()


@pytest.mark.heavy
def test_prune_keeps_empty_sessions_if_told(pruned):
    """Some labs keep the folder of each session that was run."""
    start_with(pruned, "[prune]\nenabled = true\nmax_fraction = 0.5\n")
    plan_of(pruned, "--apply", "--keep-empty-sessions")
    assert (pruned.root / "lab/Subjects/s1/2020-01-01/003").is_dir()
    assert not pruned.goes & walk(pruned.root).keys()


def test_prune_without_a_daemon(pruned):
    """A server without a daemon can be pruned, and what went can be brought back."""
    everything = walk(pruned.root)
    command = ["prune", "--newer", *pruned.places, f"--reference={pruned.reference}"]
    assert "4 of 16 datasets" in pruned.run_bare(*command, code=1).stderr
    text = pruned.run_bare(*command, "--max-fraction=0.5").stdout
    assert "nothing was touched" in text
    assert walk(pruned.root) == everything
    ended = pruned.run_bare(*command, "--max-fraction=0.5", "--apply")
    assert ended.stderr.count("dataset moved to trash path=") == 4
    assert re.search(r"^prune done plan=\w+ deleted=4 kept=0 bytes=\d+ seconds=\d.* root='", ended.stderr, re.MULTILINE)
    assert_pruned(pruned, everything)
    plan_id = re.search(r"free it now: alfwatchd prune --empty-trash (\w+)$", ended.stdout, re.MULTILINE)[1]
    assert re.search(r" moved, freed on \d+ [A-Z][a-z]{2}; free it now", ended.stdout)
    plans = pruned.run_bare("prune", *pruned.places, "--list").stdout
    assert re.match(rf"{plan_id}  applied +\S+Z  4 files, ", plans)
    undone = pruned.run_bare("prune", *pruned.places, f"--undo={plan_id}")
    assert undone.stdout.startswith("4 files and ")
    assert walk(pruned.root) == everything
    assert pruned.run_bare("prune", *pruned.places, "--list").stdout.startswith(f"{plan_id}  undone ")
    assert (
        f"holds nothing of plan '{plan_id}'"
        in pruned.run_bare("prune", *pruned.places, f"--undo={plan_id}", code=1).stderr
    )
    again = json.loads(pruned.run_bare(*command, "--max-fraction=0.5", "--apply", "--json").stdout)
    emptied = json.loads(pruned.run_bare("prune", *pruned.places, "--empty-trash", "--json").stdout)
    assert (emptied["plans"], emptied["n_files"], emptied["complete"]) == ([again["plan_id"]], 4, True)
    assert_pruned(pruned, everything)
    assert not (pruned.root / ".alfwatchd-trash").exists()


@pytest.mark.heavy
def test_without_a_daemon_once_and_prune_empty_what_is_due(pruned):
    """Otherwise the disk space never becomes free."""
    everything = walk(pruned.root)
    config = pruned.home / "config.toml"
    config.write_text("[prune]\ntrash_seconds = 0.5\nmax_fraction = 1.0\n")
    places = [*pruned.places, f"--config={config}"]
    for last in (["--once"], ["prune", f"--reference={pruned.reference}"]):
        pruned.run_bare("prune", *places, f"--reference={pruned.reference}", "--newer", "--apply")
        time.sleep(0.6)
        ended = pruned.run_bare(*last, *places)
        assert ended.stderr.count("dataset deleted path=") == 4
        assert not (pruned.root / ".alfwatchd-trash").exists()
        for path in pruned.goes:
            (pruned.root / path).parent.mkdir(parents=True, exist_ok=True)
            (pruned.root / path).write_bytes(b"x" * everything[path])


@pytest.mark.heavy
def test_prune_deletes_at_once_without_a_trash(pruned):
    """Without a trash the space is free at once, and no way back is promised."""
    everything = walk(pruned.root)
    config = pruned.home / "config.toml"
    config.write_text("[prune]\ntrash_seconds = 0\nmax_fraction = 1.0\n")
    command = ["prune", *pruned.places, f"--config={config}", f"--reference={pruned.reference}", "--newer", "--apply"]
    ended = pruned.run_bare(*command)
    assert ended.stderr.count("dataset deleted path=") == 4
    assert "moved" not in ended.stdout
    assert_pruned(pruned, everything)


@pytest.mark.heavy
def test_undo_and_empty_over_the_socket(pruned):
    """A mistake can be undone while the daemon runs, and the tables follow."""
    start_with(pruned, "[prune]\nenabled = true\nmax_fraction = 0.5\n")
    everything = walk(pruned.root)
    plan_id = plan_of(pruned, "--apply")["plan_id"]
    assert_pruned(pruned, everything)
    pruned.wait(lambda: json.loads(pruned.run("status", "--json").stdout)["trash_bytes"] > 0)
    assert "trash      " in pruned.run("status").stdout
    assert json.loads(pruned.run("prune", "--list", "--json").stdout)["plans"][0]["state"] == "applied"
    pruned.run("prune", f"--undo={plan_id}")
    assert walk(pruned.root) == everything
    pruned.run("sync")
    pruned.assert_equals_fresh_index()
    assert listed(pruned.out_dir, pruned.root) == walk(pruned.root)
    pruned.wait(lambda: json.loads(pruned.run("status", "--json").stdout)["trash_bytes"] == 0)
    plan_id = plan_of(pruned, "--apply")["plan_id"]
    with next((pruned.root / ".alfwatchd-trash").glob("*/*/*")).open("ab") as file:
        file.write(b"more")
    reply = json.loads(pruned.run("prune", f"--empty-trash={plan_id}", "--json", code=1).stdout)
    assert (reply["n_files"], [item["reason"] for item in reply["kept"]]) == (
        3, ["was written to since it was moved to the trash"]
    )  # fmt: skip
    pruned.wait(lambda: "trash_written" in pruned.run("status", "--json").stdout)
    pruned.run("prune", f"--undo={plan_id}")
    pruned.run("sync")
    pruned.assert_equals_fresh_index()
    assert pruned.log.count("prune done plan=") == 2
    assert pruned.log.count("prune undone root=") == 2


@pytest.mark.heavy
def test_the_daemon_empties_what_is_due(pruned):
    """The space becomes free without a person who remembers it."""
    start_with(pruned, "[prune]\nenabled = true\nmax_fraction = 0.5\ntrash_seconds = 0.1\n")
    everything = walk(pruned.root)
    plan_of(pruned, "--apply")
    pruned.wait(lambda: not (pruned.root / ".alfwatchd-trash").exists())
    assert_pruned(pruned, everything)
    assert json.loads(pruned.run("prune", "--list", "--json").stdout)["plans"][0]["state"] == "emptied"


@pytest.mark.heavy
def test_what_may_not_go_is_told_with_its_cause_and_exit_code_1(pruned):
    """The user sees that a file is still there, and why."""
    folder = pruned.root / next(iter(pruned.goes))
    subprocess.run(["chattr", "+i", folder], check=False)
    try:
        command = [
            "prune",
            *pruned.places,
            f"--reference={pruned.reference}",
            "--max-fraction=0.5",
            "--newer",
            "--apply",
        ]
        ended = pruned.run_bare(*command, code=1)
        assert f"kept: {next(iter(pruned.goes))}: this user may not write there" in ended.stdout
        assert "deleted=3 kept=" in ended.stderr
    finally:
        subprocess.run(["chattr", "-i", folder], check=False)


@pytest.mark.heavy
def test_prune_without_its_socket_does_not_go_past_a_daemon(pruned):
    """The tables are locked by the daemon, which must be the one to delete."""
    pruned.start()
    everything = walk(pruned.root)
    command = ["prune", "--newer", *pruned.places, f"--reference={pruned.reference}", "--max-fraction=0.5", "--apply"]
    assert f"process {pruned.pid}" in pruned.run_bare(*command, code=75).stderr
    assert walk(pruned.root) == everything


@pytest.mark.heavy
@pytest.mark.parametrize("flag", ["--empty-trash", "--undo", "--reference"])
def test_a_variable_that_is_not_set_empties_no_trash(pruned, flag):
    """`--empty-trash "$PLAN"` without PLAN must not delete what every plan has moved."""
    command = ["prune", *pruned.places, f"--reference={pruned.reference}", "--max-fraction=1", "--newer", "--apply"]
    pruned.run_bare(*command)
    assert "is a variable not set?" in pruned.run_bare("prune", *pruned.places, flag, "", code=2).stderr
    assert any((pruned.root / ".alfwatchd-trash").iterdir())


@pytest.mark.heavy
def test_without_a_daemon_what_was_moved_in_since_the_last_look_stays(pruned):
    """A `mv` of a subject changes no time of its sessions."""
    old = pruned.root / "lab/Subjects/s1/2020-01-01/003"
    disk = pruned.root.parent / "other/m9"
    disk.mkdir(parents=True)
    old.parent.rename(disk / "2020-01-01")
    pruned.run_once()
    time.sleep(1.1)  # tables count seconds
    for name in ("sessions.pqt", "datasets.pqt"):
        (pruned.reference / name).unlink()
        shutil.copy(pruned.root / name, pruned.reference)
    disk.rename(pruned.root / "lab/Subjects/m9")
    config = pruned.home / "config.toml"
    config.write_text("[prune]\nmargin_seconds = 0\nmax_fraction = 1\n")
    command = ["prune", *pruned.places, f"--config={config}", f"--reference={pruned.reference}", "--json"]
    plan = json.loads(pruned.run_bare(*command).stdout)
    assert [item for item in plan["files"] if "/m9/" in item["path"]] == []
    assert {item["reason"] for item in plan["kept"] if "/m9/" in item["path"]} == {"newer than the reference"}


# Which users may delete.


def ask_as_nobody(ask):
    """Run `ask` in a child that is another user; return what it returned, or the name and text of its error."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = ask()
        except (AlfwatchdError, OSError) as error:
            answer = f"{type(error).__name__}: {error}"
        finally:
            os.write(writable, repr(answer).encode())
            os._exit(0)
    os.close(writable)
    os.waitpid(child, 0)
    with open(readable, "rb") as pipe:
        return pipe.read().decode()


@pytest.mark.heavy
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_may_not_prune(pruned):
    """On a shared server, only those who may delete data can let the daemon delete it."""
    start_with(pruned, "[prune]\nenabled = true\nmax_fraction = 0.5\n")
    pruned.home.chmod(0o755)
    (pruned.out_dir / "sessions.pqt").chmod(0o600)
    assert "NotAllowed" in ask_as_nobody(Client(pruned.socket).status)
    everything = walk(pruned.root)
    plan = pruned.client.plan_prune(str(pruned.reference), newer=True)
    refused = ask_as_nobody(lambda: Client(pruned.socket, root=pruned.root).apply_prune(plan.plan_id))
    assert "NotAllowed" in refused
    assert f"uid={NOBODY}" in refused
    assert walk(pruned.root) == everything
    assert len(pruned.client.apply_prune(plan.plan_id).files) == 4
    assert_pruned(pruned, everything)
