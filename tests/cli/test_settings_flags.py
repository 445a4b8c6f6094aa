"""Flags that set a setting lead to that setting."""

from __future__ import annotations

import pytest

from alfwatchd.cli import main, settings_flags
from alfwatchd.service.configuration import load
from alfwatchd.settings import EXPLANATIONS

SET = {
    "root": "/data",
    "out_dir": "/out",
    "state_dir": "/state",
    "socket": "/run/s",
    "lab": "mylab",
    "exclude": ["a", "b"],
    "hash_files": True,
    "scan_workers": 0,
    "watch": "poll",
    "log_level": "debug",
}
WORDS = [
    "--root=/data", "--out-dir=/out", "--state-dir=/state", "--socket=/run/s", "--lab=mylab", "--exclude=a",
    "--exclude=b", "--hash-files", "--scan-workers=0", "--watch=poll", "--log-level=debug",
]  # fmt: skip


def test_each_flag_sets_its_setting():
    """A flag that is read and forgotten would let the daemon run with a default that the user has overridden."""
    flags = settings_flags.read_flags(main.parse(WORDS))
    assert flags == SET
    loaded = load(flags, {})
    assert {loaded.sources[key] for key in SET} == {f"flag --{key.replace('_', '-')}" for key in SET}


def test_a_flag_that_is_not_given_sets_nothing():
    """Otherwise a default would win over the settings file."""
    assert settings_flags.read_flags(main.parse([])) == {}
    assert settings_flags.read_flags(main.parse(["serve", "--port=0"])) == {"serve.port": 0}


def test_flags_of_a_command_that_set_nothing_are_left_out():
    """What is asked of one command is no setting of the program."""
    words = ["prune", "--json", "--undo=x", "--root=/data", "--config=c.toml"]
    assert settings_flags.read_flags(main.parse(words)) == {"root": "/data", "config": "c.toml"}


def test_every_flag_belongs_to_a_setting():
    """A flag without a setting would be refused as an unknown key when the settings are read."""
    flags = settings_flags.read_flags(main.parse(["serve", "--host=h", "--port=1", *WORDS[:3]])).keys() | SET.keys()
    assert flags <= EXPLANATIONS.keys()


@pytest.mark.parametrize(("words", "names"), [([], []), (WORDS, ["--lab", "--hash-files"])])
def test_flags_that_were_given_are_named(words, names):
    """A message that refuses a flag must name it as the user wrote it."""
    assert settings_flags.name_given(main.parse(words), "lab", "hash_files") == names
