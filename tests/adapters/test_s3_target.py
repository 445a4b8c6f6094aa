"""Publications to S3: what readers find while writes are torn, slow and refused."""

import io
import logging
import os
import random
import subprocess
import sys
import threading
import time

import pytest

from alfwatchd import bundle, publishing
from alfwatchd.core.publication import INFO, ZIP
from alfwatchd.errors import ConfigError, TargetChanged, TargetError
from alfwatchd.publishing import publish
from alfwatchd.s3_target import S3Target
from alfwatchd.settings import Publish, Subset
from published import look, write_tables
from s3_box import KEY, SECRET, TOKEN, s3_box, s3_server


@pytest.fixture(scope="module")
def server():
    with s3_server() as url:
        yield url


@pytest.fixture
def box(server, monkeypatch):
    for name, value in (("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET), ("SESSION_TOKEN", TOKEN)):
        monkeypatch.setenv(f"ALFWATCHD_CREDENTIAL_AWS_{name}", value)
    with s3_box(server) as made:
        yield made


@pytest.fixture
def connect(box):
    targets = []

    def make(tag="", **seconds):
        targets.append(S3Target(box.target, tag, box.proxy.url, "us-east-1", **({"read_seconds": 2.0} | seconds)))
        return targets[-1]

    yield make
    for target in targets:
        target.close()


def entry(box, **settings):
    return Publish(target=box.target, endpoint=box.proxy.url, region="us-east-1", **settings)


def location(box, tag=""):
    return f"{box.proxy.url}/{box.bucket}/one" + (f"/{tag}" if tag else "")


def test_conditions(connect):
    target, other = connect(), connect()
    assert target.token("a.zip") is None
    target.create("a.zip", io.BytesIO(b"1"))
    with pytest.raises(TargetChanged):
        target.create("a.zip", io.BytesIO(b"2"))
    with pytest.raises(TargetChanged):
        target.replace("a.zip", io.BytesIO(b"2"), None)
    token = other.token("a.zip")
    target.replace("a.zip", io.BytesIO(b"3"), token)
    with pytest.raises(TargetChanged):
        other.replace("a.zip", io.BytesIO(b"4"), token)
    with target.open("a.zip") as file:
        assert file.read() == b"3"
    with pytest.raises(TargetChanged, match="removed just now"), target.open("b.json"):
        pass


def test_generations(connect):
    target = connect()
    assert target.generations() == set()
    for name in ("1-a", "2-b"):
        target.create(f"tables/{name}/cache.zip", io.BytesIO(b"1"))
    connect("other").create("tables/3-c/cache.zip", io.BytesIO(b"1"))
    assert target.generations() == {"1-a", "2-b"}
    target.remove("1-a")
    target.remove("nobody")
    assert target.generations() == {"2-b"}


def test_a_publication(box, connect, tmp_path):
    target = connect()
    write_tables(tmp_path, 1)
    first = publish(tmp_path, entry(box), target)
    assert look(box.read, location(box)) == (first.name, first.date, {"s1", "s2"})
    assert not publish(tmp_path, entry(box), target).published
    write_tables(tmp_path, 2, ["s3"])
    second = publish(tmp_path, entry(box, keep_seconds=0), target)
    assert second.date > first.date
    assert second.removed == (first.name,)
    assert look(box.read, location(box)) == (second.name, second.date, {"s3"})
    writes = [request for request in box.proxy.requests if request.method == "PUT"]
    order = [request.path.rpartition("/one/")[2].partition("?")[0] for request in writes]
    assert order[-3:] == [f"tables/{second.name}/cache.zip", ZIP, INFO]
    assert all(b"if-match:" in each.head.lower() or b"if-none-match: *" in each.head.lower() for each in writes)
    caching = [
        line for each in writes[-3:] for line in each.head.splitlines() if line.lower().startswith(b"cache-control")
    ]
    assert [b"immutable" in line for line in caching] == [True, False, False]


def test_a_tag_is_a_prefix(box, tmp_path):
    write_tables(tmp_path, 1)
    publish(tmp_path, entry(box, subset=Subset(subjects=("s1",), tag="mine"), location="https://x.org/t"))
    assert look(lambda key: box.read(f"mine/{key}"), "https://x.org/t/mine")[2] == {"s1"}
    assert box.read(INFO) is None


def test_zip_of_another_program_whose_json_is_not_at_its_end(connect):
    target = connect()
    target.create(ZIP, io.BytesIO(os.urandom(3 << 20)))
    with target.open(ZIP) as file:
        assert bundle.read_zipped_info(file) == {}


@pytest.mark.parametrize(
    ("endpoint", "region", "expected"),
    [
        ("", "", "https://lab.s3.amazonaws.com/a/b"),
        ("", "eu-west-2", "https://lab.s3.eu-west-2.amazonaws.com/a/b"),
        ("https://s3.lab.org", "", "https://s3.lab.org/lab/a/b"),
    ],
)
def test_where_clients_find_it(endpoint, region, expected):
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    assert S3Target("s3://lab/a", "b", endpoint, region).location == expected


FAULTS = ("refuse", "busy", "torn", "untold", "short", "hang")


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_at_each_request(box, connect, tmp_path, fault, scale):
    """One request fails, and all that repeat it; then the next publication goes on from what is there."""
    write_tables(tmp_path, 1)
    target = connect(read_seconds=0.2, connect_seconds=0.5)
    publish(tmp_path, entry(box), target)
    n_failed, n_done = 0, 0
    # A publication makes eight different requests, of which the last three write.
    for number in scale((3, 5, 6, 7, 8), range(12)):
        write_tables(tmp_path, number + 2, [f"s{number}"])
        before, seen = look(box.read, location(box)), []

        def fail(request, which=number, seen=seen):
            key = (request.method, request.path)
            if key not in seen:
                seen.append(key)
            return fault if seen.index(key) == which else ""

        box.proxy.fault = fail
        try:
            publish(tmp_path, entry(box), target)
            n_done += len(seen) <= number
        except TargetError:
            n_failed += 1
        box.proxy.fault = lambda request: ""
        after = look(box.read, location(box))
        assert after == before or after[2] == {f"s{number}"}
    assert n_failed >= (1 if fault == "short" else 3)
    assert n_done >= 1
    write_tables(tmp_path, 99, ["last"])
    last = publish(tmp_path, entry(box, keep_seconds=0), target)
    assert look(box.read, location(box)) == (last.name, last.date, {"last"})
    assert target.generations() == {last.name}


def test_publishers_race_through_faults(box, connect, tmp_path, scale):
    """Two publishers with different tables, every fault by chance, and a reader who looks all the time."""
    choice, rounds = random.Random(7), scale(4, 300)
    weights = [12, *[1] * len(FAULTS)]
    box.proxy.fault = lambda request: choice.choices(["", *FAULTS], weights)[0]
    seen, errors, is_over, counts = [], [], threading.Event(), {"": 0}

    def read():
        while not is_over.is_set():
            try:
                found = look_again(box)
            except Exception as error:  # noqa: BLE001 - told below
                errors.append(error)
                return
            if found is not None and (not seen or found != seen[-1]):
                seen.append(found)

    def run(which):
        target = connect(read_seconds=0.2, connect_seconds=0.5)
        for number in range(rounds):
            write_tables(tmp_path / f"out{which}", number + 1, [f"p{which}n{number}"])
            try:
                publish(tmp_path / f"out{which}", entry(box), target)
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
    box.proxy.fault = lambda request: ""
    assert not errors, errors
    assert sum(counts.values()) == 2 * rounds
    assert counts[""]
    assert [date for _, date, _ in seen] == sorted({date for _, date, _ in seen})
    write_tables(tmp_path / "out", 999, ["last"])
    last = publish(tmp_path / "out", entry(box))
    assert look(box.read, location(box)) == (last.name, last.date, {"last"})


def look_again(box):
    """Read as a client does; `cache.zip` is read after the JSON, and may only be newer."""
    return look(box.read, location(box))


@pytest.mark.parametrize("fault", ["echo", "refuse", "hang", "busy"])
def test_no_secret_is_told(box, connect, tmp_path, caplog, capfd, fault):
    caplog.set_level(logging.DEBUG)
    write_tables(tmp_path, 1)
    box.proxy.fault = lambda request: fault if request.method == "PUT" else ""
    with pytest.raises(TargetError) as caught:
        publish(tmp_path, entry(box), connect(read_seconds=0.2))
    told, error = [caplog.text, *capfd.readouterr()], caught.value
    while error is not None:
        told += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    sent = b"".join(request.head for request in box.proxy.requests)
    assert TOKEN.encode() in sent  # the server could have told
    assert KEY.encode() in sent
    for secret in (KEY, SECRET, TOKEN):
        assert not [text for text in told if secret in text]
    if fault == "echo":
        assert "(AccessDenied)" in str(caught.value)


def test_a_dead_server_ends_an_attempt(box, connect, tmp_path):
    write_tables(tmp_path, 1)
    box.proxy.fault = lambda request: "hang"
    started = time.monotonic()
    with pytest.raises(TargetError, match=r"s3://box-\w+/one/cache.zip: the S3 server cannot be used"):
        publish(tmp_path, entry(box), connect(read_seconds=30, request_seconds=1.0))
    assert time.monotonic() - started < 6


def test_without_s3fs(monkeypatch, tmp_path):
    monkeypatch.setattr("alfwatchd.s3_target.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'alfwatchd\[s3\]'"):
        publishing.check_targets([Publish(target="s3://lab")])
    publishing.check_targets([Publish(target=str(tmp_path))])


def test_s3fs_is_not_imported_for_a_folder(tmp_path):
    code = "import sys, alfwatchd.publisher; sys.exit(any(n in sys.modules for n in ('s3fs', 'fsspec', 'botocore')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
