"""What readers find during publications that fail, race or are killed."""

from __future__ import annotations

import itertools
import random
import threading

import pytest

from alfwatchd.errors import TargetError
from alfwatchd.publish.publication import publish
from alfwatchd.settings import Publish
from kit.publish_race import race, reading
from kit.published import LOCATION, folder_reader, look, write_tables
from kit.s3 import FAULTS
from kit.trees import fast_folder

pytestmark = pytest.mark.heavy


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
    failures, counts = [], {"": 0}

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
                failures.append(error)

    threads = [threading.Thread(target=run, args=(which,)) for which in range(2)]
    with reading(lambda: look(s3.read, s3_location(s3))):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        s3.proxy.fault = lambda request: ""
    assert not failures, failures
    assert sum(counts.values()) >= 2 * rounds
    write_tables(tmp_path / "out", 999, ["last"])
    last = publish(tmp_path / "out", s3_entry(s3))
    assert look(s3.read, s3_location(s3)) == (last.name, last.date, {"last"})


def test_two_publishers_race_and_die(folder, scale):
    """Real processes with different tables; one of them is killed at any moment; a reader looks all the time."""
    target, rounds = folder / "target", scale(6, 300)
    entry = Publish(target=str(target), location=LOCATION, keep_seconds=3600)
    seen = race(
        entry, lambda: look(folder_reader(target), LOCATION), folder, random.Random(1), rounds,
        n_publishers=2, most_seconds=0.05,
    )  # fmt: skip
    assert len(seen) > rounds // 2
