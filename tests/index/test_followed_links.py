"""What a scan makes of symbolic links with the place of a folder: followed or not, told or not, and whose rows stay.

If one of these fails, a lab's second server is not indexed, or its rows go when it is away for a moment. How events
bring the daemon to scan, `engine/test_follow_links.py` holds.
"""

import shutil

import pytest

from alfwatchd.tree.packed import is_of_link
from kit.trees import fast_folder, indexing, listed, problems, scan_all, write

DAY = "lab/Subjects/m/2020-01-01"
S1 = f"{DAY}/001"
PLACES = ["lab", "lab/Subjects", "lab/Subjects/m", DAY, S1, f"{S1}/alf"]
"""Where the link is."""
BEHIND = {S1: {"alf/a.b.c", "alf/probe00/a.b.c"}}
OTHER = "other/Subjects/t/2020-01-01/000"


@pytest.fixture
def base():
    """A folder with a root, and a server beside it."""
    with fast_folder() as folder:
        write(folder, f"root/{OTHER}/a.b.c", *(f"server/{S1}/{path}" for path in BEHIND[S1]))
        yield folder


@pytest.fixture
def farm(base):
    """Return a function that links a place in the root to the server, and scans."""
    made = []

    def make(place, **settings):
        (base / "root" / place).parent.mkdir(parents=True, exist_ok=True)
        (base / "root" / place).symlink_to(base / "server" / place)
        made.append(indexing(base / "root", **({"follow_links": True} | settings)))
        indexer = made[-1].__enter__()
        scan_all(indexer)
        return indexer

    yield make
    for each in made:
        each.__exit__(None, None, None)


def behind(indexer):
    """Return the sessions with datasets that are not of the other lab."""
    return {path: rows for path, rows in listed(indexer).items() if rows and path != OTHER}


@pytest.mark.parametrize("place", PLACES)
def test_rows_behind_a_link_say_so(farm, place):
    """Prune takes no file whose row says so, whatever it compares next."""
    indexer = farm(place)
    assert (behind(indexer), problems(indexer)) == (BEHIND, {})
    session = indexer.tables.get(S1)
    assert session.is_link == (place != f"{S1}/alf")
    assert all(is_of_link(value) for folder in session.folders for value in folder.packed.unpack().values())


@pytest.mark.parametrize("place", PLACES)
def test_rows_stay_while_a_link_leads_elsewhere_and_go_with_the_link(farm, base, place):
    """A server that is away, or a mount point with other data, is no deletion; the end of the link is one."""
    indexer, server, link = farm(place), base / "server", base / "root" / place
    server.rename(base / "away")
    scan_all(indexer)
    assert (behind(indexer), problems(indexer)) == (BEHIND, {place: "other_filesystem"})
    for other in ("", "x/2020-01-01/001/a.b.c"):
        write(base, f"server/{place}/{other}")
        scan_all(indexer)
        assert (behind(indexer), problems(indexer)) == (BEHIND, {place: "other_filesystem"})
        shutil.rmtree(server)
    (base / "away").rename(server)
    scan_all(indexer)
    assert (behind(indexer), problems(indexer)) == (BEHIND, {})
    link.unlink()
    scan_all(indexer)
    assert (behind(indexer), problems(indexer)) == ({}, {})


@pytest.mark.parametrize(
    ("target", "kind"), [("root", "link_loop"), (".", "link_loop"), ("server/lab/Subjects", "link_not_followed")]
)
def test_loops_end(farm, base, target, kind):
    """A link behind a link leads back: each file is indexed once, and a person is told of the link."""
    (base / "server/lab/Subjects/back").symlink_to(base / target)
    indexer = farm("lab/Subjects")
    assert (behind(indexer), problems(indexer)) == (BEHIND, {"lab/Subjects/back": kind})


def test_one_level_is_followed(farm, base):
    write(base, "third/2020-01-01/001/a.b.c")
    second = {"lab/Subjects/n": "third", f"{DAY}/003": "third/2020-01-01/001", f"{S1}/raw": "third/2020-01-01/001"}
    for link, target in second.items():
        (base / "server" / link).symlink_to(base / target)
    indexer = farm("lab")
    assert (behind(indexer), problems(indexer)) == (BEHIND, dict.fromkeys(second, "link_not_followed"))


def test_without_the_setting_each_link_with_data_is_named(farm, base):
    """Two servers below one root gave no row and no word."""
    root, server = base / "root", base / "server"
    write(base, "junk/x.txt", "root/lab1/", "root/lab2/Subjects/")
    links = {
        "lab1/Subjects": server / "lab/Subjects", "lab2/Subjects/m": server / "lab/Subjects/m",
        f"{OTHER}/alf": server / S1 / "alf",
    }  # fmt: skip
    quiet = {"scripts": base / "junk", f"{OTHER}/notes": base / "junk", "other/Subjects/alias": root / OTHER / "../.."}
    for link, target in {**links, **quiet}.items():
        (root / link).symlink_to(target)
    indexer = farm("lab", follow_links=False)
    assert (behind(indexer), problems(indexer)) == ({}, dict.fromkeys(["lab", *links], "link_not_followed"))
    (root / "lab").unlink()
    scan_all(indexer)
    assert problems(indexer) == dict.fromkeys(links, "link_not_followed")
