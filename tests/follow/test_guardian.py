"""If the follower is killed, its commands end, also those that ignore a gentle request. Other processes go on."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from alfwatchd.follow import guardian

WAIT_SECONDS = 120.0


@pytest.mark.parametrize("ignores", [False, pytest.param(True, marks=pytest.mark.heavy)])
def test_groups_that_still_run_are_ended_and_others_are_not(ignores):
    code = "import signal, sys; " + "signal.signal(signal.SIGTERM, signal.SIG_IGN); " * ignores
    code += "print('ready', flush=True); signal.pause()"
    groups = [
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for each in groups:
            assert each.stdout is not None
            assert each.stdout.readline() == b"ready\n"
        threading.Thread(target=groups[0].wait, daemon=True).start()  # as init does for processes without a parent
        with subprocess.Popen([sys.executable, "-I", "-S", guardian.__file__], stdin=subprocess.PIPE) as process:
            lines = f"+{groups[0].pid}\n+{groups[1].pid}\n-{groups[1].pid}\n+{2**22 + 5}\n"
            process.communicate(lines.encode(), timeout=WAIT_SECONDS)
        assert process.returncode == 0
        assert groups[0].wait(WAIT_SECONDS) == (-9 if ignores else -15)
        assert groups[1].poll() is None
    finally:
        for each in groups:
            each.kill()
            each.wait()
            assert each.stdout is not None
            each.stdout.close()
