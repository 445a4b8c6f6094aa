"""Publishers that race to one target and are killed, and a reader that looks all the time."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alfwatchd.publish.publication import publish
from alfwatchd.settings import Publish
from kit.published import write_tables

Seen = tuple[str, str, set[str]]
See = Callable[[], Seen | None]
"""Returns what a reader finds at the target, or None before the first publication; raises if it finds a mix."""

_PUBLISHER = """
import sys
from pathlib import Path
from alfwatchd.errors import TargetChanged
from alfwatchd.publish.publication import publish
from alfwatchd.settings import Publish
entry = Publish.model_validate_json(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    try:
        print(publish(Path(line.strip()), entry).name, flush=True)
    except TargetChanged:
        print("changed", flush=True)
"""


@contextmanager
def reading(see: See) -> Iterator[tuple[list[Seen], list[Exception]]]:
    """Look at a target all the time, and once more at the end.

    Yields what was seen, without repetitions, and the errors of the reader, after the first of which it ends. At the
    end, asserts that there are none, and that the dates went forward.
    """
    seen: list[Seen] = []
    errors: list[Exception] = []
    is_over = threading.Event()

    def read() -> None:
        is_last = False
        while not is_last:
            is_last = is_over.is_set()
            try:
                found = see()
            except Exception as error:  # noqa: BLE001 - told below
                errors.append(error)
                return
            if found is not None and (not seen or found != seen[-1]):
                seen.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield seen, errors
    finally:
        is_over.set()
        reader.join()
    assert not errors, errors
    assert [date for _, date, _ in seen] == sorted({date for _, date, _ in seen})


def race(
    entry: Publish,
    see: See,
    folder: Path,
    choice: random.Random,
    rounds: int,
    *,
    n_publishers: int,
    most_seconds: float,
) -> list[Seen]:
    """Let processes with different tables publish to one target, and return what a reader saw meanwhile.

    In each third round one of them is killed, at most `most_seconds` after it began. At the end one more publication
    must succeed.
    """
    with reading(see) as (seen, errors), ExitStack() as stack:
        running = [stack.enter_context(_publisher(entry)) for _ in range(n_publishers)]
        for number in range(rounds):
            for which, process in enumerate(running):
                write_tables(folder / f"out{which}", number + 1, [f"p{which}n{number}"])
                _tell(process, folder / f"out{which}")
            victim = choice.randrange(n_publishers) if number % 3 == 2 else None
            if victim is not None:
                time.sleep(choice.random() * most_seconds)
                running[victim].kill()
                running[victim] = stack.enter_context(_publisher(entry))
            for which, process in enumerate(running):
                assert which == victim or (process.stdout and process.stdout.readline())
            assert not errors, errors
    write_tables(folder / "out", 999, ["last"])
    publish(folder / "out", entry)
    last = see()
    assert last is not None
    assert last[2] == {"last"}
    return seen


@contextmanager
def _publisher(entry: Publish) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _PUBLISHER, entry.model_dump_json()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def _tell(process: subprocess.Popen[str], out_dir: Path) -> None:
    assert process.stdin
    process.stdin.write(f"{out_dir}\n")
    process.stdin.flush()
