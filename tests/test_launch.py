"""How the program begins: with closed streams, and in a locale that is not UTF-8."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kit.program import PROGRAM, WAIT_SECONDS, listed, make_small_tree, program, read_tables, walk

NAMES = ("Müller", "マウス")


@pytest.fixture
def idle(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    with program(make_small_tree(root, subjects=NAMES)) as made:
        yield made


# Closed streams.


@pytest.mark.parametrize("streams", [pytest.param("2>&-", marks=pytest.mark.heavy), "<&- >&- 2>&-"])
def test_a_daemon_never_opens_a_file_as_a_standard_stream(idle, streams):
    """`start-stop-daemon` and old init scripts close them. What a library prints went into the lock file."""
    idle.prefix = ["bash", "-c", f'exec "$@" {streams}', "bash"]
    idle.start()
    for number in range(3):
        opened = os.readlink(f"/proc/{idle.pid}/fd/{number}")
        assert opened in ("/dev/null", str(idle.home / "log")), number
    idle.stop()
    assert listed(idle.root, idle.root) == walk(idle.root)


# Locales.


@pytest.fixture(scope="session")
def latin(tmp_path_factory):
    """Variables of a locale whose encoding is ISO-8859-1, made here: few machines have one."""
    if shutil.which("localedef") is None:
        pytest.skip("there is no localedef")
    folder = tmp_path_factory.mktemp("locales")
    made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", folder / "en_US.ISO-8859-1"]
    if subprocess.run(made, capture_output=True, check=False).returncode > 1:
        pytest.skip("this machine has no sources of locales")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}


LOCALES = {
    "POSIX": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"},
    "ISO-8859-1": {},
    "ISO-8859-1, module": {},
    "ASCII on the terminal": {"PYTHONIOENCODING": "ascii"},
}


def ids(folder: Path) -> set[bytes]:
    return {row["id"] for table in read_tables(folder) for row in table.to_pylist()}


@pytest.mark.parametrize("name", LOCALES)
def test_ids_do_not_depend_on_the_locale(idle, latin, name):
    """A cron job with another locale than the daemon gave every session of `Müller` another id, and said nothing."""
    idle.make_tables()
    expected = ids(idle.root)
    for table in ("sessions.pqt", "datasets.pqt"):
        (idle.root / table).unlink()
    variables = latin if name.startswith("ISO") else LOCALES[name]
    started = [PROGRAM] if "module" not in name else [PROGRAM.parent / "python", "-m", "alfwatchd"]
    own = {key: value for key, value in idle.environment().items() if key not in ("LANG", "PYTHONUTF8")}
    ended = subprocess.run(
        [*started, "--once", *idle.places], env=own | variables, capture_output=True, timeout=WAIT_SECONDS, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ids(idle.root) == expected
    assert listed(idle.root, idle.root) == walk(idle.root)


def test_messages_with_names_that_the_terminal_cannot_show(idle):
    """A list of problems must not end in a traceback because of one letter."""
    (idle.root / "lab/Subjects/Müller/2020-01-01/2").mkdir()
    idle.added["PYTHONIOENCODING"] = "ascii"
    ended = idle.run_once()
    assert r"problem: lab/Subjects/M\xfcller/2020-01-01/2: the same session as" in ended.stderr
