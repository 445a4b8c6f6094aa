"""Packed rows against plain dicts, which are their model."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.tree.packed import (
    NO_FILES,
    SIGNATURE_SIZE,
    PackedFiles,
    differs_in_ctime,
    inode_of,
    is_same_content,
    pack_signature,
    unpack_signature,
    wrap_time,
)


def value(size, *, with_digest=False):
    signature = pack_signature(size, -size, size + 1, False)
    return signature + hashlib.md5(signature).digest() if with_digest else signature


NAMES = st.text("ab.", min_size=1, max_size=3)
VALUES = st.builds(value, st.integers(0, 2**60), with_digest=st.booleans())
FILES = st.dictionaries(NAMES, VALUES, max_size=12)


@given(FILES)
def test_packed_files_unpack_to_what_was_packed(files):
    packed = PackedFiles.pack(files)
    assert packed.unpack() == files
    assert packed.names == tuple(sorted(files))
    assert packed.signatures == b"".join(files[name][:SIGNATURE_SIZE] for name in packed.names)
    assert packed.n_bytes == sum(unpack_signature(each).file_size for each in files.values())
    assert packed.inodes() == [inode_of(files[name]) for name in packed.names]


@given(FILES, st.dictionaries(NAMES, VALUES | st.none(), max_size=12))
def test_a_patch_equals_packing_the_changed_dict(files, changes):
    expected = {name: each for name, each in (files | changes).items() if each is not None}
    assert PackedFiles.pack(files).patch(changes) == PackedFiles.pack(expected)


@given(FILES, NAMES)
def test_one_name_is_found_or_not(files, name):
    assert PackedFiles.pack(files).get(name) == files.get(name)


@pytest.mark.parametrize("known", [[], [0], [1], [0, 1]])
def test_digests_take_no_place_if_no_digest_is_known(known):
    files = {f"{n}.b.c": value(n, with_digest=n in known) for n in range(2)}
    packed = PackedFiles.pack(files)
    assert len(packed.digests) == (32 if known else 0)
    without = {f"{n}.b.c": value(n) for n in range(2)}
    assert packed.patch({f"{n}.b.c": value(n) for n in known}) == PackedFiles.pack(without)


def test_nothing_packed_is_nothing():
    assert PackedFiles.pack({}) == NO_FILES == NO_FILES.patch({})
    assert PackedFiles.pack({"a": value(1)}).patch({"a": None}) == NO_FILES


@pytest.mark.parametrize(
    "mtime_ns", [0, -1, 2**63 - 1, 2**63, -(2**63) - 1, 16_725_225_600 * 10**9, 253_402_300_800 * 10**9, 2**62 * 10**9]
)
def test_any_time_that_a_file_system_tells_can_be_packed(mtime_ns):
    """As of `touch -d 2500-01-01`: a user who may touch a dataset must not be able to end the daemon."""
    signature = unpack_signature(pack_signature(1, mtime_ns, 2, False, mtime_ns))
    assert signature == (1, wrap_time(mtime_ns), 2, False, wrap_time(mtime_ns))
    assert (signature.mtime_ns == mtime_ns) == (-(2**63) <= mtime_ns < 2**63)
    assert pack_signature(1, mtime_ns, 2, False) != pack_signature(1, mtime_ns + 1, 2, False)
    assert pack_signature(1, 0, 2, False, mtime_ns) != pack_signature(1, 0, 2, False, mtime_ns + 1)


ABOUT = (1, 2, 3, False, 4)
OTHERS = {"size": (9, 2, 3, False, 4), "mtime": (1, 9, 3, False, 4), "inode": (1, 2, 9, False, 4)}
LINKED, LATER = (1, 2, 3, True, 4), (1, 2, 3, False, 9)


@pytest.mark.parametrize(
    ("name", "other", "is_same", "is_later"),
    [
        ("equal", ABOUT, True, False),
        ("reached through a link", LINKED, True, False),
        ("another change time", LATER, False, True),
        ("another change time, and a link", (1, 2, 3, True, 9), False, False),
        *[(name, other, False, False) for name, other in OTHERS.items()],
        *[(f"{name} and change time", (*other[:4], 9), False, False) for name, other in OTHERS.items()],
    ],
)
def test_a_change_time_is_part_of_what_a_file_is(name, other, is_same, is_later):
    first, second = pack_signature(*ABOUT), pack_signature(*other)
    assert (first == second) == (other == ABOUT)
    assert is_same_content(first, second + b"digest of 16 byt") is is_same
    assert differs_in_ctime(first + b"digest of 16 byt", second) is is_later
    without = [PackedFiles.pack({"a": each}).without_ctimes() for each in (first, second)]
    assert (without[0] == without[1]) == (other[:4] == ABOUT[:4])
    assert unpack_signature(second) == other
