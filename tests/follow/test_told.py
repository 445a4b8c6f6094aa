"""A command finds what it needs in its environment, and may call alfwatchd there."""

from __future__ import annotations

from alfwatchd.changes import Fresh
from alfwatchd.follow.told import make_record, make_variables
from alfwatchd.service.configuration import OF_COMMANDS, load
from kit.follow import RAW, eid_of, make_change, make_session, path_of


def test_a_complete_session_lists_its_required_datasets():
    record = make_record(make_change(1, generation=7), make_session(1, RAW).datasets)
    assert (record["change"], record["path"], record["generation"]) == ("complete", path_of(1), 7)
    assert record["datasets"] == [{"rel_path": RAW, "file_size": 8, "hash": None}]


def test_the_environment_of_a_command():
    variables = make_variables(make_record(make_change(1, generation=7), None), "/data")
    assert variables == {
        "ALFWATCHD_ROOT": "/data",
        "ALFWATCHD_PATH": f"/data/{path_of(1)}",
        "ALFWATCHD_SESSION": path_of(1),
        "ALFWATCHD_EID": eid_of(1),
        "ALFWATCHD_GENERATION": "7",
        "ALFWATCHD_CHANGE": "changed",
    }
    assert make_variables(make_record(make_change(1), None), "/")["ALFWATCHD_PATH"] == f"/{path_of(1)}"


def test_what_stands_for_all_sessions_has_the_root_as_its_path():
    record = make_record(Fresh(7, "0000abcd", "0000abcd.7"), None)
    assert record == {"change": "fresh", "generation": 7, "journal": "0000abcd", "cursor": "0000abcd.7"}
    variables = make_variables(record, "/data")
    assert (variables["ALFWATCHD_PATH"], variables["ALFWATCHD_SESSION"]) == ("/data", "")


def test_alfwatchd_takes_none_of_these_variables_for_a_wrong_setting(tmp_path):
    variables = make_variables(make_record(make_change(1), None), str(tmp_path))
    assert variables.keys() == {f"ALFWATCHD_{name}" for name in (*OF_COMMANDS, "ROOT")}
    assert load({}, {**variables, "HOME": "/nonexistent", "ALFWATCHD_SOCKET": "/run/s"}).settings.root == tmp_path
