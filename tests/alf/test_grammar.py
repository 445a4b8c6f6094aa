"""What is a session and what is a dataset: a path taken for the wrong one would be a wrong or missing row."""

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from one.alf import spec

from alfwatchd.alf import grammar
from alfwatchd.alf.grammar import Kind

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "alf_paths.jsonl").read_text(encoding="utf-8").splitlines()
]
FILE_CASES = [case for case in CASES if case["kind"] == "file"]

UPSTREAM_FILE = spec.regex(spec.FILE_SPEC)
UPSTREAM_REL_PATH = spec.regex(spec.REL_PATH_SPEC)


def parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def test_there_are_cases_of_both_verdicts():
    verdicts = [case["expect"]["rel_path"] is not None for case in FILE_CASES]
    assert verdicts.count(True) > 200
    assert verdicts.count(False) > 150


@pytest.mark.parametrize("category", sorted({case["category"] for case in FILE_CASES}))
def test_paths_have_the_expected_verdict(category):
    for case in (case for case in FILE_CASES if case["category"] == category):
        path, session, rel_path = case["path"], case["expect"]["session"], case["expect"]["rel_path"]
        assert next(filter(grammar.parse_session, parents(path)), None) == session, ascii(path)
        assert grammar.split_dataset(path) == ((session, rel_path) if rel_path else None), ascii(path)
        if session:
            assert grammar.is_rel_path(path.removeprefix(f"{session}/")) == (rel_path is not None), ascii(path)


# Upstream's expression takes exponential time on names with many dots, so names stay short here.
TOKENS = ["a", "Z9", "_", ".", "..", "-", "~", " ", "é", "٣", "#", "\n", "_times", "_intervals", "_ns_", "\udcff", "+"]
short = st.lists(st.sampled_from(TOKENS), max_size=9).map("".join)
dotted = st.lists(st.lists(st.sampled_from(TOKENS), max_size=3).map("".join), min_size=2, max_size=6).map(".".join)
valid = st.from_regex(UPSTREAM_FILE).filter(lambda name: len(name) < 40 and name.count(".") < 10)
names = short | dotted | valid
folders = st.lists(st.sampled_from([*TOKENS, "/", "/#", "#/", "#r1#", "alf"]), max_size=8).map("".join)


@given(names)
@example("a.b_times_c.npy")
@example("a._ns_b.npy")
@example("a.b...c")
@example("a.b..c")
@example("a.b.c\n")
@example("_.b.c")
def test_dataset_names_are_those_of_upstream(name):
    assert grammar.is_dataset_name(name) == (UPSTREAM_FILE.match(name) is not None)


@given(folders)
@example("alf/#r#")
@example("#r#/alf")
@example("alf/#r#/#r#")
@example("##")
@example("")
@example("/#r#")
def test_collections_are_those_of_upstream(folder):
    assert grammar.is_collection(folder) == (UPSTREAM_REL_PATH.fullmatch(f"{folder}/a.b.c") is not None)


@given(folders, names, st.booleans())
@example("", "a.b.c", True)
def test_rel_paths_are_those_of_upstream(folder, name, slash):
    rel_path = f"{folder}/{name}" if slash else folder + name
    # `$` at upstream's end makes a match a whole one; unlike fullmatch it lets a name end in one newline.
    assert grammar.is_rel_path(rel_path) == (UPSTREAM_REL_PATH.match(rel_path) is not None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a." + "b." * 119 + "npy~", False),
        ("a." + "b." * 119 + "npyyyyyyyyy", True),
        ("a" * 250, False),
        ("a." + "_" * 240 + "~.npy", False),
        ("a.b" + "_times" * 40 + ".~", False),
        ("." * 250, False),
    ],
)
def test_a_name_with_many_dots_is_judged_at_once(name, expected):
    # Upstream's expression would not end within the age of the universe.
    assert grammar.is_dataset_name(name) is expected


@pytest.mark.parametrize(
    ("name", "exists"),
    [
        ("2020-02-29", True),
        ("2019-02-29", False),
        ("2020-02-30", False),
        ("2020-13-01", False),
        ("2020-00-10", False),
        ("2020-01-00", False),
        ("2020-01-32", False),
        ("0000-01-01", False),
        ("0001-01-01", True),
        ("9999-12-31", True),
        ("2020-1-1", False),
        ("20200101", False),
        ("2020-01-01\n", False),
        ("2020-W01-1", False),
        ("２０２０-０１-０１", False),
    ],
)
def test_only_real_dates_are_dates(name, exists):
    date = grammar.parse_date(name)
    assert (date is not None and date.isoformat() == name) is exists
    assert (grammar.parse_session(f"s/{name}/001") is not None) is exists
    assert (grammar.split_dataset(f"s/{name}/001/a.b.c") is not None) is exists


def test_a_session_key_has_its_parts():
    key = grammar.parse_session("lab/Subjects/s.1-x/2020-01-02/7")
    assert key is not None
    assert (key.lab, key.subject, key.date.isoformat(), key.number) == ("lab", "s.1-x", "2020-01-02", 7)
    assert key.eid_path == "lab/s.1-x/2020-01-02/007"
    no_lab = grammar.parse_session("s/2020-01-02/010")
    assert no_lab is not None
    assert (no_lab.lab, no_lab.eid_path) == ("", "s/2020-01-02/010")


def walk(path: str) -> bool:
    """Tell whether a walk from the root by `child_kind` ends at a session exactly at `path`."""
    kind, parent = Kind.ROOT, ""
    for name in path.split("/"):
        if kind is Kind.SESSION:
            return False
        found = grammar.child_kind(kind, parent, name)
        if found is None:
            return False
        kind, parent = found, name
    return kind is Kind.SESSION


def test_walking_finds_the_sessions_of_all_cases():
    paths = {path for case in CASES for path in (*parents(case["path"]), case["path"])}
    found = {path for path in paths if walk(path)}
    assert found == {path for path in paths if grammar.parse_session(path)}
    assert len(found) > 50


def test_walking_finds_the_sessions_of_all_short_paths():
    parts = ("lab", "my-lab", "Subjects", "a b", "2020-01-01", "2020-02-30", "1", "0001")
    paths = {"/".join(names) for depth in range(1, 6) for names in itertools.product(parts, repeat=depth)}
    found = {path for path in paths if walk(path)}
    assert found == {path for path in paths if grammar.parse_session(path)}
    assert {"lab/2020-01-01/1", "lab/Subjects/my-lab/2020-01-01/1", "Subjects/2020-01-01/1"} <= found
    assert not re.search("a b|2020-02-30/0*1$|0001$|my-lab/Subjects", "\n".join(found), re.MULTILINE)


@pytest.mark.parametrize("kind", [Kind.SESSION, Kind.COLLECTION])
def test_child_kind_refuses_to_answer_inside_a_session(kind):
    with pytest.raises(ValueError, match="above a session"):
        grammar.child_kind(kind, "001", "alf")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("", ("", "")),
        ("alf", ("alf", "")),
        ("alf/probe00", ("alf/probe00", "")),
        ("#v1#", ("", "v1")),
        ("alf/#2020-01-01#", ("alf", "2020-01-01")),
        ("alf/probe00/#v.1-b#", ("alf/probe00", "v.1-b")),
    ],
)
def test_split_revision(folder, expected):
    assert grammar.split_revision(folder) == expected


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("lab", Kind.TOP),
        ("lab/Subjects", Kind.SUBJECTS),
        ("lab/Subjects/s", Kind.SUBJECT),
        ("s/2020-01-01", Kind.DATE),
        ("s/2020-01-01/1", Kind.SESSION),
        ("s/2020-01-01/1/alf", Kind.COLLECTION),
        ("s/2020-01-01/1/alf/#2021#", Kind.COLLECTION),
        ("s/2020-01-01/1/my dir", None),
        ("s/2020-01-01/1/my dir/alf", None),
        ("s/x", None),
        ("my lab", None),
        ("lab/Subjects/s/x/y", None),
        (".alfwatchd-trash", None),
    ],
)
def test_a_path_tells_what_a_folder_is(path, kind):
    assert grammar.kind_of(path) is kind
