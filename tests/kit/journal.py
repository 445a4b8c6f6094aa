"""A journal, as tests of it fill and read it."""

from datetime import UTC, datetime, timedelta

from alfwatchd.journal.entries import Cursor
from alfwatchd.journal.journal import Bounds, Journal
from alfwatchd.tree.session_changes import SessionChange

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def change(number, kind="added", lab="lab", subject="s", **more):
    folder = f"{lab}/Subjects/{subject}" if lab else subject
    return SessionChange(f"{folder}/2020-01-01/{number:03d}", kind, n_bytes=10, bytes_after=10, **more)


class JournalBox:
    """A journal that is told of generations 1, 2, ..., as a writer of tables does it."""

    def __init__(self, folder, bounds=None):
        self.folder, self.bounds = folder, bounds or Bounds()
        self.now = NOON
        self.generation = 0
        self.open()

    def open(self):
        self.journal = Journal(self.folder, self.bounds, lambda: self.now.timestamp())

    def add(self, *changes, **passed):
        self.now += timedelta(**passed)
        self.journal.follow(self.journal.id, self.generation)
        self.generation += 1
        self.journal.record(self.generation, self.now, changes)
        return self.generation

    def begin_again(self):
        """Record that it is not known what changed."""
        self.generation += 1
        self.journal.record(self.generation, self.now, None)
        return self.generation

    def told(self, since, limit=1000):
        if isinstance(since, int):
            since = Cursor("", since)
        page = self.journal.feed.page(since, limit)
        return None if page.is_fresh else [(each.generation, each.change.path[-3:]) for each in page.told]
