"""A manifest names only what a prune may move or remove; one that is damaged or forged moves nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import PruneRefused
from alfwatchd.prune import empty_trash, trash_manifest
from kit.prune import S1, entries, no_log, plan_for
from kit.trash import FILES, make_root, move, undo

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "root")


# path in a manifest
FORGED = [
    "s/2020-01-01/001/../../../../outside/a.b.c",
    "../2020-01-01/001/a.b.c",
    "/s/2020-01-01/001/alf/clusters.depths.npy",
    "s/2020-01-01/001//alf/clusters.depths.npy",
    "s/2020-01-01/001/./alf/clusters.depths.npy",
    "s/2020-01-01/001/notes.txt",
    f"{TRASH}/2020-01-01/001/a.b.c",
    "s/2020-01-01/001/a.b.c\0",
    "s/a.b.c",
    "",
    None,
    7,
]


@pytest.mark.parametrize("path", FORGED)
def test_a_manifest_that_names_what_no_prune_moves_is_refused(root, path):
    plan = plan_for(root)
    move(root, plan)
    manifest = root / TRASH / plan.plan_id / "manifest"
    lines = manifest.read_bytes().splitlines(keepends=True)
    forged = trash_manifest.unseal(lines[1])
    lines[1] = trash_manifest.seal([path, *forged[1:]])
    manifest.write_bytes(b"".join(lines))
    before = entries(root)
    for call in (lambda: undo(root, plan), lambda: empty_trash.empty(root, plan.plan_id, no_log)):
        with pytest.raises(PruneRefused, match="names"):
            call()
    assert entries(root) == before


@pytest.mark.parametrize("path", ["..", "s/..", "/", "", "s/2020-01-01/001/..", TRASH, "lab/other/s", "s/x"])
def test_no_manifest_names_such_a_folder(path):
    assert not trash_manifest.is_folder_path(path)


@pytest.mark.parametrize("cut", [1, 10, 100, 1000])
def test_a_torn_or_damaged_manifest_is_refused(root, cut):
    plan = plan_for(root)
    move(root, plan)
    manifest = root / TRASH / plan.plan_id / "manifest"
    whole = manifest.read_bytes()
    damaged = whole[:cut] + bytes([whole[cut] ^ 1]) + whole[cut + 1 :]
    for content in (whole[:-cut], damaged, whole + b"more\n", b"", b"[" * 100_000 + b"\n"):
        manifest.write_bytes(content)
        for call in (lambda: undo(root, plan), lambda: empty_trash.empty(root, plan.plan_id, no_log)):
            with pytest.raises(PruneRefused, match="manifest"):
                call()
    manifest.write_bytes(whole)
    done, is_left = undo(root, plan)
    assert (len(done.files), is_left) == (len(FILES), False)


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)


@given(folders=st.lists(names, max_size=4))
def test_what_is_written_to_a_manifest_is_read_again(folders):
    path = "/".join([S1, *folders])
    folder = trash_manifest.FolderState(path, True, 1, 0o700, 2, 3, 4, 5, {"system.posix_acl_access": b"\0\xff"})
    manifest = trash_manifest.Manifest("0" * 16, "/root/\udcff", 1.5, 2.5, (), (folder,))
    assert trash_manifest.read_lines(trash_manifest.write_lines(manifest)) == manifest
