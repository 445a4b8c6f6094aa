"""What readers find during publications that fail, race or are killed."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
import time

import pytest

from alfwatchd.errors import TargetError
from alfwatchd.publish.publication import publish
from alfwatchd.settings import Publish
from kit.published import folder_reader, look, write_tables
from kit.s3 import FAULTS
from kit.trees import fast_folder

pytestmark = pytest.mark.heavy

LOCATION = "https://tables.example.org/one"


@pytest.fixture
def folder():
    with fast_folder() as folder:
        (folder / "target").mkdir()
        yield folder


def s3_entry(s3, **settings):
    return Publish(target=s3.target, endpoint=s3.proxy.url, region="us-east-1", **settings)


def s3_location(s3):
    return f"{s3.proxy.url}/{s3.bucket}/one"


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_at_each_request(s3, connect_s3, tmp_path, fault, scale):
    """One request fails, and all that repeat it; then the next publication goes on from what is there."""
    write_tables(tmp_path, 1)
    target = connect_s3(read_seconds=0.5 if fault == "hang" else 5.0)
    publish(tmp_path, s3_entry(s3), target)
    n_failed, n_done = 0, 0
    # A publication makes eight different requests, of which the last three write. One of them is tried in any case.
    for number in scale((5 + FAULTS.index(fault) % 3, 8), range(12)):
        write_tables(tmp_path, number + 2, [f"s{number}"])
        before, seen = look(s3.read, s3_location(s3)), []

        def fail(request, which=number, seen=seen):
            key = (request.method, request.path)
            if key not in seen:
                seen.append(key)
            return fault if seen.index(key) == which else ""

        s3.proxy.fault = fail
        try:
            publish(tmp_path, s3_entry(s3), target)
            n_done += len(seen) <= number
        except TargetError:
            n_failed += 1
        s3.proxy.fault = lambda request: ""
        after = look(s3.read, s3_location(s3))
        assert after == before or after[2] == {f"s{number}"}
    assert n_failed >= (0 if fault == "short" else scale(1, 3))  # short: of an answer that has no body
    assert n_done >= 1
    write_tables(tmp_path, 99, ["last"])
    last = publish(tmp_path, s3_entry(s3, keep_seconds=0), target)
    assert look(s3.read, s3_location(s3)) == (last.name, last.date, {"last"})
    assert target.generations() == {last.name}


def test_publishers_race_through_faults(s3, connect_s3, tmp_path, scale):
    """Two publishers with different tables, random faults, and a reader that looks all the time."""
    choice, rounds = random.Random(7), scale(3, 300)
    weights = [12, *[1] * len(FAULTS)]
    s3.proxy.fault = lambda request: choice.choices(["", *FAULTS], weights)[0]
    seen, errors, is_over, counts = [], [], threading.Event(), {"": 0}

    def read():
        while not is_over.is_set():
            try:
                found = look(s3.read, s3_location(s3))
            except Exception as error:  # noqa: BLE001 - told below
                errors.append(error)
                return
            if found is not None and (not seen or found != seen[-1]):
                seen.append(found)

    def run(which):
        target = connect_s3(read_seconds=1.0, connect_seconds=5.0)
        for number in itertools.count():
            if number >= rounds and counts[""]:
                return
            write_tables(tmp_path / f"out{which}", number + 1, [f"p{which}n{number}"])
            try:
                publish(tmp_path / f"out{which}", s3_entry(s3), target)
                counts[""] += 1
            except TargetError as error:
                counts[type(error).__name__] = counts.get(type(error).__name__, 0) + 1
            except Exception as error:  # noqa: BLE001 - told below
                errors.append(error)

    threads = [threading.Thread(target=read), *(threading.Thread(target=run, args=(which,)) for which in range(2))]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    is_over.set()
    threads[0].join()
    s3.proxy.fault = lambda request: ""
    assert not errors, errors
    assert sum(counts.values()) >= 2 * rounds
    assert [date for _, date, _ in seen] == sorted({date for _, date, _ in seen})
    write_tables(tmp_path / "out", 999, ["last"])
    last = publish(tmp_path / "out", s3_entry(s3))
    assert look(s3.read, s3_location(s3)) == (last.name, last.date, {"last"})


PUBLISHER = """
import sys
from pathlib import Path
from alfwatchd.errors import TargetChanged
from alfwatchd.publish.publication import publish
from alfwatchd.settings import Publish
entry = Publish(target=sys.argv[2], location=sys.argv[3], keep_seconds=3600)
print("ready", flush=True)
for line in sys.stdin:
    try:
        print(publish(Path(line.strip()), entry).name, flush=True)
    except TargetChanged:
        print("changed", flush=True)
"""


def test_two_publishers_race_and_die(folder, scale):
    """Real processes with different tables; one of them is killed at any moment; readers look all the time."""
    target = folder / "target"
    choice, rounds = random.Random(1), scale(6, 300)
    seen, errors, is_over = [], [], threading.Event()

    def read():
        while not is_over.is_set():
            try:
                found = look(folder_reader(target), LOCATION)
            except Exception as error:  # noqa: BLE001 - told below
                errors.append(error)
                return
            if found is not None and (not seen or found != seen[-1]):
                seen.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    running = [start(target), start(target)]
    try:
        for number in range(rounds):
            for which, process in enumerate(running):
                out_dir = folder / f"out{which}"
                write_tables(out_dir, number + 1, [f"p{which}n{number}"])
                process.stdin.write(f"{out_dir}\n")
                process.stdin.flush()
            if number % 3 == 2:
                victim = choice.randrange(2)
                time.sleep(choice.random() * 0.05)
                running[victim].kill()
                end(running[victim])
                running[victim] = start(target)
            for process in running:
                if number % 3 != 2 or process is not running[victim]:
                    assert process.stdout.readline()
            assert not errors, errors
    finally:
        is_over.set()
        reader.join()
        for process in running:
            process.kill()
            end(process)
    assert not errors, errors
    assert len(seen) > rounds // 2
    assert [date for _, date, _ in seen] == sorted({date for _, date, _ in seen})
    write_tables(folder / "out", 999, ["last"])
    publish(folder / "out", Publish(target=str(target), location=LOCATION))
    assert look(folder_reader(target), LOCATION)[2] == {"last"}


def start(target):
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, "publisher", str(target), LOCATION],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def end(process):
    process.wait()
    process.stdin.close()
    process.stdout.close()
