"""`alfwatchd ls`: what a person reads, and what a script gets."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from kit.lab import LAB, NL1, SL, rewrite, without_generation, write_lab

PATH = f"{NL1}/2021-01-05/001"


@pytest.fixture
def folder(tmp_path):
    return write_lab(tmp_path / "tables")


@pytest.fixture
def ls(run, folder):
    return lambda *words: run("ls", f"--out-dir={folder}", *words)


def first_words(text):
    return [line.split()[0] for line in text.splitlines()]


def test_a_table_for_people(ls):
    ended = ls()
    assert (ended.code, ended.err) == (0, "")
    assert first_words(ended.out) == ["session", *LAB]
    assert re.search(rf"(?m)^{PATH} +2 +11 B  [0-9a-f-]{{36}}$", ended.out)


def test_flags_select(ls):
    ended = ls("--lab=north", "--subject=NL-*", "--number=1", "--date=2021", "--having=spikes.times", "--lacking=raw.*")
    assert first_words(ended.out) == ["session", PATH, "north/Subjects/NL-2/2021-02-01/001"]


def test_json_is_one_document_with_a_session_on_each_line(ls):
    text = ls("--json", "--lab=north").out
    document = json.loads(text)
    assert {name: document[name] for name in ("root", "generation")} == {"root": "/data", "generation": 1}
    assert [json.loads(line.rstrip(",")) for line in text.splitlines()[1:-1]] == document["sessions"]
    assert document["sessions"][0] | {"eid": ""} == {
        "path": PATH, "eid": "", "lab": "north", "subject": "NL-1", "date": "2021-01-05", "number": 1,
        "task_protocol": "", "projects": [], "n_datasets": 2, "n_bytes": 11,
    }  # fmt: skip


def test_csv_and_json_tell_the_same(ls):
    rows = list(csv.DictReader(io.StringIO(ls("--csv").out)))
    sessions = json.loads(ls("--json").out)["sessions"]
    assert rows == [{name: str(value) for name, value in each.items()} | {"projects": ""} for each in sessions]


def test_eids_and_paths_are_lines_for_scripts(ls):
    assert ls("--paths").out.splitlines() == [f"/data/{path}" for path in LAB]
    eids = ls("--eids").out.splitlines()
    assert eids == [each["eid"] for each in json.loads(ls("--json").out)["sessions"]]


def test_paths_lead_to_the_folders_on_the_disk(run, tmp_path):
    write_lab(tmp_path, {"s/2020-01-01/1": {"a.b.npy": 1}})
    (tmp_path / "s/2020-01-01/1").mkdir(parents=True)
    (line,) = run("ls", f"--root={tmp_path}", "--paths").out.splitlines()
    assert Path(line).is_dir()


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["--sort=bytes"], [3, 1, 0, 2]),
        (["--sort=bytes", "--reverse", "--limit=2"], [2, 0]),
        (["--sort=datasets"], [3, 1, 0, 2]),
        (["--sort=date", "--reverse", "--limit=1"], [3]),
        (["--reverse"], [3, 2, 1, 0]),
    ],
)
def test_order_and_limit(words, numbers, ls):
    assert ls("--paths", *words).out.splitlines() == [f"/data/{list(LAB)[number]}" for number in numbers]


@pytest.mark.parametrize("kind", [[], ["--csv"], ["--json"], ["--paths"], ["--eids"]])
def test_no_session_is_an_answer_and_not_a_failure(kind, ls):
    ended = ls("--date=1999", *kind)
    assert (ended.code, ended.err) == (0, "alfwatchd: no session fits\n")
    assert "NL-1" not in ended.out
    if kind == ["--json"]:
        assert json.loads(ended.out)["sessions"] == []


@pytest.mark.parametrize("words", [["--subject=NL1"], ["--lab=nort"], ["--having=spike.times"], ["x/2021-01-01/001"]])
def test_a_name_that_is_nowhere_is_a_failure(words, ls):
    ended = ls(*words)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err


def test_what_every_session_lacks_is_listed_and_told(ls):
    """It may be so, or the name is misspelt: a script that starts on such sessions must not be misled in silence."""
    ended = ls("--lacking=spike.times", "--paths")
    assert (ended.code, len(ended.out.splitlines())) == (0, len(LAB))
    assert "did you mean spikes.times?" in ended.err


class TestOneSession:
    def test_a_table_for_people(self, ls):
        ended = ls(PATH)
        assert first_words(ended.out) == ["dataset", "alf/_ibl_trials.table.pqt", "alf/probe00/spikes.times.npy"]

    def test_by_eid(self, ls):
        eid = ls("--eids", "--having=spikes.times", "--subject=NL-1").out.strip()
        assert ls(eid).out == ls(PATH).out

    def test_by_where_it_is(self, run, tmp_path, monkeypatch):
        write_lab(tmp_path)
        (tmp_path / PATH / "alf").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / PATH / "alf")
        assert len(run("ls", f"--root={tmp_path}", "..").out.splitlines()) == 3
        assert len(run("ls", f"--root={tmp_path}", tmp_path / PATH / "alf/probe00").out.splitlines()) == 2

    def test_json_has_all_columns(self, ls):
        document = json.loads(ls(PATH, "--json").out)
        assert document["session"]["path"] == PATH
        assert [set(each) for each in document["datasets"]] == [
            {"rel_path", "file_size", "hash", "exists", "qc", "default_revision", "id"}
        ] * 2
        assert [each["file_size"] for each in document["datasets"]] == [1, 10]

    def test_paths_and_csv(self, ls):
        assert ls(PATH, "--paths", "--reverse").out.splitlines()[0] == f"/data/{PATH}/alf/probe00/spikes.times.npy"
        assert ls(PATH, "--csv", "--limit=1").out.splitlines()[1].startswith("alf/_ibl_trials.table.pqt,1,,True,")

    def test_without_datasets(self, ls):
        ended = ls(f"{SL}/2022-01-01/001")
        assert (ended.code, ended.out) == (0, "")
        assert "has no datasets" in ended.err

    @pytest.mark.parametrize("words", [["--subject=x"], ["--eids"], ["--sort=date"], ["--lacking=a.b"]])
    def test_flags_for_lists_of_sessions_are_refused(self, words, ls):
        ended = ls(PATH, *words)
        assert (ended.code, ended.out) == (2, "")
        assert words[0].partition("=")[0] in ended.err


def test_a_name_with_a_line_break_stays_on_its_line(run, tmp_path):
    write_lab(tmp_path, {"s/2020-01-01/001": {"a.b.npy\n": 1, "c.d.npy": 2}})
    for kind in ([], ["--paths"]):
        ended = run("ls", f"--root={tmp_path}", "s/2020-01-01/001", *kind)
        assert len(ended.out.splitlines()) == 2 + (not kind)
        assert r"a.b.npy\n" in ended.out
    assert "are shown with escapes" in ended.err
    names = [
        each["rel_path"]
        for each in json.loads(run("ls", f"--root={tmp_path}", "s/2020-01-01/001", "--json").out)["datasets"]
    ]
    assert names == ["a.b.npy\n", "c.d.npy"]


def test_tables_that_do_not_tell_their_root_have_no_absolute_paths(run, tmp_path):
    without_generation(write_lab(tmp_path))
    ended = run("ls", f"--out-dir={tmp_path}", "--paths")
    assert (ended.code, ended.out) == (2, "")
    assert "give --root DIR" in ended.err


def test_paths_never_lead_out_of_the_root(run, tmp_path):
    """Tables of another program may hold any text, and a script goes where the paths lead."""
    write_lab(tmp_path, {f"{subject}/2020-01-01/001": {"alf/a.b.npy": 1, "c.d.npy": 1} for subject in ("a", "b")})

    def change(name, place, column, old, new):
        def replace(table):
            return table.set_column(place, column, pc.replace_substring(table[column], old, new))

        rewrite(tmp_path, name, replace)

    change(SESSIONS, 1, "subject", "b", "../..")
    change(DATASETS, 0, "rel_path", "alf", "../../..")
    ended = run("ls", f"--root={tmp_path}", "--paths")
    assert ended.out.splitlines() == [f"{tmp_path}/a/2020-01-01/001"]
    assert "are left out: 1" in ended.err
    ended = run("ls", f"--root={tmp_path}", "--paths", "a/2020-01-01/001")
    assert ended.out.splitlines() == [f"{tmp_path}/a/2020-01-01/001/c.d.npy"]
    assert "are left out: 1" in ended.err


_RUN = "import sys; from alfwatchd.cli.main import run; run()"


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path):
    write_lab(tmp_path, {f"s/2020-01-{day:02d}/{number:03d}": {} for day in range(1, 29) for number in range(90)})
    command = [sys.executable, "-c", _RUN, "ls", f"--out-dir={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""


def test_it_starts_without_pandas(folder):
    code = "import sys; from alfwatchd.cli.main import main; main(sys.argv[1:]); print('pandas' in sys.modules)"
    words = [[], ["--having=spikes.times", "--lacking=a.b", "--projects=*", "--json"], [PATH]]
    for each in words:
        command = [sys.executable, "-c", code, "ls", f"--out-dir={folder}", *each]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"
