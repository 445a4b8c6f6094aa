"""`alfwatchd report`: what each lab and subject has, and what is missing."""

import csv
import io
import json

import pytest

from kit.lab import write_lab


@pytest.fixture
def report(run, tmp_path):
    write_lab(tmp_path)
    return lambda *words: run("report", f"--root={tmp_path}", *words)


REQUIRE = ["--require=spikes.times", "--require=trials.table"]


def test_a_table_for_people(report):
    ended = report(*REQUIRE)
    assert (ended.code, ended.err) == (0, "")
    lines = [line.split() for line in ended.out.splitlines()]
    assert lines[1] == ["north", "NL-1", "2", "3", "13", "B", "2021-01-05", "2021-01-05", "1", "spikes.times", "1"]
    assert [line[:2] for line in lines[4:]] == [["north", "all"], ["south", "all"], ["total", "3"]]
    assert lines[-1][-5:] == ["3", "spikes.times", "2,", "trials.table", "2"]


def test_what_is_required_is_a_setting(run, tmp_path):
    write_lab(tmp_path)
    (tmp_path / "a.toml").write_text('root = "."\n[report]\nrequired = ["spikes.times", "raw_video_data/*.mp4"]\n')
    told = json.loads(run("report", f"--config={tmp_path / 'a.toml'}", "--json").out)
    assert told["total"]["missing"] == {"spikes.times": 2, "raw_video_data/*.mp4": 3}
    told = json.loads(run("report", f"--config={tmp_path / 'a.toml'}", "--json", *REQUIRE).out)
    assert list(told["total"]["missing"]) == ["spikes.times", "trials.table"]


def test_nothing_is_said_of_what_nobody_requires(report):
    assert "missing" not in report().out
    assert json.loads(report("--json").out)["total"]["missing"] == {}


def test_json_has_labs_subjects_and_the_total(report):
    told = json.loads(report("--json", *REQUIRE).out)
    assert [each["subject"] for each in told["subjects"]] == ["NL-1", "NL-2", "SL"]
    assert [each["lab"] for each in told["labs"]] == ["north", "south"]
    assert (told["total"]["n_sessions"], told["total"]["last"], told["generation"]) == (4, "2022-01-01", 1)


def test_csv_has_a_line_for_each_subject_so_that_columns_can_be_added(report):
    rows = list(csv.DictReader(io.StringIO(report("--csv", *REQUIRE).out)))
    assert [row["subject"] for row in rows] == ["NL-1", "NL-2", "SL"]
    assert sum(int(row["n_sessions"]) for row in rows) == 4
    assert [row["lacking spikes.times"] for row in rows] == ["1", "0", "1"]


def test_a_large_lab_is_cut_and_says_how_to_see_all(run, tmp_path):
    write_lab(tmp_path, {f"s{number:03d}/2020-01-01/001": {} for number in range(120)})
    lines = run("report", f"--root={tmp_path}").out.splitlines()
    assert len(lines) == 1 + 100 + 1 + 1
    assert "20 more: --limit 120" in lines[-2]
    assert len(run("report", f"--root={tmp_path}", "--limit=120").out.splitlines()) == 1 + 120 + 1
    assert len(run("report", f"--root={tmp_path}", "--csv").out.splitlines()) == 1 + 120
    assert run("report", f"--root={tmp_path}", "--limit=1").out.splitlines()[-1].split()[:3] == ["total", "120", "120"]


def test_a_required_name_that_is_nowhere_is_told(report):
    ended = report("--require=spike.times")
    assert ended.code == 0
    assert "no dataset matches 'spike.times'; did you mean spikes.times?" in ended.err


def test_no_session_is_told(report):
    ended = report("--date=1999")
    assert (ended.code, ended.out, ended.err) == (0, "", "alfwatchd: no session fits\n")
