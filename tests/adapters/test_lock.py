import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from alfwatchd.errors import Locked, OutDirError, StateError
from alfwatchd.lock import hold_out_dir, hold_state_dir

HOLD = """
import sys
from pathlib import Path
from alfwatchd import lock
with getattr(lock, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""
LOCKS = [hold_out_dir, hold_state_dir]


@pytest.mark.parametrize("hold", LOCKS)
def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path, hold):
    command = [sys.executable, "-c", HOLD, hold.__name__, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(Locked, match=rf"^{tmp_path}: process {other.pid} keeps ") as caught, hold(tmp_path):
            pass
        assert caught.value.exit_code == 75
        other.kill()
    with hold(tmp_path):  # the kernel has released it
        pass


@pytest.mark.parametrize("hold", LOCKS)
def test_the_file_names_the_holder_and_nobody_afterwards(tmp_path, hold):
    with hold(tmp_path):
        (file,) = tmp_path.iterdir()
        assert file.read_text() == f"{os.getpid()}\n"
    assert file.read_text() == ""
    with hold(tmp_path), pytest.raises(Locked), hold(tmp_path):
        pass


def test_a_state_folder_may_be_an_output_folder_as_well(tmp_path):
    with ExitStack() as stack:
        stack.enter_context(hold_out_dir(tmp_path))
        stack.enter_context(hold_state_dir(tmp_path))


@pytest.mark.parametrize("hold", LOCKS)
def test_errors_inside_are_not_taken_for_a_lock(tmp_path, hold):
    with pytest.raises(BlockingIOError, match="on purpose"), hold(tmp_path):
        raise BlockingIOError("on purpose")
    with hold(tmp_path):
        pass


@pytest.mark.parametrize(("hold", "error"), [(hold_out_dir, OutDirError), (hold_state_dir, StateError)])
def test_a_folder_that_is_not_there(tmp_path, hold, error):
    folder = tmp_path / "missing"
    with pytest.raises(error, match=rf"^{folder}/\S+: cannot be made \(No such file or directory\)"), hold(folder):
        pass


@pytest.mark.parametrize("hold", LOCKS)
def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path, hold):
    folder, target = tmp_path / "folder", tmp_path / "target"
    folder.mkdir()
    with hold(folder):
        (file,) = folder.iterdir()
    target.write_text("precious")
    file.unlink()
    file.symlink_to(target)
    with pytest.raises((OutDirError, StateError)), hold(folder):
        pass
    assert target.read_text() == "precious"


AS_NOBODY = HOLD.replace("with", "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\nwith", 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_lock_file_that_another_user_made_is_no_obstacle():
    """`sudo alfwatchd --once`, then the service."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        with hold_out_dir(folder):
            pass
        command = [sys.executable, "-c", AS_NOBODY, "hold_out_dir", name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(Locked, match="process of unknown number keeps"), hold_out_dir(folder):
                pass
