"""The last tables of a database that could be read: without them a source that is away takes all its ids along."""

import pytest

from alfwatchd.database import local_copy
from alfwatchd.database.local_copy import Copy
from kit.rows import datasets_of, sessions_of

COPY = Copy(sessions_of({"projects": "p"}), datasets_of({"qc": "FAIL"}), {"size": 7})


def test_what_was_kept_is_there_for_the_next_process(tmp_path):
    local_copy.save(tmp_path, "/a/source", COPY, "a digest")
    found = local_copy.load(tmp_path, "/a/source")
    assert (found.sessions, found.datasets, found.version) == (COPY.sessions, COPY.datasets, COPY.version)
    assert local_copy.copied_version(tmp_path, "/a/source") == COPY.version
    assert local_copy.kept_digest(tmp_path, "/a/source") == "a digest"


@pytest.mark.parametrize("source", ["/another/source", ""])
def test_the_tables_of_another_source_do_not_count(tmp_path, source):
    local_copy.save(tmp_path, "/a/source", COPY, "a digest")
    assert local_copy.load(tmp_path, source) is None
    assert local_copy.copied_version(tmp_path, source) is None
    assert local_copy.kept_digest(tmp_path, source) == ""


@pytest.mark.parametrize("name", ["sessions.parquet", "datasets.parquet", "adopted.json"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"damaged", None])
def test_damaged_or_missing_files_count_as_nothing(tmp_path, name, content):
    local_copy.save(tmp_path, "/a/source", COPY, "a digest")
    (file,) = tmp_path.rglob(name)
    file.unlink() if content is None else file.write_bytes(content)
    assert local_copy.load(tmp_path, "/a/source") is None


def test_addresses_that_may_be_signed_are_for_the_owner_only(tmp_path):
    local_copy.save(tmp_path, "/a/source", COPY, "a digest")
    (note,) = tmp_path.rglob("adopted.json")
    assert note.stat().st_mode & 0o077 == 0
