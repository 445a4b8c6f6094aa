"""What a person meets on the command line: words, exit codes, streams, speed. Also the socket, by curl."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest

import alfwatchd
from alfwatchd import Client
from alfwatchd.cli import main
from kit.program import PROGRAM, WAIT_SECONDS, listed, make_small_tree, program, walk

SESSION = "lab/Subjects/s1/2020-01-01/001"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A daemon that the tests only ask."""
    with program(make_small_tree(tmp_path_factory.mktemp("served"))) as made:
        (made.root / "old copy").mkdir()
        made.start()
        yield made


def run_in_shell(made, words):
    """Run the program in a shell, which redirects its streams."""
    return subprocess.run(
        ["bash", "-c", f"{PROGRAM} {words}"],
        env=made.environment(), capture_output=True, text=True, timeout=WAIT_SECONDS, check=False,
    )  # fmt: skip


def first_of(n, cases):
    """Mark all cases but the first ones heavy: each starts the program, and tests/cli has their like in one process."""
    more = (case if isinstance(case, tuple) else (case,) for case in cases[n:])
    return [*cases[:n], *(pytest.param(*case, marks=pytest.mark.heavy) for case in more)]


# Words and exit codes.


def test_help_names_every_command_and_the_exit_codes(idle):
    """Without this, a user cannot find a command, and a script cannot tell a busy daemon from a wrong setting."""
    text = idle.run_bare("--help").stdout
    for command in main.COMMANDS:
        assert re.search(rf"^ +{command.name} +{re.escape(command.summary)}$", text, re.MULTILINE)
    assert "exit codes: 0 done, 1 failed, 2 usage, 3 no daemon, 75 busy or locked, 78 bad configuration" in text
    assert "alfwatchd sync && " in text


def test_version(idle):
    """A bug report names the version that was installed, and not that of the sources."""
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


@pytest.mark.parametrize(
    ("arguments", "word"), first_of(3, USAGE), ids=lambda value: " ".join(value) if value else None
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(idle, arguments, word):
    """Otherwise a script with a typing error goes on as if the command had done its work."""
    ended = idle.run_bare(*arguments, code=2)
    assert word in ended.stderr
    assert ended.stdout == ""


NO_ROOM = "cannot write to the standard output: No space left on device"


@pytest.mark.parametrize("command", first_of(2, ["config --json", "--version", "--help", "config"]))
@pytest.mark.parametrize("is_unbuffered", first_of(1, ["1", ""]))
def test_an_answer_that_cannot_be_written_is_a_failure(idle, command, is_unbuffered):
    """A script that writes the answer to a full disk must not take half of it for all."""
    idle.added["PYTHONUNBUFFERED"] = is_unbuffered
    ended = run_in_shell(idle, f"{command} --root={idle.root} > /dev/full")
    told = json.loads(ended.stderr)["message"] if "--json" in command else ended.stderr.strip()
    assert (ended.returncode, told.removeprefix("alfwatchd: ")) == (1, NO_ROOM)


@pytest.mark.parametrize("streams", first_of(1, ["<&- >&- 2>&-", ">&-", "2>&-", ">&- 2>&-"]))
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


@pytest.mark.parametrize("command", first_of(2, ["status", "sync", "flush", "rescan", "prune"]))
def test_without_a_daemon_commands_end_with_3_and_say_how_to_start_one(idle, command):
    """A new user learns what is missing; a script can tell this from a failure."""
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


@pytest.mark.parametrize(("command", "text", "says"), first_of(2, BAD_SETTINGS))
def test_bad_settings_end_with_78_and_name_key_and_file(idle, command, text, says):
    """The user finds the line to mend; systemd does not try again."""
    config = idle.home / "config.toml"
    config.write_text(text)
    error = idle.run_bare(*command, f"--config={config}", f"--root={idle.root}", code=78).stderr
    assert says in error
    assert str(config) in error
    assert "Traceback" not in error


def test_no_settings_at_all_and_a_config_that_is_not_there_end_with_78(idle):
    """The first command that a new user types says what is missing."""
    assert "root is not set: give --root DIR" in idle.run_bare(code=78).stderr
    assert "missing.toml" in idle.run_bare("--config=missing.toml", code=78).stderr


def test_a_missing_output_folder_ends_with_1_and_makes_nothing(idle):
    """It may be on a disk that is not mounted: tables in its place would fill the disk below."""
    places = [f"--root={idle.root}", f"--out-dir={idle.home / 'missing'}", f"--state-dir={idle.home / 'state'}"]
    for command in (["--once"], []):
        error = idle.run_bare(*command, *places, f"--socket={idle.socket}", code=1).stderr
        assert f"{idle.home / 'missing'}: the output folder does not exist" in error
    assert not (idle.home / "missing").exists()


# Settings on both sides of the command.


@pytest.mark.parametrize("order", [("flags", "command"), ("command", "flags")], ids=" ".join)
def test_flags_may_stand_before_and_after_the_command(served, order):
    """A user who types the root first must reach the same daemon."""
    parts = {"flags": [f"--socket={served.socket}", f"--root={served.root}"], "command": ["status", "--json"]}
    ended = served.run_bare(*(word for part in order for word in parts[part]))
    assert json.loads(ended.stdout)["pid"] == served.pid


def test_config_says_what_is_in_force_and_why(idle, monkeypatch):
    """A user who wonders why a setting has no effect sees what overrides it."""
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
    """By these values a person, and a monitoring program, decides whether the tables can be trusted."""
    found = json.loads(served.run("status", "--json").stdout)
    assert found["state"] == "live"
    assert (found["root"], found["out_dir"], found["pid"]) == (str(served.root), str(served.root), served.pid)
    assert (found["n_sessions"], found["n_datasets"]) == (6, 12)
    assert found["n_bytes"] == sum(walk(served.root).values())
    assert (found["saved"], found["events_lost"], found["problems"]) == (True, 0, [])
    assert found["generation"] > 0
    assert found["watches"] > 6
    text = served.run("status").stdout
    assert text.startswith("state      live since ")
    for word in (str(served.root), "6 sessions, 12 datasets", "lost 0 times"):
        assert word in text


def test_sync_flush_and_rescan(served):
    """What a script waits for is in the tables when the command ends."""
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


@pytest.mark.parametrize("path", first_of(2, ["", "/" + SESSION, SESSION, "lab/", ".", "./lab//Subjects"]))
def test_rescan_takes_paths_as_people_write_them(served, path):
    """Shells complete absolute paths, and add a slash."""
    given = f"{served.root}{path}" if path.startswith("/") else path
    found = json.loads(served.run("rescan", *filter(None, [given]), "--json").stdout)
    assert (found["added"], found["changed"], found["removed"]) == (0, 0, 0)


@pytest.mark.parametrize("path", ["nowhere", "/etc", "old copy"])
def test_rescan_of_what_is_not_indexed_ends_with_2(served, path):
    """The user learns that nothing was scanned."""
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
    """The mail of a cron job says what changed."""
    text = idle.run_once().stdout
    size = sum(walk(idle.root).values())
    found = f"6 sessions, 12 datasets, {size / 1000:.1f} kB; 12 added, 0 changed, 0 removed; 0 problems; "
    assert re.fullmatch(re.escape(found) + r"\d+\.\d\d seconds\n", text)
    (idle.root / SESSION / "alf/spikes.times.npy").write_bytes(b"shorter")
    (idle.root / SESSION / "_ibl_trials.choice.npy").rename(idle.root / SESSION / "_ibl_trials.other.npy")
    assert "; 1 added, 1 changed, 1 removed; 0 problems; " in idle.run_once().stdout
    assert "; 0 added, 0 changed, 0 removed; 0 problems; " in idle.run_once().stdout


def test_once_tells_problems(idle):
    """A session that the tables leave out must not go unnoticed."""
    (idle.root / "lab/Subjects/s1/2020-01-01/2").mkdir()
    ended = idle.run_once()
    assert "problem: lab/Subjects/s1/2020-01-01/2: the same session as" in ended.stderr
    assert "; 1 problem; " in ended.stdout


def test_demo_makes_a_tree_that_can_be_indexed(idle, tmp_path):
    """The first minute of a new user: each printed command works."""
    demo = tmp_path / "demo"
    text = idle.run_bare("demo", demo, "--sessions", "3").stdout
    assert text.startswith("3 sessions, ")
    advice = re.search(r"now try: (alfwatchd --root .* --once)\n", text)[1]
    assert advice == f"alfwatchd --root {demo} --once"
    made = idle.run_bare(*advice.split()[1:], f"--state-dir={idle.home / 'demo'}")
    assert made.stdout.startswith("3 sessions, ")
    assert str(demo) in idle.run_bare("demo", demo, code=1).stderr  # never into a folder that holds something


# Other ways in.


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_curl(served):
    """Programs in other languages use the socket, too."""

    def curl(*arguments):
        command = ["curl", "--silent", "--show-error", "--unix-socket", served.socket, *arguments]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    assert curl("http://localhost/v1/status")["pid"] == served.pid
    assert curl("-X", "POST", "http://localhost/v1/sync")["exactness"] == "exact"
    refused = curl("-d", '{"path": "nowhere"}', "-H", "Content-Type: application/json", "http://localhost/v1/rescan")
    assert refused["error"] == "UsageError"
    (served.root / "lab/Subjects/new/2020-01-01/001/alf").mkdir(parents=True)
    served.client.sync()
    told = curl("http://localhost/v1/changes?since=start")["changes"]
    assert told[-1]["path"] == "lab/Subjects/new/2020-01-01/001"
    assert told == [asdict(each) for each in served.client.changes("start", follow=False)]
    shutil.rmtree(served.root / "lab/Subjects/new")
    served.client.sync()
    assert set(curl("http://localhost/openapi.json")["paths"]) == {
        "/metrics", "/v1/changes", "/v1/changes/stream",
        "/v1/status", "/v1/ids/{old}", "/v1/recompute_ids", "/v1/set", "/v1/sync", "/v1/flush", "/v1/rescan",
        "/v1/prune/plan",
        "/v1/prune/apply", "/v1/prune/undo", "/v1/prune/empty", "/v1/prune/plans",
    }  # fmt: skip


def test_the_python_client(served):
    """Notebooks wait for the tables without a shell."""
    status = Client(served.socket).status()
    assert (status.state, status.pid) == ("live", served.pid)
    assert Client(str(served.socket)).sync().generation == status.generation


def test_the_example_configuration_runs_as_it_is(idle):
    """Users begin with this file."""
    example = Path(alfwatchd.__file__).parents[1] / "config.example.toml"
    if not example.exists():
        pytest.skip("the package is not installed from its sources")
    assert tomllib.loads(example.read_text())["root"] == "/srv/data"
    found = json.loads(idle.run_bare("config", "--json", f"--config={example}").stdout)
    assert found["root"]["source"] == str(example)
