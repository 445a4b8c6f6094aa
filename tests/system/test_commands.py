"""What a person meets on the command line: words, exit codes, speed, permission to delete; and the socket, by curl."""

import contextlib
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import alfwatchd
from alfwatchd import Client
from alfwatchd.cli import main
from alfwatchd.errors import AlfwatchdError, UsageError
from alfwatchd.index.state_db import StateDb
from kit.program import PROGRAM, WAIT_SECONDS, listed, make_small_tree, program, walk

NOBODY = 65534
SESSION = "lab/Subjects/s1/2020-01-01/001"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A daemon that the tests only ask."""
    with program(make_small_tree(tmp_path_factory.mktemp("served"))) as made:
        (made.root / "old copy").mkdir()
        made.start()
        yield made


@pytest.fixture
def idle(tmp_path):
    """A program without daemon."""
    root = tmp_path / "data"
    root.mkdir()
    with program(make_small_tree(root)) as made:
        yield made


@pytest.fixture
def pruned(idle, tmp_path):
    """A program whose reference tables lack one dataset and one whole session."""
    idle.run_once()
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


def run_in_shell(made, words):
    """Run the program in a shell, which redirects its streams."""
    return subprocess.run(
        ["bash", "-c", f"{PROGRAM} {words}"],
        env=made.environment(), capture_output=True, text=True, timeout=WAIT_SECONDS, check=False,
    )  # fmt: skip


# Words and exit codes.


def test_help_names_every_command_and_the_exit_codes(idle):
    """Without this, a user cannot find a command, and a script cannot tell a busy daemon from a wrong setting."""
    text = idle.run_bare("--help").stdout
    for command in main.COMMANDS:
        assert re.search(rf"^ +{command.name} +{re.escape(command.summary)}$", text, re.MULTILINE)
    assert "exit codes: 0 done, 1 failed, 2 usage, 3 no daemon, 75 busy or locked, 78 bad configuration" in text
    assert "alfwatchd sync && " in text


def test_version(idle):
    assert idle.run_bare("--version").stdout == f"alfwatchd {alfwatchd.__version__}\n"


USAGE = [
    (["--frobnicate"], "--frobnicate"),
    (["frobnicate"], "frobnicate"),
    (["statsu"], "did you mean `alfwatchd status`?"),
    (["sync", "--jsn"], "did you mean --json?"),
    (["status", "--apply"], "--apply belongs to `alfwatchd prune`"),
    (["prune", "--max-fraction", "many"], "many"),
    (["--watch", "sometimes"], "sometimes"),
    (["--accept-root", "--root", "."], "--once"),
    (["demo"], "DIR"),
]


@pytest.mark.parametrize(("arguments", "word"), USAGE, ids=lambda value: " ".join(value) if value else None)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(idle, arguments, word):
    """Otherwise a script with a typing error goes on as if the command had done its work."""
    ended = idle.run_bare(*arguments, code=2)
    assert word in ended.stderr
    assert ended.stdout == ""


NO_ROOM = "alfwatchd: cannot write to the standard output: No space left on device\n"


@pytest.mark.parametrize("command", ["config --json", "config", "--help", "config --help"])
@pytest.mark.parametrize("is_unbuffered", ["1", ""])
def test_an_answer_that_cannot_be_written_is_a_failure(idle, command, is_unbuffered):
    """A script that writes the answer to a full disk must not take half of it for all."""
    idle.added["PYTHONUNBUFFERED"] = is_unbuffered
    ended = run_in_shell(idle, f"{command} --root={idle.root} > /dev/full")
    assert (ended.returncode, ended.stderr) == (1, NO_ROOM)


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(idle, streams):
    """A scheduler may close the streams of what it starts; the command works all the same."""
    assert run_in_shell(idle, f"config --root={idle.root} {streams}").returncode == 0
    assert run_in_shell(idle, f"--once --root={idle.root} {streams}").returncode == 0
    assert run_in_shell(idle, f"status --root={idle.root} {streams}").returncode == 3
    assert len(listed(idle.root, idle.root)) == 12


def test_a_reader_that_has_seen_enough_is_no_failure(idle):
    """`alfwatchd config | head -1` shows a line, and no traceback."""
    ended = run_in_shell(idle, f"config --root={idle.root} | head -1")
    assert ended.stdout.startswith("root ")
    assert ended.stderr == ""


@pytest.mark.parametrize("command", ["status", "sync", "flush", "rescan", "prune"])
def test_without_a_daemon_commands_end_with_3_and_say_how_to_start_one(idle, command):
    error = idle.run(command, code=3).stderr
    assert str(idle.socket) in error
    assert "alfwatchd" in error
    assert "--socket" in error


BAD_SETTINGS = [
    ([], 'rooot = "/"\n', "unknown key 'rooot'; did you mean 'root'?"),
    (["--once"], "root = \n", "config.toml:1:8: not valid TOML"),
    (["config"], "flush_interval_seconds = -1\n", "flush_interval_seconds = -1"),
    (["prune"], '[prune]\nmax_fraction = "most"\n', "prune.max_fraction = 'most'"),
]


@pytest.mark.parametrize(("command", "text", "says"), BAD_SETTINGS)
def test_bad_settings_end_with_78_and_name_key_and_file(idle, command, text, says):
    config = idle.home / "config.toml"
    config.write_text(text)
    error = idle.run_bare(*command, f"--config={config}", f"--root={idle.root}", code=78).stderr
    assert says in error
    assert str(config) in error
    assert "Traceback" not in error


def test_no_settings_at_all_and_a_config_that_is_not_there_end_with_78(idle):
    assert "root is not set: give --root DIR" in idle.run_bare(code=78).stderr
    assert "missing.toml" in idle.run_bare("--config=missing.toml", code=78).stderr


def test_a_missing_output_folder_ends_with_1_and_makes_nothing(idle):
    places = [f"--root={idle.root}", f"--out-dir={idle.home / 'missing'}", f"--state-dir={idle.home / 'state'}"]
    for command in (["--once"], []):
        error = idle.run_bare(*command, *places, f"--socket={idle.socket}", code=1).stderr
        assert f"{idle.home / 'missing'}: the output folder does not exist" in error
    assert not (idle.home / "missing").exists()


# Settings on both sides of the command.


@pytest.mark.parametrize("order", [("flags", "command"), ("command", "flags")], ids=" ".join)
def test_flags_may_stand_before_and_after_the_command(served, order):
    parts = {"flags": [f"--socket={served.socket}", f"--root={served.root}"], "command": ["status", "--json"]}
    ended = served.run_bare(*(word for part in order for word in parts[part]))
    assert json.loads(ended.stdout)["pid"] == served.pid


def test_config_says_what_is_in_force_and_why(idle, monkeypatch):
    config = idle.home / "config.toml"
    config.write_text('lab = "mylab"\nhash_threads = 3\n[prune]\nenabled = true\n')
    monkeypatch.setattr(idle, "environment", lambda: {**os.environ, "ALFWATCHD_HASH_THREADS": "2", "HOME": "/"})
    ended = idle.run_bare("config", "--json", f"--config={config}", f"--root={idle.root}")
    found = json.loads(ended.stdout)
    assert found["root"] == {"value": str(idle.root), "source": "flag --root"}
    assert found["lab"] == {"value": "mylab", "source": str(config)}
    assert found["hash_threads"] == {"value": 2, "source": "environment ALFWATCHD_HASH_THREADS"}
    assert found["prune.enabled"] == {"value": True, "source": str(config)}
    assert found["flush_interval_seconds"]["value"] == 10
    text = idle.run_bare("config", f"--config={config}", f"--root={idle.root}").stdout
    assert re.search(r"^lab +\S*mylab\S* .*config\.toml$", text, re.MULTILINE)
    assert len(text.splitlines()) == len(found)


# Commands to a daemon.


def test_status(served):
    found = json.loads(served.run("status", "--json").stdout)
    assert found["state"] == "live"
    assert (found["root"], found["out_dir"], found["pid"]) == (str(served.root), str(served.root), served.pid)
    assert (found["n_sessions"], found["n_datasets"]) == (6, 12)
    assert found["n_bytes"] == sum(walk(served.root).values())
    assert (found["saved"], found["events_lost"], found["problems"]) == (True, 0, [])
    assert found["generation"] == found["flushed_generation"]
    assert found["watches"] > 6
    text = served.run("status").stdout
    assert text.startswith("state      live since ")
    for word in (str(served.root), "6 sessions, 12 datasets", "lost 0 times"):
        assert word in text


def test_sync_flush_and_rescan(served):
    (served.root / SESSION / "one.more.npy").write_bytes(b"1")
    synced = json.loads(served.run("sync", "--json").stdout)
    assert synced["exactness"] == "exact"
    assert listed(served.out_dir, served.root) == walk(served.root)
    (served.root / SESSION / "one.more.npy").unlink()
    assert re.match(r"exact: generation \d+ is on disk \(\d+\.\d+ s\)\n$", served.run("sync").stdout)
    assert listed(served.out_dir, served.root) == walk(served.root)
    flushed = json.loads(served.run("flush", "--json").stdout)
    assert flushed["generation"] == synced["generation"] + 1
    assert f"generation {flushed['generation']} is on disk" in served.run("flush").stdout


@pytest.mark.parametrize("path", ["", SESSION, "/" + SESSION, "lab/", ".", "./lab//Subjects"])
def test_rescan_takes_paths_as_people_write_them(served, path):
    given = f"{served.root}{path}" if path.startswith("/") else path
    found = json.loads(served.run("rescan", *filter(None, [given]), "--json").stdout)
    assert (found["added"], found["changed"], found["removed"]) == (0, 0, 0)


@pytest.mark.parametrize("path", ["nowhere", "/etc", "old copy"])
def test_rescan_of_what_is_not_indexed_ends_with_2(served, path):
    assert path in served.run("rescan", path, code=2).stderr


def test_client_commands_are_light(served):
    """No pandas, pyarrow or numpy: they alone take a second."""
    for command in (["status"], ["sync"], ["flush"], ["rescan"], ["prune"], ["--help"]):
        ended = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "alfwatchd", *command, f"--socket={served.socket}"],
            capture_output=True, text=True, env=served.environment(), check=True,
        )  # fmt: skip
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines()}
        assert "alfwatchd" in imported
        assert not imported & {"pandas", "pyarrow", "numpy", "fastapi", "uvicorn", "watchdog"}, command


# Without a daemon.


def test_once_prints_a_summary(idle):
    text = idle.run_once().stdout
    size = sum(walk(idle.root).values())
    found = f"6 sessions, 12 datasets, {size / 1000:.1f} kB; 12 added, 0 changed, 0 removed; 0 problems; "
    assert re.fullmatch(re.escape(found) + r"\d+\.\d\d seconds\n", text)
    (idle.root / SESSION / "alf/spikes.times.npy").write_bytes(b"shorter")
    (idle.root / SESSION / "_ibl_trials.choice.npy").rename(idle.root / SESSION / "_ibl_trials.other.npy")
    assert "; 1 added, 1 changed, 1 removed; 0 problems; " in idle.run_once().stdout
    assert "; 0 added, 0 changed, 0 removed; 0 problems; " in idle.run_once().stdout


def test_once_tells_problems(idle):
    (idle.root / "lab/Subjects/s1/2020-01-01/2").mkdir()
    ended = idle.run_once()
    assert "problem: lab/Subjects/s1/2020-01-01/2: the same session as" in ended.stderr
    assert "; 1 problem; " in ended.stdout


def test_demo_makes_a_tree_that_can_be_indexed(idle, tmp_path):
    demo = tmp_path / "demo"
    text = idle.run_bare("demo", demo, "--sessions", "3").stdout
    assert text.startswith("3 sessions, ")
    advice = re.search(r"now try: (alfwatchd --root .* --once)\n", text)[1]
    assert advice == f"alfwatchd --root {demo} --once"
    made = idle.run_bare(*advice.split()[1:], f"--state-dir={idle.home / 'demo'}")
    assert made.stdout.startswith("3 sessions, ")
    assert str(demo) in idle.run_bare("demo", demo, code=1).stderr  # never into a folder that holds something


# Prune.


def plan_of(made, *flags):
    return json.loads(made.run("prune", f"--reference={made.reference}", "--newer", "--json", *flags).stdout)


def assert_pruned(made, everything):
    assert walk(made.root) == {path: size for path, size in everything.items() if path not in made.goes}
    assert not (made.root / "lab/Subjects/s1/2020-01-01/003").exists()


def test_prune_plans_and_deletes_only_if_enabled(pruned):
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


def test_prune_refuses_when_too_much_would_go_or_there_is_no_reference(pruned):
    start_with(pruned, "[prune]\nenabled = true\n")
    everything = walk(pruned.root)
    error = pruned.run("prune", "--newer", f"--reference={pruned.reference}", "--apply", code=1).stderr
    assert "4 of 16 datasets (25.0%) and 378 of 2634 bytes (14.4%) are not in the reference tables" in error
    assert "--max-fraction" in error
    error = pruned.run("prune", f"--reference={pruned.home}", "--apply", code=1).stderr
    assert f"{pruned.home}: no reference tables here" in error
    assert walk(pruned.root) == everything


def test_prune_against_its_own_tables_says_that_they_mirror_the_disk(pruned):
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


def test_no_fraction_says_what_was_meant(pruned):
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


def test_few_files_that_are_most_of_the_data_are_too_much(pruned):
    (pruned.root / SESSION / "alf/spikes.depths.npy").write_bytes(bytes(1_000_000))
    shutil.rmtree(pruned.root / "lab/Subjects/s1/2020-01-01/003")
    for start in (lambda: None, lambda: start_with(pruned, "[prune]\nenabled = true\n")):
        start()
        run, places = (pruned.run, []) if pruned.process else (pruned.run_bare, pruned.places)
        command = ["prune", "--newer", *places, f"--reference={pruned.reference}", "--apply"]
        error = run(*command, code=1).stderr
        assert re.search(r"1 of 13 datasets \(7.7%\) and 1000000 of \d+ bytes \(9\d.\d%\)", error)
        assert (pruned.root / SESSION / "alf/spikes.depths.npy").exists()


def test_prune_keeps_empty_sessions_if_told(pruned):
    start_with(pruned, "[prune]\nenabled = true\nmax_fraction = 0.5\n")
    plan_of(pruned, "--apply", "--keep-empty-sessions")
    assert (pruned.root / "lab/Subjects/s1/2020-01-01/003").is_dir()
    assert not pruned.goes & walk(pruned.root).keys()


def test_prune_without_a_daemon(pruned):
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


def test_without_a_daemon_once_and_prune_empty_what_is_due(pruned):
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


def test_prune_deletes_at_once_without_a_trash(pruned):
    everything = walk(pruned.root)
    config = pruned.home / "config.toml"
    config.write_text("[prune]\ntrash_seconds = 0\nmax_fraction = 1.0\n")
    command = ["prune", *pruned.places, f"--config={config}", f"--reference={pruned.reference}", "--newer", "--apply"]
    ended = pruned.run_bare(*command)
    assert ended.stderr.count("dataset deleted path=") == 4
    assert "moved" not in ended.stdout
    assert_pruned(pruned, everything)


EXCLUSIVE = [
    ["--undo=0123456789abcdef", "--apply"],
    ["--list", "--empty-trash"],
    ["--undo=0123456789abcdef", "--reference=/x"],
    ["--undo=.."],
    ["--empty-trash=../x"],
]


@pytest.mark.parametrize("flags", EXCLUSIVE)
def test_flags_of_prune_that_make_no_sense(idle, flags):
    assert idle.run_bare("prune", *idle.places, *flags, code=2).stdout == ""


def test_undo_and_empty_over_the_socket(pruned):
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


def test_the_daemon_empties_what_is_due(pruned):
    start_with(pruned, "[prune]\nenabled = true\nmax_fraction = 0.5\ntrash_seconds = 0.1\n")
    everything = walk(pruned.root)
    plan_of(pruned, "--apply")
    pruned.wait(lambda: not (pruned.root / ".alfwatchd-trash").exists())
    assert_pruned(pruned, everything)
    assert json.loads(pruned.run("prune", "--list", "--json").stdout)["plans"][0]["state"] == "emptied"


def test_what_may_not_go_is_told_with_its_cause_and_exit_code_1(pruned):
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


def test_prune_without_its_socket_does_not_go_past_a_daemon(pruned):
    """The tables are locked by the daemon, which must be the one to delete."""
    pruned.start()
    everything = walk(pruned.root)
    command = ["prune", "--newer", *pruned.places, f"--reference={pruned.reference}", "--max-fraction=0.5", "--apply"]
    assert f"process {pruned.pid}" in pruned.run_bare(*command, code=75).stderr
    assert walk(pruned.root) == everything


# Who may.


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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_may_not_use_the_socket_and_may_not_prune(pruned):
    start_with(pruned, "[prune]\nenabled = true\nmax_fraction = 0.5\n")
    pruned.home.chmod(0o755)
    assert "NotAllowed" in ask_as_nobody(Client(pruned.socket).status)
    pruned.socket.chmod(0o666)  # whoever opens it up for all: deleting is still for a few
    assert "live" in ask_as_nobody(Client(pruned.socket).status)
    everything = walk(pruned.root)
    plan = pruned.client.plan_prune(str(pruned.reference), newer=True)
    refused = ask_as_nobody(lambda: Client(pruned.socket, root=pruned.root).apply_prune(plan.plan_id))
    assert "NotAllowed" in refused
    assert f"uid={NOBODY}" in refused
    assert walk(pruned.root) == everything
    assert len(pruned.client.apply_prune(plan.plan_id).files) == 4
    assert_pruned(pruned, everything)


# Other ways in.


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_curl(served):
    def curl(*arguments):
        command = ["curl", "--silent", "--show-error", "--unix-socket", served.socket, *arguments]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    assert curl("http://localhost/v1/status")["pid"] == served.pid
    assert curl("-X", "POST", "http://localhost/v1/sync")["exactness"] == "exact"
    refused = curl("-d", '{"path": "nowhere"}', "-H", "Content-Type: application/json", "http://localhost/v1/rescan")
    assert refused["error"] == "UsageError"
    assert set(curl("http://localhost/openapi.json")["paths"]) == {
        "/v1/status", "/v1/ids/{old}", "/v1/recompute_ids", "/v1/sync", "/v1/flush", "/v1/rescan", "/v1/prune/plan",
        "/v1/prune/apply", "/v1/prune/undo", "/v1/prune/empty", "/v1/prune/plans",
    }  # fmt: skip


def test_the_python_client(served):
    status = Client(served.socket).status()
    assert (status.state, status.pid) == ("live", served.pid)
    assert Client(str(served.socket)).sync().generation == status.generation


def test_the_example_configuration_runs_as_it_is(idle):
    example = Path(alfwatchd.__file__).parents[1] / "config.example.toml"
    if not example.exists():
        pytest.skip("the package is not installed from its sources")
    assert tomllib.loads(example.read_text())["root"] == "/srv/data"
    found = json.loads(idle.run_bare("config", "--json", f"--config={example}").stdout)
    assert found["root"]["source"] == str(example)


@pytest.mark.parametrize("flag", ["--empty-trash", "--undo", "--reference"])
def test_a_variable_that_is_not_set_empties_no_trash(pruned, flag):
    command = ["prune", *pruned.places, f"--reference={pruned.reference}", "--max-fraction=1", "--newer", "--apply"]
    pruned.run_bare(*command)
    assert "is a variable not set?" in pruned.run_bare("prune", *pruned.places, flag, "", code=2).stderr
    assert any((pruned.root / ".alfwatchd-trash").iterdir())


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
