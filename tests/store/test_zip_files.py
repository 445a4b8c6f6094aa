"""Zip files of others: one that is made on purpose must neither take all memory nor fill the disk."""

import io
import zipfile

import pytest

from alfwatchd.database.sources import read_source
from alfwatchd.errors import SourceError
from alfwatchd.publish import archive
from alfwatchd.store import zip_files
from kit.children import in_child, peak_kb

MOST_KB = 800_000


def zipped(kind=zipfile.ZIP_DEFLATED, content=b"", name="sessions.pqt"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as made:
        made.writestr(name, content)
    return file.getvalue()


def endless_list(size=(1 << 32) - 2):
    """Make a zip file whose list of contents should have some bytes, and that is as long (a sparse file)."""
    return b"PK\5\6" + bytes(4) + (1).to_bytes(2, "little") * 2 + size.to_bytes(4, "little") + bytes(4) + bytes(2)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_python_unpacks_without_a_bound_is_refused(tmp_path, kind):
    (tmp_path / "cache.zip").write_bytes(zipped(kind, bytes(1000)))
    with pytest.raises(SourceError, match="packed with a method"):
        read_source(str(tmp_path / "cache.zip"), None)


def test_a_zip_file_that_fills_the_disk_is_refused(tmp_path):
    (tmp_path / "cache.zip").write_bytes(zipped(content=bytes(1 << 27)))
    with pytest.raises(SourceError, match="134217728 unpacked"):
        read_source(str(tmp_path / "cache.zip"), None)


def test_a_list_of_contents_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "cache.zip"
    with path.open("wb") as file:
        file.truncate(3 << 30)
        file.seek(0, io.SEEK_END)
        file.write(endless_list(3 << 30))

    def run():
        before = peak_kb()
        with path.open("rb") as file:
            found = archive.read_zipped_info(file)
        try:
            read_source(str(path), None)
        except SourceError as error:
            return found, "list of contents" in str(error), peak_kb() - before
        return None

    found, is_told, taken = in_child(run)
    assert found == {}
    assert is_told
    assert taken < MOST_KB


def test_usual_zip_files_are_read():
    with zip_files.open_zip(io.BytesIO(zipped(content=b"content"))) as made:
        zip_files.check_member(made.getinfo("sessions.pqt"))
        assert made.read("sessions.pqt") == b"content"
