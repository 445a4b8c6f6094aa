"""Made-up roots to prune, each with a reference of some maker, and what may go by construction.

Every file is made with a fate: why it must stay, or that it may go. So no second implementation of the rules is needed
to tell a wrong prune from a right one.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import subprocess
import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from one.alf import cache

from alfwatchd.service.once import run_once
from alfwatchd.settings import Settings
from kit.database import dataset, write_database

MAKERS = ("alyx", "alyx", "alyx", "ours", "ONE", "ONE without ids")
DATE, OTHER_DATE = "2024-05-06", "2024-05-07"
SUBJECTS = ("mouse1", "mouse2", "Zo\u00eb_3")
RELS = (
    "alf/spikes.times.npy", "alf/spikes.clusters.npy", "alf/probe00/spikes.amps.npy", "_ibl_trials.intervals.npy",
    "alf/#2024-01-01#/spikes.times.npy", "raw_video_data/_iblrig_leftCamera.raw.mp4", "\u00e9tude/caf\u00e9.times.npy",
)  # fmt: skip
EXCLUDED = "scratch/"
LONG_AGO = datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC)
FAR = datetime.datetime.now(tz=datetime.UTC) + datetime.timedelta(days=40)
"""Of references to which nothing here is newer: no file can be made with a birth time in the past."""
FARTHER = FAR + datetime.timedelta(days=40)


@dataclass
class Story:
    """One root, its reference, and what may go.

    Parameters
    ----------
    top : Path
        Holds `root`, `reference` and what links lead to outside.
    seed : int
        Tells the same story again.
    """

    top: Path
    seed: int
    on_btrfs: bool = False
    may_mount: bool = False
    maker: str = "alyx"
    may_go: set[str] = field(default_factory=set)
    fates: dict[str, str] = field(default_factory=dict)
    listed: list[tuple[tuple[str, str, str, int], str, str]] = field(default_factory=list)
    """Session, rel_path and id of each row."""
    told_elsewhere: dict[tuple[str, str, str, int], str] = field(default_factory=dict)
    """Session as the database has it -> session_path of its datasets."""
    homeless: list[tuple[str, str]] = field(default_factory=list)
    """rel_path and id of rows whose session is in no table."""
    mounts: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.root, self.reference = self.top / "root", self.top / "reference"

    @property
    def is_plain(self) -> bool:
        """Whether no rule may keep what may go."""
        return set(self.fates.values()) <= {"listed", "unlisted", "listed session"}

    def describe(self) -> str:
        """Return what is needed to understand what went wrong."""
        fates = "".join(f"\n  {fate:24} {path}" for path, fate in sorted(self.fates.items()))
        return f"seed {self.seed}, reference made by {self.maker}, btrfs {self.on_btrfs}:{fates}"


def make_story(top: Path, seed: int, *, on_btrfs: bool = False, may_mount: bool = False) -> Story:
    """Make the root and the reference of a story."""
    story = Story(top, seed, on_btrfs, may_mount)
    story.root.mkdir(parents=True)
    story.maker = story.chance.choice(MAKERS)
    _make_session(story, ("labA", "base", DATE, 1), "001", "listed session", ["listed"])
    for place in range(story.chance.randrange(1, 4)):
        key = (
            story.chance.choice(("labA", "labB", "")), story.chance.choice(SUBJECTS),
            story.chance.choice((DATE, OTHER_DATE)), place + 1,
        )  # fmt: skip
        number = f"{key[3]:03d}" if story.chance.random() < 0.8 else str(key[3])
        kinds = ["listed session", "listed session", "unlisted session", *_SESSIONS]
        kind = story.chance.choice(kinds) if story.maker == "alyx" else story.chance.choice(kinds[:3])
        fates = [story.chance.choice(FATES) for _ in range(story.chance.randrange(1, 6))]
        _make_session(story, key, number, kind, fates)
    for act in _LATE:
        if story.chance.random() < 0.25:
            act(story)
    _give_rights(story)
    _write_reference(story)
    return story


# Sessions.


def _make_session(story: Story, key: tuple[str, str, str, int], number: str, kind: str, fates: list[str]) -> None:
    lab, subject, date, _ = key
    if kind == "another lab" and not lab:  # a session in no lab folder may have any lab in the tables
        kind = "listed session"
    path = "/".join([*([lab, "Subjects"] if lab else []), subject, date, number])
    (story.root / path).mkdir(parents=True)
    story.fates[path] = kind
    told = _SESSIONS[kind](key) if kind in _SESSIONS else key
    if kind == "known by session_path":
        story.told_elsewhere[told] = path
    names = list(RELS)
    story.chance.shuffle(names)
    if kind == "unlisted session":
        fates = [fate if fate in _WITHOUT_ROW else "unlisted" for fate in fates]
    if kind == "under another name":
        fates = ["listed"] * len(fates)
    for fate, rel_path in zip(fates, names, strict=False):
        if story.maker != "alyx" and fate in _NEEDS_ALYX:
            fate = "listed" if kind != "unlisted session" else "unlisted"
        FATE_MAKERS[fate](story, told, path, rel_path)
    if kind != "unlisted session" and not any(row[0] == told for row in story.listed):
        FATE_MAKERS["listed"](story, told, path, names[-1])
    if kind in ("other case", "another lab", "under another name"):
        story.may_go -= {each for each in story.may_go if each.startswith(f"{path}/")}


_SESSIONS: dict[str, Callable[[tuple[str, str, str, int]], tuple[str, str, str, int]]] = {
    "other case": lambda key: (key[0], key[1].upper(), *key[2:]),
    "another lab": lambda key: ("elsewhere", *key[1:]),
    "decomposed": lambda key: (key[0], unicodedata.normalize("NFD", key[1]), *key[2:]),
    "under another name": lambda key: (key[0], f"{key[1]}_old", *key[2:]),
    "known by session_path": lambda key: (key[0], f"x{key[1]}", key[2], key[3] + 5),
}
"""Kind of session -> how the reference calls it."""


# Files.


def write_file(story: Story, path: str, fate: str) -> None:
    """Make a file with a fate."""
    file = story.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{fate} {path} " + "x" * story.chance.randrange(200))
    os.utime(file, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))
    story.fates[path] = fate
    if fate == "unlisted":
        story.may_go.add(path)


def _with_uuid(rel_path: str, own_id: str) -> str:
    stem, _, extension = rel_path.rpartition(".")
    return f"{stem}.{own_id}.{extension}"


def _fate(name: str, on_disk: Callable[[str, str], str], in_row: Callable[[str, str], str] | None) -> _Maker:
    def make(story: Story, told: tuple[str, str, str, int], session: str, rel_path: str) -> None:
        own_id = str(uuid.UUID(int=story.chance.getrandbits(128), version=4))
        write_file(story, f"{session}/{on_disk(rel_path, own_id)}", name)
        if in_row is not None:
            story.listed.append((told, in_row(rel_path, own_id), own_id))

    return make


_Maker = Callable[[Story, tuple[str, str, str, int], str, str], None]


def _plain(rel_path: str, _own_id: str) -> str:
    return rel_path


def _make_newer(story: Story, _told: tuple[str, str, str, int], session: str, rel_path: str) -> None:
    write_file(story, f"{session}/{rel_path}", "newer")
    os.utime(story.root / session / rel_path, (FARTHER.timestamp(), FARTHER.timestamp()))


def _make_homeless(story: Story, _told: tuple[str, str, str, int], session: str, rel_path: str) -> None:
    own_id = str(uuid.UUID(int=story.chance.getrandbits(128), version=4))
    by_id = story.chance.random() < 0.5
    write_file(story, f"{session}/{_with_uuid(rel_path, own_id) if by_id else rel_path}", "listed without its session")
    story.homeless.append((f"else/{rel_path}" if by_id else rel_path, own_id))


FATE_MAKERS: dict[str, _Maker] = {
    "listed": _fate("listed", _plain, _plain),
    "unlisted": _fate("unlisted", _plain, None),
    "uuid here": _fate("uuid here", _with_uuid, _plain),
    "uuid there": _fate("uuid there", _plain, _with_uuid),
    "another uuid": _fate("another uuid", lambda path, own: _with_uuid(path, own[:-1] + "abc0"[len(own) % 4]), _plain),
    "decomposed": _fate("decomposed", _plain, lambda path, _: unicodedata.normalize("NFD", path)),
    "other case": _fate("other case", _plain, lambda path, _: path.replace("alf", "Alf").replace("raw", "Raw")
                        .replace("_ibl_trials", "_ibl_Trials").replace("caf", "Caf")),
    "newer": _make_newer,
    "homeless": _make_homeless,
    "excluded": _fate("excluded", lambda path, _: EXCLUDED + path.rpartition("/")[2], None),
    "not ALF": _fate("not ALF", lambda path, _: path.replace(".", "-"), None),
}  # fmt: skip
FATES = ("unlisted", "unlisted", "unlisted", "listed", "listed", *FATE_MAKERS)
_WITHOUT_ROW = {"unlisted", "newer", "homeless", "excluded", "not ALF"}
_NEEDS_ALYX = {"uuid here", "uuid there", "another uuid", "decomposed", "other case", "homeless"}


# What is done to files that are there.


def _files(story: Story) -> list[str]:
    return [path for path in sorted(story.fates) if (story.root / path).is_file()]


def _shelter(story: Story, path: str, why: str) -> None:
    """Take what lies at or below a path out of what may go."""
    for each in [each for each in story.may_go if each == path or each.startswith(f"{path}/")]:
        story.may_go.discard(each)
        story.fates[each] += f", {why}"
    story.fates.setdefault(path, why)


def _link_file(story: Story) -> None:
    path = story.chance.choice(_files(story))
    _link(story, path, "a link leads to it")


def _link_folder(story: Story) -> None:
    path = story.chance.choice(_files(story))
    parts = path.split("/")
    folder = "/".join(parts[: story.chance.randrange(1, len(parts))])
    _link(story, folder, f"a link leads to {folder}")


def _link(story: Story, path: str, why: str) -> None:
    place = story.chance.choice((".hidden", "notes/of.me", f"{EXCLUDED}deep", "labA/Subjects/base/2024-05-06/001/alf"))
    (story.root / place).mkdir(parents=True, exist_ok=True)
    target: Path | str = story.root / path
    if story.chance.random() < 0.3:  # a chain that leaves the root and comes back
        (story.top / f"way{story.n_links}").symlink_to(story.root / path)
        target = story.top / f"way{story.n_links}"
    elif story.chance.random() < 0.5:
        target = os.path.relpath(story.root / path, story.root / place)
    (story.root / place / f"to.some{story.n_links}.npy").symlink_to(target)
    story.n_links += 1
    _shelter(story, path, why)


Story.n_links = 0  # type: ignore[attr-defined]


def _bind(story: Story) -> None:
    """Mount a folder outside over one inside of a session: what it covers or shows is not to be touched."""
    if not story.may_mount:
        return
    folder = str(Path(story.chance.choice(_files(story))).parent)
    if story.fates.get(folder) is not None or f"/{DATE}/" not in folder:  # a session folder may be a mount itself
        return
    copy = story.top / "copy"
    subprocess.run(["cp", "-al", story.root / folder, copy], check=True)
    subprocess.run(["mount", "--bind", copy, story.root / folder], check=True)
    story.mounts.append(story.root / folder)
    _shelter(story, folder, "a mount covers it")


def _make_subvolume(story: Story) -> None:
    if not story.on_btrfs:
        return
    path = str(Path(story.chance.choice(_files(story))).parent / "sub")
    subprocess.run(["btrfs", "-q", "subvolume", "create", story.root / path], check=True)
    write_file(story, f"{path}/more.data.npy", "in a subvolume")


def _hard_link(story: Story) -> None:
    path = story.chance.choice(_files(story))
    with contextlib.suppress(OSError):  # no link leads into another subvolume
        os.link(story.root / path, story.top / "hard", follow_symlinks=False)


_LATE = (_link_file, _link_folder, _bind, _make_subvolume, _hard_link)


def _give_rights(story: Story) -> None:
    """Give folders and files modes, owners and ACLs that an undo must bring back."""
    for folder, _, names in os.walk(story.root):
        if story.chance.random() < 0.2:
            os.chmod(folder, story.chance.choice((0o2775, 0o750, 0o700)))
            os.chown(folder, story.chance.choice((0, 4321)), story.chance.choice((0, 100)))
        for name in names:
            if story.chance.random() < 0.1 and not os.path.islink(f"{folder}/{name}"):
                os.chmod(f"{folder}/{name}", 0o640)
                os.chown(f"{folder}/{name}", 4321, 100)


# The reference.


def _write_reference(story: Story) -> None:
    """Write the tables, dated so that nothing but what is meant to be is newer."""
    if story.maker == "alyx":
        _write_as_alyx(story)
    else:
        _write_by_index(story)
    redate(story.reference, FAR)


def _write_as_alyx(story: Story) -> None:
    eids = {key: str(uuid.UUID(int=story.chance.getrandbits(128), version=4)) for key, *_ in story.listed}
    sessions = [_session_row(key, eid) for key, eid in eids.items()]
    rows = [dataset(eids[key], rel_path, id=own_id) for key, rel_path, own_id in story.listed]
    rows += [dataset(str(uuid.uuid4()), rel_path, id=own_id) for rel_path, own_id in story.homeless]
    filler = _session_row(("far", "filler", DATE, 1), str(uuid.uuid4()))
    rows += [dataset(filler["id"], f"alf/filler{n}.x.npy") for n in range(101 * len(story.homeless))]
    write_database(story.reference, [*sessions, filler], rows)
    if story.told_elsewhere:
        paths = {eids[key]: path for key, path in story.told_elsewhere.items() if key in eids}
        table = pq.read_table(story.reference / "datasets.pqt")
        column = [paths.get(eid) for eid in table["eid"].to_pylist()]
        pq.write_table(table.append_column("session_path", [column]), story.reference / "datasets.pqt")


def _session_row(key: tuple[str, str, str, int], eid: str) -> dict[str, Any]:
    lab, subject, date, number = key
    about = {"lab": lab, "subject": subject, "date": datetime.date.fromisoformat(date), "number": number}
    return {"id": eid, **about, "task_protocol": "", "projects": ""}


def _write_by_index(story: Story) -> None:
    """Index a tree of what is to be listed, by ONE or by alfwatchd itself."""
    listed = story.top / "listed"
    for (lab, subject, date, number), rel_path, _ in story.listed:
        session = "/".join([*([lab, "Subjects"] if lab else []), subject, date, f"{number:03d}"])
        (listed / session / rel_path).parent.mkdir(parents=True, exist_ok=True)
        (listed / session / rel_path).write_text("x")
    story.reference.mkdir()
    if story.maker == "ours":
        places = {"state_dir": story.top / "state of the reference", "socket": story.top / "no socket"}
        run_once(Settings(root=listed, out_dir=story.reference, **places))
    else:
        cache.make_parquet_db(listed, out_dir=story.reference, hash_ids=story.maker == "ONE")


def redate(folder: Path, when: datetime.datetime) -> None:
    """Date tables: their files, and what their metadata say."""
    for name in ("sessions.pqt", "datasets.pqt"):
        table = pq.read_table(folder / name)
        metadata = {key: _redated(value, when) for key, value in (table.schema.metadata or {}).items()}
        pq.write_table(table.replace_schema_metadata(metadata), folder / name)
        os.utime(folder / name, (when.timestamp(), when.timestamp()))


def _redated(value: bytes, when: datetime.datetime) -> bytes:
    try:
        about = json.loads(value)
    except ValueError:
        return value
    if isinstance(about, dict) and "date_created" in about:
        about["date_created"] = (when + datetime.timedelta(days=1)).strftime("%Y-%m-%d %H:%M")
    if isinstance(about, dict) and "written_at" in about:
        about["written_at"] = when.strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps(about).encode()
