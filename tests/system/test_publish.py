"""The real program publishes: with --once, and as a daemon."""

import json
import re
import socket
import tomllib
import zipfile
from pathlib import Path

import pytest
from one.api import One

from alfwatchd.settings import Publish
from kit.program import make_ibl_tree, make_small_tree, program, write_dataset
from kit.published import folder_reader, look, unpack


@pytest.fixture
def made(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "target").mkdir()
    with program(make_small_tree(tmp_path / "root"), tmp_path / "out") as made:
        yield made


def configure(made, *entries):
    """Write the settings file; each entry is a dictionary of TOML values, as text."""
    parts = ["\n".join(["[[publish]]", *(f"{key} = {value}" for key, value in each.items())]) for each in entries]
    config = made.home / "config.toml"
    config.write_text("\n".join(parts))
    return f"--config={config}"


def dead_address():
    """Return the address of a server that accepts connections and never answers, and its socket."""
    listening = socket.create_server(("127.0.0.1", 0))
    return listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_once(made, tmp_path):
    target = tmp_path / "target"
    config = configure(
        made, {"target": f'"{target}"'}, {"target": f'"{target}"', "subset": '{subjects = ["s1"], tag = "one"}'}
    )
    said = made.run_once(config).stdout.splitlines()
    name, date, subjects = look(folder_reader(target))
    assert subjects == {"s1", "s2", "s3"}
    assert said[1] == f"published to {target}: generation {name} of {date}"
    assert said[2].startswith(f"published to {target}, tag one: generation ")
    assert look(folder_reader(target / "one"))[2] == {"s1"}
    said = made.run_once(config).stdout.splitlines()
    assert said[1] == f"unchanged at {target}: generation {name} of {date}"


def test_once_writes_and_publishes_what_it_can_and_says_what_it_cannot(made, tmp_path):
    away = tmp_path / "away"
    config = configure(made, {"target": f'"{away}"'}, {"target": f'"{tmp_path / "target"}"'})
    ended = made.run_once(config, code=1)
    assert f"the tables are written, but not published to {away}: {away}: the target is not a folder" in ended.stderr
    assert (made.out_dir / "datasets.pqt").exists()
    assert look(folder_reader(tmp_path / "target"))


@pytest.mark.heavy
def test_daemon(made, tmp_path):
    """The tree changes, and so does what is published; a dead server beside it delays nothing."""
    target = tmp_path / "target"
    pytest.importorskip("botocore", reason="botocore is not installed")
    listening, endpoint = dead_address()
    made.added |= {f"ALFWATCHD_CREDENTIAL_AWS_{name}": "s3cr3t" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
    with listening:
        made.start(
            configure(
                made,
                {"target": f'"{target}"', "interval_seconds": 60},
                {"target": '"s3://lab/one"', "endpoint": f'"{endpoint}"', "region": '"us-east-1"'},
            ),
            "--log-level=debug",
        )
        made.wait(lambda: made.client.status().targets[0].generation)
        live, dead = made.client.status().targets
        assert live.generation == look(folder_reader(target))[0]
        assert (live.lag_seconds, live.last_error) == (None, None)
        assert dead.generation is None
        assert dead.lag_seconds is not None
        write_dataset(made.root / "lab/Subjects/s1/2020-01-01/001/alf/new.times.npy", 3)
        made.client.sync()
        live, dead = made.client.status().targets
        assert dead.lag_seconds is not None, "nobody has waited for it"
        assert live.lag_seconds is not None
        assert live.next_attempt is not None
        lines = [line for line in made.run("status").stdout.splitlines() if line.startswith("target ")]
        assert lines[0].startswith(f"target     {target}: generation {live.generation}, up to date at ")
        assert lines[1].startswith("target     s3://lab/one: ")
        shown = json.loads(made.run("status", "--json").stdout)["targets"]
        assert [each["target"] for each in shown] == [str(target), "s3://lab/one"]
        made.stop()
    assert "published target=" in made.log
    assert "s3cr3t" not in made.log
    # A new daemon goes on where the last one left off.
    made.start(configure(made, {"target": f'"{target}"'}))
    made.wait(lambda: made.client.status().targets[0].generation)
    assert unpack((target / "cache.zip").read_bytes())[0]["tables"]["datasets"]["nrecs"] == 13
    made.stop()


def test_one_opens_what_was_published(tmp_path):
    """The tree of ONE's own fixtures: all that One answers from our folder, it answers from the zip."""
    (tmp_path / "out").mkdir()
    (tmp_path / "target").mkdir()
    with program(make_ibl_tree(tmp_path / "root"), tmp_path / "out") as made:
        made.run_once(configure(made, {"target": f'"{tmp_path / "target"}"'}))
        zipfile.ZipFile(tmp_path / "target/cache.zip").extractall(tmp_path / "unpacked")
        ours, theirs = (One(cache_dir=made.root, tables_dir=tmp_path / name) for name in ("out", "unpacked"))
    assert theirs._cache["datasets"].equals(ours._cache["datasets"])
    assert theirs._cache["sessions"].equals(ours._cache["sessions"])
    assert theirs._cache["_meta"]["raw"]["datasets"]["min_api_version"] == "1.13.0"
    eids = theirs.search(datasets=["spikes.times.npy"])
    assert eids
    assert eids == ours.search(datasets=["spikes.times.npy"])
    for eid in eids[:2]:
        (name,) = theirs.list_datasets(eid, "*spikes.times.npy")[:1]
        assert len(theirs.load_dataset(eid, name))


def test_the_page_says_what_the_settings_are():
    text = (Path(__file__).parents[2] / "docs/guide/publish.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (?:(\d*) )?\|", text, re.MULTILINE)
    described = {key: default for keys, default in rows for key in re.findall(r"\w+", keys)}
    assert set(described) == set(Publish.model_fields)
    numbers = {
        key: str(int(field.default)) for key, field in Publish.model_fields.items() if isinstance(field.default, float)
    }
    assert {key: default for key, default in described.items() if default} == numbers
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        (entry,) = tomllib.loads(block)["publish"]
        Publish(**entry)
    json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
