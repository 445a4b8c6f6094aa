"""Writes a small ALF tree, with which a new user sees the daemon work within a minute."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alfwatchd.errors import AlfwatchdError, UsageError

MAX_SESSIONS = 1000
_SUBJECTS = (("northlab", "NL_001"), ("southlab", "SL-017"), ("northlab", "NL_002"), ("southlab", "SL-018"))
_FIRST_DATE = datetime.date(2021, 2, 1)
_N_TRIALS, _N_SPIKES, _N_CLUSTERS, _N_WHEEL, _N_FRAMES = 40, 600, 12, 400, 200


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """What `write_demo` wrote.

    Parameters
    ----------
    folder : Path
        The root of the tree.
    n_sessions, n_datasets : int
        Numbers that the tables of the tree have.
    n_bytes : int
        Size of all datasets, in bytes.
    n_junk : int
        Number of files that are not datasets.
    """

    folder: Path
    n_sessions: int
    n_datasets: int
    n_bytes: int
    n_junk: int


def write_demo(folder: Path, n_sessions: int = 6, seed: int = 0) -> DemoSummary:
    """Write a tree of two labs with sessions, revisions, loadable files and some junk.

    Existing files are never overwritten. The content of a session depends on its position and on the seed only.

    Parameters
    ----------
    folder : Path
        Created if it does not exist. An existing folder must be empty.
    n_sessions : int
        1 to 1000.
    seed : int
        Not negative.

    Raises
    ------
    AlfwatchdError
        The folder is not empty or cannot be written.
    UsageError
        `n_sessions` or `seed` is out of range.
    """
    if not 1 <= n_sessions <= MAX_SESSIONS:
        raise UsageError(f"a demo has 1 to {MAX_SESSIONS} sessions, not {n_sessions}")
    if seed < 0:
        raise UsageError(f"the seed of a demo is 0 or more, not {seed}")
    try:
        claim_folder(folder)
        n_datasets = n_bytes = 0
        for index in range(n_sessions):
            session = folder / _session_path(index)
            for rel_path, content in _datasets(index, np.random.default_rng([seed, index])):
                n_datasets += 1
                n_bytes += _write(session / rel_path, content)
        for junk, text in _JUNK.items():
            _write(folder / junk, text.encode())
    except OSError as error:
        where = error.filename or folder
        raise AlfwatchdError(f"{where}: cannot write the demo: {error.strerror}; choose another folder") from error
    return DemoSummary(folder, n_sessions, n_datasets, n_bytes, len(_JUNK))


def claim_folder(folder: Path) -> None:
    """Create a folder, or make sure that it is empty.

    Raises
    ------
    AlfwatchdError
        The folder is not empty.
    OSError
        The folder cannot be created or read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise AlfwatchdError(f"{folder} is not empty: give a folder that is empty or does not exist")


def _session_path(index: int) -> str:
    """Return the root-relative path; each subject has two sessions a day."""
    lab, subject = _SUBJECTS[index % len(_SUBJECTS)]
    day, number = divmod(index // len(_SUBJECTS), 2)
    return f"{lab}/Subjects/{subject}/{_FIRST_DATE + datetime.timedelta(days=day)}/{number + 1:03d}"


def _datasets(index: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield the session-relative path and the content of each dataset of a session."""
    yield from _trials(rng)
    yield from _wheel(rng)
    yield from _spikes(rng, has_revision=index % 3 == 0)
    yield from _video(rng)
    settings = {"SUBJECT_NAME": _SUBJECTS[index % len(_SUBJECTS)][1], "PYBPOD_PROTOCOL": "demo_choiceWorld"}
    yield "raw_behavior_data/_iblrig_taskSettings.raw.json", json.dumps(settings, indent=1).encode()


def _trials(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    bounds = np.cumsum(rng.uniform(1, 3, 2 * _N_TRIALS)).reshape(_N_TRIALS, 2)
    choice = rng.choice(np.array([-1, 1]), _N_TRIALS)
    yield "alf/trials.intervals.npy", _npy(bounds)
    yield "alf/trials.choice.npy", _npy(choice)
    yield "alf/trials.feedbackType.npy", _npy(choice * rng.choice(np.array([-1, 1]), _N_TRIALS, p=(0.2, 0.8)))


def _wheel(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    yield "alf/_ibl_wheel.position.npy", _npy(np.cumsum(rng.normal(0, 0.01, _N_WHEEL)))
    yield "alf/_ibl_wheel.timestamps.npy", _npy(np.arange(_N_WHEEL) / 100)


def _spikes(rng: np.random.Generator, *, has_revision: bool) -> Iterator[tuple[str, bytes]]:
    times = np.sort(rng.uniform(0, 120, _N_SPIKES))
    clusters = rng.integers(0, _N_CLUSTERS, _N_SPIKES)
    yield "alf/probe00/spikes.times.npy", _npy(times)
    yield "alf/probe00/spikes.clusters.npy", _npy(clusters)
    yield "alf/probe00/spikes.amps.npy", _npy(rng.uniform(5e-5, 3e-4, _N_SPIKES))
    yield "alf/probe00/clusters.channels.npy", _npy(np.sort(rng.integers(0, 384, _N_CLUSTERS)))
    counts = np.bincount(clusters, minlength=_N_CLUSTERS)
    lines = ["cluster_id,spike_count", *(f"{cluster},{count}" for cluster, count in enumerate(counts))]
    yield "alf/probe00/clusters.metrics.csv", "\n".join([*lines, ""]).encode()
    if has_revision:
        # A second sorting: the same spikes in half as many clusters.
        yield "alf/probe00/#2021-07-06#/spikes.times.npy", _npy(times)
        yield "alf/probe00/#2021-07-06#/spikes.clusters.npy", _npy(clusters // 2)


def _video(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    times = np.arange(_N_FRAMES) / 60 + rng.normal(0, 1e-4, _N_FRAMES)
    yield "raw_video_data/_iblrig_leftCamera.timestamps.npy", _npy(times)
    yield "alf/_ibl_leftCamera.times.npy", _npy(times)


# Files as they lie beside the data in most labs. None of them is a dataset.
_JUNK = {
    "README.txt": "A demo tree of alfwatchd. Delete it at any time.\n",
    "notes/to do.md": "- ask who has the key of rig 2\n",
    f"{_session_path(0)}/README.txt": "This file name is not an ALF name.\n",
    f"{_session_path(0)}/alf/probe00/._spikes.times.npy": "Mac OS X        \n",
    f"{_session_path(0)}/old analysis/spikes.times.npy": "a folder name with a space is no collection\n",
}


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        return file.write(content)
