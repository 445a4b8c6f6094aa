"""Where settings come from, which wins, what is refused and how the refusal reads."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from alfwatchd.alf import ids
from alfwatchd.errors import ConfigError
from alfwatchd.service.configuration import SYSTEM_SOCKET, Loaded, find_address, find_socket, load
from alfwatchd.settings import ENTRY_KEYS, EXPLANATIONS, Publish

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
HOME = {"HOME": "/home/ada"}
SYSTEMD = {"STATE_DIRECTORY": "/var/lib/alfwatchd", "RUNTIME_DIRECTORY": "/run/alfwatchd"}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Shorter than pytest's own, so that sockets below it fit into 107 bytes."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name).resolve()


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def value_of(loaded: Loaded, key: str) -> object:
    value: object = loaded.settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def refusal(flags: dict[str, object], environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags, environ)
    return str(caught.value)


# --- precedence -----------------------------------------------------------------------------------------------------

LAYERS = [
    # flag, environment, TOML -> value, source
    ("f", "e", "t", "f", "flag --lab"),
    (None, "e", "t", "e", "environment ALFWATCHD_LAB"),
    (None, None, "t", "t", "TOML"),
    (None, "", "t", "t", "TOML"),
    ("", "e", "t", "", "flag --lab"),
    (None, None, None, "", "default"),
]


@pytest.mark.parametrize(("flag", "env", "toml", "value", "source"), LAYERS)
def test_flags_over_environment_over_toml_over_defaults(tmp_path, flag, env, toml, value, source):
    config = write(tmp_path / "x.toml", f'lab = "{toml}"' if toml else "")
    environ = HOME | ({} if env is None else {"ALFWATCHD_LAB": env})
    loaded = load({"root": "/data", "config": config, "lab": flag}, environ)
    assert loaded.settings.lab == value
    assert loaded.sources["lab"] == (str(config) if source == "TOML" else source)


def test_every_key_has_a_source_and_an_explanation():
    loaded = load({"root": "/data"}, HOME)
    assert set(loaded.sources) == set(EXPLANATIONS) >= {"root", "prune.reference", "control.group"}
    assert all(EXPLANATIONS.values())
    assert {key: source for key, source in loaded.sources.items() if source != "default"} == {"root": "flag --root"}


def test_layers_meet_inside_a_section(tmp_path):
    config = write(tmp_path / "x.toml", "[prune]\nmax_fraction = 0.5\nenabled = false")
    environ = HOME | {"ALFWATCHD_CONFIG": str(config), "ALFWATCHD_PRUNE__ENABLED": "true"}
    loaded = load({"root": "/data", "prune.reference": "/ref"}, environ)
    assert loaded.settings.prune.model_dump() == {
        "reference": Path("/ref"), "max_fraction": 0.5, "margin_seconds": 172800.0, "enabled": True,
        "trash_seconds": 604800.0,
    }  # fmt: skip
    assert [loaded.sources[f"prune.{key}"] for key in ("reference", "max_fraction", "enabled")] == [
        "flag --reference",
        str(config),
        "environment ALFWATCHD_PRUNE__ENABLED",
    ]


def test_config_flag_wins_over_its_variable(tmp_path):
    flag, env = write(tmp_path / "f.toml", 'lab = "f"'), write(tmp_path / "e.toml", 'lab = "e"')
    assert load({"root": "/data", "config": str(flag)}, HOME | {"ALFWATCHD_CONFIG": str(env)}).settings.lab == "f"


def test_an_empty_config_variable_counts_as_not_set():
    assert load({"root": "/data"}, HOME | {"ALFWATCHD_CONFIG": ""}).settings.root == Path("/data")


def test_the_environment_of_the_process_does_not_leak_in(monkeypatch, tmp_path):
    for name in ("ALFWATCHD_LAB", "ALFWATCHD_TYPO", "LAB"):
        monkeypatch.setenv(name, "leak")
    for name in ("HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"):
        monkeypatch.setenv(name, "/leak")
    loaded = load({"root": str(tmp_path)}, HOME)
    assert "leak" not in repr(loaded)
    assert "leak" not in str(find_socket({"root": str(tmp_path)}, HOME))


def test_the_environment_of_the_process_is_the_default(monkeypatch):
    monkeypatch.setenv("ALFWATCHD_LAB", "mine")
    assert load({"root": "/data"}).settings.lab == "mine"


def test_settings_are_frozen():
    settings = load({"root": "/data"}, HOME).settings
    for part, name in ((settings, "lab"), (settings.prune, "enabled"), (settings.control, "group")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, "x")


# --- values ---------------------------------------------------------------------------------------------------------

ACCEPTED = [
    ("ALFWATCHD_EXCLUDE", "*.tmp, [ab]*\n c/ ,", "exclude", ("*.tmp", "[ab]*", "c/")),
    ("ALFWATCHD_EXCLUDE", '["a,b", "!c"]', "exclude", ("a,b", "!c")),
    ("ALFWATCHD_EXCLUDE", "[]", "exclude", ()),
    ("ALFWATCHD_EXCLUDE", r"\#2021-07-06#", "exclude", (r"\#2021-07-06#",)),
    ("ALFWATCHD_HASH_FILES", "true", "hash_files", True),
    ("ALFWATCHD_HASH_THREADS", "64", "hash_threads", 64),
    ("ALFWATCHD_LAB", "Größe_1", "lab", "Größe_1"),
    ("ALFWATCHD_LONGEST_WAIT_SECONDS", "0.1", "longest_wait_seconds", 0.1),
    ("ALFWATCHD_NAMESPACE", str(ids.NAMESPACE), "namespace", ids.NAMESPACE),
    ("ALFWATCHD_PRUNE__MAX_FRACTION", "1", "prune.max_fraction", 1.0),
    ("ALFWATCHD_CONTROL__GROUP", "lab", "control.group", "lab"),
    ("ALFWATCHD_RECONCILE_ENTRIES_PER_SECOND", "0", "reconcile_entries_per_second", 0),
    ("ALFWATCHD_WATCH", "poll", "watch", "poll"),
]


@pytest.mark.parametrize(("name", "text", "key", "value"), ACCEPTED)
def test_text_of_the_environment_becomes_a_value(name, text, key, value):
    loaded = load({"root": "/data"}, HOME | {name: text})
    assert value_of(loaded, key) == value
    assert loaded.sources[key] == f"environment {name}"


REFUSED = [
    # key, value, what the line must say is allowed
    ("root", "", "should be a path, not empty"),
    ("root", "/a\0b", "should be a path"),
    ("root", 5, "should be a path"),
    ("out_dir", "", "should be a path"),
    ("state_dir", "", "should be a path"),
    ("socket", "", "should be a path"),
    ("socket", "/" + "s" * 107, "at most 107"),
    ("lab", "a-b", "letters, digits and '_'"),
    ("lab", "a\n", "letters, digits and '_'"),
    ("namespace", "one", "valid UUID"),
    ("exclude", ["#2021-07-06#"], r"a leading '#' is written '\#'"),
    ("exclude", ["ok", "!"], "Invalid git pattern: '!'"),
    ("exclude", ["foo["], "matches nothing"),
    ("exclude", [""], "matches nothing"),
    ("exclude", ["ok", 3], "valid string"),
    ("exclude", '["a"', "Expecting"),
    ("exclude", 3, "valid list"),
    ("hash_files", "ja", "should be true or false"),
    ("hash_threads", 0, "greater than or equal to 1"),
    ("hash_threads", 65, "less than or equal to 64"),
    ("watch", "fanotify", "'auto', 'inotify' or 'poll'"),
    ("settle_seconds", 0, "greater than 0"),
    ("settle_seconds", "nan", "finite"),
    ("longest_wait_seconds", 0.05, "at least settle_seconds, which is 0.1"),
    ("flush_interval_seconds", -1, "greater than 0"),
    ("reconcile_interval_seconds", "inf", "finite"),
    ("poll_interval_seconds", 0, "greater than 0"),
    ("reconcile_entries_per_second", -1, "greater than or equal to 0"),
    ("log_level", "INFO", "'debug', 'info', 'warning' or 'error'"),
    ("prune.max_fraction", 10, "10 is no fraction: for 10 % write 0.1"),
    ("prune.max_fraction", -0.1, "-0.1 is no fraction: write a number from 0 to 1"),
    ("prune.margin_seconds", -1, "greater than or equal to 0"),
    ("prune.reference", 5, "should be a path"),
    ("prune.trash_seconds", -1, "greater than or equal to 0"),
    ("prune.enabled", "perhaps", "should be true or false"),
    ("flush_interval_seconds", "abc", "should be a number of seconds"),
    ("poll_interval_seconds", "5 min", "should be a number of seconds"),
    ("hash_threads", "two", "should be a whole number"),
    ("prune.trash_seconds", "a week", "should be a number of seconds"),
    ("control.group", 5, "valid string"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), REFUSED)
def test_a_refusal_is_one_line_with_key_source_and_what_is_allowed(key, value, allowed):
    message = refusal({"root": "/data"} | {key: value}, HOME)
    assert message.startswith(f"{key} = ")
    assert f"(flag --{key.rpartition('.')[2].replace('_', '-')}): " in message
    assert allowed in message
    assert "\n" not in message
    assert "pydantic" not in message


def test_all_invalid_values_are_told_at_once_each_with_its_source(tmp_path):
    config = write(tmp_path / "x.toml", "hash_threads = 0\nsettle_seconds = 5")
    lines = refusal({"root": "/data", "config": config, "watch": "x"}, HOME | {"ALFWATCHD_LAB": "-"}).splitlines()
    assert [re.match(r"(\S+) = .* \((.*?)\): ", line).groups() for line in lines] == [
        ("lab", "environment ALFWATCHD_LAB"),
        ("hash_threads", str(config)),
        ("watch", "flag --watch"),
        ("longest_wait_seconds", "default"),
    ]


def test_a_missing_root_says_how_to_give_it():
    message = refusal({}, HOME)
    assert all(way in message for way in ("--root DIR", "ALFWATCHD_ROOT=DIR", "root = 'DIR'"))
    assert "\n" not in message


# --- unknown keys ---------------------------------------------------------------------------------------------------

UNKNOWN = [
    # where, name -> source, nearest
    ("flag", "rot", "flag --rot", "root"),
    ("flag", "prune.referenc", "flag --referenc", "prune.reference"),
    ("env", "ALFWATCHD_ROT", "environment ALFWATCHD_ROT", "root"),
    ("env", "ALFWATCHD_PRUNE__ENBLED", "environment ALFWATCHD_PRUNE__ENBLED", "prune.enabled"),
    ("env", "ALFWATCHD_PRUNE", "environment ALFWATCHD_PRUNE", "prune.enabled"),
    ("toml", "out-dir = 'x'", "TOML", "out_dir"),
    ("toml", "enabled = true", "TOML", "prune.enabled"),
    ("toml", "prune = 5", "TOML", "prune.enabled"),
    ("toml", "[prune]\nmax_fractoin = 1", "TOML", "prune.max_fraction"),
    ("toml", "[root]\npath = '/'", "TOML", "root"),
    ("toml", "zzzzzz = 1", "TOML", None),
]


@pytest.mark.parametrize(("where", "name", "source", "nearest"), UNKNOWN)
@pytest.mark.parametrize("read", [load, find_socket])
def test_an_unknown_key_names_source_and_nearest_key(tmp_path, read, where, name, source, nearest):
    flags: dict[str, object] = {"root": "/data"} | ({name: 1} if where == "flag" else {})
    environ = HOME | ({name: "1"} if where == "env" else {})
    if where == "toml":
        flags["config"] = write(tmp_path / "x.toml", name)
        source = str(flags["config"])
    with pytest.raises(ConfigError) as caught:
        read(flags, environ)
    assert str(caught.value).startswith(f"{source}: unknown key ")
    assert (f"did you mean {nearest!r}?" if nearest else "config.example.toml") in str(caught.value)


def test_an_unknown_variable_is_an_error_even_if_empty_and_others_are_not_ours():
    assert "ALFWATCHD_ROT" in refusal({"root": "/data"}, HOME | {"ALFWATCHD_ROT": "", "ALFWATCH_ROT": "x"})
    assert load({"root": "/data"}, HOME | {"ALFWATCH_ROT": "x"}).settings.root == Path("/data")


# --- the TOML file --------------------------------------------------------------------------------------------------

BAD_TOML = [
    ("lab = 'x'\na = = 1", ":2:5: not valid TOML"),
    ("lab = 'x'\na = 'x", ":2:7: not valid TOML"),
    ("lab = 'x'\na = '", ":2:6: not valid TOML"),
    (b"a = '\xff'", ":1:6: not valid TOML"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TOML)
def test_a_syntax_error_has_file_line_and_column(tmp_path, text, message):
    config = write(tmp_path / "x.toml", text)
    assert refusal({"root": "/data", "config": config}, HOME).startswith(f"{config}{message}")


@pytest.mark.parametrize("given_by", ["flag", "environment"])
def test_a_missing_file_is_an_error(tmp_path, given_by):
    config = str(tmp_path / "none.toml")
    flags, environ = ({"config": config}, HOME) if given_by == "flag" else ({}, HOME | {"ALFWATCHD_CONFIG": config})
    assert refusal({"root": "/data", **flags}, environ).startswith(f"{config}: cannot read")


def test_a_folder_as_file_is_an_error(tmp_path):
    assert "Is a directory" in refusal({"root": "/data", "config": tmp_path}, HOME)


# --- places ---------------------------------------------------------------------------------------------------------

PLACES = ["root", "out_dir", "state_dir", "socket", "prune.reference"]


@pytest.mark.parametrize("key", PLACES)
def test_relative_paths_start_at_the_file_or_at_the_current_folder(tmp_path, monkeypatch, key):
    section, _, name = key.rpartition(".")
    line = f"{name} = 'sub/x'"
    write(tmp_path / "etc" / "x.toml", f"[{section}]\n{line}" if section else line)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    others = {} if key == "root" else {"root": "/data"}
    variable = "ALFWATCHD_" + key.upper().replace(".", "__")
    assert value_of(load({**others, "config": "../etc/x.toml"}, HOME), key) in (
        tmp_path / "etc/sub/x",
        tmp_path / "cwd/../etc/sub/x",
    )
    assert value_of(load({**others, key: "sub/x"}, HOME), key) == tmp_path / "cwd/sub/x"
    assert value_of(load(others, HOME | {variable: "sub/x"}), key) == tmp_path / "cwd/sub/x"
    assert value_of(load({**others, key: "~/x"}, HOME), key) == Path("/home/ada/x")
    assert value_of(load({**others, key: Path("/abs/x")}, HOME), key) == Path("/abs/x")


def test_config_may_start_with_a_tilde(tmp_path):
    write(tmp_path / "x.toml", "root = '~/data'")
    assert load({"config": "~/x.toml"}, {"HOME": str(tmp_path)}).settings.root == tmp_path / "data"


def test_links_are_followed_for_root_and_out_dir_and_kept_for_the_reference(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real")
    settings = load({"root": link, "out_dir": link / "out", "prune.reference": link}, HOME).settings
    assert (settings.root, settings.out_dir) == (tmp_path / "real", tmp_path / "real/out")
    assert settings.prune.reference == link


def test_names_that_are_not_utf8_are_kept():
    assert load({"root": "/d\udcff"}, HOME).settings.state_dir.name.startswith("d\udcff-")


def test_an_empty_reference_means_none(tmp_path):
    config = write(tmp_path / "x.toml", "[prune]\nreference = '/ref'")
    assert load({"root": "/data", "config": config, "prune.reference": ""}, HOME).settings.prune.reference is None


STATE_DIRS = [
    (HOME, "/home/ada/.local/state/alfwatchd"),
    (HOME | {"XDG_STATE_HOME": "/xdg"}, "/xdg/alfwatchd"),
    (HOME | {"XDG_STATE_HOME": "relative"}, "/home/ada/.local/state/alfwatchd"),
    (HOME | {"XDG_STATE_HOME": "/xdg", "STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
]


@pytest.mark.parametrize(("environ", "above"), STATE_DIRS)
def test_default_state_dir(environ, above):
    state_dir = load({"root": "/data"}, environ).settings.state_dir
    assert state_dir.parent == Path(above)
    assert re.fullmatch("data-[0-9a-f]{8}", state_dir.name)


def test_each_output_folder_has_a_state_dir_of_its_own():
    flags = [{"root": "/a/data"}, {"root": "/b/data"}, {"root": "/a/data", "out_dir": "/o"}, {"root": "/"}]
    assert len({load(each, HOME).settings.state_dir for each in flags}) == len(flags)
    assert len({load(each, SYSTEMD).settings.state_dir for each in flags}) == len(flags)
    same = load({"root": "/c", "out_dir": "/o"}, HOME).settings.state_dir
    assert same == load({"root": "/d", "out_dir": "/o"}, HOME).settings.state_dir


def test_the_longest_folder_name_leaves_room_for_the_digest():
    state_dir = load({"root": "/" + "é" * 127}, HOME | {"XDG_RUNTIME_DIR": "/run/user/1"}).settings.state_dir
    assert len(state_dir.name.encode()) <= 255


def test_out_dir_defaults_to_the_root():
    assert load({"root": "/data"}, HOME).settings.out_dir == Path("/data")


SOCKETS = [
    (HOME, "/s/alfwatchd.sock"),
    (HOME | {"XDG_RUNTIME_DIR": "/run/user/1"}, "/run/user/1/alfwatchd.sock"),
    (HOME | {"XDG_RUNTIME_DIR": "/run/user/1", "RUNTIME_DIRECTORY": "/run/a:/run/b"}, "/run/a/alfwatchd.sock"),
    (HOME | {"XDG_RUNTIME_DIR": "/run/user/1", "ALFWATCHD_SOCKET": "/my.sock"}, "/my.sock"),
]


@pytest.mark.parametrize(("environ", "socket"), SOCKETS)
def test_default_socket(environ, socket):
    assert load({"root": "/data", "state_dir": "/s"}, environ).settings.socket == Path(socket)


def test_a_default_socket_that_is_too_long_is_refused():
    message = refusal({"root": "/data", "state_dir": "/" + "s" * 100}, HOME)
    assert message.startswith("socket = /sss")
    assert "(default)" in message
    assert load({"root": "/data", "socket": "/" + "s" * 106}, HOME).settings.socket == Path("/" + "s" * 106)


# --- find_socket ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["flag", "environment", "TOML"])
def test_a_socket_that_is_set_wins_over_those_that_exist(tmp_path, where):
    write(tmp_path / "run/alfwatchd.sock", "")
    environ = {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
    flags: dict[str, object] = {}
    if where == "flag":
        flags["socket"] = "/mine.sock"
    elif where == "environment":
        environ["ALFWATCHD_SOCKET"] = "/mine.sock"
    else:
        flags["config"] = write(tmp_path / "x.toml", "socket = '/mine.sock'")
    assert find_socket(flags, environ) == Path("/mine.sock")


FOUND = [
    # folders that hold a socket -> folder of the answer; the first candidate if none does
    ({"runtime", "xdg", "state"}, "runtime"),
    ({"xdg", "state"}, "xdg"),
    ({"state"}, "state"),
    (set(), "runtime"),
]


@pytest.mark.skipif(SYSTEM_SOCKET.exists(), reason="a daemon runs on this machine and would be found")
@pytest.mark.parametrize(("existing", "found"), FOUND)
def test_the_first_socket_that_exists_is_found(tmp_path, existing, found):
    environ = {"RUNTIME_DIRECTORY": str(tmp_path / "runtime"), "XDG_RUNTIME_DIR": str(tmp_path / "xdg")}
    for folder in existing:
        write(tmp_path / folder / "alfwatchd.sock", "")
    flags = {"root": "/data", "state_dir": tmp_path / "state"}
    assert find_socket(flags, environ) == tmp_path / found / "alfwatchd.sock"


@pytest.mark.skipif(SYSTEM_SOCKET.exists(), reason="a daemon runs on this machine and would be found")
def test_a_known_root_leads_to_the_default_state_dir(tmp_path):
    environ = {"HOME": str(tmp_path)}
    expected = load({"root": "/data"}, environ).settings.socket
    write(expected, "")
    assert find_socket({"root": "/data"}, environ) == expected


def test_without_root_and_runtime_folder_it_is_the_one_of_the_system():
    assert find_socket({}, {}) == SYSTEM_SOCKET


def test_an_address_says_which_root_is_meant_from_whichever_source(tmp_path):
    config = write(tmp_path / "x.toml", "root = 'data'")
    for flags, environ in (
        ({"root": str(tmp_path / "data")}, {}),
        ({}, {"ALFWATCHD_ROOT": str(tmp_path / "data")}),
        ({"config": config}, {}),
        ({}, {"ALFWATCHD_CONFIG": str(config)}),
    ):
        address = find_address(flags, HOME | environ)
        assert (address.root, address.is_named) == (tmp_path / "data", False)
    assert find_address({"socket": "/my.sock"}, HOME).is_named
    assert find_address({}, HOME).root is None
    with pytest.raises(ConfigError, match="root = '' "):
        find_address({"root": "", "socket": "/my.sock"}, HOME)


def test_find_socket_does_not_care_about_other_settings():
    assert find_socket({"socket": "/my.sock", "hash_threads": 99, "root": ""}, {}) == Path("/my.sock")


@pytest.mark.parametrize(("socket", "message"), [("", "not empty"), ("/" + "s" * 107, "at most 107"), (5, "a path")])
def test_find_socket_refuses_what_no_socket_can_be(socket, message):
    with pytest.raises(ConfigError, match=message) as caught:
        find_socket({"socket": socket}, {})
    assert str(caught.value).startswith("socket (flag --socket): ")


# --- the example file, the import -----------------------------------------------------------------------------------


def uncommented() -> str:
    return re.sub(r"(?m)^#(?=\S)", "", EXAMPLE.read_text())


def test_the_example_file_works_as_it_is():
    loaded = load({"config": EXAMPLE}, SYSTEMD)
    assert {key for key, source in loaded.sources.items() if source != "default"} == {"root"}


def test_the_example_file_documents_every_key_with_its_default(tmp_path):
    tables = tomllib.loads(uncommented())
    keys = {f"{key}.{name}" for key, part in tables.items() if isinstance(part, dict) for name in part}
    assert keys | {key for key, part in tables.items() if not isinstance(part, dict)} == set(EXPLANATIONS) - {"publish"}
    in_example = load({"config": write(tmp_path / "x.toml", uncommented())}, SYSTEMD).settings
    assert in_example == load({"root": "/srv/data"}, SYSTEMD).settings


def test_the_example_file_documents_an_entry_of_publish_with_its_defaults(tmp_path):
    block = EXAMPLE.read_text().partition("# [[publish]]\n")[2].partition("\n\n")[0]
    entry = "[[publish]]\n" + re.sub("(?m)^# ", "", block)
    keys = {f"publish.{key}" for key in flat(tomllib.loads(entry)["publish"][0])}
    assert keys == set(ENTRY_KEYS) - {"publish.subset"}
    (given,) = load({"root": "/data", "config": write(tmp_path / "x.toml", entry)}, HOME).settings.publish
    assert given == Publish(target=given.target)


def flat(table: dict[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]


def test_paths_in_entries_and_sources_are_relative_to_the_file(tmp_path):
    config = write(tmp_path / "x.toml", "adopt.source = 'db'\n[[publish]]\ntarget = 'out'\n")
    settings = load({"root": "/data", "config": config}, HOME).settings
    # Also where the tables are, but in another folder.
    assert load({"root": tmp_path, "config": config}, HOME).settings.adopt.source == str(tmp_path / "db")
    assert (settings.adopt.source, settings.publish[0].target) == (str(tmp_path / "db"), str(tmp_path / "out"))


BAD_ENTRIES = [
    ("[[publish]]\ntargett = 'x'", "did you mean 'publish.target'?"),
    ("[[publish]]\ninterval_seconds = 60", "an entry has no target"),
    ("[[publish]]\ntarget = 's3://b/p'\ninterval_seconds = 5", "greater than or equal to 60"),
    ("[[publish]]\ntarget = 's3://b/p'\nsubset.project = ['x']", "did you mean 'publish.subset.projects'?"),
    ("[[publish]]\ntarget = 's3://b/p'\nsubset.tag = '../x'", "it becomes the name of a folder"),
    ("[[publish]]\ntarget = '/p'\nsubset.tag = 'cache.zip'", "the name of a file or folder that each target has"),
    ("[[publish]]\ntarget = '/p'\nsubset.tag = '.publishing.lock'", "not begin with a dot"),
    ("[[publish]]\ntarget = '/p'\nsubset.projects = ['a, b']", "should be one name"),
    ("[[publish]]\ntarget = 's3://b/p?x'", "no '?' and no '#'"),
    ("[[publish]]\ntarget = 's3://b/p#x'", "no '?' and no '#'"),
    ("[[publish]]\ntarget = 's3://b/p//q'", "should hold no '//'"),
    ("[[publish]]\ntarget = 's3://b/../q'", "no part '.' or '..'"),
    ("[[publish]]\ntarget = '/p'\nlocation = 'https://x.org/?a=b'", "no '?' and no '#'"),
    ("[[publish]]\ntarget = '/p/t'\n[[publish]]\ntarget = '/p'\nsubset.tag = 't'", "names /p/t twice"),
    ("[[publish]]\ntarget = 's3://b/p'\n[[publish]]\ntarget = 's3://b/p/'", "names s3://b/p twice"),
    ("[[publish]]\ntarget = 'ftp://b/p'", "should begin with s3://"),
    ("[[publish]]\ntarget = 's3://key:secret@b/p'", "should hold no user and password"),
    ("adopt.source = 'https://ada:secret@alyx.org/cache.zip'", "should hold no user and password"),
    ("adopt.source = 'https:///cache.zip'", "name a host"),
    ("adopt.source = '/data'", "is what this program writes to /data: name the tables that the database makes"),
    ("adopt.source = '/p/cache.zip'\n[[publish]]\ntarget = '/p'", "is what this program writes to /p"),
    (
        "adopt.source = '/p/mine'\n[[publish]]\ntarget = '/p'\nsubset.tag = 'mine'",
        "is what this program writes to /p/mine",
    ),
    ("serve.base_url = 'tables.org'", "should begin with http:// or https://"),
]


@pytest.mark.parametrize(("text", "message"), BAD_ENTRIES)
def test_targets_and_sources_are_refused_with_their_file(tmp_path, text, message):
    config = write(tmp_path / "x.toml", text)
    told = refusal({"root": "/data", "config": config}, HOME)
    assert message in told
    assert str(config) in told


def test_no_password_in_an_address_is_told(tmp_path):
    config = write(tmp_path / "x.toml", "adopt.source = 'https://ada:secret@alyx.org/cache.zip'")
    assert "secret" not in refusal({"root": "/data", "config": config}, HOME)


def test_variables_that_hold_credentials_are_no_settings():
    environ = HOME | {"ALFWATCHD_CREDENTIAL_SERVE_TOKEN": "secret"}
    assert "secret" not in str(load({"root": "/data"}, environ))


def test_every_key_of_the_example_file_is_explained():
    lines = EXAMPLE.read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"#?\w+ = ", line):
            assert before.startswith("# "), line


def test_import_brings_no_heavy_package():
    code = "import sys, alfwatchd.settings; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=300, capture_output=True, text=True
    ).stdout
    assert "pydantic_settings" in loaded.split()
    assert not {"numpy", "pandas", "pyarrow", "fastapi", "watchdog"} & set(loaded.split())


# --- files and homes as they are ------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_error(tmp_path):
    """Notepad and PowerShell begin each UTF-8 file with one."""
    config = write(tmp_path / "x.toml", b'\xef\xbb\xbflab = "mine"\r\n')
    assert load({"root": "/data", "config": config}, HOME).settings.lab == "mine"


@pytest.mark.parametrize(("encoding", "told"), [("utf-16", "UTF-16"), ("latin-1", "another encoding than UTF-8")])
def test_another_encoding_is_told(tmp_path, encoding, told):
    config = write(tmp_path / "x.toml", 'lab = "Müller"\r\n'.encode(encoding))
    message = refusal({"root": "/data", "config": config}, HOME)
    assert re.fullmatch(rf"{config}:1:\d+: not valid TOML: saved as {told}; save it as UTF-8", message)


def test_a_file_that_this_user_may_not_read_is_told_with_the_user(tmp_path, monkeypatch):
    """The daemon's user is another one than the person who wrote the file."""
    config = write(tmp_path / "x.toml", "")
    monkeypatch.setattr(
        Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    message = refusal({"root": "/data", "config": config}, HOME)
    assert re.search(r"Permission denied; let user \S+ \(uid \d+\) read it: check its owner and mode", message)


@pytest.fixture
def homeless(monkeypatch):
    """As in a container: a user without an entry in the list of users, and no HOME."""
    monkeypatch.setattr("os.getuid", lambda: 54321)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_places_that_are_given_are_enough():
    given = {"root": "/data", "state_dir": "/state"}
    assert load(given, {}).settings.socket == Path("/state/alfwatchd.sock")
    assert load({"root": "/data"}, {"STATE_DIRECTORY": "/var/lib/x"}).settings.state_dir.parent == Path("/var/lib/x")
    assert find_address({"root": "/data"}, {}).root == Path("/data")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_message_says_what_to_give():
    told = "HOME is not set, and uid 54321 has no entry in the list of users (passwd): set HOME, or "
    assert refusal({"root": "/data"}, {}) == f"state_dir: {told}give --state-dir"
    assert refusal({"root": "~/data"}, {}) == f"~/data: {told}write the whole path"


def test_a_current_folder_that_was_removed_is_told(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "change to another one" in refusal({"root": "data"}, HOME)


@pytest.mark.parametrize("name", ["root", "out_dir"])
def test_a_target_that_is_the_root_or_the_output_folder_is_refused(tmp_path, name):
    """It would put archives and old tables among the data, and sessions.pqt of a subset in place of the tables."""
    (tmp_path / "link").symlink_to(tmp_path / name)
    target = [{"target": str(tmp_path / "link")}]
    message = refusal({"root": tmp_path / "root", "out_dir": tmp_path / "out_dir", "publish": target}, HOME)
    assert f"is the {name}, and would get cache.zip" in message
