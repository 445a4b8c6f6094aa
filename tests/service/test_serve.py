"""What the process of `alfwatchd serve` does, step by step, with a clock of its own."""

import json
import os
import shutil
import socket
import time
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from alfwatchd.errors import AlfwatchdError, ConfigError
from alfwatchd.publish import archive
from alfwatchd.service import serve
from alfwatchd.service.configuration import load
from alfwatchd.service.once import run_once
from alfwatchd.service.serve import ServedTables, find_tables_version, find_token, listen, own_target, tagged_subsets
from alfwatchd.settings import Publish, Serve, Subset
from kit.control import wait
from kit.program import make_small_tree


@pytest.fixture
def settings(tmp_path):
    root = make_small_tree(tmp_path / "root", subjects=["s1"])
    made = load({"root": str(root), "state_dir": str(tmp_path / "state")}, environ={}).settings
    run_once(made)
    return made


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "serve").mkdir()
    return tmp_path / "serve"


@pytest.fixture
def entry(settings, folder):
    return ServedTables(settings.out_dir, own_target(folder, Subset()))


def change(settings):
    """Make one more dataset, and let the tables have it."""
    session = settings.root / "lab/Subjects/s1/2020-01-01/001"
    (session / f"a{len(os.listdir(session))}.b.c").touch()
    run_once(settings)


def archives(folder):
    return sorted(os.listdir(folder / "tables")) if (folder / "tables").exists() else []


def test_nothing_is_written_while_nothing_changes(entry, folder):
    entry.keep(0.0)
    assert entry.text.startswith("2 sessions, 4 datasets of 20")
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    for second in range(1, 100):
        entry.keep(float(second))
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    assert len(archives(folder)) == 1


def test_each_change_is_published_but_dates_do_not_run_away(entry, settings, folder):
    """A few at once, then one a minute: else a tree that changes always would have dates of next week."""
    entry.keep(0.0)
    for n_changes in range(1, 12):
        change(settings)
        entry.keep(float(n_changes))
    ahead = datetime.fromisoformat(entry.text[-16:]) - datetime.now()
    assert timedelta(minutes=4) < ahead <= timedelta(minutes=6)
    n_before = len(archives(folder))
    assert 5 <= n_before <= 8
    entry.keep(60.0)
    assert len(archives(folder)) == n_before
    entry.keep(72.0)  # a minute after the last one, with all that has changed meanwhile
    assert len(archives(folder)) == n_before + 1
    assert entry.text.startswith("2 sessions, 15 datasets of ")


def test_replaced_archives_go_after_a_while_and_the_present_one_never(entry, settings, folder, monkeypatch):
    monkeypatch.setattr(serve, "KEEP_SECONDS", 0.5)
    entry = ServedTables(settings.out_dir, own_target(folder, Subset()))
    for n_archives in (1, 2, 3):  # each has its own time
        entry.keep(time.monotonic())
        assert len(archives(folder)) <= n_archives
        change(settings)
    entry.keep(time.monotonic())
    location = json.loads((folder / "cache_info.json").read_bytes())["location"]
    wait(lambda: entry.keep(time.monotonic()) or len(archives(folder)) == 1)
    assert location.endswith(f"/tables/{archives(folder)[0]}/cache.zip")
    entry.keep(time.monotonic() + 10_000)
    assert len(archives(folder)) == 1


def test_before_there_are_tables_and_when_they_are_away(tmp_path, settings, folder, caplog):
    (tmp_path / "later").mkdir()
    entry = ServedTables(tmp_path / "later", own_target(folder, Subset()))
    entry.keep(0.0)
    assert entry.text == f"waiting for tables in {tmp_path / 'later'}"
    shutil.copy(settings.out_dir / "sessions.pqt", tmp_path / "later")
    entry.keep(1.0)
    assert (find_tables_version(tmp_path / "later"), archives(folder)) == (None, [])
    shutil.copy(settings.out_dir / "datasets.pqt", tmp_path / "later")
    entry.keep(2.0)
    assert entry.text.startswith("2 sessions, 4 datasets of ")
    shutil.rmtree(tmp_path / "later")
    entry.keep(3.0)
    assert entry.text.startswith("2 sessions, 4 datasets of ")  # these are served still
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


@pytest.mark.parametrize("fault", ["damaged", "foreign", "full"])
def test_what_fails_is_told_once_in_a_while_and_tried_again(
    entry, settings, folder, tmp_path, monkeypatch, caplog, fault
):
    monkeypatch.setattr(archive, "PATIENCE_SECONDS", 0.0)
    entry.keep(0.0)
    served = (folder / "cache.zip").read_bytes()
    change(settings)
    good = {name: (settings.out_dir / name).read_bytes() for name in ("sessions.pqt", "datasets.pqt")}
    match fault:
        case "damaged":
            (settings.out_dir / "datasets.pqt").write_bytes(good["datasets.pqt"][:1000])
        case "foreign":
            table = pq.ParquetFile(settings.out_dir / "datasets.pqt").read()
            pq.write_table(table.replace_schema_metadata(), settings.out_dir / "datasets.pqt")
        case "full":
            folder.rename(tmp_path / "away")
    for second in range(1, 61):
        entry.keep(float(second))
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2
    assert entry.text.startswith("tables may be old: ")
    if fault == "full":
        (tmp_path / "away").rename(folder)
    assert (folder / "cache.zip").read_bytes() == served
    for name, content in good.items():
        (settings.out_dir / name).write_bytes(content)
    entry.keep(100.0)
    assert entry.text.startswith("2 sessions, 5 datasets of ")


def test_subsets_with_a_tag_each_once():
    def targets(*subsets):
        return [Publish(target=f"/{number}", subset=Subset(**subset)) for number, subset in enumerate(subsets)]

    first, second = {"subjects": ("a",), "tag": "x"}, {"labs": ("l",), "tag": "y"}
    assert tagged_subsets([]) == []
    assert tagged_subsets(targets({}, first, {"subjects": ("b",)}, second, first)) == [
        Subset(**first),
        Subset(**second),
    ]
    with pytest.raises(ConfigError, match="two subsets have the tag 'x'"):
        tagged_subsets(targets(first, second | {"tag": "x"}))


@pytest.mark.parametrize(
    ("given", "is_good"),
    [("", True), ("abc", True), ("a+/=~", True), ("two words", False), ("é", False), ("a\tb", False)],
)
def test_tokens(given, is_good, monkeypatch):
    monkeypatch.setenv("ALFWATCHD_CREDENTIAL_SERVE_TOKEN", given)
    if is_good:
        assert find_token() == (given or None)
    else:
        with pytest.raises(ConfigError, match="serve_token") as error:
            find_token()
        assert given not in str(error.value)


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "a b", "127.0.0.1 "])
def test_addresses_that_are_not_ours(host):
    with pytest.raises(AlfwatchdError, match=r"serve.host|--host") as error, listen(Serve(host=host, port=0)):
        pass
    assert error.value.exit_code == 1


def test_a_port_that_is_taken():
    with listen(Serve(port=0)) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        port = listening.getsockname()[1]
        with pytest.raises(AlfwatchdError, match=f"port {port}: cannot listen there"), listen(Serve(port=port)):
            pass
        with socket.create_connection(("127.0.0.1", port)):
            pass
    with listen(Serve(port=port)):  # at once: nothing of the last one is in the way
        pass


@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6(host):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("there is no ::1 here")
    with listen(Serve(host=host, port=0)) as listening:
        assert serve.address_of(listening) == f"http://[{host}]:{listening.getsockname()[1]}"
        for other in ["::1"] if host == "::1" else ["::1", "127.0.0.1"]:
            with socket.create_connection((other, listening.getsockname()[1])):
                pass


def test_the_version_follows_every_replacement(settings):
    versions = {find_tables_version(settings.out_dir)}
    change(settings)
    versions.add(find_tables_version(settings.out_dir))
    (settings.out_dir / "sessions.pqt").touch()
    versions.add(find_tables_version(settings.out_dir))
    assert len(versions) == 3
    assert None not in versions
    Path(settings.out_dir / "sessions.pqt").unlink()
    (settings.out_dir / "sessions.pqt").mkdir()
    assert find_tables_version(settings.out_dir) is None
