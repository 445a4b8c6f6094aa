"""Which tables are read, and which sessions are meant: words that make no sense are refused before anything is read."""

import pytest

from kit.control import STATUS, control_box
from kit.lab import write_lab

WRONG = [
    (["--date=soon"], "'soon' is no date; write it as 2021-02-01"),
    (["--number=1000"], "from 0 to 999"),
    (["--number=one"], "is not a whole number"),
    (["--subject="], "is a variable not set?"),
    (["--having="], "is a variable not set?"),
    (["--lacking=spikes"], "write spikes.ATTRIBUTE"),
    (["--limit=0"], "is less than 1"),
    (["--limit=-1"], "is less than 1"),
    (["--subjects=a"], "did you mean --subject?"),
    (["--json", "--csv"], "not allowed with argument --json"),
]


@pytest.mark.parametrize("command", ["ls", "report"])
@pytest.mark.parametrize(("words", "says"), WRONG, ids=[" ".join(case[0]) for case in WRONG])
def test_what_makes_no_sense_is_refused(words, says, command, run, tmp_path):
    ended = run(command, f"--out-dir={tmp_path}", *words)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


@pytest.mark.parametrize("command", ["ls", "report"])
class TestWhichTables:
    def test_those_of_the_root(self, command, run, tmp_path):
        write_lab(tmp_path)
        assert "NL-1" in run(command, f"--root={tmp_path}").out

    def test_those_in_a_folder(self, command, run, tmp_path):
        write_lab(tmp_path / "tables")
        assert "NL-1" in run(command, f"--out-dir={tmp_path / 'tables'}").out

    def test_those_of_the_settings_file(self, command, run, tmp_path):
        write_lab(tmp_path / "tables")
        (tmp_path / "a.toml").write_text('root = "."\nout_dir = "tables"\n')
        assert "NL-1" in run(command, f"--config={tmp_path / 'a.toml'}").out

    def test_those_of_the_daemon_that_answers(self, command, run, tmp_path):
        write_lab(tmp_path)
        with control_box() as box:
            from dataclasses import replace

            from alfwatchd.api import StatusRequest

            box.engine.answers[StatusRequest] = replace(STATUS, root=str(tmp_path), out_dir=str(tmp_path))
            assert "NL-1" in run(command, f"--socket={box.path}").out

    def test_if_nothing_tells_which_it_is_an_error(self, command, run):
        ended = run(command)
        assert (ended.code, ended.out) == (78, "")
        assert "which tables? Give --root DIR" in ended.err

    def test_if_there_are_none_it_is_an_error(self, command, run, tmp_path):
        ended = run(command, f"--root={tmp_path}")
        assert (ended.code, ended.out) == (1, "")
        assert str(tmp_path / "sessions.pqt") in ended.err
