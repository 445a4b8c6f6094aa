"""What mode and ACL of a file allow a user: the same as the kernel says.

If one of these fails, a user is told of recordings whose tables it may not read, or is refused though it may.
"""

import os
import random
import struct
import subprocess

import pytest

from alfwatchd.acl import READ, SEARCH, XATTR, Acl, Caller, Permissions, allows, parse
from kit.children import in_child, needs_root

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NO_ID = 0xFFFFFFFF


def pack(*entries, version=2):
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


BASE = [(USER_OBJ, 6, NO_ID), (GROUP_OBJ, 4, NO_ID), (OTHER, 0, NO_ID)]


def test_an_acl_is_parsed():
    packed = pack(
        (USER_OBJ, 6, NO_ID), (USER, 4, 7), (USER, 0, 8), (GROUP_OBJ, 5, NO_ID), (GROUP, 6, 9), (MASK, 4, NO_ID),
        (OTHER, 1, NO_ID),
    )  # fmt: skip
    assert parse(packed) == Acl(users=((7, 4), (8, 0)), groups=((9, 6),), group=5, mask=4, others=1)
    assert parse(pack(*BASE)) == Acl((), (), group=4, mask=7, others=0)


DAMAGED = {
    "empty": b"",
    "half a head": b"\2\0",
    "half an entry": pack(*BASE)[:-1],
    "another version": pack(*BASE, version=3),
    "no others": pack(*BASE[:2]),
    "named without a mask": pack(*BASE, (USER, 4, 7)),
    "twice the same": pack(*BASE, (OTHER, 7, NO_ID)),
    "unknown kind": pack(*BASE, (0x40, 7, NO_ID)),
}


@pytest.mark.parametrize("packed", DAMAGED.values(), ids=DAMAGED)
def test_what_is_not_an_acl_is_not_taken_for_one(packed):
    with pytest.raises(ValueError, match="an ACL"):
        parse(packed)


def test_an_acl_that_setfacl_made(tmp_path):
    file = tmp_path / "sessions.pqt"
    file.touch(mode=0o640)
    done = subprocess.run(["setfacl", "-m", "u:4242:r,u:4243:-,g:4244:rw,m::r", file], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("this file system has no ACLs")
    found = parse(os.getxattr(file, XATTR))
    assert (found.users, found.groups, found.mask) == (((4242, 4), (4243, 0)), ((4244, 6),), 4)


def random_acl(rng):
    """Return mode and packed ACL, or no ACL, over a few ids, so that they often meet those of a caller."""
    bits = [rng.choice([0, 1, 4, 5, 7]) for _ in range(4)]
    users = [(USER, rng.randrange(8), uid) for uid in sorted(rng.sample(range(1, 5), rng.randrange(3)))]
    groups = [(GROUP, rng.randrange(8), gid) for gid in sorted(rng.sample(range(11, 15), rng.randrange(3)))]
    if rng.random() < 0.3:
        return bits[0] << 6 | bits[1] << 3 | bits[2], None
    entries = [(USER_OBJ, bits[0], NO_ID), *users, (GROUP_OBJ, bits[1], NO_ID), *groups, (OTHER, bits[2], NO_ID)]
    if users or groups or rng.random() < 0.5:
        entries.insert(-1, (MASK, bits[3], NO_ID))
    return 0, pack(*entries)


def kernel_allows(place, file, uid, gids, wanted):
    """Ask the kernel as another user; this process has to be the root user, and becomes it again."""
    os.setgroups(gids[1:])
    os.setegid(gids[0])
    os.seteuid(uid)
    try:
        os.close(os.open(file if wanted == READ else place / "inside", os.O_RDONLY))
    except PermissionError:
        return False
    else:
        return True
    finally:
        os.seteuid(0)
        os.setegid(0)


def differ_from_kernel(place, n_cases):
    """Return the cases in which `allows` and the kernel differ, and how often the kernel allowed."""
    rng, different, n_allowed = random.Random(14), [], 0
    file, folder = place / "file", place / "folder"
    file.touch()
    folder.mkdir()
    (folder / "inside").touch()
    (folder / "inside").chmod(0o777)
    for _ in range(n_cases):
        target, wanted = rng.choice([(file, READ), (folder, SEARCH)])
        os.chown(target, owner := rng.randrange(1, 5), group := rng.randrange(11, 15))
        mode, packed = random_acl(rng)
        if packed is None:
            os.setxattr(target, XATTR, pack(*BASE))  # as without one
            target.chmod(mode)
        else:
            os.setxattr(target, XATTR, packed)
        try:
            acl = parse(os.getxattr(target, XATTR))
        except OSError:  # the kernel keeps none that the mode can hold
            acl = None
        about = target.stat()
        uid, gids = rng.randrange(1, 6), [rng.randrange(11, 16) for _ in range(rng.randrange(1, 4))]
        ours = allows(Permissions(owner, group, about.st_mode, acl), Caller(uid, frozenset(gids)), wanted)
        theirs = kernel_allows(folder, file, uid, gids, wanted)
        n_allowed += theirs
        if ours != theirs:
            different.append((oct(about.st_mode), owner, group, acl, uid, gids, wanted))
    return different, n_allowed


@needs_root
def test_it_is_as_the_kernel_decides(open_folder):
    probe = open_folder / "probe"
    probe.touch()
    try:
        os.setxattr(probe, XATTR, pack(*BASE))
    except OSError:
        pytest.skip("this file system has no ACLs")
    different, n_allowed = in_child(lambda: differ_from_kernel(open_folder, 3000))
    assert different == []
    assert 1000 < n_allowed < 2000


WORLD = Permissions(1, 11, 0o644)
UNKNOWN = Caller(None, frozenset(), is_whole=False)


@pytest.mark.parametrize(
    ("file", "is_allowed"),
    [
        (WORLD, True),
        (Permissions(1, 11, 0o640), False),
        (Permissions(1, 11, 0o604), False),  # it may be in the group, which is kept out
        (Permissions(1, 11, 0o644, Acl(((7, 4),), (), 4, 4, 4)), True),
        (Permissions(1, 11, 0o644, Acl(((7, 0),), (), 4, 4, 4)), False),  # it may be user 7
        (Permissions(1, 11, 0o644, Acl((), ((7, 3),), 4, 7, 4)), False),
        (Permissions(65534, 65534, 0o660), False),
    ],
)
def test_an_unknown_user_gets_what_every_user_gets(file, is_allowed):
    """In a container, all users of the host have the same number."""
    assert allows(file, UNKNOWN, READ) == is_allowed


def test_of_an_unknown_group_too():
    assert allows(Permissions(1, 11, 0o604), Caller(5, frozenset({12})), READ)
    assert not allows(Permissions(1, 11, 0o604), Caller(5, frozenset({12}), is_whole=False), READ)
    assert allows(Permissions(5, 11, 0o400), Caller(5, frozenset({12}), is_whole=False), READ)
    assert allows(Permissions(1, 12, 0o640), Caller(5, frozenset({12}), is_whole=False), READ)
