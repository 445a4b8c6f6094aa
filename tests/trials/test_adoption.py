"""Whatever happens to disk, database, settings and tables: what both know has the database's ids, and no id is lost.

A story is told by a seed (``ALFWATCHD_SEED=... ALFWATCHD_SECONDS=...`` begin elsewhere and take longer). In each
chapter some of the disk, of two databases and of the settings changes; then the program runs once, now and then killed
between the record of changed ids and the tables. The model is a walk of the disk, and what was put into the database.
"""

from __future__ import annotations

import os
import random
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from alfwatchd.alf import ids
from alfwatchd.service.configuration import load
from alfwatchd.service.once import run_once
from alfwatchd.store.id_history import find_id
from alfwatchd.store.parquet_file import GroupedFile
from kit.database import dataset, session, write_database
from kit.program import read_tables

SESSIONS = ("s/2020-01-01/001", "s/2020-01-01/002", "t/2020-01-02/003")
ELSEWHERE = "u/2020-01-02/003"
FILES = ("alf/a.b.npy", "alf/#r1#/a.b.npy", "c.d.npy", "e.f.npy")


class Killed(BaseException):
    """The program ends here."""


class Story:
    """A tree, two databases and the settings; each method changes some of it.

    Parameters
    ----------
    home : Path
    seed : int
    """

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.draw = home, random.Random(seed)
        self.has_labs = self.draw.random() < 0.5
        self.places = {"root": home / "root", "out_dir": home / "out", "state_dir": home / "state"}
        (home / "root/anchor/2020-01-01/001").mkdir(parents=True)
        (home / "out").mkdir()
        self.settings = {"lab": "", "adopt.source": "", "adopt.keep_missing": False}
        self.known = {"A": {}, "B": {}}
        """For each database its ids: session -> eid; (session, rel_path) -> id."""
        self.ever: dict[object, list[str]] = {}
        """Ids that a row once had, by what its key in a database is."""
        self.holders: dict[str, set[object]] = {}
        """Which rows ever had an id."""
        self.is_root_unknown = False
        for name in self.known:
            self.change_database(name)

    # What happens.

    def change_disk(self) -> None:
        folder = self.folder(self.draw.choice(SESSIONS))
        if self.draw.random() < 0.2:
            shutil.rmtree(folder, ignore_errors=True)
            return
        for name in FILES:
            chance = self.draw.random()
            if chance < 0.5:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(b"x" * self.draw.randrange(3))
            elif chance < 0.7:
                (folder / name).unlink(missing_ok=True)

    def change_database(self, name: str) -> None:
        old, new, sessions, datasets = self.known[name], {}, [], []
        for path in (*SESSIONS, ELSEWHERE):
            if self.draw.random() < 0.2:
                continue
            new[path] = self._id(old.get(path), {*new.values()}, [own_eid(each) for each in SESSIONS])
            sessions.append(session(f"lab/Subjects/{path}", new[path]))
            for file in FILES:
                if self.draw.random() < 0.7:
                    others = [own_dataset_id(own_eid(path), each) for each in FILES]
                    new[path, file] = self._id(old.get((path, file)), {*new.values()}, others)
                    datasets.append(dataset(new[path], file, id=new[path, file]))
        if sessions:
            self.known[name] = new
            write_database(self.home / name, sessions, datasets)

    def change_settings(self) -> None:
        match self.draw.choice(("source", "source", "keep", "lab")):
            case "source":
                self.settings["adopt.source"] = self.draw.choice(("", "A", "A", "B"))
            case "keep":
                self.settings["adopt.keep_missing"] = not self.settings["adopt.keep_missing"]
            case "lab" if not self.has_labs:
                self.settings["lab"] = "" if self.settings["lab"] else "lab"
                if not self.settings["lab"]:  # what was one row may be two, the file's and the database's without it
                    self.ever.clear()

    def lose(self) -> None:
        """Lose the state folder or the tables, and with it what the ids were.

        Without its state the root is not known either: sessions that are gone as well may make it look like another.
        """
        self.ever.clear()
        if self.draw.random() < 0.5:
            shutil.rmtree(self.home / "state", ignore_errors=True)
            self.is_root_unknown = True
        else:
            for path in (self.home / "out").glob("*.pqt"):
                path.unlink()

    def run(self) -> None:
        source = self.settings["adopt.source"]
        told = {**self.settings, "adopt.source": str(self.home / source) if source else ""}
        places = {key: str(path) for key, path in self.places.items()}
        run_once(load({**places, **told, "scan_workers": 1}, environ={}).settings, accept_root=self.is_root_unknown)
        self.is_root_unknown = False

    def be_killed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Run up to the moment at which the tables would be written."""

        def kill(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(GroupedFile, "to_move", kill)  # ids are announced before, files are written after
            with suppress(Killed):
                self.run()

    # What should be.

    def check(self) -> None:
        here = self._rows_here()
        source = self.settings["adopt.source"]
        known = self.known[source] if source else {}
        assert {key: own for key, own in here.items() if key in known} == {
            key: own for key, own in known.items() if key in here
        }
        held = self.held
        for key, own in here.items():
            self.holders.setdefault(own, set()).add(key)
            for old in self.ever.setdefault(key, []):
                new = find_id(self.home / "state", self.home / "out", old).new
                if max(len(self.holders[each]) for each in (old, new) if each in self.holders) > 1:
                    continue  # it may lead to the one or the other, and is not kept while two rows have it
                # An id that went to another row leads there.
                assert new in {own} | (held & {old}), (key, old)
            if own not in self.ever[key]:
                self.ever[key].append(own)
        for key in self.ever.keys() - here.keys():  # what comes back later is another row
            del self.ever[key]

    def _rows_here(self) -> dict[object, str]:
        """Return the id of each row whose file or folder is here; make sure that all is there, and once."""
        sessions, datasets = (table.to_pylist() for table in read_tables(self.home / "out"))
        lab = "lab" if self.has_labs else self.settings["lab"]
        paths = {row["id"]: (row["lab"], f"{row['subject']}/{row['date']}/{row['number']:03d}") for row in sessions}
        places = [(row["eid"], row["id"]) for row in datasets]
        assert len(paths) == len(sessions)
        assert places == sorted(set(places)), "an id twice, or not in order"
        self.held = {*paths, *(row["id"] for row in datasets)}
        folders = {path for path in SESSIONS if self.folder(path).is_dir()}
        here = {path: eid for eid, (of_lab, path) in paths.items() if of_lab == lab and path in folders}
        found = {(*paths[row["eid"]], row["rel_path"]): row for row in datasets}
        on_disk = {(path, name) for path in SESSIONS for name in FILES if (self.folder(path) / name).is_file()}
        # What only the database knows holds ids as well.
        for eid, (_, path) in paths.items():
            self.holders.setdefault(eid, set()).add(path)
        for key, row in found.items():
            self.holders.setdefault(row["id"], set()).add(key[1:])
        exist = {key[1:]: row["id"] for key, row in found.items() if row["exists"]}
        assert (exist.keys(), here.keys()) == (on_disk, folders)
        source, keeps = self.settings["adopt.source"], self.settings["adopt.keep_missing"]
        wanted = {key for key in self.known[source] if isinstance(key, tuple)} if source and keeps else set()
        wanted -= on_disk  # also without a lab: the database has no other session of this subject, date and number
        assert {key[1:] for key, row in found.items() if not row["exists"]} == wanted
        return {**here, **exist}

    def folder(self, path: str) -> Path:
        return self.home / "root" / (f"lab/Subjects/{path}" if self.has_labs else path)

    def _id(self, old: str | None, taken: set[str], own: list[str]) -> str:
        """Return an id of the database: the old one, a new one, or one that we have made for another path."""
        is_new = old is None or old in taken or self.draw.random() < 0.2
        left = [each for each in own if each not in taken]
        if is_new and left and self.draw.random() < 0.2:  # as where a subject or a file was renamed there
            return self.draw.choice(left)
        return str(uuid.UUID(int=self.draw.getrandbits(128), version=4)) if is_new else old


def own_eid(path: str) -> str:
    return str(uuid.UUID(bytes=ids.session_id(f"lab/{path}")))


def own_dataset_id(eid: str, rel_path: str) -> str:
    return str(uuid.UUID(bytes=ids.dataset_id(uuid.UUID(eid).bytes, rel_path)))


def tell(home: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> int:
    story = Story(home, seed)
    draw, n_chapters = story.draw, story.draw.choice((3, 6, 12))
    for _ in range(n_chapters):
        for _ in range(draw.randrange(4)):
            story.change_disk()
        if draw.random() < 0.6:
            story.change_database(draw.choice("AB"))
        if draw.random() < 0.5:
            story.change_settings()
        if draw.random() < 0.1:
            story.lose()
        if draw.random() < 0.2:
            story.be_killed(monkeypatch)
            story.change_database(draw.choice("AB"))
        story.run()
        story.check()
    return n_chapters


@pytest.mark.timeout(600)
def test_seeded_stories_of_adoption(tmp_path, monkeypatch, scale, tally):
    seed = int(os.environ.get("ALFWATCHD_SEED", time.time_ns() % 1_000_000_000))
    end = time.monotonic() + float(os.environ.get("ALFWATCHD_SECONDS", scale(3.0, 120.0)))
    least = scale(3, 300)
    while time.monotonic() < end or tally["comparisons"] <= least:
        try:
            tally["comparisons"] += tell(tmp_path / str(seed), seed, monkeypatch)
        except BaseException:
            print(f"\nALFWATCHD_SEED={seed} ALFWATCHD_SECONDS=1 tells the story again that went wrong")  # noqa: T201
            raise
        shutil.rmtree(tmp_path / str(seed))
        seed += 1
