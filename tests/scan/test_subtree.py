"""A crawl reads what a look at each folder by itself sees: what it missed would be missing in the tables."""

import os

import pytest

from alfwatchd.alf.exclude import compile_exclude
from alfwatchd.errors import WatchError
from alfwatchd.scan.scanner import Scanner, open_folder
from alfwatchd.scan.subtree import crawl
from alfwatchd.tree.folder import Folder
from kit.children import as_nobody, needs_root
from kit.trees import fast_folder, write_odd_tree

S1 = "s/2020-01-01/001"


def looked(root, exclude=()):
    """Return path -> listing of all folders, each opened by its whole path."""
    scanner, found = Scanner(str(root), compile_exclude(exclude)), {}

    def look(folder):
        fd = open_folder(str(root), folder)
        try:
            listing = found[folder.path] = scanner.list_folder(fd, folder)
        finally:
            os.close(fd)
        for name in listing.folders.keys() - listing.links:
            look(folder.make_child(name, 0))

    look(Folder.at(""))
    return found


def paths(found):
    """Return path -> listing of what was crawled."""
    by_path, order = {}, []
    for parent, name, _, listing in found:
        order.append(f"{order[parent]}/{name}".lstrip("/") if parent >= 0 else name)
        by_path[order[-1]] = listing
    return by_path


@pytest.fixture
def root():
    with fast_folder() as folder:
        write_odd_tree(folder / "root")
        yield folder / "root"


@pytest.mark.parametrize("exclude", [(), ("probe00/",), ("*.c",)])
def test_a_crawl_reads_what_looks_at_each_folder_see(root, exclude):
    scanner = Scanner(str(root), compile_exclude(exclude))
    assert paths(crawl(scanner, Folder.at(""))) == looked(root, exclude)


def test_each_folder_is_watched_before_it_is_listed_and_no_descriptor_is_left(root):
    before = set(os.listdir("/proc/self/fd"))
    seen = []

    def arm(fd):
        seen.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), root))
        (root / seen[-1] / "new.in.time").touch()
        return len(seen)

    found = list(crawl(Scanner(str(root)), Folder.at("s/2020-01-01"), arm))
    assert [each.wd for each in found] == list(range(1, len(seen) + 1))
    sessions = [each for each in found[1:] if each.listing.packed.names]
    assert len(sessions) == len(found) - 1
    assert all("new.in.time" in each.listing.packed.names for each in sessions)
    assert set(os.listdir("/proc/self/fd")) <= before


def test_what_cannot_be_watched_is_left_out_with_all_below_it(root):
    def arm(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/alf"):
            raise WatchError("no")
        return 1

    found = paths(crawl(Scanner(str(root)), Folder.at(S1), arm))
    assert set(found) == {"001"}
    assert set(found["001"].folders) == {"alf"}


@needs_root
def test_what_cannot_be_read_is_left_out(root):
    (root / S1 / "alf").chmod(0o700)
    found = as_nobody(lambda: list(paths(crawl(Scanner(str(root)), Folder.at("s/2020-01-01")))))
    assert f"2020-01-01/{S1[-3:]}" in found
    assert not [path for path in found if "alf" in path]
