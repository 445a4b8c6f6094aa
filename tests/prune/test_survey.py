"""What a prune notes beforehand: without it, an undo could not make the folders again as they were."""

import os

import pytest

from alfwatchd import linux
from alfwatchd.prune import survey, walk
from alfwatchd.prune.plan import PlannedFile
from kit.prune import CLUSTERS, LAB_S1, S1, S2, SPIKES, plan_for, write

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")


@pytest.fixture
def root(tmp_path):
    write(tmp_path, f"{S1}/{SPIKES}", f"{S2}/{CLUSTERS}", f"{LAB_S1}/{CLUSTERS}")
    (tmp_path / S1 / "raw/empty").mkdir(parents=True)
    return tmp_path


def look(root, plan):
    with walk.open_root(root) as root_fd:
        return {each.path: each for each in survey.look_at_folders(root_fd, plan)}


def test_files_are_gathered_by_session_in_the_order_of_paths(root):
    state = survey.state_of(linux.statx(str(root / S1 / SPIKES)))
    files = [PlannedFile(f"{session}/{SPIKES}", state) for session in (S2, LAB_S1, S2)]
    found = survey.by_session([S1], files)
    assert [(session, len(some)) for session, some in found.items()] == [(LAB_S1, 1), (S1, 0), (S2, 2)]


def test_a_state_is_what_the_kernel_tells(root):
    about = (root / S1 / SPIKES).stat()
    state = survey.state_of(linux.statx(str(root / S1 / SPIKES)))
    assert (state.dev, state.ino, state.size) == (about.st_dev, about.st_ino, about.st_size)
    assert (state.mtime_ns, state.ctime_ns) == (about.st_mtime_ns, about.st_ctime_ns)


def test_all_folders_that_may_go_are_noted_each_after_the_one_it_lies_in(root):
    (root / S1).chmod(0o2750)
    os.utime(root / S1 / "raw", ns=(1, 2))
    found = look(root, plan_for(root, [f"{S2}/"]))
    going = {path for path, each in found.items() if each.goes}
    inner = {f"{S1}/alf", f"{S1}/alf/probe00", f"{S1}/raw", f"{S1}/raw/empty"}
    lab = {LAB_S1, f"{LAB_S1}/alf", "lab/Subjects", "lab/Subjects/u", "lab/Subjects/u/2020-01-01"}
    assert going == {S1, *inner, "s/2020-01-01", *lab}
    assert {path for path, each in found.items() if not each.goes} == {"s", "lab", S2, f"{S2}/alf"}
    assert [*found] == sorted(found, key=lambda path: path.split("/"))
    assert (found[S1].mode, found[f"{S1}/raw"].mtime_ns) == (0o2750, 2)


def test_a_folder_that_cannot_be_looked_at_is_left_out_so_that_it_stays(root):
    plan = plan_for(root)
    (root / S1).rename(root / "moved")
    (root / S1).symlink_to(root / "moved")
    assert not {path for path in look(root, plan) if path.startswith(S1)}
