"""No daemon answers, and no prune deletes, for another root than the one that is meant; and how a prune ends early."""

import json
import os
import shutil
import signal
import subprocess
from types import SimpleNamespace

import pytest

from alfwatchd import Client
from alfwatchd.errors import PruneRefused, UsageError, WrongRoot
from kit.mount import mount_box
from kit.program import PROGRAM, WAIT_SECONDS, listed, make_small_tree, program, walk

pytestmark = pytest.mark.heavy

CHANGING = "[prune]\nenabled = true\nmax_fraction = 1.0\n"


def reference_of(made, folder, *gone):
    """Make tables that lack some subjects."""
    copy = folder / "copy"
    shutil.copytree(made.root, copy)
    for subject in gone:
        shutil.rmtree(copy / "lab/Subjects" / subject)
    reference = folder / "reference"
    reference.mkdir()
    places = [f"--root={copy}", f"--out-dir={reference}", f"--state-dir={folder / 'copied'}"]
    made.run_bare("--once", *places)
    shutil.rmtree(copy)
    return reference


@pytest.fixture
def two(tmp_path):
    """A daemon of A on a usual socket, and a root B that no daemon keeps. `reference` lacks subject s3 of both."""
    with program(make_small_tree(tmp_path / "A")) as made:
        other = make_small_tree(tmp_path / "B")
        reference = reference_of(made, tmp_path, "s3")
        made.added["XDG_RUNTIME_DIR"] = str(made.home / "run")
        made.socket = made.home / "run/alfwatchd.sock"
        made.client = Client(made.socket, timeout=WAIT_SECONDS, root=made.root)
        config = made.home / "a.toml"
        config.write_text(CHANGING)
        made.start(f"--config={config}")
        (made.home / "b.toml").write_text(f"root = '{other}'\n{CHANGING}")
        yield SimpleNamespace(made=made, A=made.root, B=other, reference=reference, config=made.home / "b.toml")


def ways(two, how):
    """Return flags and environment that name B."""
    return {
        "flag": ([f"--root={two.B}"], {}),
        "environment": ([], {"ALFWATCHD_ROOT": str(two.B)}),
        "file": ([f"--config={two.config}"], {}),
        "file in environment": ([], {"ALFWATCHD_CONFIG": str(two.config)}),
    }[how]


WAYS = ["flag", "environment", "file", "file in environment"]


@pytest.mark.parametrize("how", WAYS)
def test_prune_of_b_deletes_nothing_of_a(two, how):
    flags, environment = ways(two, how)
    two.made.added |= environment
    of_a, of_b = walk(two.A), walk(two.B)
    command = ["prune", *flags, f"--reference={two.reference}", "--max-fraction=1"]
    planned = json.loads(two.made.run_bare(*command, "--json").stdout)
    assert (planned["root"], planned["applied"]) == (str(two.B), False)
    done = json.loads(two.made.run_bare(*command, "--json", "--newer", "--apply").stdout)
    assert (done["root"], len(done["files"])) == (str(two.B), 4)
    assert walk(two.A) == of_a
    assert walk(two.B) == {path: size for path, size in of_b.items() if "/s3/" not in path}


@pytest.mark.parametrize("how", WAYS)
def test_no_other_command_for_b_is_answered_by_the_daemon_of_a(two, how):
    flags, environment = ways(two, how)
    two.made.added |= environment
    for command in (["status"], ["sync"], ["flush"], ["rescan"], ["rescan", "--accept-root"]):
        for socket in ([], [f"--socket={two.made.socket}"]):
            error = two.made.run_bare(*command, *flags, *socket, code=3).stderr
            assert f"{two.B}: the daemon that was asked keeps another root, {two.A};" in error, command
    assert "accept" not in two.made.log


SOCKETS = ["flag", "environment", "file"]


@pytest.mark.parametrize("how", SOCKETS)
def test_a_socket_that_was_named_is_not_gone_past(two, how):
    """Also where the daemon of another root answers there, nothing is pruned without it."""
    command = ["prune", f"--root={two.B}", f"--reference={two.reference}", "--max-fraction=1", "--newer", "--apply"]
    if how == "flag":
        command.append(f"--socket={two.made.socket}")
    elif how == "environment":
        two.made.added["ALFWATCHD_SOCKET"] = str(two.made.socket)
    else:
        two.config.write_text(f"socket = '{two.made.socket}'\n")
        command.append(f"--config={two.config}")
    of_a, of_b = walk(two.A), walk(two.B)
    error = two.made.run_bare(*command, code=3).stderr
    assert str(two.A) in error
    assert str(two.B) in error
    assert (walk(two.A), walk(two.B)) == (of_a, of_b)


def test_prune_without_a_daemon_takes_the_lock_of_its_root(two):
    """B has a daemon, on a socket that nothing leads to."""
    with program(two.B) as other:
        other.start()
        command = ["prune", f"--root={two.B}", f"--reference={two.reference}", "--max-fraction=1", "--newer", "--apply"]
        of_b = walk(two.B)
        assert f"process {other.pid}" in two.made.run_bare(*command, code=75).stderr
        assert walk(two.B) == of_b


def test_the_daemon_of_a_root_is_found_behind_that_of_another(two):
    """The usual sockets are asked one after the other, and a root's state folder holds the last of them."""
    flags = [f"--root={two.B}", f"--state-dir={two.made.home / 'b'}"]
    with program(two.B) as other:
        other.home, other.socket = two.made.home / "b", two.made.home / "b/alfwatchd.sock"
        other.home.mkdir()
        other.client = Client(other.socket, timeout=WAIT_SECONDS)
        other.start()
        assert json.loads(two.made.run_bare("status", *flags, "--json").stdout)["pid"] == other.pid
        assert "exact: " in two.made.run_bare("sync", *flags).stdout
        other.kill()


@pytest.mark.parametrize("command", [["prune", "--newer", "--apply"], ["rescan", "--accept-root"]], ids=" ".join)
def test_what_may_lose_something_is_not_asked_of_just_any_daemon(two, command):
    """As after sudo, which drops ALFWATCHD_ROOT: nothing says which root is meant."""
    more = [f"--reference={two.reference}"] if "prune" in command else []
    of_a = walk(two.A)
    error = two.made.run_bare(*command, *more, code=2).stderr
    assert f"--root {two.A}" in error
    assert walk(two.A) == of_a
    assert json.loads(two.made.run_bare("prune", f"--reference={two.reference}", "--json").stdout)["root"] == str(two.A)
    two.made.run_bare(*command, *more, f"--socket={two.made.socket}")  # that names the daemon, and its root with it


@pytest.mark.parametrize("command", ["status", "sync", "prune", "ids"])
def test_an_empty_root_is_a_mistake_and_not_any_root(two, command):
    more = ["1581141a-afb7-37de-9c3e-f910179da085"] if command == "ids" else []
    assert "root = ''" in two.made.run_bare(command, "--root=", *more, code=78).stderr


def test_reference_and_limit_are_those_of_the_settings_that_name_the_root(two):
    """The daemon has others, or none."""
    two.config.write_text(f"root = '{two.A}'\n[prune]\nreference = '{two.reference}'\nmax_fraction = 0.1\n")
    of_a = walk(two.A)
    error = two.made.run_bare("prune", f"--config={two.config}", "--newer", "--apply", code=1).stderr
    assert f"root {two.A}, reference {two.reference}" in error
    assert walk(two.A) == of_a
    ended = two.made.run_bare("prune", f"--config={two.config}", "--max-fraction=1", "--newer", "--apply", "--json")
    assert json.loads(ended.stdout)["reference"] == str(two.reference)
    assert walk(two.A) == {path: size for path, size in of_a.items() if "/s3/" not in path}


def test_every_line_of_a_prune_names_root_and_reference(two):
    about = f"root='{two.A}' reference='{two.reference}'"
    two.made.run("prune", f"--root={two.A}", f"--reference={two.reference}", "--newer", "--apply")
    lines = [line for line in two.made.log.splitlines() if " prune " in line or " by user=" in line]
    assert len(lines) > 4
    assert [line for line in lines if about not in line] == []
    made = two.made.run_bare(
        "prune", f"--root={two.B}", f"--reference={two.reference}", "--max-fraction=1", "--newer", "--apply"
    )
    lines = [line for line in made.stderr.splitlines() if line]
    assert len(lines) >= 4
    assert [line for line in lines if f"root='{two.B}' reference='{two.reference}'" not in line] == []
    assert f"of {two.B}; reference: {two.reference} (of 20" in made.stdout


# The same root by another name.


def test_a_plan_does_not_outlive_a_change_of_mounts(tmp_path):
    """A copy of hard links has the inodes, sizes and times of what was planned."""
    with mount_box(tmp_path) as box:
        box.mount_disk()
        make_small_tree(box.path(box.root))
        copy = box.disk.with_name("copy")
        with program(box.root, tmp_path / "tables", prefix=box.prefix) as made:
            made.out_dir.mkdir()
            config = made.home / "config.toml"
            config.write_text(CHANGING)
            made.start(f"--config={config}")
            reference = tmp_path / "reference"
            shutil.copytree(made.out_dir, reference)
            make_small_tree(box.path(box.root), subjects=["s4"])
            plan = made.client.plan_prune(str(reference), newer=True)
            assert len(plan.files) == 4
            box.run("mkdir", copy)
            box.run("mount", "--bind", box.disk, copy)
            box.run("cp", "-al", copy / "lab", copy / "held")
            box.run("mount", "--bind", copy / "held", box.root / "lab")
            with pytest.raises(PruneRefused, match=r"have changed since the plan.*root .*, reference "):
                made.client.apply_prune(plan.plan_id)
            box.unmount(box.root / "lab")
            with pytest.raises(PruneRefused, match="lab: is not what was mounted there"):
                made.client.apply_prune(plan.plan_id)
            made.client.rescan(accept_root=True)
            with pytest.raises(PruneRefused, match="have changed since the plan"):
                made.client.apply_prune(plan.plan_id)
            done = made.client.apply_prune(made.client.plan_prune(str(reference), newer=True).plan_id)
            assert len([item for item in done.files if item.path.startswith("lab/")]) == 4  # the others lie in the copy


def test_a_link_and_a_bind_mount_lead_to_the_same_root(tmp_path):
    with mount_box(tmp_path) as box:
        root = make_small_tree(box.path(box.root) / "data")
        seen = box.root / "data"
        assert root.exists()
        for place in ("bound", "other"):
            (tmp_path / place).mkdir()
        (tmp_path / "link").symlink_to(seen)
        box.run("mount", "--bind", seen, tmp_path / "bound")
        with program(seen, prefix=box.prefix) as made:
            made.start()
            for path in (tmp_path / "link", tmp_path / "bound"):
                assert "exact: " in made.run("sync", f"--root={path}").stdout
            assert str(seen) in made.run("sync", f"--root={tmp_path / 'other'}", code=3).stderr


@pytest.mark.parametrize("name", ["dé ta", "数据", os.fsdecode(b"\xff"), "a%2fb"], ids=ascii)
def test_roots_of_any_name(tmp_path, name):
    root = make_small_tree(tmp_path / name)
    with program(root) as made:
        config = made.home / "config.toml"
        config.write_text(CHANGING)
        made.start(f"--config={config}")
        reference = reference_of(made, tmp_path, "s3")
        assert made.client.find_root() == root
        assert "exact: " in made.run("sync", f"--root={root}").stdout
        assert "keeps another root" in made.run("sync", f"--root={tmp_path}", code=3).stderr
        made.run(
            "prune", f"--reference={reference}", "--newer", "--apply"
        )  # its socket was named, so it is asked for its root
        assert not (root / "lab/Subjects/s3").exists()
        made.client.sync()
        assert made.client.status().n_datasets == len(walk(root)) == 8


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_curl(two):
    def curl(path, *arguments):
        command = ["curl", "-sS", "-w", "\n%{http_code}", "--unix-socket", two.made.socket, *arguments]
        ended = subprocess.run([*command, f"http://localhost{path}"], capture_output=True, check=True, text=True)
        answer, _, status = ended.stdout.rpartition("\n")
        return int(status), json.loads(answer)

    body = json.dumps({"reference": str(two.reference)})
    assert curl("/v1/status")[0] == 200
    assert curl("/v1/status", "-H", f"Alfwatchd-Root: {two.A}")[0] == 200
    status, answer = curl("/v1/status", "-H", f"Alfwatchd-Root: {two.B}")
    assert (status, answer["error"]) == (409, "WrongRoot")
    status, answer = curl("/v1/prune/plan", "-d", body)
    assert (status, answer["error"], "Alfwatchd-Root" in answer["message"]) == (400, "UsageError", True)
    assert curl("/v1/prune/plan", "-d", body, "-H", f"Alfwatchd-Root: {two.A}")[0] == 200
    assert curl("/v1/rescan", "-d", '{"accept_root": true}')[0] == 400


def test_the_python_client(two):
    assert Client(two.made.socket, root=two.A).sync().exactness == "exact"
    with pytest.raises(WrongRoot, match=f"{two.B}.*{two.A}") as caught:
        Client(two.made.socket, root=str(two.B)).sync()
    assert caught.value.exit_code == 3
    with pytest.raises(UsageError, match="which root is meant"):
        Client(two.made.socket).plan_prune(str(two.reference), newer=True)


# Interrupting.

# Each deletion is a line of the log, so that this makes each take a while.
SLOW = """
import logging
handle = logging.Logger.handle
def handle_slowly(self, record):
    if self.name == "alfwatchd.web.control_service" and record.levelno == logging.INFO:
        time.sleep(0.02)
    return handle(self, record)
logging.Logger.handle = handle_slowly
"""
# Without a daemon, it is a line on stderr.
SLOW_ALONE = """
import builtins
def print_slowly(*values, print=print, **options):
    print(*values, **options)
    if options.get("file") is sys.stderr:
        sys.stderr.flush()
        time.sleep(0.02)
builtins.print = print_slowly
"""
N_FILES = 500


def add_large_session(root):
    """Add one session: a prune is not to stop at sessions only."""
    large = root / "lab/Subjects/s1/2020-01-02/001/alf"
    large.mkdir(parents=True)
    for each in range(N_FILES):
        (large / f"spikes.n{each:04d}.npy").write_bytes(b"x" * each)
    return large


def interruptible(command, made):
    """Start a command that Ctrl-C reaches, also where the tests run in the background of a shell, which ignores it."""

    def hear():
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(command, env=made.environment(), stderr=subprocess.PIPE, text=True, preexec_fn=hear)


def test_a_prune_without_a_daemon_can_be_interrupted(tmp_path):
    with program(make_small_tree(tmp_path / "root")) as made:
        reference = reference_of(made, tmp_path)
        large = add_large_session(made.root)
        made.break_it(SLOW_ALONE)
        command = [PROGRAM, "prune", *made.places, f"--reference={reference}", "--max-fraction=1", "--newer", "--apply"]
        alone = interruptible(command, made)
        try:
            lines = [alone.stderr.readline()]
            alone.send_signal(signal.SIGINT)
            lines += alone.communicate(timeout=WAIT_SECONDS)[1].splitlines()
        finally:
            alone.kill()
        assert alone.returncode == 130
        assert "interrupted: what went is listed above" in lines[-1]
        assert 0 < len(os.listdir(large)) < N_FILES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_prune_ends_with_its_client_at_the_next_file(tmp_path, number):
    with program(make_small_tree(tmp_path / "root")) as made:
        reference = reference_of(made, tmp_path)
        large = add_large_session(made.root)
        made.break_it(SLOW)
        config = made.home / "config.toml"
        config.write_text(CHANGING)
        made.start(f"--config={config}", "--log-level=info")
        command = [PROGRAM, "prune", f"--socket={made.socket}", f"--root={made.root}", f"--reference={reference}"]
        asking = interruptible([*command, "--newer", "--apply"], made)
        try:
            made.wait(lambda: len(os.listdir(large)) < N_FILES)
            asking.send_signal(number)
            _, error = asking.communicate(timeout=WAIT_SECONDS)
        finally:
            asking.kill()
        if number == signal.SIGINT:
            assert asking.returncode == 130
            assert "interrupted: the daemon stops at the next file; its log says what went" in error
            assert "Traceback" not in error
        made.wait(lambda: "stopped='the client that asked for the prune has gone'" in made.log)
        left = len(os.listdir(large))
        assert 0 < left < N_FILES
        assert f" deleted={N_FILES - left} " in made.log
        made.client.sync()
        assert len(os.listdir(large)) == left
        assert listed(made.out_dir, made.root) == walk(made.root)
        plan = made.client.plan_prune(str(reference), newer=True)
        assert len(plan.files) == left
