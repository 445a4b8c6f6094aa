"""The demo tree is real ALF, loadable, the same for the same seed, and never overwrites anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alfwatchd.alf import grammar
from alfwatchd.cli.demo_tree import write_demo
from alfwatchd.errors import AlfwatchdError, UsageError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sessions(folder: Path) -> set[str]:
    paths = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir())
    return {path for path in paths if grammar.parse_session(path)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder)
    return folder


@pytest.mark.parametrize("n_sessions", [1, 2, 6, 17])
def test_summary_says_what_the_grammar_finds(tmp_path: Path, n_sessions: int) -> None:
    summary = write_demo(tmp_path / "new" / "demo", n_sessions)
    files = contents(tmp_path / "new" / "demo")
    datasets = [path for path in files if grammar.split_dataset(path)]
    assert summary.folder == tmp_path / "new" / "demo"
    assert len(sessions(summary.folder)) == summary.n_sessions == n_sessions
    assert summary.n_datasets == len(datasets)
    assert summary.n_bytes == sum(len(files[path]) for path in datasets)
    assert summary.n_junk == len(files) - len(datasets)


def test_has_what_a_newcomer_should_see(demo: Path) -> None:
    paths = list(contents(demo))
    keys = [grammar.parse_session(path) for path in sessions(demo)]
    assert len({key.lab for key in keys if key}) == 2
    assert len({key.subject for key in keys if key}) >= 3
    folders = {split[1].rpartition("/")[0] for path in paths if (split := grammar.split_dataset(path))}
    assert folders >= {"alf", "alf/probe00", "alf/probe00/#2021-07-06#", "raw_behavior_data", "raw_video_data"}
    junk = [path for path in paths if not grammar.split_dataset(path)]
    for part in ("README.txt", "._spikes.times.npy", "old analysis/", "notes/"):
        assert any(part in path for path in junk), part


LENGTHS = [
    ("spikes.times.npy", "spikes.clusters.npy"),
    ("spikes.times.npy", "spikes.amps.npy"),
    ("_ibl_wheel.position.npy", "_ibl_wheel.timestamps.npy"),
    ("trials.intervals.npy", "trials.choice.npy"),
]


@pytest.mark.parametrize(("one", "other"), LENGTHS)
def test_attributes_of_an_object_have_one_length(demo: Path, one: str, other: str) -> None:
    pairs = [(path, path.with_name(other)) for path in demo.rglob(one) if path.with_name(other).exists()]
    assert len(pairs) >= 6
    for first, second in pairs:
        assert len(np.load(first)) == len(np.load(second)) > 0


def test_content_is_loadable(demo: Path) -> None:
    for path in demo.rglob("[!.]*.npy"):
        if " " not in str(path.relative_to(demo)):
            assert np.isfinite(np.load(path)).all()
    assert all(np.diff(np.load(path)).min() >= 0 for path in demo.rglob("spikes.times.npy") if "old" not in str(path))
    assert all((np.diff(np.load(path)) > 0).all() for path in demo.rglob("trials.intervals.npy"))
    subjects = {path.parents[3].name: json.loads(path.read_text()) for path in demo.rglob("*.json")}
    assert all(settings["SUBJECT_NAME"] == subject for subject, settings in subjects.items())
    for path in demo.rglob("clusters.metrics.csv"):
        table = np.loadtxt(path, delimiter=",", skiprows=1)
        assert table[:, 1].sum() == len(np.load(path.with_name("spikes.times.npy")))


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_demo(tmp_path / name, 2, seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")


def test_a_session_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    write_demo(tmp_path / "few", 2)
    write_demo(tmp_path / "many", 9)
    assert contents(tmp_path / "few").items() < contents(tmp_path / "many").items()


def test_sessions_differ(demo: Path) -> None:
    spikes = [path.read_bytes() for path in demo.rglob("alf/probe00/spikes.times.npy")]
    assert len(set(spikes)) == len(spikes) == 6


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.txt").write_text("mine")
    monkeypatch.setattr("alfwatchd.cli.demo_tree.claim_folder", lambda _: None)
    with pytest.raises(AlfwatchdError, match="File exists"):
        write_demo(tmp_path)
    assert (tmp_path / "README.txt").read_text() == "mine"


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(AlfwatchdError, match="empty or does not exist"):
        write_demo(tmp_path)
    assert contents(tmp_path) == {"thesis.tex": b"mine"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(AlfwatchdError, match="choose another folder"):
        write_demo(tmp_path / "demo")
    assert (tmp_path / "demo").read_text() == "mine"


@pytest.mark.parametrize(("n_sessions", "seed"), [(0, 0), (-1, 0), (1001, 0), (1, -1)])
def test_numbers_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path, n_sessions: int, seed: int
) -> None:
    with pytest.raises(UsageError):
        write_demo(tmp_path / "demo", n_sessions, seed)
    assert not (tmp_path / "demo").exists()
