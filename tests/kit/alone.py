"""Runs a piece of a test in a forked process with mounts of its own, which no other process sees."""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import traceback
from collections.abc import Callable
from typing import Any

import pytest

_CLONE_NEWNS = 0x20000


def in_own_mounts(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work` returns; skips where no mount namespace can be made."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            answer = _work(work, *arguments)
        except BaseException:  # noqa: BLE001 - raised in the other process
            answer = "failed", traceback.format_exc()
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        kind, answer = pickle.loads(pipe.read() or pickle.dumps(("failed", "the process ended")))
    os.waitpid(pid, 0)
    if kind == "skip":
        pytest.skip(answer)
    assert kind == "done", answer
    return answer


def _work(work: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        return "skip", "no mount namespace can be made here"
    run("mount", "--make-rprivate", "/")
    return "done", work(*arguments)


def run(*command: object) -> None:
    """Run a command that must succeed."""
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"


def bind(source: object, target: object) -> None:
    run("mount", "--bind", source, target)
