"""Makes data trees like those of the International Brain Laboratory: about 56 datasets a session, one file in ten junk.

Files are sparse, so a tree of a million datasets takes its directory entries and no more. The same size and seed give
the same tree. ``python benchmarks/trees.py FOLDER 100000``
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

# Folder -> names; about what one recording session with two probes holds.
_PROBE = [f"{name}.npy" for name in (
    "spikes.times", "spikes.clusters", "spikes.amps", "spikes.depths", "clusters.channels", "clusters.depths",
    "templates.waveforms", "channels.rawInd", "channels.localCoordinates",
)] + ["clusters.metrics.pqt"]  # fmt: skip
_LAYOUT = {
    "alf": [f"{name}.npy" for name in (
        "_ibl_trials.intervals", "_ibl_trials.choice", "_ibl_trials.feedbackType", "_ibl_trials.contrastLeft",
        "_ibl_wheel.position", "_ibl_wheel.timestamps", "_ibl_wheelMoves.intervals", "_ibl_leftCamera.times",
        "_ibl_rightCamera.times", "_ibl_bodyCamera.times", "licks.times",
    )] + ["notes.txt"],
    "alf/probe00": [*_PROBE, "README"],
    "alf/probe01": [*_PROBE, "params.py"],
    "alf/probe00/#2021-07-06#": ["spikes.times.npy", "spikes.clusters.npy", "spikes.amps.npy"],
    "alf/probe01/#2021-07-06#": ["spikes.times.npy", "spikes.clusters.npy", "spikes.amps.npy"],
    "raw_behavior_data": [
        "_iblrig_taskSettings.raw.json", "_iblrig_taskData.raw.jsonable", "_iblrig_encoderEvents.raw.ssv",
        "_iblrig_encoderPositions.raw.ssv", "_iblrig_ambientSensorData.raw.jsonable", "bonsai_workflow.bonsai",
    ],
    "raw_video_data": [
        "_iblrig_leftCamera.raw.mp4", "_iblrig_rightCamera.raw.mp4", "_iblrig_bodyCamera.raw.mp4",
        "_iblrig_leftCamera.timestamps.npy", "_iblrig_rightCamera.timestamps.npy", "thumbs.db",
    ],
    "raw_ephys_data": ["_spikeglx_ephysData_g0_t0.nidq.cbin", "_spikeglx_ephysData_g0_t0.nidq.ch"],
    "raw_ephys_data/probe00": [
        "_spikeglx_ephysData_g0_t0.imec0.ap.cbin", "_spikeglx_ephysData_g0_t0.imec0.ap.meta",
        "_spikeglx_ephysData_g0_t0.imec0.lf.cbin", "_iblqc_ephysTimeRmsAP.rms.npy", "_iblqc_ephysTimeRmsAP.times.npy",
        "_spikeglx_sync.channels.npy",
    ],
    "logs": ["run.log"],
}  # fmt: skip
DATASETS_PER_SESSION = 56


def make_tree(folder: Path, n_datasets: int, seed: int = 0) -> int:
    """Make a tree with at least `n_datasets` datasets, unless it is there already; return the number of sessions."""
    n_sessions = -(-n_datasets // DATASETS_PER_SESSION)
    done = folder.with_name(folder.name + ".made")
    if done.exists() and done.read_text() == f"{n_sessions} {seed}":
        return n_sessions
    rng = random.Random(seed)
    for number in range(n_sessions):
        _make_session(folder / session_path(number), rng)
    done.write_text(f"{n_sessions} {seed}")
    return n_sessions


def session_path(number: int) -> str:
    """Return the root-relative path of a session: 5 labs, 20 sessions a subject."""
    subject, day = divmod(number, 20)
    return (
        f"lab{subject % 5}/Subjects/SUB_{subject:04d}/2021-{1 + day // 2:02d}-{1 + number % 28:02d}/{1 + day % 2:03d}"
    )


def _make_session(session: Path, rng: random.Random) -> None:
    for folder, names in _LAYOUT.items():
        path = session / folder
        path.mkdir(parents=True, exist_ok=True)
        for name in names:
            fd = os.open(path / name, os.O_CREAT | os.O_WRONLY, 0o644)
            os.ftruncate(fd, int(rng.lognormvariate(12, 3)))
            os.close(fd)
    # One name a session is unique, as the names of files with a UUID are.
    extra = session / "alf" / f"probes.description.{rng.getrandbits(32):08x}.json"
    extra.touch()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("n_datasets", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(make_tree(arguments.folder, arguments.n_datasets, arguments.seed), "sessions")
