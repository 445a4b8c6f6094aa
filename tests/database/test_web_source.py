"""What an Alyx gives to ONE's clients is a source, too: it is fetched when it has changed, and with a token."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

from alfwatchd.database.sources import read_source
from alfwatchd.errors import SourceError
from kit.alyx import TOKEN, alyx_server
from kit.database import dataset, session, write_database


def publish(alyx, folder, date, n_datasets=1):
    """Write tables of a date as `one_cache` does, and put them into the TABLES_ROOT of an Alyx."""
    one = session("lab/Subjects/s1/2020-01-01/001")
    write_database(folder, [one], [dataset(one["id"], f"alf/a.b{n}.c") for n in range(n_datasets)], date_created=date)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for name in ("sessions.pqt", "datasets.pqt"):
            packed.write(folder / name, name)
    alyx.files["cache.zip"] = content.getvalue()
    alyx.files["cache_info.json"] = json.dumps({"date_created": date, "tables": {}}).encode()


@pytest.fixture
def alyx(tmp_path, monkeypatch):
    monkeypatch.setenv("ALFWATCHD_CREDENTIAL_ADOPT_TOKEN", TOKEN)
    with alyx_server() as served:
        publish(served, tmp_path, "2026-01-02 03:04")
        yield served


def look(alyx, source, seen=None):
    """Read a source; return what was found, and what the server was asked for."""
    alyx.asked.clear()
    found = read_source(source, None if seen is None else json.loads(json.dumps(seen.version)))
    return found, [path.partition("?")[0] for path in alyx.asked]


@pytest.mark.parametrize("form", ["", "/", "/cache.zip", "/cache/info"])
def test_the_tables_of_an_alyx_are_fetched_once_until_it_makes_others(alyx, tmp_path, form):
    # Alyx gives /cache.zip without ETag and date: it was fetched whole at each look.
    source = alyx.address + form
    first, _ = look(alyx, source)
    assert len(first.datasets) == 1
    again, asked = look(alyx, source, first)
    assert again is None
    assert "/cache.zip" not in asked
    publish(alyx, tmp_path, "2026-01-02 03:05", n_datasets=2)
    newer, asked = look(alyx, source, first)
    assert len(newer.datasets) == 2
    assert look(alyx, source, newer)[0] is None


def test_a_zip_that_is_older_than_what_is_said_of_it_is_fetched_again(alyx, tmp_path):
    publish(alyx, tmp_path, "2026-01-02 03:05", n_datasets=2)
    newer = alyx.files["cache.zip"]
    publish(alyx, tmp_path, "2026-01-02 03:04")
    alyx.files["cache_info.json"] = alyx.files["cache_info.json"].replace(b":04", b":05")  # it is replaced first
    first, _ = look(alyx, f"{alyx.address}/cache.zip")
    alyx.files["cache.zip"] = newer
    assert len(look(alyx, f"{alyx.address}/cache.zip", first)[0].datasets) == 2


def test_tables_elsewhere_are_found_through_the_alyx(alyx):
    with alyx_server() as other:
        other.files["cache.zip"] = alyx.files.pop("cache.zip")
        other.token = None
        alyx.files["cache_info.json"] = json.dumps({"location": f"{other.address}/cache.zip"}).encode()
        found, _ = look(alyx, alyx.address)
    assert len(found.datasets) == 1
    assert found.origin == f"{other.address}/cache.zip"


@pytest.mark.parametrize("form", ["", "/cache.zip", "/cache/info"])
def test_a_token_that_is_revoked_is_told_as_such(alyx, form):
    alyx.token = "another"  # noqa: S105
    with pytest.raises(SourceError, match=r"answered 403: it does not accept the token: it may be revoked"):
        read_source(alyx.address + form, None)
