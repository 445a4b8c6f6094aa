"""A prune must work where nothing can be written: it may be what makes room."""

import shutil

import pytest

import alfwatchd
from kit.program import program

UNWANTED = "s/2020-01-01/001/alf/spikes.times.npy"


@pytest.mark.heavy
def test_prune_while_the_tables_cannot_be_written(tmp_path):
    root, out_dir, reference = (tmp_path / name for name in ("root", "out", "reference"))
    for folder in (out_dir, reference, (root / UNWANTED).parent):
        folder.mkdir(parents=True)
    (root / UNWANTED).with_name("trials.choice.npy").write_bytes(b"kept")
    alfwatchd.make_parquet_db(root, reference)
    with program(root, out_dir) as daemon:
        config = daemon.home / "config.toml"
        config.write_text("flush_interval_seconds = 0.1\n[prune]\nenabled = true\nmax_fraction = 1\n")
        daemon.start(f"--config={config}")
        (out_dir / ".datasets.pqt.tmp/in/the/way").mkdir(parents=True)  # no file can be made in its place
        (root / UNWANTED).write_bytes(b"unwanted")
        daemon.wait(lambda: not daemon.client.status().saved)
        plan = daemon.client.plan_prune(str(reference), newer=True)
        assert [item.path for item in plan.files] == [UNWANTED]
        assert [item.path for item in daemon.client.apply_prune(plan.plan_id).files] == [UNWANTED]
        shutil.rmtree(out_dir / ".datasets.pqt.tmp")
        assert daemon.client.sync().exactness == "exact"
        assert daemon.client.status().n_datasets == 1
